"""The one number that turns scores into probabilities, held against plain searches for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.learn.calibrate import fit_inverse_temperature, log_softmax, softmax

Array = NDArray[np.float64]
Labels = NDArray[np.int_]


def noisy(count: int, classes: int, seed: int = 0, signal: float = 1.0) -> tuple[Array, Labels]:
    """Scores whose softmax is the true probability of the labels, up to the factor ``signal``."""
    r = np.random.default_rng(seed)
    logits = r.normal(0, 1.5, (count, classes))
    labels = (np.cumsum(softmax(logits), axis=1) > r.random((count, 1))).argmax(axis=1)
    return logits * signal, labels


def smoothed(scores: Array, labels: Labels, s: float, offset: Array | float = 0.0) -> float:
    """The loss that is minimised, as its definition has it."""
    count, classes = scores.shape
    targets = np.full((count, classes), 1 / (count + 1) / (classes - 1))
    targets[np.arange(count), labels] = 1 - 1 / (count + 1)
    return float(-(targets * log_softmax(s * scores + offset)).sum(axis=1).mean())


def golden_search(scores: Array, labels: Labels, offset: Array | float = 0.0) -> float:
    """Where the loss is least, by golden sections of the logarithm of s."""
    low, high, share = np.log(1e-7), np.log(1e7), (5**0.5 - 1) / 2
    for _ in range(90):
        left, right = high - share * (high - low), low + share * (high - low)
        if smoothed(scores, labels, np.exp(left), offset) < smoothed(scores, labels, np.exp(right), offset):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def calibration_gap(probabilities: NDArray[np.floating], labels: Labels) -> float:
    """Expected calibration error over ten bins of equal width, apart from the package's own."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((sure * 10).astype(int), 9)
    return float(sum(abs(sure[place == k].sum() - right[place == k].sum()) for k in range(10)) / len(labels))


def test_probabilities_sum_to_one_at_any_size() -> None:
    logits = np.array([[1e30, 0, -1e30], [1e-30, 0, 0], [700, 710, 705], [-np.inf, 0, 1]])
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities[0], [1, 0, 0])
    np.testing.assert_allclose(probabilities[2], np.exp([-10, 0, -5]) / np.exp([-10, 0, -5]).sum())
    np.testing.assert_allclose(np.exp(log_softmax(logits[1:3])), probabilities[1:3])
    assert softmax(logits[1:2].astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize("classes", [2, 3, 40])
@pytest.mark.parametrize("signal", [0.02, 1, 30])
@pytest.mark.parametrize("start", [1e-3, 1.0, 1e3])
def test_the_minimum_is_found_from_anywhere(classes: int, signal: float, start: float) -> None:
    scores, labels = noisy(150, classes, signal=signal)
    s, loss = fit_inverse_temperature(scores, labels, start=start)
    assert s == pytest.approx(golden_search(scores, labels), rel=1e-5)
    assert loss == pytest.approx(-log_softmax(s * scores)[np.arange(150), labels].mean())
    grid = s * np.geomspace(1e-3, 1e3, 301)  # and nowhere on a wide grid is it less
    assert smoothed(scores, labels, s) <= min(smoothed(scores, labels, at) for at in grid) + 1e-12


def test_true_probabilities_need_no_sharpening() -> None:
    scores, labels = noisy(20_000, 5)
    assert fit_inverse_temperature(scores, labels)[0] == pytest.approx(1, abs=0.03)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 60),
    classes=st.integers(2, 6),
    factor=st.floats(-8, 8).map(lambda power: 10.0**power),
)
def test_scaled_scores_are_scaled_back(seed: int, count: int, classes: int, factor: float) -> None:
    scores, labels = noisy(count, classes, seed)
    s, loss = fit_inverse_temperature(scores, labels)
    assume(s > 1e-3)  # where the scores tell nothing s is as good as zero, and only that is sure
    scaled, scaled_loss = fit_inverse_temperature(scores * factor, labels)
    assert scaled * factor == pytest.approx(s, rel=1e-3)
    assert scaled_loss == pytest.approx(loss, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), start=st.floats(-12, 12))
def test_the_result_is_where_the_slope_is_zero(seed: int, classes: int, start: float) -> None:
    """The loss is convex, so one place without slope is the minimum."""
    scores, labels = noisy(40, classes, seed)
    offset = np.random.default_rng(seed).normal(size=classes)
    s, _ = fit_inverse_temperature(scores, labels, offset, start=10.0**start)
    assume(s > 1e-3)
    before, at, after = (smoothed(scores, labels, s * f, offset) for f in (0.99, 1, 1.01))
    assert at < before
    assert at < after
    slope = (smoothed(scores, labels, s * 1.0001, offset) - smoothed(scores, labels, s * 0.9999, offset)) / 2e-4
    assert abs(slope) < 1e-3 * max(before - at, after - at) / 0.01 + 1e-8


