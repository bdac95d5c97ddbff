"""Figures of merit, worked out by hand, against published values and against scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.core.types import Accuracy, Confusion, Evaluation, Z
from headstart.learn.evaluate import accuracy_of, evaluate
from headstart.learn.significance import t_quantile

Labels = NDArray[np.int_]
Matrix = NDArray[np.float64]
ANIMALS = ("ape", "bat", "cat")


def certain(guesses: list[int] | Labels, classes: int, sure: float = 1.0) -> NDArray[np.float64]:
    """Probabilities that all name the guess, each as ``sure``."""
    rest = (1 - sure) / (classes - 1)
    return np.where(np.eye(classes)[np.asarray(guesses)] == 1, sure, rest)


def judge(guesses: list[int] | Labels, truth: list[int] | Labels, classes: tuple[str, ...] = ANIMALS) -> Evaluation:
    return evaluate(certain(guesses, len(classes), 0.9), np.asarray(truth), classes, np.zeros(len(truth)))


def judge_two(sure: Matrix, right: Sequence[int] | Labels, margin: Matrix | None = None) -> Evaluation:
    """Guesses of the first of two classes, as sure as this, that were right or wrong."""
    margin = np.zeros(len(sure)) if margin is None else margin
    return evaluate(np.stack([sure, 1 - sure], axis=1), 1 - np.asarray(right), ("a", "b"), margin)


def confident(values: list[float], right: list[int]) -> float:
    """The calibration error of guesses as sure as this (above one half) that were right or wrong."""
    sure = np.array(values)
    return judge_two(sure, right).calibration_error


def test_a_small_example_by_hand() -> None:
    truth = [0, 0, 0, 0, 1, 1, 2, 2]
    guesses = [0, 0, 1, 1, 1, 2, 2, 2]
    probabilities = certain(guesses, 3, 0.8)
    result = evaluate(probabilities, np.array(truth), ANIMALS, np.array([-0.1] + [0.0] * 7))
    assert result.accuracy.value == 5 / 8
    assert result.accuracy.images == 8
    f1 = [2 * 2 / (4 + 2), 2 * 1 / (2 + 3), 2 * 2 / (2 + 3)]
    assert result.macro_f1 == pytest.approx(sum(f1) / 3)
    assert result.nll == pytest.approx(-(5 * np.log(0.8) + 3 * np.log(0.1)) / 8)
    assert result.calibration_error == pytest.approx(0.8 - 5 / 8)
    assert result.unknown == 1 / 8
    assert result.confusions == (Confusion("ape", "bat", 2), Confusion("bat", "cat", 1))
    assert {name: (part.value, part.images) for name, part in result.per_class.items()} == {
        "ape": (0.5, 4),
        "bat": (0.5, 2),
        "cat": (1.0, 2),
    }
    assert (result.passed_over, result.unreadable) == (0, 0)


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0, 0.2775),  # by hand: z² / (n + z²)
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_the_interval_is_wilsons(right: int, images: int, low: float, high: float) -> None:
    found = Accuracy.of(right, images)
    assert found.value == right / images
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_the_interval_holds_all_and_none_to_the_last_digit() -> None:
    for images in range(1, 500):
        assert Accuracy.of(images, images).high == 1
        assert Accuracy.of(0, images).low == 0


@given(images=st.integers(1, 10**6), data=st.data())
def test_the_interval_holds_the_value_and_mirrors(images: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, images))
    found, mirror = Accuracy.of(right, images), Accuracy.of(images - right, images)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert (found.low, found.high) == pytest.approx((1 - mirror.high, 1 - mirror.low), abs=1e-9)
    for edge in (found.low, found.high):  # Wilson's edges: the value lies z standard errors of the edge away
        if 1e-9 < edge < 1 - 1e-9:
            z = abs(found.value - edge) / (edge * (1 - edge) / images) ** 0.5
            assert z == pytest.approx(1.959964, rel=1e-3)


def wilson(right: NDArray[np.bool_]) -> tuple[float, float]:
    found = Accuracy.of(int(right.sum()), len(right))
    return found.low, found.high


def test_groups_of_one_image_each_change_nothing() -> None:
    right = np.arange(20) % 4 > 0
    assert accuracy_of(right, np.arange(20)[::-1]) == accuracy_of(right) == Accuracy.of(15, 20)


@pytest.mark.parametrize(
    ("hits", "of", "worth"),
    [
        ([30, 30, 0, 30], 30, 4 / 3.1824**2 * Z**2 * 0.75),  # 1/3 · 3/4 of the variance that 4 images would have
        ([5, 5, 5, 5], 10, 40 / 3.1824**2 * Z**2),  # no more than so many images
        ([7, 7, 7], 7, 3 / 4.3027**2 * Z**2),  # nothing varies
        ([9], 10, 1.0),
    ],
)
def test_the_interval_counts_groups(hits: list[int], of: int, worth: float) -> None:
    """Worked out by hand: the worth of the images is their number over the design effect, less for few groups."""
    right = np.concatenate([np.arange(of) < count for count in hits])
    found = accuracy_of(right, np.repeat(np.arange(len(hits)), of) * 7 - 3)
    expected = Accuracy.of(sum(hits), of * len(hits), worth, len(hits))
    assert (found.value, found.images, found.groups) == (sum(hits) / len(right), len(right), len(hits))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)


@pytest.mark.parametrize("patients", [5, 10, 20])
def test_it_holds_the_truth_where_wilsons_interval_of_the_images_does_not(patients: int) -> None:
    """Patients with photos that are as hard as each other's; the truth is the accuracy on new patients."""
    r, groups, held = np.random.default_rng(patients), np.repeat(np.arange(patients), 30), {"images": 0, "groups": 0}
    for _ in range(300):
        right = r.random(len(groups)) < r.beta(3.2, 0.8, patients)[groups]
        found = accuracy_of(right, groups)
        for name, (low, high) in {"images": wilson(right), "groups": (found.low, found.high)}.items():
            held[name] += low <= 0.8 <= high
    assert held["images"] < 0.75 * 300
    assert held["groups"] >= 0.9 * 300


