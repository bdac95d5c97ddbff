"""The learning curve: it falls where more images help, and copies are held out together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diagnosed import Labels, blobs, fitted
from headstart.diagnose import learning_curve as module
from headstart.diagnose.diagnose import FittedHead, _held_out
from headstart.diagnose.learning_curve import DRAWS, EACH, HeldOut, learning_curve, nested
from headstart.diagnose.records import LearningCurve
from headstart.diagnose.refits import Refits

pytestmark = pytest.mark.usefixtures("half_of_the_cores")


def parts_of(head: FittedHead) -> tuple[Refits, HeldOut]:
    refits = Refits(head.design(head.train), head.split.labels[head.train], len(head.split.classes), head.fit)
    return refits, _held_out(head, refits)


def curve_of(head: FittedHead, groups: Labels | None = None, seed: int = 0) -> LearningCurve | None:
    refits, held_out = parts_of(head)
    held_out = held_out if groups is None else replace(held_out, groups=groups)
    return learning_curve(refits, held_out, float(head.wrong(head.train).mean()), seed)


def certain(curve: LearningCurve | None) -> LearningCurve:
    assert curve is not None
    return curve


def last(count: int, of: int) -> NDArray[np.bool_]:
    return np.arange(of) >= of - count


@pytest.fixture(scope="module")
def tested() -> FittedHead:
    """300 images in many dimensions, and 700 to test on: of half of the images a head is clearly worse."""
    return fitted(*blobs(1000, 200, 2.5, classes=5), last(700, 1000))


@pytest.fixture(scope="module")
def untested() -> FittedHead:
    return fitted(*blobs(300, 200, 2.5, 1, classes=5))


def test_the_error_falls_with_the_images(tested: FittedHead, untested: FittedHead) -> None:
    for head in (tested, untested):
        curve = certain(curve_of(head))
        errors = np.array([point.error for point in curve.points])
        assert errors[0] > errors[len(errors) // 2] + 0.05 > errors[-1] + 0.1
        assert curve.from_half > 0.05
        assert curve.from_half_z > 2.5
        assert curve.twice.images == 600
        assert curve.twice.accuracy > 1 - errors[-1] + 0.02
        assert [point.images for point in curve.points] == sorted({point.images for point in curve.points})


def test_a_law_that_was_learned_stays_flat() -> None:
    curve = certain(curve_of(fitted(*blobs(2000, 3, 2.0), last(1500, 2000))))
    assert abs(curve.from_half) < 0.01
    assert curve.twice.accuracy == pytest.approx(1 - curve.points[-1].error, abs=0.01)
    assert abs(curve.points[2].error - curve.points[-1].error) < 0.03


def test_the_forecast_holds_what_more_images_bring(tested: FittedHead) -> None:
    """The curve of 300 images, and what a head of 600 gets of 4000 others."""
    x, labels = blobs(4600, 200, 2.5, 1, classes=5)
    fit = fitted(x, labels, last(4000, 4600))
    truth = 1 - fit.wrong(fit.test).mean()
    twice = certain(curve_of(tested)).twice
    assert twice.low < truth < twice.high
    assert twice.accuracy == pytest.approx(truth, abs=0.04)


def test_the_last_point_is_the_error_that_was_given(tested: FittedHead, untested: FittedHead) -> None:
    for head in (tested, untested):
        point = certain(curve_of(head)).points[-1]
        assert point.images == 300
        assert point.error == np.nanmean(parts_of(head)[1].wrong)
        assert point.train_error == head.wrong(head.train).mean()
    assert certain(curve_of(tested)).points[-1].error == tested.wrong(tested.test).mean()


def test_who_judges_is_named(tested: FittedHead, untested: FittedHead) -> None:
    curves = certain(curve_of(tested)), certain(curve_of(untested))
    assert [(curve.judged_on, curve.held_out, curve.draws) for curve in curves] == [
        ("test set", 700, DRAWS),
        ("held out in turn", 300, DRAWS),
    ]


def test_intervals_hold_the_value(tested: FittedHead, untested: FittedHead) -> None:
    for head in (tested, untested):
        curve = certain(curve_of(head))
        for point in curve.points:
            assert 0 <= point.low < point.error < point.high <= 1
            assert point.train_error <= point.error
        assert curve.twice.low < curve.twice.accuracy < curve.twice.high


@settings(deadline=None, max_examples=100)
@given(count=st.integers(4, 20_000), classes=st.integers(2, 50), share=st.sampled_from([1.0, 0.8, 0.6]))
def test_sizes(count: int, classes: int, share: float) -> None:
    sizes = module._sizes(count, classes, share)
    assert sizes == sorted(set(sizes))
    if sizes:
        assert round(count / 2) in sizes
        assert min(sizes) >= max(EACH * classes, 8) - 0.5
        assert max(sizes) <= share * count + 0.5
        assert max(sizes) < count
    else:
        assert count < 2 * max(EACH * classes, 8)


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(2, 40), min_size=2, max_size=6), seed=st.integers(0, 10**6))
def test_every_beginning_has_all_classes(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = nested(labels, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert (np.bincount(labels[order[: EACH * len(counts)]]) == EACH).all()
    half = len(labels) // 2 + EACH * len(counts)
    shares = np.bincount(labels[order[:half]], minlength=len(counts)) / np.array(counts)
    assert shares.min() >= min(1.0, 0.5 - 1 / min(counts))


def test_near_copies_are_held_out_together() -> None:
    """Otherwise each image would be found again in its copies, and labels that mean nothing would seem learned."""
    rng = np.random.default_rng(0)
    scenes, classes = rng.standard_normal((80, 300)), np.arange(80) % 2
    x, labels = np.repeat(scenes, 5, axis=0) + 0.01 * rng.standard_normal((400, 300)), np.repeat(classes, 5)
    groups = np.repeat(np.arange(80), 5)
    refits, held_out = parts_of(fitted(x, labels))
    together = certain(learning_curve(refits, replace(held_out, groups=groups), 0.0))
    apart = certain(learning_curve(refits, replace(held_out, groups=np.arange(400)), 0.0))
    assert together.points[-2].error > 0.3
    assert apart.points[-2].error < 0.05
    rows = module._held_rows(replace(held_out, groups=groups), np.random.default_rng(1))
    assert sorted(np.concatenate(rows).tolist()) == list(range(400))
    assert sum(len(np.unique(groups[part])) for part in rows) == 80


def test_images_that_were_not_judged_do_not_count() -> None:
    """Half of the images have copies, so the head of all images says nothing of them."""
    refits, held_out = parts_of(fitted(*blobs(300, 200, 2.5, classes=5)))
    wrong = np.where(np.arange(300) % 3 == 0, np.nan, held_out.wrong)
    curve = certain(learning_curve(refits, replace(held_out, wrong=wrong), 0.0))
    assert curve.held_out == 200
    assert curve.points[-1].error == np.nanmean(wrong)
    noise = replace(held_out, labels=np.where(np.isnan(wrong), 0, held_out.labels), wrong=wrong)
    assert certain(learning_curve(refits, noise, 0.0)).points[-2].error == curve.points[-2].error


@pytest.mark.parametrize(
    ("count", "classes", "groups"),
    [(12, 2, 12), (38, 10, 38), (200, 2, 3), (200, 2, 4)],
    ids=["tiny", "many classes", "three videos", "four videos"],
)
def test_there_is_none_of_tiny_sets_and_of_few_groups(count: int, classes: int, groups: int) -> None:
    head = fitted(*blobs(count, 10, 2.0, classes=classes))
    assert curve_of(head, np.arange(count) * groups // count) is None
    assert curve_of(fitted(*blobs(200, 10, 2.0)), np.arange(200) // 10) is not None


def test_there_is_none_where_one_group_is_most_of_the_images() -> None:
    head = fitted(*blobs(200, 10, 2.0))
    for share, there in ((120, False), (70, True)):
        groups = np.where(np.arange(200) < share, 0, np.arange(200))
        assert (curve_of(head, groups) is not None) == there


def test_a_seed_gives_the_same_curve(untested: FittedHead) -> None:
    assert curve_of(untested) == curve_of(untested) != curve_of(untested, seed=1)


def test_more_test_images_are_advised_where_the_interval_is_wide(tested: FittedHead) -> None:
    x, labels = blobs(360, 200, 2.5, classes=5)
    few = certain(curve_of(fitted(x, labels, last(60, 360))))
    assert "It was measured on 60 images: 180 more test images would make its interval half as wide." in few.sentence
    many = certain(curve_of(tested)).sentence
    assert "measured" not in many
    assert many.startswith("With twice the images (600) expect an accuracy of ")
    assert ": 144 more images would" in certain(curve_of(fitted(*blobs(48, 30, 1.0)))).sentence


def test_four_times_the_images_have_half_of_the_interval() -> None:
    (low, high), (narrow_low, narrow_high) = module._interval(0.3, 100), module._interval(0.3, 400)
    assert (narrow_high - narrow_low) / (high - low) == pytest.approx(0.5, abs=0.01)
    wide = module._interval(0.3, 400, 0.1)
    assert wide[0] < 0.3 - 0.19
    assert wide[1] > 0.3 + 0.19
    assert module._interval(0.0, 50)[0] == 0
    assert module._interval(1.0, 50)[1] == 1


def test_test_images_that_are_alike_count_less(tested: FittedHead) -> None:
    refits, held_out = parts_of(tested)
    by_error = np.argsort(held_out.wrong, kind="stable")  # groups of ten whose images are right or wrong together
    alike = np.empty(len(by_error), int)
    alike[by_error] = np.arange(len(by_error)) // 10
    alone, grouped = (certain(learning_curve(refits, replace(held_out, alike=a), 0.0)) for a in (None, alike))
    for one, ten in zip(alone.points, grouped.points, strict=True):
        assert ten.high - ten.low > 1.5 * (one.high - one.low)
    assert grouped.twice.high - grouped.twice.low > 1.5 * (alone.twice.high - alone.twice.low)
    assert [point.error for point in grouped.points] == [point.error for point in alone.points]
