"""Fit a linear head: choose its regularisation strength and calibrate it on held-out predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted
from headstart.core.errors import DataError, UsageError, did_you_mean
from headstart.data.folds import random_folds
from headstart.data.split import Split
from headstart.data.threads import on_threads
from headstart.learn.calibrate import fit_inverse_temperature, softmax
from headstart.learn.features import Features
from headstart.learn.regularisation_path import (
    Design,
    Labels,
    LdaRegularisationPath,
    Matrix,
    RegularisationPath,
    RidgeRegularisationPath,
    blocks,
    transform,
)

HEADS: dict[str, Callable[[Design, Labels, int], RegularisationPath]] = {
    "lda": LdaRegularisationPath,
    "ridge": RidgeRegularisationPath,
}
PRIORS = ("flat", "empirical")
STRENGTHS = np.geomspace(1e-4, 1e2, 19)  # of the mean eigenvalue of the scatter
FEWER = 3  # the least of them, which are tried where there are more rows than features
SCORES = 1_000_000  # rows × classes at most that are held out
ROWS = 10_000  # of them at most to choose the strength on: more do not change the choice
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Head:
    """A calibrated linear head: ``softmax(transform(features) @ weight.T + bias)`` are the probabilities."""

    weight: NDArray[np.float32]  # (K, D)
    bias: NDArray[np.float32]  # (K,)
    sqrt: bool

    def logits(self, features: Matrix) -> Matrix:
        """Calibrated logits (N, K) of features (N, D)."""
        return transform(features.astype(np.float32), self.sqrt) @ self.weight.T + self.bias

    def probabilities(self, features: Matrix, rows: Labels) -> NDArray[np.float64]:
        """Probabilities (R, K) of some rows of the features, a block at a time."""
        design = Design(features, rows, sqrt=self.sqrt)

        def of_block(block: Labels) -> NDArray[np.float64]:
            return np.asarray(softmax(design[block] @ self.weight.T + self.bias), np.float64)

        parts = [*on_threads(of_block, blocks(len(rows)))]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.bias)))


@dataclass(frozen=True, eq=False)
class HeadFit:
    """A fitted head, and what was measured on held-out predictions."""

    head: Head
    kind: str
    prior: str
    strength: float  # relative to the mean eigenvalue of the scatter
    temperature: float
    path: tuple[tuple[float, float], ...]  # (strength, negative log-likelihood after calibration)
    rows: Labels  # (R,) rows that the strength was chosen on
    right: NDArray[np.bool_]  # (S, R) whether each got its label at each strength of the path, held out
    logits: Matrix  # (R, K) calibrated, each of a head that was not fitted on its row
    others: Callable[[], tuple[Labels, Matrix]]  # further rows and their logits, computed when they are asked for

    @property
    def right_left_out(self) -> NDArray[np.bool_]:
        """Whether each of the rows (R,) got its label, at the strength that was chosen."""
        chosen: NDArray[np.bool_] = self.right[[strength for strength, _ in self.path].index(self.strength)]
        return chosen

    def held_out(self) -> tuple[Labels, Matrix]:
        """All rows that can be held out, sorted, those beyond the choice too, and their logits."""
        rows, logits = self.others()
        rows, logits = np.concatenate([self.rows, rows]), np.concatenate([self.logits, logits])
        order = np.argsort(rows, kind="stable")
        return rows[order], logits[order]


def check_names(kind: str, prior: str) -> None:
    """Refuse an unknown head or prior."""
    for what, name, known in (("head", kind, HEADS), ("prior", prior, PRIORS)):
        if name not in known:
            raise UsageError(f"There is no {what} '{name}'. {did_you_mean(name, known)}")


def fit_head(
    features: Matrix,
    labels: Labels,
    classes: int,
    *,
    rows: Labels | None = None,
    sqrt: bool = False,
    kind: str = "lda",
    prior: str = "flat",
    groups: Labels | None = None,
    seed: int = 0,
    design: type[Design] = Design,
) -> HeadFit:
    """Fit a head and choose its strength by the held-out negative log-likelihood.

    Args:
        features: (M, D); float64 for exact work.
        labels: (N,) in 0 … classes − 1, two rows or more of each class.
        rows: (N,) which rows of the features to fit on; all of them if None.
        sqrt: whether the input of the head is the square root of the features, which must not be negative then.
        kind: a key of `HEADS`.
        prior: "flat": all classes are equally probable; "empirical": as often as in ``labels`` (always so for a ridge).
        groups: (N,) near copies share a number. They say nothing about new images, so the strength is chosen on the
            other rows; where most rows have near copies, whole groups are held out instead of single rows.
        design: takes the sums over all rows.

    Raises:
        DataError: a class has fewer than two rows.
        UsageError: an unknown kind or prior.
    """
    check_names(kind, prior)
    counts = np.bincount(labels, minlength=classes)
    if classes < 2 or counts.min() < 2:
        raise DataError(
            "A head needs two classes with two images each. Received: "
            f"{counted(classes, 'class')}, the smallest {counts.min()}."
        )
    offset = np.log(counts / len(labels)) if prior == "empirical" and kind == "lda" else np.zeros(classes)

    x = design(features, rows, sqrt=sqrt)
    path = HEADS[kind](x, labels, classes)
    chosen_on, scores, rest = _held_out(path, kind, x, labels, classes, groups, seed)
    fits: list[tuple[float, float]] = []
    for at_strength in scores:
        fits.append(fit_inverse_temperature(at_strength, labels[chosen_on], offset, start=fits[-1][0] if fits else 1.0))
    best = int(np.argmin([loss for _, loss in fits]))
    strengths = strengths_for(x)
    strength, inverse_temperature = float(strengths[best]), fits[best][0]

    weight, bias = path.solve(strength)
    head = Head(
        (inverse_temperature * weight).astype(np.float32),
        (inverse_temperature * bias + offset).astype(np.float32),
        sqrt,
    )
    losses = tuple((float(s), loss) for s, (_, loss) in zip(strengths, fits, strict=True))
    right = np.stack(
        [
            (at_strength * x.dtype.type(inverse) + offset.astype(x.dtype)).argmax(axis=1) == labels[chosen_on]
            for at_strength, (inverse, _) in zip(scores, fits, strict=True)
        ]
    )

    def calibrated(scores: Matrix) -> Matrix:
        return scores * x.dtype.type(inverse_temperature) + offset.astype(x.dtype)

    @cache
    def others() -> tuple[Labels, Matrix]:
        return rest, calibrated(_left_out(path, rest, strengths[[best]])[0])

    logits = calibrated(scores[best])
    return HeadFit(head, kind, prior, strength, 1 / inverse_temperature, losses, chosen_on, right, logits, others)


def fit_head_on_split(
    features: Features, split: Split, *, kind: str, prior: str, seed: int, design: type[Design] = Design
) -> HeadFit:
    """Fit a head on the training set of a split."""
    train = np.flatnonzero(split.train)
    return fit_head(
        features.values,
        split.labels[train],
        len(split.classes),
        rows=train,
        sqrt=bool(features.values.min() >= 0),
        kind=kind,
        prior=prior,
        groups=split.groups[train],
        seed=seed,
        design=design,
    )


def strengths_for(x: Design) -> Matrix:
    """The strengths (S,) to choose from: the more rows, the less is best.

    Of few rows any little strength separates the classes; which one is best would hang on the rounding of features.
    """
    count, width = x.shape
    return STRENGTHS if count > width else STRENGTHS[FEWER:]


def _held_out(
    path: RegularisationPath, kind: str, x: Design, labels: Labels, classes: int, groups: Labels | None, seed: int
) -> tuple[Labels, Matrix, Labels]:
    """Rows to choose the strength on, their scores (S, R, K) by heads fitted without them and their near copies, and
    further rows, which can be left out of ``path``."""
    rng = np.random.default_rng(seed)
    limit = max(SCORES // classes, 100)
    rows = np.arange(len(labels)) if groups is None else np.flatnonzero(np.bincount(groups)[groups] == 1)
    if groups is not None and len(rows) < len(labels) / 2:
        if (found := _by_folds(kind, x, labels, classes, groups, limit, rng)) is not None:
            return *found, np.zeros(0, int)
        rows = np.arange(len(labels))
    rows = _some(rows, limit, rng)
    chosen_on = _some(rows, ROWS, rng)
    return chosen_on, _left_out(path, chosen_on, strengths_for(x)), np.setdiff1d(rows, chosen_on)


def _left_out(path: RegularisationPath, rows: Labels, strengths: Matrix) -> Matrix:
    """`RegularisationPath.left_out`, a block at a time."""
    parts = [*on_threads(lambda block: path.left_out(rows[block], strengths), blocks(len(rows)))]
    return np.concatenate(parts or [path.left_out(rows, strengths)], axis=1)


def _by_folds(
    kind: str, x: Design, labels: Labels, classes: int, groups: Labels, limit: int, rng: np.random.Generator
) -> tuple[Labels, Matrix] | None:
    """Held-out scores by folds of whole groups; None where no fold leaves every class two rows to fit on."""
    fold = random_folds(groups, FOLDS, rng)
    rows, scores = [], []
    for k in range(FOLDS):
        rest, out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if not len(out) or np.bincount(labels[rest], minlength=classes).min() < 2:
            continue
        path = HEADS[kind](x.of(rest), labels[rest], classes)
        out = _some(out, limit // FOLDS, rng)
        held_out = x[out]
        rows.append(out)
        solved = map(path.solve, strengths_for(x).tolist())
        scores.append(np.stack([held_out @ weight.T + bias for weight, bias in solved]))
    return (np.concatenate(rows), np.concatenate(scores, axis=1)) if rows else None


def _some(rows: Labels, limit: int, rng: np.random.Generator) -> Labels:
    return rows if len(rows) <= limit else np.sort(rng.choice(rows, limit, replace=False))
