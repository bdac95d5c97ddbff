"""From floats to bytes: a change that is found in floats must also fool the network out of a PNG file."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.attack.goal import Array, Goal
from headstart.attack.norms import size

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # by which a change is stretched, until it survives rounding
LEVELS = (1, 2, 4, 8)  # of 255: then as much as makes its largest value that, for a change that is next to nothing
HALVINGS = 12  # in the search for the largest change that keeps a budget


def survivors(
    found: NDArray[np.float32],
    images: NDArray[np.uint8],
    goal: Goal,
    answer: Callable[[NDArray[np.uint8]], Array],
    norm: str,
    epsilon: float,
) -> tuple[NDArray[np.uint8], Array]:
    """Bytes that the network answers as the goal wants, where there are any, and its probabilities for them (N, K).

    The change is rounded as it is, then stretched by `SCALES`, and where that is less, to `LEVELS`. The first that
    reaches the goal is kept, else the first of all. It keeps the budget in bytes, too: see `rounded`.

    Args:
        found: (N, size, size, 3), what an attack made of ``images``.
        answer: the probabilities of bytes, as `predict` gives them.
        epsilon: infinite where there is no budget.
    """
    if not len(images):
        return images, answer(images)
    changes = found - images / np.float32(255)
    saved = np.stack([rounded(*each, norm, epsilon) for each in zip(changes, images, strict=True)])
    probabilities = answer(saved)
    left = np.flatnonzero(~goal.reached(probabilities))
    levels = np.array([255 * size(change, "linf") for change in changes])
    for scales in (
        *(np.full(len(images), scale) for scale in SCALES[1:]),
        *(_up_to(level, levels) for level in LEVELS),
    ):
        rows = left[scales[left] > 0]
        if not len(rows):
            continue
        tried = np.stack([rounded(scales[row] * changes[row], images[row], norm, epsilon) for row in rows])
        answers = answer(tried)
        reached = goal.part(rows).reached(answers)
        saved[rows[reached]], probabilities[rows[reached]] = tried[reached], answers[reached]
        left = np.setdiff1d(left, rows[reached])
    return saved, probabilities


def _up_to(level: float, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scales that take the largest value of each change to ``level``; 0 where `SCALES` did already."""
    scales = np.divide(level, levels, out=np.zeros_like(levels), where=levels > 0)
    return np.where(scales > SCALES[-1], scales, 0)


def rounded(change: Array, image: NDArray[np.uint8], norm: str, epsilon: float) -> NDArray[np.uint8]:
    """An image with a change (in pixels from 0 to 1), in bytes, within the budget.

    In L∞ the budget is rounded to whole levels of 255, half a level up. In L2 and L1 a change that rounding has made
    too large is scaled down until what is rounded fits.
    """
    if norm == "linf":
        most = min(math.floor(255 * epsilon + 0.5), 255) if epsilon < 1 else 255
        return _added(image, np.clip(255 * change, -most, most))
    tried = _added(image, 255 * change)
    if size(distance(tried, image), norm) <= epsilon:
        return tried
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = size(distance(_added(image, 255 * middle * change), image), norm) <= epsilon
        low, high = (middle, high) if fits else (low, middle)
    return _added(image, 255 * low * change)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The difference of bytes, in pixels from 0 to 1."""
    return (one.astype(np.float32) - other.astype(np.float32)) / np.float32(255)


def _added(image: NDArray[np.uint8], levels: Array) -> NDArray[np.uint8]:
    whole = np.trunc(levels + np.copysign(0.5, levels))
    bytes_: NDArray[np.uint8] = np.clip(image + whole, 0, 255).astype(np.uint8)
    return bytes_
