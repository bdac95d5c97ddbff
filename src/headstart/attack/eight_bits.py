"""From floats to bytes: a change that is found in floats must also fool the network out of a PNG file."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.attack.goal import Array, Goal
from headstart.attack.norms import size

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # by which a change is stretched, until it survives rounding
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

    The change is rounded as it is, then stretched by `SCALES`; the first that reaches the goal is kept, else the first.
    It keeps the budget in bytes, too: see `rounded`.

    Args:
        found: (N, size, size, 3), what an attack made of ``images``.
        answer: the probabilities of bytes, as `predict` gives them.
        epsilon: infinite where there is no budget.
    """
    if not len(images):
        return images, answer(images)
    left = np.arange(len(images))
    for scale in SCALES:
        tried = np.stack([
            rounded(scale * (found[row] - images[row] / np.float32(255)), images[row], norm, epsilon) for row in left
        ])  # fmt: skip
        answers = answer(tried)
        reached = goal.part(left).reached(answers)
        if scale == SCALES[0]:
            saved, probabilities = tried.copy(), answers
        saved[left[reached]], probabilities[left[reached]] = tried[reached], answers[reached]
        left = left[~reached]
        if not len(left):
            break
    return saved, probabilities


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
