"""What an error comes to with more images, from its course so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import Z

AT_LEAST = 1 / 3  # of the last fall; a·n^−½ falls by 0.7 of it
STEEPEST = 1.5  # of a power law: the errors of classifiers fall no faster

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of training sets of growing size."""

    images: NDArray[np.int_]  # (S,)
    errors: Values  # (S,)
    held_out: int  # images that they were counted on


def forecast(course: Errors, images: int) -> tuple[float, float]:
    """The error with so many images, and a standard deviation for what its course does not tell.

    It is the mean of two laws that are fitted to the course, a·n^−b and a·n^−½ + c, and below the last error by a third
    of what it fell by since half of the images. Half of what the laws differ by is two deviations.
    """
    n = course.images.astype(float)
    laws = [law(n, course.errors, course.held_out, images) for law in (_power, _root)]
    half, last = float(np.interp(np.log(n[-1] / 2), np.log(n), course.errors)), float(course.errors[-1])
    expected = float(np.clip(np.mean(laws), 0.0, max(last - AT_LEAST * max(half - last, 0.0), 0.0)))
    return expected, abs(laws[0] - laws[1]) / 2 / Z


def _power(n: Values, errors: Values, held_out: int, at: float) -> float:
    """a·n^−b, by least squares of the logarithms; no error at all counts as half an image."""
    x, y = np.log(n), np.log(np.maximum(errors, 0.5 / held_out))
    centre, level = _mean(x, n), _mean(y, n)
    slope = _mean((x - centre) * (y - level), n) / _mean((x - centre) ** 2, n)
    return float(np.exp(level - np.clip(-slope, 0, STEEPEST) * (np.log(at) - centre)))


def _root(n: Values, errors: Values, _: int, at: float) -> float:
    """a·n^−½ + c with neither below 0, by least squares."""
    x = n**-0.5
    centre, level = _mean(x, n), _mean(errors, n)
    a = max(_mean((x - centre) * (errors - level), n) / _mean((x - centre) ** 2, n), 0.0)
    c = level - a * centre
    if c < 0:
        a, c = _mean(x * errors, n) / _mean(x * x, n), 0.0
    return float(a * at**-0.5 + c)


def _mean(values: Values, weights: Values) -> float:
    """A training set of more images is nearer to the one that is asked for, and counts as much more."""
    return float(np.average(values, weights=weights))
