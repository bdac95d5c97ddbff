"""Balls, projections and steps in the three norms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import headstart as hs
from headstart.attack.norms import (
    NORMS,
    check_norm,
    dual_size,
    hold_back,
    project,
    random_change,
    size,
    sizes,
    steepest,
)
from victims import Array

some = settings(max_examples=60, deadline=None, derandomize=True)
every_norm = pytest.mark.parametrize("norm", NORMS)
changes = arrays(np.float64, (2, 3), elements=st.floats(-3, 3, allow_subnormal=False))
values = arrays(np.float64, 7, elements=st.floats(-3, 3))
budgets = st.floats(0.01, 5)


def projected(change: Array, norm: str, epsilon: float) -> Array:
    found = change.copy()
    project(found, norm, epsilon)
    return found


@every_norm
@some
@given(change=changes, epsilon=budgets)
def test_a_projection_is_inside_stays_there_and_leaves_alone_what_was(norm: str, change: Array, epsilon: float) -> None:
    inside = projected(change, norm, epsilon)
    assert size(inside, norm) <= epsilon * (1 + 1e-9)
    np.testing.assert_allclose(projected(inside, norm, epsilon), inside, atol=1e-12)
    if size(change, norm) <= epsilon:
        np.testing.assert_array_equal(inside, change)


@every_norm
@some
@given(change=changes, other=changes, epsilon=budgets)
def test_no_point_of_the_ball_is_nearer_than_the_projection(
    norm: str, change: Array, other: Array, epsilon: float
) -> None:
    """The projection p of z onto a convex set is where (z - p) · (y - p) <= 0 for all y in the set."""
    inside, y = projected(change, norm, epsilon), projected(other, norm, epsilon)
    assert float(((change - inside) * (y - inside)).sum()) <= 1e-9


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("linf", [1, -1, 0.5]), ("l2", [3 / 3.5, -1.5 / 3.5, 1 / 7]), ("l1", [1, 0, 0])],
)
def test_projections_by_hand(norm: str, expected: list[float]) -> None:
    change = np.array([3, -1.5, 0.5])
    epsilon = {"linf": 1, "l2": float(np.linalg.norm(change)) / 3.5, "l1": 1}[norm]
    np.testing.assert_allclose(projected(change, norm, epsilon), expected, rtol=1e-12)


def test_nothing_is_left_of_a_change_without_a_budget() -> None:
    for norm in NORMS:
        assert not projected(np.array([3.0, -1.5, 0.5]), norm, 0.0).any()


@pytest.mark.parametrize(("norm", "expected"), [("linf", 3), ("l2", 13**0.5), ("l1", 5)])
def test_sizes_by_hand(norm: str, expected: float) -> None:
    change = np.array([[2.0, 0], [0, -3]], np.float32)
    assert size(change, norm) == pytest.approx(expected)
    np.testing.assert_allclose(sizes(np.stack([change, 0 * change]), norm), [expected, 0])


@every_norm
@some
@given(gradient=values, change=values)
def test_no_change_of_size_one_rises_more_than_the_dual_size(norm: str, gradient: Array, change: Array) -> None:
    within = projected(change, norm, 1.0)
    assert float(gradient @ within) <= dual_size(gradient, norm) + 1e-9


@every_norm
@some
@given(gradient=arrays(np.float64, 7, elements=st.floats(-3, 3).filter(lambda value: abs(value) > 1e-3)))
def test_the_steepest_step_has_size_one_and_rises_by_the_dual_size(norm: str, gradient: Array) -> None:
    step = gradient.copy()
    steepest(step, norm)
    if norm == "l1":  # equal ones share it
        assert size(step, norm) == pytest.approx(1)
        assert set(np.flatnonzero(step)) == set(np.flatnonzero(np.abs(gradient) == np.abs(gradient).max()))
    assert size(step, norm) == pytest.approx(1)
    assert float(gradient @ step) == pytest.approx(dual_size(gradient, norm))


@every_norm
def test_a_gradient_of_zero_is_no_step(norm: str) -> None:
    step = np.zeros(5)
    steepest(step, norm)
    assert not step.any()


def test_nothing_leads_beyond_black_and_white() -> None:
    gradient = np.array([-1.0, 1, -1, 1, -1, 1])
    hold_back(gradient, np.array([0, 0, 1, 1, 0.5, 0.99999999]))
    assert gradient.tolist() == [0, 1, -1, 0, -1, 0]


def test_a_sign_of_zero_is_zero() -> None:
    step = np.array([-2.0, 0, -0.0, 1e-30])
    steepest(step, "linf")
    assert step.tolist() == [-1, 0, 0, 1]


def test_a_step_in_l1_changes_one_value_in_a_hundred() -> None:
    gradient = np.random.default_rng(0).standard_normal(1000)
    step = gradient.copy()
    steepest(step, "l1")
    largest = np.argsort(-np.abs(gradient))[:10]
    assert set(np.flatnonzero(step)) == set(largest)
    np.testing.assert_allclose(step[largest], np.sign(gradient[largest]) / 10)


@every_norm
def test_a_random_change_is_inside_and_depends_on_the_seed_alone(norm: str) -> None:
    made = [random_change((5, 5, 3), norm, 0.3, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    for seed in range(50):
        change = random_change((5, 5, 3), norm, 0.3, np.random.default_rng(seed))
        assert 0.05 < size(change, norm) <= 0.3 * (1 + 1e-6)
        assert change.min() < 0 < change.max()


def test_random_changes_fill_the_ball() -> None:
    """The radius r of a point drawn evenly from a ball of n dimensions has r^n evenly in [0, 1]."""
    rng = np.random.default_rng(0)
    for norm in ("l2", "l1"):
        radii = np.array([size(random_change((3,), norm, 1.0, rng), norm) for _ in range(4000)])
        assert abs(float((radii**3).mean()) - 0.5) < 0.02


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(hs.UsageError, match=r"no norm 'l3' here.*Did you mean"):
        check_norm("l3")