def test_quantiles_of_students_t() -> None:
    tables = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 30: 2.0423, 1000: 1.9623}
    for freedom, value in tables.items():
        assert t_quantile(freedom) == pytest.approx(value, abs=0.0005)


def test_confusions_are_ordered_by_number_then_by_class() -> None:
    truth = [2, 2, 0, 1, 1, 1, 0, 2]
    guesses = [1, 1, 2, 0, 0, 2, 1, 0]
    assert judge(guesses, truth).confusions == (
        Confusion("bat", "ape", 2),
        Confusion("cat", "bat", 2),
        Confusion("ape", "bat", 1),
        Confusion("ape", "cat", 1),
        Confusion("bat", "cat", 1),
        Confusion("cat", "ape", 1),
    )


def test_all_right_is_the_best_there_is() -> None:
    result = evaluate(certain([0, 1, 2], 3), np.arange(3), ANIMALS, np.zeros(3))
    assert (result.accuracy.value, result.macro_f1, result.nll, result.calibration_error) == (1, 1, 0, 0)
    assert result.confusions == ()


def test_all_wrong_and_certain_is_finite() -> None:
    result = evaluate(certain([1, 2, 0], 3), np.arange(3), ANIMALS, np.full(3, -1.0))
    assert (result.accuracy.value, result.macro_f1, result.calibration_error, result.unknown) == (0, 0, 1, 1)
    assert 100 < result.nll < np.inf


def test_classes_without_images_do_not_count() -> None:
    result = judge([0, 0, 2], [0, 0, 0])
    assert result.macro_f1 == pytest.approx(2 * 2 / (2 + 3))
    assert list(result.per_class) == ["ape"]


def test_one_image_is_enough() -> None:
    result = judge([1], [1])
    assert result.accuracy == Accuracy.of(1, 1)
    assert result.calibration_error == pytest.approx(0.1)


