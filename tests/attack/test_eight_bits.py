"""Changes that survive rounding to bytes, within the budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headstart.attack.eight_bits import distance, rounded, survivors
from headstart.attack.goal import Goal
from headstart.attack.norms import NORMS, size
from headstart.attack.plan import in_floats
from victims import Array

some = settings(max_examples=80, deadline=None, derandomize=True)
pictures = arrays(np.uint8, (3, 3, 3))
changes = arrays(np.float32, (3, 3, 3), elements=st.floats(-0.25, 0.25, width=32))


@pytest.mark.parametrize("norm", NORMS)
@some
@given(image=pictures, change=changes, epsilon=st.floats(0.001, 0.5))
def test_bytes_keep_the_budget(norm: str, image: Array, change: Array, epsilon: float) -> None:
    """In L∞ rounded to whole levels, in L2 and L1 as it is."""
    made = size(distance(rounded(change, image, norm, epsilon), image), norm)
    assert made <= (math.floor(255 * epsilon + 0.5) / 255 if norm == "linf" else epsilon) * (1 + 1e-6)


@pytest.mark.parametrize("norm", NORMS)
@some
@given(image=pictures, change=changes)
def test_without_a_budget_a_change_is_rounded_to_the_nearest_level(norm: str, image: Array, change: Array) -> None:
    made = rounded(change, image, norm, math.inf).astype(float)
    wanted = np.clip(image + 255 * change.astype(float), 0, 255)
    assert np.abs(made - wanted).max() <= 0.5 + 1e-4


def test_a_change_that_rounding_makes_too_large_is_scaled_down_as_little_as_it_must() -> None:
    """Of 100 changes of 0.6 and 20 of 0.9 levels, all would become whole ones; 20 whole ones are within the budget."""
    image, change = np.full((4, 10, 3), 100, np.uint8), np.full(120, 0.6 / 255, np.float32)
    change[:20] = 0.9 / 255
    for norm, epsilon in (("l1", 30 / 255), ("l2", 30**0.5 / 255)):
        made = rounded(change.reshape(4, 10, 3), image, norm, epsilon).ravel().astype(int) - 100
        assert made[:20].tolist() == [1] * 20
        assert not made[20:].any()


@pytest.mark.parametrize(
    ("epsilon", "left"), [(0.4 / 255, 0), (0.49 / 255, 0), (0.51 / 255, 1), (1 / 255, 1), (2 / 255, 2)]
)
def test_less_than_half_a_level_leaves_nothing(epsilon: float, left: int) -> None:
    image, change = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 3 / 255, np.float32)
    assert (rounded(change, image, "linf", epsilon) == 100 + left).all()


def test_a_change_is_stretched_until_the_network_is_fooled_out_of_bytes() -> None:
    """Fooled from a sum of 4, 30, 40 and 400 levels; the changes are 0.4 of a level in each of 12 values, or 0.001."""
    images, needed = np.full((4, 2, 2, 3), 100, np.uint8), np.array([4, 30, 40, 400])
    found = in_floats(images) + np.float32(0.4 / 255)
    found[2] = in_floats(images[2]) + np.float32(0.001 / 255)
    asked: list[int] = []

    def answer(pixels: Array) -> Array:
        asked.append(len(pixels))
        sums = pixels.astype(int).reshape(len(pixels), -1).sum(axis=1) - 1200
        fooled = sums >= needed[rows[len(asked) - 1]]
        return np.stack([~fooled, fooled], axis=1).astype(float)

    rows = [[0, 1, 2, 3], [0, 1, 2, 3], *[[1, 2, 3]] * 5, [2, 3], [2, 3], [2], [2], [2], [3]]  # those that are left
    saved, chances = survivors(found, images, Goal(np.zeros(4, np.intp), False), answer, "linf", math.inf)
    assert (saved[0] == 101).all()  # × 1.5 = 0.6
    assert (saved[1] == 103).all()  # × 8 = 3.2, and × 6 = 2.4 gives 24
    assert (saved[2] == 104).all()  # × 4000 = 4 levels
    assert (saved[3] == 100).all()  # never: the first try is kept
    assert chances.argmax(axis=1).tolist() == [1, 1, 1, 0]
    assert asked == [4, 4, 3, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1]


def test_no_change_at_all_is_not_stretched() -> None:
    images = np.full((1, 2, 2, 3), 100, np.uint8)
    saved, _ = survivors(
        in_floats(images), images, Goal(np.zeros(1, np.intp), False), lambda pixels: np.eye(2)[[0]], "l2", math.inf
    )
    np.testing.assert_array_equal(saved, images)


def test_what_is_fooled_at_once_is_asked_once_and_a_budget_is_kept_when_stretched() -> None:
    images = np.full((2, 2, 2, 3), 100, np.uint8)
    found, asked = in_floats(images) + np.float32(0.8 / 255), []

    def answer(pixels: Array) -> Array:
        asked.append(pixels.copy())
        return np.tile([0.0, 1.0] if len(asked) > 2 else [1.0, 0.0], (len(pixels), 1))

    saved, _ = survivors(found, images, Goal(np.zeros(2, np.intp), False), answer, "linf", 1 / 255)
    assert len(asked) == 3
    assert all((pixels == 101).all() for pixels in (*asked, saved))
