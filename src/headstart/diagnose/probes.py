"""What else the features could give: a classifier with bends, and one for labels that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, product

import numpy as np
from numpy.typing import NDArray

from headstart.data.threads import on_threads
from headstart.diagnose.refits import Refits
from headstart.learn.heads import HeadFit, fit_head
from headstart.learn.regularisation_path import Labels, Matrix
from headstart.learn.significance import discordance

ROWS = 800  # training images that a kernel is computed for
WIDTHS = (1.0, 0.25)  # of the kernel: squared distances, of their median
STRENGTHS = np.geomspace(1e-4, 1e1, 6)  # added to the kernel's diagonal
PERMUTATIONS, FOLDS, PERMUTED_ROWS, PERMUTED_WIDTH = 4, 4, 2000, 256


@dataclass(frozen=True, eq=False)
class Pair:
    """Two classifiers on the same images, each left out in turn."""

    linear: NDArray[np.bool_]  # (R,) right
    flexible: NDArray[np.bool_]  # (R,)

    @property
    def gain(self) -> float:
        """By how much the flexible one is more accurate."""
        return float(self.flexible.mean() - self.linear.mean())

    @property
    def z(self) -> float:
        """The same in standard errors (McNemar)."""
        return discordance(self.linear, self.flexible)


def flexible_head(refits: Refits, fit: HeadFit, groups: Labels, seed: int = 0) -> Pair:
    """A linear head against kernel ridge regression with a Gaussian kernel, both with images left out.

    What the second gets right beyond the first, a linear head on these features cannot learn.

    Args:
        groups: (N,) near copies share a number; only images without one are judged.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(refits.labels))[:ROWS])
    labels, alone = refits.labels[rows], np.bincount(groups)[groups[rows]] == 1
    if not alone.any():
        alone[:] = True
    linear = np.zeros(len(rows), bool)
    if len(rows) == len(refits.labels) == len(fit.rows):
        linear[fit.rows] = fit.right_left_out
    elif np.bincount(labels, minlength=refits.classes).min() >= 2:
        small = fit_head(refits.z, labels, refits.classes, rows=rows, kind=fit.kind, prior=fit.prior)
        linear[small.rows] = small.right_left_out
    else:  # a class with too few images in the sample
        return Pair(linear[alone], linear[alone])
    flexible = _kernel_ridge(refits.z[rows], labels, refits.classes)
    return Pair(linear[alone], flexible[alone])


def _kernel_ridge(z: Matrix, labels: Labels, classes: int) -> NDArray[np.bool_]:
    """Which rows get their label when they are left out, at the width and strength that get most of them right."""
    squares = np.einsum("nr,nr->n", z, z)
    distances = np.maximum(squares[:, None] + squares - 2 * z @ z.T, 0).astype(np.float64)
    usual = float(np.median(distances[np.triu_indices(len(z), 1)])) or 1.0
    truth = np.eye(classes)[labels] - np.bincount(labels, minlength=classes) / len(labels)

    def at_width(width: float) -> list[NDArray[np.bool_]]:
        values, vectors = np.linalg.eigh(np.exp(-distances / (width * usual)))
        turned, squared, found = vectors.T @ truth, vectors**2, []
        for strength in STRENGTHS.tolist():
            inverse = 1 / (np.maximum(values, 0) + strength)
            residual = (vectors @ (inverse[:, None] * turned)) / (squared @ inverse)[:, None]
            found.append((truth - residual).argmax(axis=1) == labels)
        return found

    return max(chain.from_iterable(on_threads(at_width, WIDTHS)), key=np.count_nonzero)  # the first of the best


def permuted_accuracy(refits: Refits, seed: int = 0) -> float:
    """The accuracy of heads that were fitted on permuted labels, on images that they were not fitted on."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(refits.labels))[:PERMUTED_ROWS]
    permuted = [(rng.permutation(refits.labels[rows]), rng.permutation(len(rows)) % FOLDS) for _ in range(PERMUTATIONS)]

    def accuracy(of: tuple[tuple[Labels, Labels], int]) -> float:
        (labels, fold), k = of
        inside, outside = rows[fold != k], rows[fold == k]
        sums = refits.sums(inside, width=PERMUTED_WIDTH, labels=labels[fold != k])
        logits = refits.head(sums).logits(refits.z[outside, :PERMUTED_WIDTH])
        return float((logits.argmax(axis=1) == labels[fold == k]).mean())

    return float(np.mean([*on_threads(accuracy, product(permuted, range(FOLDS)))]))
