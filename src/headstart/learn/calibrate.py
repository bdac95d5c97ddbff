"""Calibrated probabilities: one temperature for all classes (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS

Scores = NDArray[np.floating]
STEPS = 50
LEAST = 1e-6  # below this largest difference of two scaled scores, all classes are equally probable


def log_softmax(logits: Scores) -> Scores:
    """Logarithm of the probabilities, along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Scores = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits: Scores) -> Scores:
    """Probabilities along the last axis, in float64 sums."""
    result: Scores = np.exp(log_softmax(logits.astype(np.float64)))
    return result


def with_scaled_logits(
    weights: Mapping[str, NDArray[np.float32]], inverse_temperature: float
) -> dict[str, NDArray[np.float32]]:
    """The weights of a network whose logits are multiplied by ``inverse_temperature``, one over the temperature."""
    head = {
        f"{LOGITS}.{part}": weights[f"{LOGITS}.{part}"] * np.float32(inverse_temperature) for part in ("weight", "bias")
    }
    return {**weights, **head}


def fit_inverse_temperature(
    scores: Scores, labels: NDArray[np.int_], offset: Scores | float = 0.0, start: float = 1.0
) -> tuple[float, float]:
    """The factor s, one over the temperature, that minimises the negative log-likelihood of softmax(s·scores + offset).

    The targets are smoothed by 1/(N + 1), so that s stays finite where the scores separate the classes (as Platt 1999
    did for two classes). The loss is convex in s, so Newton's method in one dimension, kept inside a bracket, finds it.

    Args:
        scores: (N, K), of images that the scores were not fitted on.
        labels: (N,), the right class of each.
        offset: (K,) or (N, K), not scaled: logarithms of the prior.
        start: where to begin; the result for a similar strength saves steps.

    Returns:
        s and the (unsmoothed) mean negative log-likelihood there.
    """
    count, classes = scores.shape
    smooth = 1.0 / (count + 1)
    rows = np.arange(count)
    # Only differences between the classes of a row matter; without the right one's the exponentials stay small.
    relative = (scores - scores[rows, labels][:, None]).astype(np.float64, copy=False)
    mean_target = smooth / max(classes - 1, 1) * relative.sum(axis=1).mean()
    offset = np.broadcast_to(np.asarray(offset, np.float64), scores.shape)
    largest = float(np.abs(relative).max())
    low, high = LEAST / largest if largest else 0.0, np.inf
    s = max(start, low)
    for _ in range(STEPS):
        p = np.exp(log_softmax(s * relative + offset))
        expected = np.einsum("nk,nk->n", p, relative)
        slope = float(expected.mean() - mean_target)
        curvature = float((np.einsum("nk,nk,nk->n", p, relative, relative) - expected**2).mean())
        if slope == 0:  # also where all scores are equal, and s does not matter
            break
        low, high = (s, high) if slope < 0 else (low, s)
        following = s - slope / curvature if curvature > 0 else high
        if not low < following < high:
            following = s * 16 if np.isinf(high) else (low * high) ** 0.5
        following = min(following, s * 16)
        s, before = following, s
        if abs(s - before) <= 1e-4 * s:
            break
    loss = -log_softmax(s * relative + offset)[rows, labels].mean()
    return float(s), float(loss)
