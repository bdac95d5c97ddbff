"""Images unlike the training set: how large the largest probability is, and how near the nearest training photos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted
from headstart.core.display import line_of
from headstart.data.threads import on_threads
from headstart.learn.calibrate import softmax
from headstart.learn.heads import HeadFit
from headstart.learn.regularisation_path import Design, Labels, Matrix, blocks, run_starts

NEAREST = 5
KEPT = 0.95  # share of known photos that are not called unknown
FEWEST, FEWEST_IN_ALL = 6, 20  # training photos of a class, and of all; with fewer, little is found to be unknown
PER_CLASS, IN_ALL = 200, 20_000  # training photos kept to compare with


@dataclass(frozen=True, eq=False, repr=False)
class Unknown:
    """Ranks two values of an image among those of the training photos, each measured with that photo left out.

    Values: the largest probability, and the mean cosine to the `NEAREST` kept photos. The two ranks, as shares, are
    multiplied; the least typical 5 % of the training photos are below ``threshold``.
    """

    centre: NDArray[np.float32]  # (D,)
    kept: NDArray[np.float16]  # (R, D) unit vectors from the centre
    rows: Labels  # (R,) which rows of the fit those are
    sure: NDArray[np.float32]  # sorted largest probabilities of training photos
    near: NDArray[np.float32]  # sorted mean cosines of training photos
    threshold: float

    def __repr__(self) -> str:
        kept = f"{counted(len(self.kept), 'training photo')} kept to compare with"
        return line_of(type(self).__name__, [kept, f"threshold {self.threshold:.3f}"])

    def score(self, x: Matrix, probabilities: Matrix) -> NDArray[np.float64]:
        """(N,) sums of the logarithms of both ranks; smaller is less typical. ``x`` (N, D) is the head's input."""
        near = _nearness(self.similarities(x))
        return _log_rank(self.sure, probabilities.max(axis=1)) + _log_rank(self.near, near)

    def score_within(
        self, x: Matrix, probabilities: Matrix, close: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lowest and the highest `score` (N,) of values that are as ``close`` to these; a rank can jump."""
        near, sure = _nearness(self.similarities(x)), probabilities.max(axis=1)
        low, high = (_log_rank(self.sure, sure + by) + _log_rank(self.near, near + by) for by in (-close, close))
        return low - close, high + close

    def margin(self, x: Design | Matrix, probabilities: Matrix) -> NDArray[np.float64]:
        """How much more typical than the threshold each is, (N,), a block at a time; below zero it is unknown."""
        scores = on_threads(lambda block: self.score(x[block], probabilities[block]), blocks(x.shape[0]))
        return np.concatenate([score - self.threshold for score in scores])

    def nearness(self, x: Design, groups: tuple[Labels, Labels] | None = None) -> NDArray[np.float32]:
        """(N,) mean cosines to the nearest kept photos, a block at a time.

        Args:
            groups: those of the rows (N,) and of the kept photos (R,), which do not count where they are the same.
        """

        def of_block(block: Labels) -> NDArray[np.float32]:
            cosines = self.similarities(x[block])
            if groups is not None:
                cosines[groups[0][block][:, None] == groups[1]] = -1
            return _nearness(cosines)

        return np.concatenate([*on_threads(of_block, blocks(x.shape[0]))])

    def similarities(self, x: Matrix) -> NDArray[np.float32]:
        """Cosines (N, R) to the kept training photos, from the centre of the training set."""
        return (_unit(x - self.centre) @ self._directions).astype(np.float32, copy=False)

    @cached_property
    def _directions(self) -> NDArray[np.float32]:
        """(D, R), converted once: for one image, converting takes longer than multiplying."""
        return self.kept.astype(np.float32).T


def fit_unknown(
    x: Design, labels: Labels, groups: Labels, fit: HeadFit, seed: int = 0
) -> tuple[Unknown, NDArray[np.float64]]:
    """Measure what is typical on the training photos, each compared with those outside its group.

    Args:
        x: (N, D), the input of the head.
        groups: (N,) near copies share a number, and do not count as each other's neighbours.
        fit: its held-out logits give the largest probabilities.

    Returns:
        what is typical, and the scores of the photos that the fit held out (R,), as `Unknown.score` gives them.
    """
    photos = to_compare_with(x, labels, seed)
    nearness = photos.nearness(x.of(fit.rows), (groups[fit.rows], groups[photos.rows]))
    sureness = softmax(fit.logits).max(axis=1)
    unknown = with_typical(photos, sureness, nearness)
    return unknown, _log_rank(unknown.sure, sureness) + _log_rank(unknown.near, nearness)


def to_compare_with(x: Design, labels: Labels, seed: int = 0) -> Unknown:
    """Some of the training photos (N, D), of which what is typical is not known yet: see `with_typical`."""
    rows = choose(labels, seed)
    centre = x.sum(np.zeros_like(labels), 1)[0] / x.dtype.type(len(labels))
    kept = _unit(x[rows] - centre).astype(np.float16)
    return Unknown(centre, kept, rows, np.empty(0, np.float32), np.empty(0, np.float32), 0.0)


def with_typical(photos: Unknown, sureness: Matrix, nearness: Matrix) -> Unknown:
    """The same with what is typical: the largest probability and the nearness of known photos that were held out."""
    sure, near = np.sort(sureness).astype(np.float32), np.sort(nearness).astype(np.float32)
    known = _log_rank(sure, sureness) + _log_rank(near, nearness)
    return replace(photos, sure=sure, near=near, threshold=float(np.quantile(known, 1 - KEPT)))


def choose(labels: Labels, seed: int = 0) -> Labels:
    """Which of the training photos are kept, at most so many of each class: rows, sorted."""
    rng = np.random.default_rng(seed)
    each = max(1, min(PER_CLASS, IN_ALL // (int(labels.max()) + 1)))
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = run_starts(labels[order])
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return np.sort(order[place < each])


def _nearness(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    count = min(NEAREST, cosines.shape[1])
    result: NDArray[np.float32] = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
    return result


def _log_rank(known: NDArray[np.float32], values: Matrix) -> NDArray[np.float64]:
    below = np.searchsorted(known, values.astype(np.float32), side="right")
    result: NDArray[np.float64] = np.log((below + 1) / (len(known) + 1))
    return result


def _unit(x: Matrix) -> Matrix:
    result: Matrix = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return result