def test_the_calibration_error_is_over_bins_of_equal_counts() -> None:
    sure = np.repeat(np.linspace(0.55, 0.97, 15), 28).tolist()
    right = [1, 1, 1, 0] * 7 * 15  # three of four right in every bin
    expected = float(np.abs(np.linspace(0.55, 0.97, 15) - 0.75).mean())
    assert confident(sure, right) == pytest.approx(expected)


def test_equal_confidences_leave_nothing_to_the_order() -> None:
    right = [1] * 30 + [0] * 10
    assert confident([0.75] * 40, right) == pytest.approx(0, abs=1e-12)
    assert confident([0.75] * 40, right[::-1]) == pytest.approx(0, abs=1e-12)
    assert confident([1.0] * 40, right) == pytest.approx(0.25)


def test_what_is_calibrated_has_a_small_error() -> None:
    r = np.random.default_rng(0)
    sure = r.uniform(0.5, 1, 20_000)
    right = (r.random(20_000) < sure).astype(int)
    assert confident(sure.tolist(), right.tolist()) < 0.015
    assert confident((0.5 + sure / 2).tolist(), right.tolist()) == pytest.approx(0.125, abs=0.01)


@settings(deadline=None)
@given(classes=st.integers(2, 6), count=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_the_figures_hold_together(classes: int, count: int, seed: int) -> None:
    r = np.random.default_rng(seed)
    probabilities = r.dirichlet(np.full(classes, 0.3), count)
    truth, margin = r.integers(0, classes, count), r.choice([-2.0, -1.0, 0.0, 1.0, 2.0], count)
    names = tuple(f"class {k}" for k in range(classes))
    result = evaluate(probabilities, truth, names, margin)

    wrong = sum(confusion.images for confusion in result.confusions)
    assert wrong == round((1 - result.accuracy.value) * count)
    assert all(confusion.truth != confusion.label for confusion in result.confusions)
    assert [c.images for c in result.confusions] == sorted((c.images for c in result.confusions), reverse=True)
    assert sum(part.images for part in result.per_class.values()) == count
    recalled = sum(part.value * part.images for part in result.per_class.values())
    assert recalled == pytest.approx(result.accuracy.value * count)
    assert 0 <= result.macro_f1 <= 1
    assert 0 <= result.calibration_error <= 1
    # An average over bins hides what cancels within them, never what differs over all.
    gap = abs(probabilities.max(axis=1).mean() - result.accuracy.value)
    assert result.calibration_error >= gap - 1e-9

    order = r.permutation(count)
    again = evaluate(probabilities[order], truth[order], names, margin[order])
    assert again.accuracy == result.accuracy
    assert again.confusions == result.confusions
    assert again.per_class == result.per_class
    assert again.calibration_error == pytest.approx(result.calibration_error, abs=1e-9)
    assert again.calibration_noise == pytest.approx(result.calibration_noise, abs=1e-9)
    assert again.coverage == result.coverage
    assert [each.images for each in again.reliability or ()] == [each.images for each in result.reliability or ()]

    points = result.coverage or ()
    assert [each.coverage for each in points] == sorted({each.coverage for each in points})
    assert points[-1].coverage == 1
    assert points[-1].accuracy == pytest.approx(result.accuracy.value)
    known = margin >= 0
    expected = (probabilities.argmax(axis=1) == truth)[known].mean() if known.any() else None
    assert result.known_accuracy == (None if expected is None else pytest.approx(expected))
    assert result.unknown == (~known).mean()


def test_macro_f1_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn (extra data) is not installed")
    for seed in range(20):
        r = np.random.default_rng(seed)
        truth, guesses = r.integers(0, 5, 40), r.integers(0, 5, 40)
        there = np.unique(truth)
        expected = metrics.f1_score(truth, guesses, labels=there, average="macro", zero_division=0)
        assert judge(guesses, truth, tuple("abcde")).macro_f1 == pytest.approx(expected)
        # On a part of the classes, the others' images are no images of theirs but may be taken for them.
        few = truth < 2
        expected = metrics.f1_score(truth[few], guesses[few], labels=[0, 1], average="macro", zero_division=0)
        assert judge(guesses[few], truth[few], tuple("abcde")).macro_f1 == pytest.approx(expected)
