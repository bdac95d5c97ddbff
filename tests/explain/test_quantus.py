"""The tests of explanations give the values of Quantus on the same maps: kept ones, and its own where it is there."""

from __future__ import annotations

import importlib.util
import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

import quantus_side as side
from headstart.core.types import ImageSpec
from headstart.explain.faithfulness import insertion_deletion, road
from headstart.explain.imputation import imputed
from headstart.explain.randomisation import complexity_rise, other_classes, random_logit

needs_quantus = pytest.mark.skipif(importlib.util.find_spec("quantus") is None, reason="needs Quantus: extra bench")
pytestmark = pytest.mark.parametrize("source", ["golden", pytest.param("live", marks=needs_quantus)])


class Patches:
    """The network that Quantus is given, in NumPy; what is taken away becomes 0.5, as there."""

    spec = ImageSpec(side.SIZE)

    def forward(self, images: Any) -> Any:
        return side.logits(images / 255.0 if images.dtype == np.uint8 else images.astype(np.float64))


@cache
def values(source: str) -> dict[str, Any]:
    """Quantus' values: those that were kept, or computed now."""
    if source == "golden":
        golden: dict[str, Any] = json.loads(side.GOLDEN.read_text(encoding="utf-8"))
        return golden
    with warnings.catch_warnings(action="ignore"):
        return side.computed()


@cache
def classes() -> Any:
    return side.logits(side.photos() / 255.0).argmax(1)


def test_imputation(source: str) -> None:
    """With the same noise, which goes to the pixels in the same order."""
    found = imputed(side.colours(), side.taken_away(), np.random.RandomState(side.SEED), tolerance=1e-11)
    np.testing.assert_allclose(found, values(source)["imputed"], atol=1e-8)


def test_road(source: str) -> None:
    """The share of photos that keep their class, at every percentage."""
    found = road(
        Patches(), side.photos(), side.relevance(), classes(),
        percentages=side.PERCENTAGES, noise=0.0, tolerance=1e-11,
    )  # fmt: skip
    wanted = values(source)["road"]
    assert found.kept.mean(0).tolist() == pytest.approx([wanted[str(each)] for each in side.PERCENTAGES])
    assert 0 < found.kept.mean() < 1


def test_deletion(source: str) -> None:
    """The probability of the class after each step of PixelFlipping."""
    found = insertion_deletion(Patches(), side.photos(), side.relevance(), classes(), steps=side.STEPS)
    np.testing.assert_allclose(found.deleted[:, 1:], values(source)["deleted"], atol=1e-6)
    assert np.ptp(found.deleted) > 0.5


def test_random_logit(source: str) -> None:
    """Of one photo at a time, as Quantus relates maps to the largest value of a batch."""
    found = random_logit(side.relevance(), side.maps(2))
    np.testing.assert_allclose(found, values(source)["random_logit"], atol=1e-9)


def test_complexity_rise(source: str) -> None:
    """Of efficient MPRT."""
    found = complexity_rise(side.relevance(), side.maps(2))
    np.testing.assert_allclose(found, values(source)["complexity_rise"], atol=1e-12)


def test_other_classes(source: str) -> None:
    """Drawn as Quantus draws them: one of those that are left, by its place among them."""
    np.testing.assert_array_equal(other_classes(classes(), side.CLASSES), values(source)["other_classes"])
