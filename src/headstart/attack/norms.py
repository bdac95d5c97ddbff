"""The norms that a change of an image is measured in: sizes, projections, and the best step in each.

All work on one image at a time, so that its pixels stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import text
from headstart.core.errors import UsageError, did_you_mean

Array = NDArray[Any]

NORMS = ("linf", "l2", "l1")
NORM = text("linf, l2 or l1")
EDGE = 1e-6  # a pixel so near black or white is there
LARGEST = 0.01  # share of the pixel values that a step in L1 changes: those with the largest gradient


def check_norm(norm: str, known: Sequence[str] = NORMS) -> None:
    """Refuse a norm that is not ``known``.

    Raises:
        UsageError: with those that are.
    """
    if norm not in known:
        raise UsageError(f"There is no norm '{norm}' here. {did_you_mean(norm, known)}")


def size(change: Array, norm: str) -> float:
    """The norm of one change, of any shape; pixels go from 0 to 1."""
    flat = change.reshape(-1)
    if norm == "linf":
        return float(max(flat.max(), -flat.min()))
    if norm == "l2":
        return math.sqrt(float(np.dot(flat, flat)))
    return float(np.abs(flat).sum(dtype=np.float64))


def sizes(changes: Array, norm: str) -> NDArray[np.float64]:
    """The norm of each change (N, …): (N,)."""
    return np.array([size(change, norm) for change in changes], np.float64)


def dual_size(gradient: Array, norm: str) -> float:
    """How much a change of size 1 in ``norm`` can raise a linear function with this gradient."""
    return size(gradient, {"linf": "l1", "l2": "l2", "l1": "linf"}[norm])


def project(change: Array, norm: str, epsilon: float) -> None:
    """Move one change, in place, to the nearest (in L2) of those whose norm is at most ``epsilon``."""
    if norm == "linf":
        np.clip(change, -epsilon, epsilon, out=change)
    elif norm == "l2":
        if (length := size(change, norm)) > epsilon:
            change *= epsilon / length
    elif size(change, norm) > epsilon:
        _shrink(change, epsilon)


def _shrink(change: Array, epsilon: float) -> None:
    """The projection onto the L1 ball by one threshold (Duchi et al. 2008); ``change`` lies outside of it."""
    magnitude = np.abs(change)
    ordered = np.sort(magnitude, axis=None)[::-1].astype(np.float64)
    surplus = (np.cumsum(ordered) - epsilon) / np.arange(1, ordered.size + 1)
    above = np.flatnonzero(ordered > surplus)
    threshold = surplus[above[-1]] if len(above) else ordered[0]
    magnitude -= threshold
    np.maximum(magnitude, 0, out=magnitude)
    np.copysign(magnitude, change, out=change)


def steepest(gradient: Array, norm: str) -> None:
    """Turn one gradient, in place, into the step of size 1 along which a function rises most; zeros stay zeros.

    In L1 that would be a single pixel; the one per cent with the largest gradient share the step (Tramèr and Boneh
    2019).
    """
    if norm == "linf":
        _sign(gradient)
    elif norm == "l2":
        if length := size(gradient, norm):
            gradient *= 1 / length
    else:
        magnitude = np.abs(gradient)
        count = max(1, round(LARGEST * gradient.size))
        least = np.partition(magnitude, gradient.size - count, axis=None)[gradient.size - count]
        _sign(gradient)
        gradient *= magnitude >= least
        if changed := np.count_nonzero(gradient):
            gradient *= 1 / changed


def hold_back(gradient: Array, x: Array) -> None:
    """Set to 0, in place, what of one gradient leads pixels beyond black or white: in L1 few pixels carry a step."""
    gradient *= ((x > EDGE) | (gradient > 0)) & ((x < 1 - EDGE) | (gradient < 0))


def _sign(values: Array) -> None:
    """As `np.sign` in place, ten times as fast: that guesses at a branch for every value."""
    there = values != 0
    np.copysign(1, values, out=values)
    values *= there


def random_change(shape: tuple[int, ...], norm: str, epsilon: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A change drawn evenly from all whose norm is at most ``epsilon``."""
    count = math.prod(shape)
    if norm == "linf":
        values = rng.uniform(-epsilon, epsilon, count)
    elif norm == "l2":
        values = rng.standard_normal(count)
        values *= epsilon * rng.uniform() ** (1 / count) / np.linalg.norm(values)
    else:  # the gaps between sorted numbers are even on the simplex
        values = np.diff(np.sort(rng.uniform(0, epsilon, count)), prepend=0)
        values *= rng.choice((-1.0, 1.0), count)
    return values.astype(np.float32).reshape(shape)
