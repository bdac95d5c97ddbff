"""What an attack wants, and the gradients that lead there."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.attack.goal import Goal, batches, own
from victims import Array, Linear

LOGITS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
CLASSES = np.array([0, 1, 2, 3, 0, 1])
both = pytest.mark.parametrize("targeted", [False, True])


def cross_entropy(logits: Array) -> Array:
    exact = logits.astype(np.float64)
    values: Array = np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(len(exact)), CLASSES]
    return values


@both
def test_a_margin_is_positive_until_the_goal_is_reached(targeted: bool) -> None:
    goal = Goal(CLASSES, targeted)
    assert ((goal.margins(LOGITS) < 0) == goal.reached(LOGITS)).all()
    answers = LOGITS.argmax(axis=1)
    assert (goal.reached(LOGITS) == ((answers == CLASSES) if targeted else (answers != CLASSES))).all()


@both
def test_narrowing_is_the_gradient_of_minus_the_margin(targeted: bool) -> None:
    goal, step = Goal(CLASSES, targeted), 1e-3
    cotangent = goal.narrowing(LOGITS)
    before, after = goal.margins(LOGITS), goal.margins(LOGITS + np.float32(step) * cotangent)
    np.testing.assert_allclose(before - after, 2 * step, rtol=1e-3)  # +1 and -1


@both
def test_likelier_is_the_gradient_of_the_cross_entropy(targeted: bool) -> None:
    found = Goal(CLASSES, targeted).likelier(LOGITS)
    for k in range(LOGITS.shape[1]):
        step = np.zeros((1, 4))
        step[0, k] = 1e-5
        slope = (cross_entropy(LOGITS + step) - cross_entropy(LOGITS - step)) / 2e-5
        np.testing.assert_allclose(found[:, k], -slope if targeted else slope, atol=1e-6)


@pytest.mark.parametrize("gap", [5.0, 100.0, 700.0, 2000.0])
def test_the_gradient_of_a_network_that_is_sure_does_not_vanish(gap: float) -> None:
    logits = np.array([[gap, 0.0, -1.0]], np.float32)
    uphill = Goal(np.array([0]), targeted=False).uphill(logits)
    assert uphill[0, 0] == pytest.approx(-1)
    assert uphill[0, 1] > 0.7
    assert np.abs(uphill.sum()) < 1e-5


def test_a_part_has_its_own_classes() -> None:
    part = Goal(CLASSES, targeted=True).part(np.array([2, 5]))
    assert (part.classes.tolist(), part.targeted) == ([2, 1], True)


def test_batches_hold_every_row_once_and_half_of_what_a_forward_pass_takes() -> None:
    rows = np.arange(11)
    found = list(batches(Linear.random(), rows))
    assert np.concatenate(found).tolist() == rows.tolist()
    assert max(map(len, found)) == Linear.micro_batch // 2
    assert list(batches(Linear.random(), rows[:0])) == []


def test_a_gradient_that_cannot_be_written_to_is_copied() -> None:
    gradient = np.ones(3)
    assert own(gradient) is gradient
    gradient.flags.writeable = False
    assert own(gradient).flags.writeable
