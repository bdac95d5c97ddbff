"""Polynomials through a few points: the known figures, and bias and variance beside a simulation."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

import headstart as hs
from headstart.diagnose.polynomials import DENSE, HIGH, LOW, true_value


@pytest.mark.parametrize(
    ("parameters", "train", "validation", "kind"),
    [(1, 27.5, 20.22, "underfitting"), (2, 5.299, 5.0965, "healthy"), (5, 0.0, 17.097, "overfitting"),
     (7, 0.0, 19.997, "overfitting")],
)  # fmt: skip
def test_the_five_known_points(parameters: int, train: float, validation: float, kind: str) -> None:
    found = hs.fit_polynomial(parameters)
    assert found.train_error == pytest.approx(train, abs=1e-3)
    assert found.validation_error == pytest.approx(validation, abs=1e-2)
    assert found.kind == kind
    assert f"{train:.1f} in training, {validation:.1f} on held-out points" in found.sentence


SHOWN = re.compile(r"([\d.]+) in training, ([\d.]+) on held-out points")
OTHER = re.compile(r"(?:has|have) ([\d.]+) and ([\d.]+)")


@pytest.mark.parametrize("parameters", range(1, 13))
@pytest.mark.parametrize("points", [2, 5, 12, 40])
@pytest.mark.parametrize("noise", [0.0, 0.3, 2.0])
def test_a_verdict_is_borne_out_by_the_figures_in_it(parameters: int, points: int, noise: float) -> None:
    found = hs.fit_polynomial(parameters, points=points, noise=noise)
    shown = SHOWN.search(found.sentence)
    assert shown is not None
    train, validation = map(float, shown.groups())
    other = OTHER.search(found.sentence)
    if found.kind == "healthy":
        assert found.sentence.startswith("Fits well. ")
        assert other is None
        return
    assert other is not None
    least_train, least = map(float, other.groups())
    assert validation > least
    assert (train > least_train) == ("both could be lower" in found.sentence)
    assert (train < least_train) == (": less error in training" in found.sentence)


def test_without_noise_more_parameters_than_needed_fit_well_until_there_are_more_than_points() -> None:
    kinds = [hs.fit_polynomial(count, points=5, noise=0).kind for count in range(1, 8)]
    assert kinds == ["underfitting"] * 2 + ["healthy"] * 3 + ["overfitting"] * 2


@pytest.mark.parametrize("parameters", [1, 2, 4, 8])
def test_bias_and_variance_are_those_of_many_training_sets(parameters: int) -> None:
    found = hs.fit_polynomial(parameters, points=6, noise=0.7)
    x, rng = np.linspace(LOW, HIGH, 6), np.random.default_rng(0)
    scaled, dense = (np.polynomial.legendre.legvander((each - 3) / 2, parameters - 1) for each in (x, DENSE))
    sets = true_value(x) + 0.7 * rng.standard_normal((20_000, 6))
    curves = np.linalg.lstsq(scaled, sets.T, rcond=None)[0].T @ dense.T
    assert ((curves.mean(axis=0) - true_value(DENSE)) ** 2).mean() == pytest.approx(found.bias, abs=0.01)
    assert curves.var(axis=0).mean() == pytest.approx(found.variance, rel=0.05)


def test_with_more_parameters_bias_falls_and_variance_rises() -> None:
    found = [hs.fit_polynomial(count, points=20) for count in range(1, 8)]
    assert all(one.bias > other.bias for one, other in pairwise(found))
    assert all(one.variance < other.variance for one, other in pairwise(found))
    errors = found[0].errors
    assert all(one[0] >= other[0] for one, other in pairwise(errors))


def test_the_seed_gives_the_points_and_many_points_help() -> None:
    one, again, other = (hs.fit_polynomial(6, points=8, noise=1, seed=seed) for seed in (1, 1, 2))
    assert one.errors == again.errors != other.errors
    assert len(one.validation[0]) == 7
    assert hs.fit_polynomial(6, points=80).variance < one.variance / 5
    assert "Overfitting" in repr(hs.fit_polynomial(7))


@pytest.mark.parametrize("given", [{"parameters": 0}, {"parameters": 13}, {"points": 1}, {"noise": -1}])
def test_what_cannot_be_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(hs.UsageError, match=next(iter(given))):
        hs.fit_polynomial(**given)
