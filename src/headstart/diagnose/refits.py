"""Heads on many parts of one training set: sums of features in a subspace, and a solution for each part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.learn.heads import HeadFit
from headstart.learn.regularisation_path import Design, Labels, Matrix, blocks

SHARE, NARROW, WIDE = 5, 256, 896  # the subspace has an n-th of the rows as dimensions, within these bounds
NOTHING = 1e-10  # of the largest variance
PLENTY = 8  # rows for each feature, from which on all directions are kept


@dataclass(frozen=True, eq=False)
class Sums:
    """All that a head in closed form needs to know of some rows. Sums of disjoint rows can be added."""

    counts: NDArray[np.float64]  # (K,) rows of each class
    sums: NDArray[np.float64]  # (K, r)
    gram: NDArray[np.float64]  # (r, r)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.counts + other.counts, self.sums + other.sums, self.gram + other.gram)


@dataclass(frozen=True, eq=False)
class RefittedHead:
    """``z @ weight.T + bias`` are calibrated logits, with the temperature of the head of all rows."""

    weight: NDArray[np.float32]  # (K, r)
    bias: NDArray[np.float32]  # (K,)

    def logits(self, z: Matrix) -> Matrix:
        """Logits (N, K) of rows in the subspace (N, r)."""
        return z @ self.weight.T + self.bias


class Refits:
    """The training set of a head, seen so that heads of parts of it cost milliseconds.

    Features are projected onto principal directions of some rows: where there are few rows, that loses nothing. Where
    there are few features, or plenty of rows, all directions are kept. The regularisation is that of the head in
    absolute terms, so it weighs less, the more rows there are, as it does where the strength is chosen anew for each
    size.

    Args:
        x: (N, D), the input of the head.
        labels: (N,) in 0 … classes − 1.
        fit: the head of all rows.
    """

    def __init__(self, x: Design, labels: Labels, classes: int, fit: HeadFit, seed: int = 0) -> None:
        self.labels, self.classes, self._fit = labels, classes, fit
        count, width = x.shape
        sums = x.sum(labels, classes)
        counts = np.bincount(labels, minlength=classes)
        self._centre = sums.sum(axis=0) / x.dtype.type(count)
        self._basis = self._directions(x, np.random.default_rng(seed))
        self.z = np.empty((count, self._basis.shape[1]), np.float32)
        squares = 0.0
        for rows in blocks(count):
            centred = x[rows] - self._centre
            squares += float(np.einsum("nd,nd->", centred, centred, dtype=np.float64))
            self.z[rows] = centred @ self._basis
        between = float((counts * ((sums / np.maximum(counts, 1)[:, None] - self._centre) ** 2).sum(axis=1)).sum())
        scatter = squares - between if fit.kind == "lda" else squares
        self._added = fit.strength * max(scatter / width, 1e-12)

    def project(self, x: Design) -> NDArray[np.float32]:
        """Other rows (M, D) in the subspace (M, r)."""
        parts = [(x[rows] - self._centre) @ self._basis for rows in blocks(x.shape[0])]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, self.z.shape[1]), np.float32)

    def sums(
        self,
        rows: Labels,
        weights: NDArray[np.floating] | NDArray[np.int_] | None = None,
        *,
        labels: Labels | None = None,
        width: int | None = None,
    ) -> Sums:
        """Those of some rows (R,).

        Args:
            weights: (R,) how often each counts.
            labels: (R,) in place of their own.
            width: only so many dimensions.
        """
        z, member = self.z[rows, :width], np.zeros((len(rows), self.classes), np.float32)
        labels = self.labels[rows] if labels is None else labels
        member[np.arange(len(rows)), labels] = 1.0 if weights is None else weights
        scaled = z if weights is None else z * np.sqrt(weights, dtype=np.float32)[:, None]
        return Sums(
            member.sum(axis=0, dtype=np.float64),
            (member.T @ z).astype(np.float64),
            (scaled.T @ scaled).astype(np.float64),
        )

    def head(self, of: Sums, strength: float | None = None) -> RefittedHead:
        """The head of the rows that were summed; classes without any get no answer.

        Args:
            strength: in place of the fit's, on the same scale.
        """
        added = self._added * (1.0 if strength is None else strength / self._fit.strength)
        there = of.counts > 0
        counts, sums, total = of.counts[there], of.sums[there], of.counts.sum()
        if self._fit.kind == "lda":
            means = sums / counts[:, None]
            weight = _solve(of.gram - sums.T @ means, added, means - means.mean(axis=0))
            weight *= max(total - len(counts), 1.0)
            bias = -0.5 * np.einsum("kr,kr->k", weight, means + means.mean(axis=0))
        else:
            mean = sums.sum(axis=0) / total
            weight = _solve(of.gram - total * np.outer(mean, mean), added, sums - counts[:, None] * mean)
            bias = counts / total - weight @ mean
        weight, bias = weight / self._fit.temperature, bias / self._fit.temperature
        if self._fit.kind == "lda" and self._fit.prior == "empirical":
            bias = bias + np.log(counts / total)
        head = RefittedHead(
            np.zeros((self.classes, weight.shape[1]), np.float32), np.full(self.classes, -np.inf, np.float32)
        )
        head.weight[there], head.bias[there] = weight, bias
        return head

    @staticmethod
    def _directions(x: Design, rng: np.random.Generator) -> NDArray[np.float32]:
        """The principal directions (D, r) of some rows, the one of the largest variance first."""
        count, width = x.shape
        rank = max(NARROW, min(count // SHARE, WIDE))
        whole = count > width and (width <= rank or count > PLENTY * width)
        chosen = x[rng.permutation(count)[: 2 * width if whole else rank]]
        chosen = (chosen - chosen.mean(axis=0)).astype(np.float64)
        if whole:
            return np.asarray(np.linalg.eigh(chosen.T @ chosen)[1][:, ::-1], np.float32)
        values, rotation = np.linalg.eigh(chosen @ chosen.T)
        kept = np.flatnonzero(values > values[-1] * NOTHING)[::-1]
        return np.asarray(chosen.T @ (rotation[:, kept] / np.sqrt(values[kept])), np.float32)


def _solve(scatter: NDArray[np.float64], added: float, right: NDArray[np.float64]) -> NDArray[np.float64]:
    """``right`` (K, r) times the inverse of the scatter (r, r) plus ``added`` on its diagonal."""
    scatter = scatter.copy()
    scatter[np.diag_indices(len(scatter))] += added
    return np.asarray(np.linalg.solve(scatter, right.T).T, np.float64)
