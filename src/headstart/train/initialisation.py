"""Random weights for training from scratch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import Node, Shape
from headstart.core.errors import UsageError, did_you_mean
from headstart.train.recipe import INITIALISATIONS

STD = 0.05  # of "normal" and "uniform", which do not depend on the layer's size

# method -> the standard deviation of a kernel with so many numbers coming into and going out of each unit
_SPREAD: dict[str, Callable[[int, int], float]] = {
    "he": lambda fan_in, _: math.sqrt(2 / fan_in),
    "xavier": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
}


def initial_weights(
    blueprint: Blueprint, method: str = "he", seed: int = 0, *, std: float = STD
) -> dict[str, NDArray[np.float32]]:
    """Random kernels, biases of zero, batch norms that change nothing.

    "he" (He et al. 2015) keeps the scale of activations through ReLUs, "xavier" (Glorot & Bengio 2010) that of
    activations and gradients through layers without; both are normal, or uniform with "_uniform" behind. "normal" and
    "uniform" have the standard deviation ``std``, whatever the layer. Every node draws from (seed, its name), so a new
    node changes no other.

    Raises:
        UsageError: no such method, or a network whose inside only its framework knows.
    """
    if method not in INITIALISATIONS:
        raise UsageError(f"There is no initialisation '{method}'. {did_you_mean(method, INITIALISATIONS)}")
    if blueprint.source:
        raise UsageError(
            f"'{blueprint.source}' is a foreign module, which cannot start from random weights here. "
            "Take a network from the catalogue, or keep the module's own weights."
        )
    shapes = blueprint.weight_shapes()
    weights = {}
    for node in blueprint.nodes:
        for part in ("weight", "bias", "mean", "var"):
            name = f"{node.name}.{part}"
            if name not in shapes:
                continue
            if part == "weight" and node.op != "norm":
                weights[name] = _kernel(node, shapes[name], method, seed, std)
            else:
                weights[name] = np.full(shapes[name], part in ("weight", "var"), np.float32)
    return weights


def fans(node: Node, shape: Shape) -> tuple[int, int]:
    """How many numbers a unit of a convolution or dense layer takes, and how many units each of its inputs reaches."""
    places = math.prod(shape[2:])
    return shape[1] * places, shape[0] // node.attrs.get("groups", 1) * places


def _kernel(node: Node, shape: Shape, method: str, seed: int, std: float) -> NDArray[np.float32]:
    rule, _, form = method.partition("_")
    spread = _SPREAD[rule](*fans(node, shape)) if rule in _SPREAD else std
    name = hashlib.blake2b(node.name.encode(), digest_size=8).digest()
    rng = np.random.default_rng((seed, int.from_bytes(name, "little")))
    if "uniform" in (rule, form):
        return rng.uniform(-math.sqrt(3) * spread, math.sqrt(3) * spread, shape).astype(np.float32)
    return (spread * rng.standard_normal(shape)).astype(np.float32)
