"""What a training is known by, so that it only goes on with what it began with; and how two trainings differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.backbones.weights import weights_digest
from headstart.train.protocol import Task
from headstart.train.recipe import Recipe

DataIdentity = str | Mapping[str, Any]
# what is said of data that differ, where their values say nothing to a person
_OTHER = {
    "photos": "other photos or labels",
    "rows": "other rows, columns or labels",
    "model": "another model to begin with",
    "data": "other photos, labels, or another split",
}
SPLIT = "split"  # follows from the photos, the seed and others, which are to blame first


@dataclass(frozen=True, slots=True)
class Identity:
    """What training a checkpoint belongs to; those of another network, recipe, data or trainer are refused."""

    network: str  # hexadecimal digest of blueprint, starting weights and trained nodes
    recipe: Mapping[str, Any]
    data: DataIdentity  # by name digests of photos, rows, model and split, and what was chosen; or one text for all

    @classmethod
    def of(cls, task: Task, recipe: Recipe, data: DataIdentity) -> Identity:
        """The identity of a training of this task."""
        blueprint = json.dumps([task.blueprint.to_json(), sorted(task.rates.items())], sort_keys=True)
        parts = {"weights": weights_digest(task.weights), "blueprint": blueprint}
        packed = np.frombuffer(json.dumps(parts).encode(), np.uint8)
        return cls(weights_digest({"network": packed}), recipe.to_json(), data)

    def difference(self, other: Mapping[str, Any]) -> str:
        """In words, how the identity of a checkpoint differs from this one; "" where it does not.

        Starting weights may follow from the photos and the seed, as the split does, so they are named last.
        """
        data, here, recipe = named(other.get("data", {})), named(self.data), named(other.get("recipe", {}))
        found = [_OTHER.get(name) or _both(name, name, data, here) for name in _unlike(data, here) if name != SPLIT]
        for name in _unlike(recipe, self.recipe):
            found.append(_both(f"the recipe's {name}" if name in here else name, name, recipe, self.recipe))
        if data.get(SPLIT) != here.get(SPLIT):
            found = [f"{'; '.join(found)}, hence another split" if found else "another split of the data"]
        if not found and other.get("network") != self.network:
            found = ["another network, other starting weights, or other trained nodes"]
        return "; ".join(found)


def named(data: DataIdentity) -> dict[str, Any]:
    """With a name for a text that stands for images, labels and split together."""
    return dict(data) if isinstance(data, Mapping) else {"data": data}


def _unlike(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Names of which there are two values; digests first."""
    names = [name for name in here.keys() | there.keys() if there.get(name) != here.get(name)]
    return sorted(names, key=lambda name: (name not in _OTHER, name))


def _both(words: str, name: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return f"{words} {there.get(name)!r} there, {here.get(name)!r} here"


def fingerprint(*parts: object) -> str:
    """Hexadecimal, of bytes and of what JSON can say."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else json.dumps(part).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def digest_of_all(keys: Sequence[bytes], labels: Sequence[int]) -> str:
    """Hexadecimal, of everything that is labelled, in whatever order, and whatever becomes of it."""
    return fingerprint(*(part for pair in sorted(zip(keys, labels, strict=True)) for part in pair))
