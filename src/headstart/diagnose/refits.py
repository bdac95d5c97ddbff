"""Heads on many parts of one training set: sums of features in a subspace, and a solution for each part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.threads import on_threads
from headstart.learn.heads import HeadFit
from headstart.learn.regularisation_path import Design, Labels, Matrix, blocks, eigh

SHARE, NARROW, WIDE = 5, 256, 896  # the subspace has an n-th of the rows as dimensions, within these bounds
NOTHING = 1e-10  # of the largest variance
LEAST = 1e-3  # of the mean eigenvalue is added: less suits many rows, but not parts of them with few rows a feature
PLENTY = 8  # rows for each feature, from which on all directions are kept
SUMMED = 4096  # rows whose products are taken at a time
HELD = 600_000_000  # bytes of systems that are solved at the same time

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sums:
    """All that a head in closed form needs to know of some rows."""

    counts: NDArray[np.float64]  # (K,) rows of each class
    sums: NDArray[np.float64]  # (K, r)
    gram: NDArray[np.float64]  # (r, r)


@dataclass(frozen=True, eq=False)
class RefittedHead:
    """``z @ weight.T + bias`` are calibrated logits, with the temperature of the head of all rows."""

    weight: NDArray[np.float32]  # (K, r)
    bias: NDArray[np.float32]  # (K,)

    def logits(self, z: Matrix) -> Matrix:
        """Logits (N, K) of rows in the subspace (N, r)."""
        return z @ self.weight.T + self.bias

    def wrong(self, z: Matrix, labels: Labels, rows: Labels) -> NDArray[np.bool_]:
        """Which of the rows (R,) of ``z`` it gets wrong; a few at a time, for several heads are judged at once."""
        parts = [rows[block] for block in blocks(len(rows))]
        return np.concatenate([self.logits(z[part]).argmax(axis=1) != labels[part] for part in parts])


class Refits:
    """The training set of a head, seen so that heads of parts of it cost milliseconds.

    Features are projected onto principal directions of some rows: where there are few rows, that loses nothing. Where
    there are few features, or plenty of rows, all directions are kept. The regularisation is that of the head (at least
    `LEAST`) in absolute terms, so it weighs less, the more rows there are, as it does where the strength is chosen anew
    for each size.

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

        def project(rows: Labels) -> float:
            centred = x[rows] - self._centre
            self.z[rows] = centred @ self._basis
            return float(np.einsum("nd,nd->", centred, centred, dtype=np.float64))

        squares = sum(on_threads(project, blocks(count)))
        between = float((counts * ((sums / np.maximum(counts, 1)[:, None] - self._centre) ** 2).sum(axis=1)).sum())
        scatter = squares - between if fit.kind == "lda" else squares
        self._scale = max(scatter / width, 1e-12)
        self._added = max(fit.strength, LEAST) * self._scale

    @property
    def at_once(self) -> int:
        """How many systems of all dimensions there is room for, each with its sums and two copies of them."""
        return max(1, HELD // (8 * 3 * self.z.shape[1] ** 2))

    def project(self, x: Design) -> NDArray[np.float32]:
        """Other rows (M, D) in the subspace (M, r)."""
        found = np.empty((x.shape[0], self.z.shape[1]), np.float32)

        def project(rows: Labels) -> None:
            found[rows] = (x[rows] - self._centre) @ self._basis

        deque(on_threads(project, blocks(x.shape[0])), maxlen=0)
        return found

    def sums(
        self,
        rows: Labels,
        weights: NDArray[np.floating] | NDArray[np.int_] | None = None,
        *,
        labels: Labels | None = None,
        width: int | None = None,
        onto: Sums | None = None,
    ) -> Sums:
        """Those of some rows (R,).

        Args:
            weights: (R,) how often each counts.
            labels: (R,) in place of their own.
            width: only so many dimensions.
            onto: those of other rows, which these are added to: large matrices are not copied.
        """
        labels = self.labels[rows] if labels is None else labels
        weights = np.ones(len(rows)) if weights is None else weights
        if onto is None:
            r = self.z[:1, :width].shape[1]
            onto = Sums(np.zeros(self.classes), np.zeros((self.classes, r)), np.zeros((r, r)))
        for start in range(0, len(rows), SUMMED):
            part = slice(start, start + SUMMED)
            z = self.z[rows[part], :width]
            member = np.zeros((len(z), self.classes), np.float32)
            member[np.arange(len(z)), labels[part]] = weights[part]
            np.add(onto.counts, member.sum(axis=0), out=onto.counts)
            np.add(onto.sums, member.T @ z, out=onto.sums)
            z *= np.sqrt(weights[part], dtype=np.float32)[:, None]
            np.add(onto.gram, z.T @ z, out=onto.gram)
        return onto

    def error(self, head: RefittedHead, rows: Labels) -> float:
        """The share of the rows that a head gets wrong."""
        return float(head.wrong(self.z, self.labels, rows).mean())

    def head(self, of: Sums) -> RefittedHead:
        """The head of the rows that were summed; classes without any get no answer."""
        scatter, right = self._system(of)
        scatter[np.diag_indices(len(scatter))] += self._added
        return self._head(of, np.linalg.solve(scatter, right.T).T)

    def along(self, of: Sums, strengths: Sequence[float]) -> Iterator[RefittedHead]:
        """Heads of the same rows at several strengths, on the scale of the fit's, from one factorisation."""
        scatter, right = self._system(of)
        values, basis = eigh(scatter)
        turned, values = right @ basis, np.maximum(values, 0)
        for strength in strengths:
            yield self._head(of, (turned / (values + strength * self._scale)) @ basis.T)

    def _system(self, of: Sums) -> tuple[Values, Values]:
        """The scatter (r, r), and what its inverse is multiplied by (K, r) for the classes that are there."""
        there = of.counts > 0
        counts, sums, total = of.counts[there], of.sums[there], of.counts.sum()
        if self._fit.kind == "lda":
            means = sums / counts[:, None]
            outer, right = sums.T @ means, means - means.mean(axis=0)
        else:
            mean = sums.sum(axis=0) / total
            outer, right = np.outer(total * mean, mean), sums - counts[:, None] * mean
        return np.subtract(of.gram, outer, out=outer), right

    def _head(self, of: Sums, weight: Matrix) -> RefittedHead:
        """The head of a solution (K, r) for the classes that are there."""
        there = of.counts > 0
        counts, sums, total = of.counts[there], of.sums[there], of.counts.sum()
        if self._fit.kind == "lda":
            means = sums / counts[:, None]
            weight = weight * max(total - len(counts), 1.0)
            bias = -0.5 * np.einsum("kr,kr->k", weight, means + means.mean(axis=0))
        else:
            bias = counts / total - weight @ (sums.sum(axis=0) / total)
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
        chosen = chosen - chosen.mean(axis=0)
        if whole:  # any basis would do: sums in float32 are enough to have the first directions first
            return np.asarray(eigh((chosen.T @ chosen).astype(np.float64))[1][:, ::-1], np.float32)
        chosen = chosen.astype(np.float64)
        values, rotation = eigh(chosen @ chosen.T)
        kept = np.flatnonzero(values > values[-1] * NOTHING)[::-1]
        return np.asarray(chosen.T @ (rotation[:, kept] / np.sqrt(values[kept])), np.float32)
