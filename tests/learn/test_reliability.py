"""Bins of a calibration error, what chance alone makes of it, and the accuracy on the most typical images."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.core.types import Accuracy, CoveragePoint
from headstart.learn.evaluate import evaluate
from headstart.learn.reliability import (
    FEWEST,
    MOST,
    bins_of,
    calibration_error,
    chance_error,
    coverage_of,
    mean_deviation,
)

Matrix = NDArray[np.float64]


def confidences(count: int, sharp: float, seed: int = 0) -> Matrix:
    """Of two classes; most are near 1 where ``sharp`` is small."""
    return 0.5 + 0.5 * np.random.default_rng(seed).beta(1, sharp, count)


@pytest.mark.parametrize(
    ("images", "sizes"),
    [(1, [1]), (12, [12]), (49, [49]), (50, [25, 25]), (280, [25] * 10 + [30]), (1000, [66, 67] * 7 + [66])],
)
def test_bins_of_different_confidences(images: int, sizes: list[int]) -> None:
    found = [len(rows) for rows in bins_of(np.linspace(0.5, 1, images)[::-1])]
    assert sum(found) == images
    assert len(found) == len(sizes)
    assert max(found) - min(found) <= 1
    assert min(found) >= min(FEWEST, images)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(0, 99))
def test_bins_keep_equal_confidences_together(runs: list[int], seed: int) -> None:
    confidence = np.repeat(np.linspace(0.5, 1, len(runs)), runs)
    np.random.default_rng(seed).shuffle(confidence)
    bins = bins_of(confidence)
    assert np.array_equal(np.sort(np.concatenate(bins)), np.arange(len(confidence)))
    assert 1 <= len(bins) <= MOST
    assert len(bins) == 1 or min(map(len, bins)) >= FEWEST
    for rows, following in itertools.pairwise(bins):
        assert confidence[rows].max() < confidence[following].min()


@pytest.mark.parametrize(
    "chances", [[0.3], [0.5] * 4, [0.9, 0.8, 0.99, 0.6], [0.01, 0.02, 0.7], [1.0, 1.0, 0.0], [1.0]]
)
def test_the_mean_deviation_by_hand(chances: list[float]) -> None:
    """Over all outcomes, each with its probability."""
    expected = 0.0
    for outcome in itertools.product((0, 1), repeat=len(chances)):
        weight = math.prod(p if hit else 1 - p for p, hit in zip(chances, outcome, strict=True))
        expected += weight * abs(sum(outcome) - sum(chances))
    assert mean_deviation(np.array(chances)) == pytest.approx(expected, abs=1e-12)


def test_the_mean_deviation_where_it_becomes_normal() -> None:
    """Just below the limit it is exact; there the normal one is as good. De Moivre's formula is the referee."""
    for images in (99, 101):  # variances 24.75 and 25.25
        below = (images + 1) // 2
        exact = 2 * below * math.comb(images, below) * 0.5 ** (images + 1)
        assert mean_deviation(np.full(images, 0.5)) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(("images", "sharp"), [(12, 0.3), (60, 0.05), (280, 0.05), (280, 1.0), (2000, 0.5)])
def test_what_chance_alone_gives_is_what_simulated_answers_read(images: int, sharp: float) -> None:
    confidence, r = confidences(images, sharp), np.random.default_rng(1)
    bins = bins_of(confidence)
    read = [calibration_error(confidence, r.random(images) < confidence, bins) for _ in range(2000)]
    assert chance_error(confidence, bins) == pytest.approx(np.mean(read), rel=0.05)


def test_fewer_bins_read_less_of_chance() -> None:
    """What made the old figure useless with few images: a bin for each of them."""
    confidence = confidences(12, 1.0)
    alone = [np.array([row]) for row in range(12)]
    assert chance_error(confidence, bins_of(confidence)) < 0.5 * chance_error(confidence, alone)


def test_bars_have_wilsons_interval() -> None:
    confidence = np.linspace(0.6, 0.9, 100)
    right = np.arange(100) % 4 > 0
    result = evaluate(np.stack([confidence, 1 - confidence], axis=1), 1 - right, ("a", "b"), np.zeros(100))
    bars = result.reliability or ()
    assert len(bars) == 4
    for k, bar in enumerate(bars):
        rows = slice(25 * k, 25 * k + 25)
        expected = Accuracy.of(int(right[rows].sum()), 25)
        assert bar.confidence == pytest.approx(confidence[rows].mean())
        assert (bar.accuracy, bar.low, bar.high, bar.images) == (expected.value, expected.low, expected.high, 25)


def test_bars_of_grouped_images_count_groups() -> None:
    confidence, right = np.linspace(0.6, 0.9, 40), np.arange(40) % 4 > 0
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    alone, grouped = (
        evaluate(probabilities, 1 - right, ("a", "b"), np.zeros(40), groups) for groups in (None, np.arange(40) // 8)
    )
    assert alone.reliability
    assert grouped.reliability
    assert grouped.reliability[0].low < alone.reliability[0].low


def test_coverage_by_hand() -> None:
    """Four images: the two that are known are right, and of the others the less typical is wrong."""
    margin, confidence = np.array([-2.0, 1.0, -1.0, 3.0]), np.array([0.9, 0.6, 0.7, 0.8])
    right = np.array([False, True, True, True])
    assert coverage_of(margin, confidence, right) == (
        CoveragePoint(0.25, 1.0),
        CoveragePoint(0.5, 1.0),
        CoveragePoint(0.75, 1.0),
        CoveragePoint(1.0, 0.75),
    )


def test_coverage_has_the_point_of_the_threshold() -> None:
    margin = np.arange(-3.0, 97)
    right = margin >= 0
    points = coverage_of(margin, np.full(100, 0.9), right)
    assert len(points) == 11
    assert CoveragePoint(0.97, 1.0) in points
    assert points[-1] == CoveragePoint(1.0, 0.97)


def test_without_degrees_the_probability_decides() -> None:
    confidence = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    right = np.array([False, False, True, True, True])
    points = coverage_of(np.zeros(5), confidence, right)
    assert [point.accuracy for point in points] == [1, 1, 1, 0.75, 0.6]
    equal = coverage_of(np.zeros(5), np.full(5, 0.7), right)
    assert [point.accuracy for point in equal] == pytest.approx([0.6] * 5)


def test_nothing_known() -> None:
    result = evaluate(np.array([[0.8, 0.2]]), np.array([0]), ("a", "b"), np.array([-1.0]))
    assert result.known_accuracy is None
    assert result.unknown_in_words("images") == "100.0% of the images"


def test_the_words_of_an_evaluation() -> None:
    probabilities = np.array([[0.8, 0.2]] * 5)
    result = evaluate(probabilities, np.array([0, 0, 0, 1, 1]), ("a", "b"), np.array([0.0, 0.0, 0.0, 0.0, -1.0]))
    deviation = sum(math.comb(5, k) * 0.8**k * 0.2 ** (5 - k) * abs(k - 4) for k in range(6)) / 5
    assert result.calibration_in_words() == f"20.0% (chance alone gives {deviation:.1%})"
    assert result.unknown_in_words("rows") == "20.0% of the rows; of the others 75.0% are right"
    assert result.facts()["probabilities"] == f"calibration error {result.calibration_in_words()}"
