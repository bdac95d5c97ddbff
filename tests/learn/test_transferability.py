"""LogME against the evidence that is written down in full and maximised on a grid, and as a promise that is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.learn.heads import fit_head
from headstart.learn.regularisation_path import Design
from headstart.learn.transferability import MOST, logme

Matrix = NDArray[np.float64]
Labels = NDArray[np.int_]


def clusters(images: int, width: int, apart: float, seed: int = 0, classes: int = 3) -> tuple[Matrix, Labels]:
    r = np.random.default_rng(seed)
    labels = r.permutation(np.arange(images) % classes)
    return apart * r.normal(size=(classes, width))[labels] + r.normal(size=(images, width)), labels


def written_down(x: Matrix, target: Matrix, alpha: float, beta: float) -> float:
    """The log density of the target under a normal distribution: weights and noise integrated out."""
    covariance = x @ x.T / alpha + np.eye(len(x)) / beta
    sign, determinant = np.linalg.slogdet(covariance)
    assert sign == 1
    return float(-(target @ np.linalg.solve(covariance, target) + determinant + len(x) * math.log(2 * math.pi)) / 2)


def on_a_grid(x: Matrix, target: Matrix) -> float:
    """The largest evidence over alpha and beta: a coarse grid, and finer and finer ones around its best."""
    centre, step = (0.0, 0.0), 2.0
    for _ in range(7):
        around = [(centre[0] + step * i, centre[1] + step * j) for i in range(-5, 6) for j in range(-5, 6)]
        centre = max(around, key=lambda at: written_down(x, target, math.exp(at[0]), math.exp(at[1])))
        step /= 3
    return written_down(x, target, math.exp(centre[0]), math.exp(centre[1]))


@pytest.mark.parametrize(("images", "width"), [(30, 4), (24, 24), (20, 50), (40, 1)])
@pytest.mark.parametrize("apart", [0.0, 0.3, 1.0])
def test_it_is_the_maximum_of_the_evidence(images: int, width: int, apart: float) -> None:
    x, labels = clusters(images, width, apart, seed=images + width)
    expected = np.mean([on_a_grid(x, (labels == k).astype(float)) for k in range(3)]) / images
    assert logme(x, labels) == pytest.approx(expected, abs=2e-3)


def test_rows_columns_scale_and_names_do_not_matter() -> None:
    x, labels = clusters(60, 10, 0.5)
    r, found = np.random.default_rng(1), logme(x, labels)
    order = r.permutation(60)
    turned = np.linalg.qr(r.normal(size=(10, 10)))[0]
    assert logme(x[order], labels[order]) == pytest.approx(found, abs=1e-4)
    assert logme(100 * x @ turned, labels) == pytest.approx(found, abs=1e-4)
    assert logme(np.concatenate([x, np.zeros((60, 90))], axis=1), labels) == pytest.approx(found, abs=1e-4)
    assert logme(x, 7 * labels + 3) == pytest.approx(found, abs=1e-9)


def test_better_features_have_more_of_it() -> None:
    """The farther the classes are apart the larger it is, as is the accuracy of a head that has not seen the image."""
    found, right = [], []
    for apart in (0.0, 0.1, 0.2, 0.4):
        x, labels = clusters(240, 30, apart)
        found.append(logme(x, labels))
        fit = fit_head(x, labels, 3)
        right.append((fit.logits.argmax(axis=1) == labels[fit.rows]).mean())
    assert found == sorted(found)
    assert right == sorted(right)
    assert found[-1] > found[0] + 0.1


def test_what_a_head_is_given_is_taken_as_it_is() -> None:
    x, labels = clusters(50, 8, 0.5)
    features = abs(x).astype(np.float16)
    rows = np.arange(0, 50, 2)
    design = Design(features, rows, sqrt=True)
    assert logme(design, labels[rows]) == pytest.approx(logme(design[np.arange(25)], labels[rows]), abs=1e-9)


def test_of_many_images_some_count() -> None:
    x, labels = clusters(4 * MOST, 5, 0.5)
    some = np.unique(np.linspace(0, len(x) - 1, MOST).astype(int))
    assert logme(x, labels) == logme(x[some], labels[some])
    assert logme(x, labels) == pytest.approx(logme(x[1::4], labels[1::4]), abs=0.03)


@pytest.mark.filterwarnings("error")
def test_features_that_tell_nothing_or_all() -> None:
    labels = np.arange(60) % 3
    nothing = logme(np.zeros((60, 4)), labels)
    assert nothing == pytest.approx((math.log(3 / (2 * math.pi)) - 1) / 2)  # no weights; the noise has variance 1 / 3
    everything = logme(np.eye(3)[labels], labels)
    assert nothing < logme(*clusters(60, 4, 1.0)) < everything < math.inf
    assert math.isfinite(logme(np.ones((60, 4)), np.zeros(60, int)))
    assert math.isfinite(logme(np.eye(2), np.array([0, 1])))
