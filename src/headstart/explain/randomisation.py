"""Whether a map depends on what the network has learned, and on the class that is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.model.classifier import Classifier
from headstart.train.initialisation import initial_weights

Maps = NDArray[np.floating]  # (N, height, width)

BINS = 100  # of the histogram whose entropy is the complexity of a map
WINDOW = 7  # of structural similarity


def randomised(classifier: Classifier, seed: int = 0) -> Classifier:
    """The same network with random weights (He et al. 2015), in fp32.

    Of a module of another library the kernels are drawn anew; biases and statistics stay.
    """
    if not classifier.blueprint.source:
        weights = initial_weights(classifier.blueprint, seed=seed)
    else:
        rng = np.random.default_rng(seed)
        weights = {name: _drawn(array, rng) for name, array in classifier.weights.items()}
    return replace(classifier, weights=weights, precision="fp32", golden=None)


def other_classes(classes: NDArray[np.intp], count: int, seed: int = 42) -> NDArray[np.intp]:
    """For each class (N,) of ``count`` another one at random; the same as Quantus takes, with the same seed."""
    drawn = np.random.RandomState(seed).randint(0, count - 1, len(classes))
    return np.asarray(drawn + (drawn >= classes), np.intp)


def random_logit(maps: Maps, others: Maps) -> NDArray[np.float64]:
    """How similar the maps of a class are to those of another one (N,): 1 for the same map (Sixt et al. 2020).

    Structural similarity (Wang et al. 2004) along the rows, one after the other, with a window of seven values; each
    map relative to its largest value. Not a number where both are constant.
    """
    pairs = zip(maps, others, strict=True)
    return np.array([_structural_similarity(_to_one(one), _to_one(other)) for one, other in pairs])


def complexity_rise(maps: Maps, of_random_weights: Maps) -> NDArray[np.float64]:
    """How much more complex maps become when all weights are random (N,), relative to before: above 0 for a method
    that looks at them. Efficient MPRT (Hedström et al. 2024); the complexity is the entropy of a histogram of 100 bins.

    Not a number where a map is constant.
    """
    before, after = (np.array([_entropy(each) for each in found]) for found in (maps, of_random_weights))
    with np.errstate(divide="ignore", invalid="ignore"):
        rise: NDArray[np.float64] = (after - before) / before
    return np.where(before > 0, rise, np.nan)


def rank_correlation(one: Maps, other: Maps) -> float:
    """Spearman's rank correlation of two maps; 0 where one is constant."""
    ranks = np.stack([_ranks(np.ravel(one)), _ranks(np.ravel(other))])
    ranks -= ranks.mean(1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(1)).prod()
    return float(ranks[0] @ ranks[1] / spread) if spread else 0.0


def _drawn(array: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    if array.ndim < 2:
        return array
    spread = np.sqrt(2 / np.prod(array.shape[1:]))
    return np.asarray(spread * rng.standard_normal(array.shape), np.float32)


def _to_one(values: Maps) -> NDArray[np.float64]:
    flat = values.astype(np.float64).ravel()
    return flat / (np.abs(flat).max() or 1.0)


def _structural_similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    reach = max(one.max(), other.max()) - min(one.min(), other.min())
    if not reach:
        return float("nan")
    small, smaller = (0.01 * reach) ** 2, (0.03 * reach) ** 2
    m, n, mm, nn, mn = (
        np.convolve(values, np.full(WINDOW, 1 / WINDOW), "valid")
        for values in (one, other, one * one, other * other, one * other)
    )
    sample = WINDOW / (WINDOW - 1)
    v, w, vw = sample * (mm - m * m), sample * (nn - n * n), sample * (mn - m * n)
    found = (2 * m * n + small) * (2 * vw + smaller) / ((m * m + n * n + small) * (v + w + smaller))
    return float(found.mean())


def _entropy(values: Maps) -> float:
    counts = np.histogram(values, BINS)[0]
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place], np.float64)
