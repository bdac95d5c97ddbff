"""Finds a network in a file of weights whose names begin with those of what it was wrapped in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.ops import Shape
from headstart.core.errors import UsageError

Arrays = Mapping[str, NDArray[Any]]

WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # PyTorch's own, anywhere in a name
SECOND = {  # of two networks that learn from each other, the one that is thrown away in the end
    *("encoder_k", "momentum_encoder", "momentum_backbone", "target_network", "target_encoder", "target_net"),
    *("student", "online_model"),
}
AVERAGED = {"model_ema", "ema_model", "module_ema", "ema", "averaged_model", "average_model", "swa_model"}
DEEPEST = 12  # parts of a name that may be a prefix


def unwrapped(weights: Arrays, shapes: Mapping[str, Shape], translated: Callable[[str], str] = str) -> Arrays:
    """The same arrays, without the prefix that the names of the network in the file have in common.

    What is outside of the prefix keeps its name where it may be a head; convolutions there are of another network.

    Args:
        weights: by their names in the file, such as "_orig_mod.module.model.conv1.weight".
        shapes: of the network's weights, by its own names.
        translated: a name in the library of the file, without a prefix, as the network's own.

    Raises:
        UsageError: two networks in the file fit, and have different weights.
    """
    weights = _without_wrappers(weights)
    fitting: dict[str, dict[str, str]] = {}  # prefix -> the network's name -> the file's
    for key, array in weights.items():
        parts = key.split(".")
        for cut in range(min(len(parts) - 1, DEEPEST)):
            name = translated(".".join(parts[cut:]))
            if name in shapes and array.size == math.prod(shapes[name]):
                fitting.setdefault("".join(f"{part}." for part in parts[:cut]), {})[name] = key
    prefix = _best(fitting, weights, len(shapes) // 2)
    inner = {key.removeprefix(prefix): array for key, array in weights.items() if key.startswith(prefix)}
    beside = (key for key, array in weights.items() if not key.startswith(prefix) and array.ndim <= 2)
    return inner | {key: weights[key] for key in beside if key not in inner}


def fit_of(weights: Arrays, shapes: Mapping[str, Shape], translated: Callable[[str], str] = str) -> tuple[int, int]:
    """How many of the network's weights are there: in the right size, and at all."""
    sizes = {name: array.size for key, array in weights.items() if (name := translated(key)) in shapes}
    return sum(size == math.prod(shapes[name]) for name, size in sizes.items()), len(sizes)


def _without_wrappers(weights: Arrays) -> Arrays:
    found: dict[str, NDArray[Any]] = {}
    for key, array in weights.items():
        bare = key
        for wrapper in WITHIN:
            bare = bare.replace(wrapper, "")
        found[bare] = array
    return found if len(found) == len(weights) else weights


def _best(fitting: Mapping[str, Mapping[str, str]], weights: Arrays, enough: int) -> str:
    """The prefix under which most weights fit, "" where more than ``enough`` fit under none."""
    most = max(map(len, fitting.values()), default=0)
    best = [prefix for prefix, found in fitting.items() if len(found) == most]
    if most <= enough or "" in best:
        return ""
    averaged = [prefix for prefix in best if not AVERAGED.isdisjoint(prefix.split("."))]
    first = averaged or [prefix for prefix in best if SECOND.isdisjoint(prefix.split("."))] or best
    for other in first[1:]:
        here, there = fitting[first[0]], fitting[other]
        same = here.keys() == there.keys()
        if not same or any(not np.array_equal(weights[key], weights[there[name]]) for name, key in here.items()):
            raise UsageError(
                f"The file holds two networks that fit, under {first[0]!a} and {other!a}. "
                "Save the weights of the one that is wanted alone."
            )
    return first[0]
