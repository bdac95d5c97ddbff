"""Damaged files of weights, of every format: read as arrays, or refused; and blueprints that make no sense."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save_file

from fault_injection.bundles import with_nonsense
from fault_injection.mutations import mutated
from fault_injection.watched import Trial
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.weights import read_weights
from pth_files import save, small


@contextmanager
def trials() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = originals(place)
        blueprints = [small_cnn(8, 3).to_json(), mlp(4, (5, 3), 2).to_json()]

        def trial(seed: int) -> str:
            rng = random.Random(seed)
            if rng.random() < 0.2:
                return _built(json.loads(json.dumps(rng.choice(blueprints))), rng)
            whole = rng.choice(files)
            damaged = place / f"damaged{whole.suffix}"
            damaged.write_bytes(mutated(whole.read_bytes(), rng))
            arrays = read_weights(damaged)
            return "accepted" if all(isinstance(each, np.ndarray) for each in arrays.values()) else "wrong: no arrays"

        yield trial


def originals(place: Path) -> list[Path]:
    """A small file of each format."""
    arrays = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float16)}
    save_file(arrays, place / "whole.safetensors")
    with h5py.File(place / "whole.h5", "w") as file:
        file.attrs["layer_names"] = [b"a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = [b"a/kernel:0"]
        group["a/kernel:0"] = arrays["a.weight"]
    pickles = [save(place / f"{kind}.pth", small(), legacy=kind == "legacy") for kind in ("legacy", "zip")]
    return [place / "whole.safetensors", place / "whole.h5", *pickles]


def _built(values: Any, rng: random.Random) -> str:
    """A blueprint with a value that makes no sense, and what it would take."""
    with_nonsense({"blueprint": values}, rng)
    found = Blueprint.from_json(values)
    shapes = [*found.shapes(8).values(), *found.weight_shapes().values()]
    return "accepted" if all(isinstance(size, int) for shape in shapes for size in shape) else f"wrong: {shapes}"
