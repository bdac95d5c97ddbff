"""Convolutions in int8, by the weights alone: a batch norm tells how far the values behind it reach.

It gives values of mean β and deviation γ (Nagel et al. 2019, "Data-free quantization through weight equalization and
bias correction"). No image is needed, so what a network answers still depends on its weights and the image alone.

Processors without VNNI add two products in 16 bits before they go on in 32, and cut off larger sums. So where products
of several channels are added, β ± 4γ takes only 129 of the 256 levels: 2 · 128 · 127 fits. The other levels are for
values further out; only two of those at once, with the largest weights, could be cut off.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import SQRT_EPSILON, Node
from headstart.engines.protocol import Weights

DEVIATIONS = 4  # of a batch norm, on each side of its mean
ALL, INNER = 256, 129  # levels of a convolution's input, and those that its reach takes
LARGEST = 127  # of a weight
SCHEME = {"deviations": DEVIATIONS, "levels": [ALL, INNER], "largest": LARGEST}  # all that features depend on
FASTER_ON = ("x86_64", "amd64")  # where it was measured

# ops whose values reach as far as those of their inputs say
_PASSES = frozenset({"act", "add", "scale", "concat", "pad_channels", "max_pool", "dropout"})


@dataclass(frozen=True, eq=False)
class Reach:
    """What is known of a node's values: mean and deviation, and how far they reach, of each channel (C,)."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def parts(self) -> tuple[NDArray[np.float64], ...]:
        """All four."""
        return self.mean, self.deviation, self.low, self.high

    def within(self, low: float, high: float) -> Reach:
        """The same, cut off at two bounds."""
        return replace(self, low=self.low.clip(low, high), high=self.high.clip(low, high))

    def levels(self, used: int) -> tuple[float, int] | None:
        """The step between so many levels for all channels, and how many of them lie below 0; None if they are one."""
        low, high = min(float(self.low.min()), 0.0), max(float(self.high.max()), 0.0)
        step = (high - low) / (used - 1)
        return (step, round(-low / step)) if np.isfinite(step) and np.float32(step) > 0 else None


class Int8:
    """What the convolutions of a network take in int8: those whose input comes from batch norms.

    The first one takes pixels, and stays in fp32 like the head.
    """

    def __init__(self, blueprint: Blueprint, weights: Weights) -> None:
        self._reaches = _reaches(blueprint, weights)
        self._rounded: dict[tuple[str, int], Any] = {}  # values by node and levels: several may take them

    def pair(self, op: Any, name: str, x: Any, kernel: NDArray[np.float32]) -> tuple[Any, Any]:
        """The value ``x`` of node ``name``, and a kernel (…, filters, channels, height, width), to be convolved.

        Both are rounded to whole multiples of a factor: one for the value, one for each filter. They are as they were
        where the value's reach is unknown.
        """
        used = ALL if kernel.shape[-3] == 1 else INNER
        levels = self._reaches[name].levels(used) if name in self._reaches else None
        if levels is None or not np.isfinite(kernel).all():
            return x, op.constant(kernel)
        if (name, used) not in self._rounded:
            step, below = levels  # OpenVINO has instructions for 256 levels alone
            low, high = np.float32(-below * step), np.float32((ALL - 1 - below) * step)
            self._rounded[name, used] = op.fake_quantize(x, low, high, low, high, ALL)
        largest = np.abs(kernel).max(axis=(-3, -2, -1), keepdims=True)
        factors = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
        whole = np.rint(kernel / factors).clip(-LARGEST, LARGEST).astype(np.int8)
        return self._rounded[name, used], op.multiply(op.convert(op.constant(whole), "f32"), factors)


def suits(blueprint: Blueprint) -> bool:
    """Whether at least half of a network's work is in convolutions that take int8 values."""
    known: set[str] = set()
    for node in blueprint.nodes:
        if _is_known(node, known):
            known.add(node.name)
    work = blueprint.multiply_adds()
    low = sum(work[node.name] for node in blueprint.nodes if node.op == "conv" and node.inputs[0] in known)
    return 0 < sum(work.values()) <= 2 * low


def is_faster() -> bool:
    """Whether int8 is faster than fp32 on this kind of processor."""
    return platform.machine().lower() in FASTER_ON


def _is_known(node: Node, known: Collection[str]) -> bool:
    """Whether the reach of a node's values is known where that of the nodes ``known`` is."""
    if node.op == "norm" or node.attrs.get("kind") == "hard_sigmoid":
        return True
    return node.op in _PASSES and all(name in known for name in node.inputs)


def _reaches(blueprint: Blueprint, weights: Weights) -> Mapping[str, Reach]:
    """The reach of every node of which it is known."""
    known: dict[str, Reach] = {}
    shapes = blueprint.shapes()
    for node in blueprint.nodes:
        if node.op == "norm":
            mean = weights[f"{node.name}.bias"].astype(np.float64)
            deviation = np.abs(weights[f"{node.name}.weight"].astype(np.float64))
            known[node.name] = Reach(mean, deviation, mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation)
        elif node.attrs.get("kind") == "hard_sigmoid":  # from 0 to 1, whatever it takes
            ones = np.ones(shapes[node.name][0])
            known[node.name] = Reach(ones / 2, ones / 2, 0 * ones, ones)
        elif _is_known(node, known):
            known[node.name] = _passed(node, [known[name] for name in node.inputs])
    return known


def _passed(node: Node, inputs: Sequence[Reach]) -> Reach:
    """The reach of a node's values, from those of its inputs."""
    first = inputs[0]
    match node.op:
        case "act":
            return _activated(node["kind"], first)
        case "add":
            return _added(first, inputs[1])
        case "scale":
            return _multiplied(first, inputs[1])
        case "concat":
            return Reach(*map(np.concatenate, zip(*(each.parts for each in inputs), strict=True)))
        case "pad_channels":
            return Reach(*(np.pad(part, (node["before"], node["after"])) for part in first.parts))
    return first


def _activated(kind: str, x: Reach) -> Reach:
    match kind:
        case "relu6":
            return x.within(0, 6)
        case "hard_swish":  # its least value is that of -1.5
            return x.within(-0.375, np.inf)
        case "sqrt":
            return replace(x, low=np.zeros_like(x.low), high=np.sqrt(np.maximum(x.high, 0) + SQRT_EPSILON))
    return x.within(0, np.inf)


def _added(a: Reach, b: Reach) -> Reach:
    """Of two values that do not depend on each other: means add, and so do variances."""
    mean, deviation = a.mean + b.mean, np.hypot(a.deviation, b.deviation)
    low = np.maximum(mean - DEVIATIONS * deviation, a.low + b.low)
    return Reach(mean, deviation, low, np.minimum(mean + DEVIATIONS * deviation, a.high + b.high))


def _multiplied(a: Reach, b: Reach) -> Reach:
    corners = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    deviation = np.hypot(a.mean * b.deviation, a.deviation * b.mean)
    return Reach(a.mean * b.mean, deviation, corners.min(axis=0), corners.max(axis=0))
