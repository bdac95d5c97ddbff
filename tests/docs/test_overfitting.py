"""examples/overfitting.py: the figures of the lesson, and what the bootstrap says beside the truth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield import_module("overfitting")


@pytest.fixture(scope="module")
def screen(example: ModuleType) -> str:
    """All that it prints."""
    with pytest.MonkeyPatch.context() as patch:
        lines = list[str]()
        patch.setattr(example, "print", lambda text="": lines.append(text), raising=False)
        example.main()
    return "\n".join(lines)


@pytest.mark.parametrize(("degree", "train", "validation"), [(1, 5.299, 5.097), (6, 0.0, 19.997)])
def test_the_figures_of_the_lesson(example: ModuleType, degree: int, train: float, validation: float) -> None:
    assert example.polynomial_errors(degree) == pytest.approx((train, validation), abs=1e-3)


def test_more_coefficients_never_fit_worse(example: ModuleType) -> None:
    errors = [example.polynomial_errors(degree)[0] for degree in example.DEGREES]
    assert all(more <= fewer + 1e-9 for fewer, more in pairwise(errors))
    assert errors[0] == pytest.approx(27.5)  # of the mean


def test_the_words_are_those_of_the_errors(screen: str) -> None:
    rows = re.findall(r"^ +(\d) +[\d.]+ +[\d.]+  (\w+)", screen, re.MULTILINE)
    assert rows == [("0", "underfits"), ("1", "the"), *[(str(degree), "overfits") for degree in range(2, 7)]]
    assert all(len(line) <= 80 for line in screen.splitlines())


def test_the_bootstrap_takes_variance_for_bias(screen: str) -> None:
    """The figures of fresh training sets: bias that stays, and variance that falls with more images."""
    table = np.array([row.split() for row in screen.splitlines() if re.fullmatch(r"( +[\d.-]+){7}", row)], float)
    assert table[:, 0].tolist() == [40, 80, 160, 320, 640]
    _, error, bias, variance, _, claimed, claimed_variance = table.T
    np.testing.assert_allclose(error, bias + variance, atol=2e-3)
    assert np.ptp(bias) < 0.03
    assert variance[0] > 0.1 > 0.03 > variance[-1]
    assert (claimed > bias).all()
    assert claimed[0] > bias[0] + 0.1
    assert claimed_variance[0] < variance[0] / 2
