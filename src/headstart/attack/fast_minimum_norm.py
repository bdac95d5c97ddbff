"""FMN: the smallest change in any of the norms, by a budget that shrinks and grows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.attack.goal import Array, Found, Goal, Victim, batches, own
from headstart.attack.norms import dual_size, hold_back, project, size, sizes

FIRST, LAST = 1.0, 0.01  # the L2 norm of a step, at the beginning and in the end
QUICK, SLOW = 0.05, 0.001  # share by which the budget changes, at the beginning and in the end


def fast_minimum_norm(network: Victim, images: Array, goal: Goal, *, norm: str, steps: int) -> Found:
    """The smallest change in L∞, L2 or L1 (Pintor et al. 2021).

    Each step follows the margin's gradient, then the change is projected to within a budget: up to the boundary of the
    network made linear until the goal was reached once; then smaller while it is reached, and larger while it is not.
    """
    x = images.astype(np.float32)
    reached = np.zeros(len(x), bool)
    for rows in batches(network, np.arange(len(x))):
        state = _State.of(images[rows], norm)
        for step in range(steps):
            wave = (1 + math.cos(math.pi * step / steps)) / 2
            _step(network, images[rows], goal.part(rows), norm, state, wave)
        x[rows], reached[rows] = images[rows] + state.best, state.found
        np.clip(x, 0, 1, out=x)
    return Found(x, reached)


@dataclass(eq=False)
class _State:
    """A batch of images on its way."""

    change: NDArray[np.float32]
    best: NDArray[np.float32]  # the smallest change that reached the goal
    smallest: NDArray[np.float64]  # (N,) its norm; before one is found, that of the largest change there can be
    largest: NDArray[np.float64]  # (N,)
    budget: NDArray[np.float64]  # (N,)
    found: NDArray[np.bool_]  # (N,)

    @classmethod
    def of(cls, images: Array, norm: str) -> _State:
        """At the images themselves."""
        count, largest = len(images), sizes(np.maximum(images, 1 - images), norm)
        none = np.zeros(images.shape, np.float32)
        return cls(none, none.copy(), largest.copy(), largest, np.full(count, np.inf), np.zeros(count, bool))


def _step(network: Victim, images: Array, goal: Goal, norm: str, state: _State, wave: float) -> None:
    length, share = LAST + (FIRST - LAST) * wave, SLOW + (QUICK - SLOW) * wave
    logits, pullback = network.vjp(np.clip(images + state.change, 0, 1))
    margins, reached = np.abs(goal.margins(logits)), goal.reached(logits)
    gradient = own(pullback(goal.narrowing(logits)))
    for k in range(len(gradient)):
        slope, change, norm_now = gradient[k], state.change[k], size(state.change[k], norm)
        if norm == "l1":
            hold_back(slope, images[k] + change)
        if reached[k]:
            if norm_now <= state.smallest[k]:
                state.best[k], state.smallest[k] = change, norm_now
            state.budget[k] = min(state.budget[k] * (1 - share), state.smallest[k])
        elif state.found[k]:
            state.budget[k] *= 1 + share
        else:
            state.budget[k] = norm_now + margins[k] / (dual_size(slope, norm) or np.inf)
        state.found[k] |= reached[k]
        state.budget[k] = min(state.budget[k], state.largest[k])
        slope *= length / (size(slope, "l2") or 1.0)
        change += slope
        project(change, norm, state.budget[k])
        np.add(images[k], change, out=slope)
        np.clip(slope, 0, 1, out=slope)
        np.subtract(slope, images[k], out=change)
