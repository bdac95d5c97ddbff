"""Polynomials through a few points: how underfitting and overfitting come about, with their exact bias and variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from headstart.core.arguments import SEED, checks, number, whole
from headstart.core.counts import counted, verb
from headstart.core.display import Described

TRAINING = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([2.7, 4.9, 8.5, 7.6, 8.8])
VALIDATION = np.array([1.5, 2.5, 3.5, 4.5]), np.array([3.1, 5.2, 5.4, 8.9])
LOW, HIGH = 1.0, 5.0  # ends of the range
MOST = 12  # parameters
DENSE = np.linspace(LOW, HIGH, 161)  # where the curves are drawn, and bias and variance averaged

SEEN = 0.05  # share by which errors differ that are told apart

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class PolynomialFit(Described):
    """A polynomial that was fitted to a training set of points, and how it does on others."""

    parameters: int
    training: tuple[Values, Values]  # x and y of the points that it was fitted to
    validation: tuple[Values, Values]  # of those that it has not seen
    curve: Values  # (161,) its values over the range
    truth: Values  # (161,) what the points scatter about
    errors: tuple[tuple[float, float], ...]  # sums of squares in training and validation, of 1 parameter, 2 and so on
    bias: float  # mean square of the average polynomial's distance from the truth, over all training sets of this size
    variance: float  # mean square of the distance of one polynomial from the average one
    noise: float  # standard deviation of the points about the truth
    kind: str  # "underfitting", "overfitting" or "healthy"
    sentence: str

    @property
    def train_error(self) -> float:
        """The sum of squared errors in training."""
        return self.errors[self.parameters - 1][0]

    @property
    def validation_error(self) -> float:
        """The sum of squared errors on the validation set."""
        return self.errors[self.parameters - 1][1]

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        return {"verdict": self.sentence, "bias": f"{self.bias:.3f}", "variance": f"{self.variance:.3f}"}


@checks(parameters=whole(1, MOST), points=whole(2, 100), noise=number(0, 10), seed=SEED)
def fit_polynomial(
    parameters: int = 2, *, points: int | None = None, noise: float | None = None, seed: int = 0
) -> PolynomialFit:
    """Fit a polynomial to a few points by least squares, and say whether it underfits or overfits.

    With more parameters than points many polynomials go through all of them; of these the one of least norm is taken.
    Bias and variance are those over all training sets with these x (Geman et al. 1992), in closed form.

    Args:
        parameters: of the polynomial: 1 is a constant, 2 a straight line.
        points: of the training set; there is one fewer in the validation set. None, without noise: five known points.
        noise: standard deviation of the points about the truth; None: 1.
        seed: of the points.
    """
    spread = 1.0 if noise is None else noise
    if points is None and noise is None:
        training, validation = TRAINING, VALIDATION
    else:
        training, validation = _drawn(points or len(TRAINING[0]), spread, np.random.default_rng(seed))
    x, y = training
    errors = tuple(_errors(count, training, validation) for count in range(1, MOST + 1))
    smoother = _basis(DENSE, parameters) @ np.linalg.pinv(_basis(x, parameters))  # (161, points): y to the curve
    bias = float(((smoother @ true_value(x) - true_value(DENSE)) ** 2).mean())
    variance = float(spread**2 * (smoother**2).sum(axis=1).mean())
    kind, sentence = _verdict(parameters, errors)
    return PolynomialFit(
        parameters,
        training,
        validation,
        smoother @ y,
        true_value(DENSE),
        errors,
        bias,
        variance,
        spread,
        kind,
        sentence,
    )


def true_value(x: Values) -> Values:
    """What the points scatter about: it rises fast, then slowly."""
    found: Values = 10.5 * (1 - np.exp(-x / 2.6))
    return found


def _drawn(points: int, noise: float, rng: np.random.Generator) -> tuple[tuple[Values, Values], tuple[Values, Values]]:
    """A training set, evenly spaced, and a validation set between its points."""
    x = np.linspace(LOW, HIGH, points)
    between = (x[1:] + x[:-1]) / 2
    first, second = (each + noise * rng.standard_normal(len(each)) for each in (true_value(x), true_value(between)))
    return (x, first), (between, second)


def _basis(x: Values, parameters: int) -> Values:
    """Legendre polynomials (points, parameters), which stay apart where powers of x do not."""
    return legendre.legvander((x - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2), parameters - 1).astype(
        np.float64, copy=False
    )


def _errors(parameters: int, training: tuple[Values, Values], validation: tuple[Values, Values]) -> tuple[float, float]:
    weights = np.linalg.pinv(_basis(training[0], parameters)) @ training[1]
    both = [float(((_basis(x, parameters) @ weights - y) ** 2).sum()) for x, y in (training, validation)]
    return both[0], both[1]


def _verdict(parameters: int, errors: tuple[tuple[float, float], ...]) -> tuple[str, str]:
    """By the number of parameters with the lowest validation error on these points; differences that are too small to
    be seen do not count.
    """
    lowest = min(validation for _, validation in errors)
    good = [count for count, (_, validation) in enumerate(errors, 1) if not _more(validation, lowest)]
    train, validation = errors[parameters - 1]
    these = f"{counted(parameters, 'parameter')}: {train:.1f} in training, {validation:.1f} on held-out points"
    these += " (squared error, summed over the points)"
    if parameters in good:
        return "healthy", f"Fits well. {these}. No other number of parameters does better on held-out points."
    best = min(good, key=lambda count: abs(count - parameters))
    least_train, least = errors[best - 1]
    other = f"{counted(best, 'parameter')} {verb(best, 'has', 'have')} {least_train:.1f} and {least:.1f}"
    if parameters < best:
        low = "both could be lower" if _said(train) > _said(least_train) else "the latter could be lower"
        return "underfitting", f"Underfitting. {these}; {other}: {low}."
    less = (
        "less error in training, more" if _said(train) < _said(least_train) else "no less error in training, and more"
    )
    return "overfitting", f"Overfitting. {these}; {other}: {less} where it counts."


def _said(error: float) -> float:
    """An error in the digits that are said."""
    return round(error, 1)


def _more(error: float, other: float) -> bool:
    """Whether an error is larger as far as can be seen: by a twentieth, and in the digits that are said."""
    return error > (1 + SEEN) * other and _said(error) > _said(other)
