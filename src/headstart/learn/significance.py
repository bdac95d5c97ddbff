"""Statistics of accuracies: McNemar's test, Student's t, and the Pareto front of speed and accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import Z


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided mid-p value of McNemar's test that two classifiers are equally good.

    Only images that one of the two alone got right count. The mid-p value counts the observed case half, so it is less
    conservative than the exact binomial test (Fagerland et al. 2013).

    Args:
        only_first: images that only the first classifier got right.
        only_second: images that only the second got right.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    k = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(n + 1 - k) - np.log(k))]) - n * np.log(2)  # of the binomial's terms
    terms = np.exp(logs)
    return float(min(1.0, 2 * terms[:-1].sum() + terms[-1]))


def discordance(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """By how many standard errors the second of two classifiers is better on the same images (McNemar)."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return float((only_second - only_first) / max(only_first + only_second, 1) ** 0.5)


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution, to 0.0005 (Fisher and Cornish 1960; a table for the first)."""
    if freedom <= 4:
        return (12.7062, 4.3027, 3.1824, 2.7764)[freedom - 1]
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return Z + float(sum(term / freedom**power for power, term in enumerate(terms, 1)))


def pareto(speeds: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Which points are Pareto-optimal: no other is at least as fast and as accurate, and better in one of the two."""
    points = list(zip(speeds, accuracies, strict=True))
    return [
        not any(faster >= speed and better >= accuracy and (faster, better) != (speed, accuracy)
                for faster, better in points)
        for speed, accuracy in points
    ]  # fmt: skip
