"""DeepFool: over the nearest boundary of the network made linear, again and again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headstart.attack.goal import Array, Found, Goal, Rows, Victim, batches
from headstart.attack.norms import dual_size, steepest

CANDIDATES = 10  # most probable classes whose boundaries are looked at
OVERSHOOT = 0.02  # share by which the boundary is overstepped
BEYOND = 1e-4  # and a little more, in the norm


def deepfool(
    network: Victim,
    images: Array,
    goal: Goal,
    *,
    norm: str,
    steps: int,
    overshoot: float = OVERSHOOT,
    candidates: int = CANDIDATES,
) -> Found:
    """The smallest change in L2 or L∞ that takes an image over a boundary (Moosavi-Dezfooli et al. 2016).

    Towards a target only its boundary counts. All classes share one forward pass; each has a gradient of its own.
    """
    x = images.astype(np.float32)
    total = np.zeros_like(x)
    reached = np.zeros(len(x), bool)
    classes: Array = np.zeros((len(x), 0), np.intp)
    active = np.arange(len(x))
    for step in range(steps):
        for rows in batches(network, active):
            part = goal.part(rows)
            logits, pullback = network.vjp(x[rows])
            if not step:
                found = _candidates(logits, part, candidates)
                classes = classes if classes.shape[1] else np.zeros((len(x), found.shape[1]), np.intp)
                classes[rows] = found
            reached[rows] = part.reached(logits)
            stay = np.flatnonzero(~reached[rows])
            if not len(stay):
                continue
            start = logits.argmax(axis=1) if goal.targeted else goal.classes[rows]
            nearest, distances = _nearest(logits, pullback, start, classes[rows], norm)
            for k in stay:
                row = rows[k]
                steepest(nearest[k], norm)
                total[row] += np.float32(distances[k] + BEYOND) * nearest[k]
                np.clip(images[row] + np.float32(1 + overshoot) * total[row], 0, 1, out=x[row])
        active = active[~reached[active]]
    for rows in batches(network, active):
        reached[rows] = goal.part(rows).reached(network.forward(x[rows]))
    return Found(x, reached)


def _candidates(logits: Array, goal: Goal, count: int) -> Array:
    """The classes whose boundaries are looked at, (N, at most ``count`` - 1)."""
    if goal.targeted:
        return goal.classes[:, None]
    others = logits.copy()
    others[np.arange(len(logits)), goal.classes] = np.inf  # the first, which is no candidate
    return np.argsort(-others, axis=1, kind="stable")[:, 1:count]


def _nearest(
    logits: Array, pullback: Callable[[Array], Array], start: Rows, classes: Array, norm: str
) -> tuple[Array, Array]:
    """The gradient towards the nearest of ``classes`` of each image, and the distance, if the network were linear."""
    rows = np.arange(len(logits))
    best = np.full(len(logits), np.inf)
    nearest: Array = np.zeros(0)
    for candidate in classes.T:
        cotangent = np.zeros(logits.shape, np.float32)
        cotangent[rows, candidate] += 1
        cotangent[rows, start] -= 1
        slopes = pullback(cotangent)
        gaps = np.abs(logits[rows, candidate].astype(np.float64) - logits[rows, start])
        distances = gaps / (np.array([dual_size(slope, norm) for slope in slopes]) + 1e-8)
        nearer = distances < best
        if not nearest.size:
            nearest = slopes.copy()
        nearest[nearer], best[nearer] = slopes[nearer], distances[nearer]
    return nearest, best
