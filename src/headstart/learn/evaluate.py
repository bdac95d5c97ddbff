"""Accuracy, F1, NLL and calibration error of probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import Accuracy, Confusion, Evaluation, Mistake, ReliabilityBin, Z
from headstart.learn.regularisation_path import Labels, Matrix
from headstart.learn.reliability import bins_of, calibration_error, chance_error, coverage_of
from headstart.learn.significance import t_quantile


def evaluate(
    probabilities: Matrix,
    labels: Labels,
    classes: tuple[str, ...],
    margin: Matrix,
    groups: Labels | None = None,
) -> Evaluation:
    """Compare probabilities (N, K) with the right classes (N,); N is at least one.

    Args:
        margin: (N,) how much more typical of the training set each is than the threshold; below zero it is unknown.
        groups: as for `accuracy_of`.
    """
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = guesses == labels
    bins = bins_of(confidence)

    def accuracy_on(rows: NDArray[np.bool_] | NDArray[np.intp]) -> Accuracy:
        return accuracy_of(right[rows], None if groups is None else groups[rows])

    return Evaluation(
        accuracy=accuracy_of(right, groups),
        macro_f1=_macro_f1(guesses, labels, len(classes)),
        nll=nll_of(probabilities, labels),
        calibration_error=calibration_error(confidence, right, bins),
        unknown=float((margin < 0).mean()),
        confusions=_confusions(guesses, labels, classes),
        per_class={classes[k]: accuracy_on(labels == k) for k in np.unique(labels)},
        calibration_noise=chance_error(confidence, bins),
        reliability=tuple(_bar(float(confidence[rows].mean()), accuracy_on(rows)) for rows in bins),
        coverage=coverage_of(margin, confidence, right),
    )


def _bar(confidence: float, accuracy: Accuracy) -> ReliabilityBin:
    return ReliabilityBin(confidence, accuracy.value, accuracy.low, accuracy.high, accuracy.images)


def mistakes_of(
    probabilities: Matrix, labels: Labels, classes: tuple[str, ...], names: Sequence[str]
) -> tuple[Mistake, ...]:
    """The images with a wrong label, by their names (N,): those with the most probable label first."""
    guesses = probabilities.argmax(axis=1)
    sure = probabilities[np.arange(len(labels)), guesses]
    wrong = np.flatnonzero(guesses != labels)
    order = wrong[np.argsort(-sure[wrong], kind="stable")]
    return tuple(
        Mistake(names[k], classes[labels[k]], classes[guesses[k]], float(sure[k]), float(probabilities[k, labels[k]]))
        for k in order.tolist()
    )


def accuracy_of(right: NDArray[np.bool_], groups: Labels | None = None) -> Accuracy:
    """The accuracy of answers (N,); its interval counts groups (N,), for the images of one are alike.

    The interval is Wilson's with as many images as are worth the same (Korn and Graubard 1998): fewer by the design
    effect, which is the variance between groups over that of single images, and by Student's t for few groups. With few
    groups it holds the true accuracy more often than the bootstrap over groups does.
    """
    images, count = len(right), int(right.sum())
    number = images if groups is None else len(np.unique(groups))
    if groups is None or number == images:
        return Accuracy.of(count, images)
    return Accuracy.of(count, images, worth_of(right, groups), number)


def worth_of(right: NDArray[np.bool_], groups: Labels) -> float:
    """How many independent images are worth as much as these, of which those of a group are alike: `accuracy_of`."""
    images, sizes = len(right), np.unique(groups, return_counts=True)[1]
    number, share = len(sizes), float(right.mean())
    if number == images:
        return float(images)
    if number == 1:
        return 1.0
    hits = np.bincount(np.unique(groups, return_inverse=True)[1], right)
    alone = share * (1 - share) / images
    between = number / (number - 1) * float(((hits - share * sizes) ** 2).sum()) / images**2
    effect = max(between / alone, 1.0) if alone else images / number  # nothing varies: a group counts as one image
    return float(images / effect * (Z / t_quantile(number - 1)) ** 2)


def nll_of(probabilities: Matrix, labels: Labels) -> float:
    """Mean negative log-likelihood of the right classes, in nats."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def _macro_f1(guesses: Labels, labels: Labels, classes: int) -> float:
    hits = np.bincount(labels[guesses == labels], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(guesses, minlength=classes)
    there = np.bincount(labels, minlength=classes) > 0
    return float((2 * hits[there] / both[there]).mean())


def _confusions(guesses: Labels, labels: Labels, classes: tuple[str, ...]) -> tuple[Confusion, ...]:
    wrong = guesses != labels
    pairs, counts = np.unique(np.stack([labels[wrong], guesses[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(Confusion(classes[pairs[0, i]], classes[pairs[1, i]], int(counts[i])) for i in order)
