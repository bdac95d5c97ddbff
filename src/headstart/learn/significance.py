"""Classifiers held against each other on the same images: which differences are more than noise, which trades pay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided mid-p of McNemar's test: could two classifiers that are equally good differ so much?

    It looks only at the images that one of them alone got right, and asks a fair coin. The mid-p counts the case itself
    half, which keeps the error rate and is less timid than the exact binomial (Fagerland et al. 2013).

    Args:
        only_first: images that only the first classifier got right.
        only_second: images that only the second got right.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    k = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(n + 1 - k) - np.log(k))]) - n * np.log(2)  # of the binomial's terms
    terms = np.exp(logs)
    return float(min(1.0, 2 * terms[:-1].sum() + terms[-1]))


def pareto(speeds: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Which points no other beats: none is at least as fast and as accurate, and one of the two more so."""
    points = list(zip(speeds, accuracies, strict=True))
    return [
        not any(faster >= speed and better >= accuracy and (faster, better) != (speed, accuracy)
                for faster, better in points)
        for speed, accuracy in points
    ]  # fmt: skip
