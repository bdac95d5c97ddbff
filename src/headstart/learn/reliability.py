"""How far probabilities and accuracy are apart, how much of that is chance, and what "unknown" is good for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import CoveragePoint
from headstart.learn.regularisation_path import Matrix

FEWEST, MOST = 25, 15  # images of a bin at least, and bins at most
NORMAL = 25.0  # variance of a number of right answers from which on it is as good as normal
SHARES = 10  # points of the coverage curve, beside that of the threshold

Rows = NDArray[np.intp]


def bins_of(confidence: Matrix) -> list[Rows]:
    """The rows (N,) in bins of nearly equal counts, the least confident first; one bin of fewer than 50 images.

    Equal confidences are in one bin, so that their order does not matter.
    """
    order = np.argsort(confidence, kind="stable")
    count = len(order)
    bins = min(max(count // FEWEST, 1), MOST)
    ends = np.append(np.flatnonzero(np.diff(confidence[order])) + 1, count)  # after the last of equal ones
    edges = [0]
    for edge in ends[np.searchsorted(ends, count * np.arange(1, bins) // bins)].tolist():
        if min(edge - edges[-1], count - edge) >= FEWEST:
            edges.append(edge)
    return np.split(order, edges[1:])


def calibration_error(confidence: Matrix, right: NDArray[np.bool_], bins: list[Rows]) -> float:
    """Distance of mean confidence and accuracy, on average over the images (Naeini et al. 2015)."""
    return float(sum(abs(confidence[rows].sum() - right[rows].sum()) for rows in bins) / len(confidence))


def chance_error(confidence: Matrix, bins: list[Rows]) -> float:
    """The calibration error that a perfectly calibrated classifier of these confidences would read on average.

    Its answers are right independently of each other, each with the probability that is its confidence.
    """
    return sum(mean_deviation(confidence[rows]) for rows in bins) / len(confidence)


def mean_deviation(chances: Matrix) -> float:
    """How far the number of independent events, of these chances (N,), is from its mean, on average.

    That is twice the mean of how far it is below, for which the chances of few events are enough (Poisson binomial).
    """
    variance = float((chances * (1 - chances)).sum())
    if variance >= NORMAL:
        return math.sqrt(2 * variance / math.pi)
    rare = chances if 2 * chances.sum() <= len(chances) else 1 - chances
    mean = float(rare.sum())
    few = np.zeros(int(mean) + 1)  # the probabilities of 0, 1, … events
    few[0] = 1
    for chance in rare.tolist():
        few[1:] = (1 - chance) * few[1:] + chance * few[:-1]
        few[0] *= 1 - chance
    return float(2 * ((mean - np.arange(len(few))) * few).sum())


def coverage_of(margin: Matrix, confidence: Matrix, right: NDArray[np.bool_]) -> tuple[CoveragePoint, ...]:
    """The accuracy on the most typical images: tenths of them, and those that are not unknown.

    Args:
        margin: (N,) how much more typical than the threshold each is; of equal ones the most confident comes first.
    """
    count = len(right)
    _, place, sizes = np.unique(np.stack([margin, confidence]), axis=1, return_inverse=True, return_counts=True)
    place = place.ravel()
    outcome = (np.bincount(place, right) / sizes)[place]  # of equal ones it is shared: their order does not matter
    hits = np.cumsum(outcome[np.argsort(-place, kind="stable")])
    tenths = -(-count * np.arange(1, SHARES + 1) // SHARES)
    images = np.unique(np.append(tenths, (margin >= 0).sum()))
    return tuple(CoveragePoint(k / count, float(hits[k - 1] / k)) for k in images.tolist() if k)