def test_what_all_classes_of_a_row_share_does_not_count() -> None:
    scores, labels = noisy(100, 4)
    shifted = scores + np.random.default_rng(1).normal(0, 1e3, (100, 1))
    assert fit_inverse_temperature(shifted, labels)[0] == pytest.approx(
        fit_inverse_temperature(scores, labels)[0], rel=1e-6
    )


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("gap", [1e-6, 1.0, 1e6])
def test_scores_that_separate_the_classes_keep_it_finite(classes: int, gap: float) -> None:
    """Every margin the same: the smoothed loss is least where the right class has 1 − 1/(N + 1), by hand."""
    labels = np.arange(30) % classes
    scores = np.eye(classes)[labels] * gap
    s, loss = fit_inverse_temperature(scores, labels)
    wrong = 1 / 31
    by_hand = np.log((1 - wrong) / (wrong / (classes - 1))) / gap
    assert s == pytest.approx(by_hand, rel=1e-4)
    assert loss == pytest.approx(-np.log(1 - wrong), rel=1e-3)


def test_unequal_margins_too() -> None:
    r = np.random.default_rng(2)
    labels = np.arange(50) % 3
    scores = np.eye(3)[labels] * r.uniform(1, 20, (50, 1)) + r.uniform(0, 0.5, (50, 3))
    s, _ = fit_inverse_temperature(scores, labels)
    assert s == pytest.approx(golden_search(scores, labels), rel=1e-5)
    assert s < 20


def test_more_photos_allow_more_certainty() -> None:
    found = []
    for count in (10, 100, 1000):
        labels = np.arange(count) % 2
        found.append(fit_inverse_temperature(np.eye(2)[labels], labels)[0])
    assert found == sorted(found)
    np.testing.assert_allclose(found, np.log([10, 100, 1000]), rtol=1e-4)


def test_a_prior_is_added_and_never_scaled() -> None:
    r = np.random.default_rng(4)
    prior = np.log(np.array([0.7, 0.2, 0.1]))
    scores = r.normal(size=(4000, 3))
    labels = (np.cumsum(softmax(2.5 * scores + prior), axis=1) > r.random((4000, 1))).argmax(axis=1)
    s, loss = fit_inverse_temperature(scores, labels, prior)
    assert s == pytest.approx(2.5, rel=0.05)
    assert s == pytest.approx(golden_search(scores, labels, prior), rel=1e-5)
    assert loss < fit_inverse_temperature(scores, labels)[1]
    each = np.broadcast_to(prior, (4000, 3))
    assert fit_inverse_temperature(scores, labels, each) == (s, loss)
    assert fit_inverse_temperature(scores * 10, labels, prior)[0] == pytest.approx(s / 10, rel=1e-4)


def test_overconfidence_is_cured() -> None:
    scores, labels = noisy(6000, 4, signal=6)
    s, _ = fit_inverse_temperature(scores[:3000], labels[:3000])
    fresh, truth = scores[3000:], labels[3000:]
    before, after = calibration_gap(softmax(fresh), truth), calibration_gap(softmax(s * fresh), truth)
    assert before > 0.15
    assert after < 0.04


# --- hard cases: finite, and no warning (which would be an error here) ---


@pytest.mark.parametrize("value", [0.0, 1.0, 1e8, -1e-300])
def test_constant_scores_leave_it_where_it_was(value: float) -> None:
    s, loss = fit_inverse_temperature(np.full((7, 3), value), np.array([0, 1, 2, 0, 1, 2, 0]))
    assert s == 1
    assert loss == pytest.approx(np.log(3))


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e8, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_that_mislead_are_not_listened_to(scale: float, dtype: type[np.floating]) -> None:
    """The best factor would be negative; the least allowed makes all classes alike."""
    labels = np.arange(30) % 3
    scores = (-scale * np.eye(3)[labels]).astype(dtype)
    s, loss = fit_inverse_temperature(scores, labels)
    assert 0 < s < np.inf
    np.testing.assert_allclose(softmax(s * scores.astype(np.float64)), 1 / 3, atol=1e-5)
    assert loss == pytest.approx(np.log(3), abs=1e-5)


def test_ties_and_one_row_and_huge_outliers() -> None:
    tied = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [2.0, 0.0, 2.0]])
    s, loss = fit_inverse_temperature(tied, np.array([0, 1, 2]))
    assert loss == pytest.approx(np.log(2), abs=0.4)
    assert s == pytest.approx(golden_search(tied, np.array([0, 1, 2])), rel=1e-4)

    s, loss = fit_inverse_temperature(np.array([[3.0, 1.0]]), np.array([0]))
    assert s * 2 == pytest.approx(0, abs=1e-5)  # one row is smoothed to one half
    assert loss == pytest.approx(np.log(2), abs=1e-5)

    scores, labels = noisy(100, 3)
    scores[7, (labels[7] + 1) % 3] = 1e9  # one gross error, at any inverse_temperature dearer than knowing nothing
    s, loss = fit_inverse_temperature(scores, labels)
    assert 0 < s < 1e-8
    assert loss == pytest.approx(np.log(3), abs=1e-5)
