"""How well features suit labels, without a fit: LogME (You et al., ICML 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headstart.core.spread import evenly_spread
from headstart.learn.regularisation_path import Design, Labels, Matrix, eigh

MOST = 1000  # images that are enough
STARTS = 10.0 ** np.arange(-9, 4)  # ratios tried first, times the mean eigenvalue
STEPS, ENOUGH = 30, 1e-2  # steps, and the relative change of a ratio below which there is none further
TINY = 1e-12  # of an eigenvalue, beside the largest, and of what is left over, beside the targets


def logme(x: Design | Matrix, labels: Labels) -> float:
    """Logarithm of the maximum evidence of a Bayesian linear regression on one-hot targets, in nats an image.

    A larger value promises a more accurate head. It is the mean over the classes that occur, each with its own
    precision of the weights, alpha, and of the noise, beta. Of more than `MOST` images so many count, evenly spread.
    Values on different images cannot be compared.

    Args:
        x: what a head is given, (N, D).
        labels: (N,), the class of each.
    """
    rows = np.array(evenly_spread(np.arange(len(labels)), MOST))
    features = np.asarray(x[rows], np.float64)
    targets = (labels[rows][:, None] == np.unique(labels[rows])).astype(np.float64)
    return float(_Targets.of(features, targets).best_evidence().mean() / len(rows))


@dataclass(frozen=True, eq=False)
class _Targets:
    """The targets in the directions of the features: all that the evidence needs, from one eigendecomposition."""

    values: Matrix  # (R, 1) eigenvalues of the features' Gram matrix
    squares: Matrix  # (R, K) of the targets along its eigenvectors,
    beside: Matrix  # (K,) and their sum in all other directions
    images: int

    @classmethod
    def of(cls, features: Matrix, targets: Matrix) -> _Targets:
        """Of features (N, D) and targets (N, K)."""
        count, width = features.shape
        wide = count <= width
        values, vectors = eigh(features @ features.T if wide else features.T @ features)
        along = vectors.T @ (targets if wide else features.T @ targets)
        some = values > TINY * values[-1]
        values = values[some, None]
        squares = along[some] ** 2 if wide else along[some] ** 2 / values
        return cls(values, squares, np.maximum((targets**2).sum(axis=0) - squares.sum(axis=0), 0), count)

    def best_evidence(self) -> Matrix:
        """The largest evidence of each target (K,): the fixed point of alpha and beta (You et al., JMLR 2022).

        Only their ratio has to be found. The iteration begins with the best of some, for there may be several maxima.
        """
        starts = (self.values.mean() if len(self.values) else 1.0) * STARTS
        tried = np.stack([self.evidence(np.full(len(self.beside), ratio)) for ratio in starts])
        ratio = starts[tried.argmax(axis=0)]
        for _ in range(STEPS):
            weights, residual = self.sums(ratio)
            used = (self.values / (self.values + ratio)).sum(axis=0)  # the effective number of weights
            # alpha is used / weights, and beta (images - used) / residual
            quotient = used * residual / np.maximum(weights * (self.images - used), np.finfo(np.float64).tiny)
            before, ratio = ratio, np.clip(quotient, starts[0], starts[-1])
            if (abs(ratio - before) <= ENOUGH * before).all():
                break
        best: Matrix = np.maximum(self.evidence(ratio), tried.max(axis=0))
        return best

    def evidence(self, ratio: Matrix) -> Matrix:
        """Logarithm of the marginal likelihood of each target (K,), where alpha is ``ratio`` times the best beta."""
        weights, residual = self.sums(ratio)
        beta = self.images / (residual + ratio * weights)
        spread = np.log1p(self.values / ratio).sum(axis=0)
        result: Matrix = (self.images * (np.log(beta / (2 * math.pi)) - 1) - spread) / 2
        return result

    def sums(self, ratio: Matrix) -> tuple[Matrix, Matrix]:
        """Sums of squares of the most probable weights, and of what they leave over, (K,) each."""
        shrunk = self.values + ratio
        weights = (self.values * self.squares / shrunk**2).sum(axis=0)
        residual = (self.squares * (ratio / shrunk) ** 2).sum(axis=0) + self.beside
        return weights, np.maximum(residual, TINY * (self.squares.sum(axis=0) + self.beside))
