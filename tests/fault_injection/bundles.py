"""Damaged models: refused, or the same answers as ever."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator, MutableMapping, MutableSequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import headstart as hs
from altered_models import config_of, reseal
from fault_injection.mutations import mutated
from fault_injection.watched import Trial
from headstart.backbones.weights import hash_of
from headstart.model.stored import CONFIG, GOLDEN, MODEL, sealed
from making import folder, picture

SAME = 2e-3  # difference of a probability
NONSENSE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**400, 1e308, float("nan"), float("inf"), "", "x", "../x", "x" * 10_000, [], {}, [[]],
    [1, 2, 3], {"0": 0}, -(10**9), 0.5, 1000, 1 << 40,
)  # fmt: skip
BY_CHANCE, RECORDED, BY_THE_AUTHOR = "by chance", "with the hashes of the files", "with all hashes"


@contextmanager
def trials() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as place:
        photos, whole = folder(Path(place) / "photos", 8), Path(place) / "whole"
        hs.fit(str(photos), pixels=32, cache=False, precision="fp32", diagnose=False).save(whole)
        images = np.stack([picture(kind, seed) for kind in ("bars", "discs") for seed in (70, 71, 72)])
        expected = answers_of(whole, images)

        def trial(seed: int) -> str:
            rng = random.Random(seed)
            damaged = Path(shutil.copytree(whole, Path(place) / "damaged"))
            try:
                how = damage(damaged, rng)
                found = answers_of(damaged, images)
            finally:
                shutil.rmtree(damaged)
            same = found[0] == expected[0] and np.abs(found[1] - expected[1]).max() <= SAME and found[2] == expected[2]
            return "accepted" if same or how.endswith(BY_THE_AUTHOR) else f"wrong: other answers, changed {how}"

        yield trial


def answers_of(model: Path, images: np.ndarray[Any, Any]) -> tuple[tuple[str, ...], np.ndarray[Any, Any], list[bool]]:
    """Classes, probabilities, and what is unknown."""
    opened = hs.load(model, precision="fp32")
    return opened.classes, opened.predict_proba(images), opened.unlike_training(images[:, :32, :32]).tolist()


def damage(model: Path, rng: random.Random) -> str:
    """Damage one file of a model; returns how."""
    how = rng.choice((BY_CHANCE, RECORDED, BY_THE_AUTHOR))
    name = rng.choice((CONFIG, CONFIG, MODEL, GOLDEN))
    if name == CONFIG and how != BY_CHANCE:
        config = config_of(model)
        where = with_nonsense(config, rng)
        (model / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    else:
        where = name
        (model / name).write_bytes(mutated((model / name).read_bytes(), rng))
    if how == RECORDED:
        record_hashes(model)
    elif how == BY_THE_AUTHOR:
        try:
            reseal(model)
        except Exception:  # what is damaged so that nobody can record it stays as it is
            return f"{where} {BY_CHANCE}"
    return f"{where} {how}"


def record_hashes(model: Path) -> None:
    """As by somebody who mends the hashes of the config, not what the golden images keep of the rest."""
    config = config_of(model)
    if isinstance(config.get("files"), dict):
        config["files"] = {name: hash_of(model / name) for name in (MODEL, GOLDEN)}
    (model / CONFIG).write_text(json.dumps(sealed(config)), encoding="utf-8")


def with_nonsense(config: dict[str, Any], rng: random.Random) -> str:
    """One value of a config, at any depth, becomes another."""
    places: list[tuple[Any, Any, str]] = []

    def look(inside: Any, path: str) -> None:
        keys = inside if isinstance(inside, MutableMapping) else range(len(inside))
        for key in list(keys):
            places.append((inside, key, f"{path}/{key}"))
            if isinstance(inside[key], MutableMapping | MutableSequence) and inside[key]:
                look(inside[key], f"{path}/{key}")

    look(config, CONFIG)
    inside, key, path = rng.choice(places)
    value = inside[key]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        inside[key] = value * rng.choice((0.5, 2, -1)) + rng.choice((0, 1))
    elif isinstance(value, str) and value and rng.random() < 0.5:
        inside[key] = chr(ord(value[0]) ^ 1) + value[1:]
    else:
        inside[key] = rng.choice(NONSENSE)
    return path
