"""Underfitting and overfitting on five points, and the bias and variance of a classifier: a second on NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.data.threads import HALF_OF_THE_CORES
from headstart.diagnose.bias_variance import bias_and_variance
from headstart.diagnose.refits import Refits
from headstart.learn.heads import fit_head
from headstart.learn.regularisation_path import Design

DEGREES = range(7)

CLASSES, WIDTH, APART = ("one", "other"), 100, 1.5  # two clouds in so many dimensions, at such a distance from zero
SIZES = (40, 80, 160, 320, 640)  # images of a training set
FRESH, TEST = 30, 1000  # training sets of each size, and images to test on

Values = NDArray[np.float64]
Labels = NDArray[np.int_]


def main() -> None:
    """Both tables."""
    show_polynomials()
    print()
    with HALF_OF_THE_CORES:  # many small systems: threads would wait for each other
        show_bias_and_variance()


def polynomial_errors(degree: int) -> tuple[float, float]:
    """Sums of squared errors in training and in validation, of as many coefficients and one more."""
    return hs.fit_polynomial(degree + 1).errors[degree]


def show_polynomials() -> None:
    """The errors of each degree, and which of them underfit and overfit."""
    errors = [polynomial_errors(degree) for degree in DEGREES]
    best = int(np.argmin([validation for _, validation in errors]))
    print("Polynomials through five points: sums of squared errors.")
    print("degree  training  validation")
    for degree, (train, validation) in zip(DEGREES, errors, strict=True):
        words = "the lowest in validation" if degree == best else "underfits" if degree < best else "overfits"
        print(f"{degree:>6}{train:>10.3f}{validation:>12.3f}  {words}")
    print("underfits: both errors could be lower")
    print("overfits:  less error in training, more in validation")


def clouds(count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], Labels]:
    """Features (count, WIDTH) and labels of two Gaussian classes."""
    labels = np.arange(count) % 2
    x = rng.standard_normal((count, WIDTH))
    x[:, :2] += APART * np.eye(2)[labels]
    return x.astype(np.float32), labels


def by_fresh_sets(count: int, test: tuple[NDArray[np.float32], Labels], rng: np.random.Generator) -> Values:
    """Loss, bias and variance (3,) of the error, from many training sets that share nothing."""
    x, labels = test
    heads = [fit_head(*clouds(count, rng), 2).head for _ in range(FRESH)]
    votes = np.mean([head.logits(x).argmax(axis=1) for head in heads], axis=0)  # share of heads that say "other"
    loss, bias = np.abs(votes - labels).mean(), ((votes > 0.5) != labels).mean()
    return np.array([loss, bias, loss - bias])


def by_bootstrap(count: int, test: tuple[NDArray[np.float32], Labels], rng: np.random.Generator) -> Values:
    """The same (3,), as a diagnosis has it: from resamples of one training set."""
    x, labels = clouds(count, rng)
    refits = Refits(Design(x), labels, 2, fit_head(x, labels, 2))
    judged = refits.project(Design(test[0])), test[1]
    found = bias_and_variance(refits, CLASSES, groups=np.arange(count), test=judged)
    if found is None:
        raise SystemExit("No image was judged.")
    return np.array([found.zero_one.loss, found.zero_one.bias, found.zero_one.variance])


def show_bias_and_variance() -> None:
    """What the bootstrap says beside the truth, for more and more images."""
    rng = np.random.default_rng(0)
    test = clouds(TEST, rng)
    print(f"Two classes in {WIDTH} dimensions: the error of a head, and its bias and variance.")
    print(f"{'':>6}  {'by fresh training sets':<26}by bootstrap of one")
    print("images" + "   error    bias  variance" * 2)
    for count in SIZES:
        row = np.concatenate([by_fresh_sets(count, test, rng), by_bootstrap(count, test, rng)])
        print(f"{count:>6}" + "".join(f"{row[k]:>8.3f}{row[k + 1]:>8.3f}{row[k + 2]:>10.3f}" for k in (0, 3)))
    print("Resamples share most of their images, so their heads err alike:")
    print("the bootstrap takes variance for bias.")


if __name__ == "__main__":
    main()
