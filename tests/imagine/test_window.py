"""What a network sees of a canvas, and the gradient on the way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headstart.imagine.preset import PRESETS
from headstart.imagine.window import random_window, resampled, whole_window

BEST = PRESETS["best"]


def test_the_whole_of_a_canvas_of_the_same_size_is_seen_as_it_is() -> None:
    images = np.random.default_rng(0).uniform(size=(2, 3, 9, 9)).astype(np.float32)
    assert np.array_equal(whole_window(9, 9).of(images), images)


def test_half_the_size_is_a_weighted_mean_of_four_neighbours_and_flat_stays_flat() -> None:
    matrix = resampled(8, 4, 0, 8)
    assert matrix[1] == pytest.approx([0, 1 / 8, 3 / 8, 3 / 8, 1 / 8, 0, 0, 0])
    for size in (3, 8, 13):
        assert resampled(8, size, 0, 8).sum(axis=1) == pytest.approx(np.ones(size))


def test_a_window_shows_what_is_in_it() -> None:
    canvas = np.zeros((1, 3, 20, 20), np.float32)
    canvas[:, :, 5:15, 10:20] = 1
    window = resampled(20, 10, 5, 10), resampled(20, 10, 10, 10)
    seen = window[0] @ canvas @ window[1].T
    assert (seen == 1).all()


def test_random_windows_lie_inside_and_differ_in_size_and_place() -> None:
    rng = np.random.default_rng(0)
    seen = [random_window(BEST, 64, 56, rng) for _ in range(50)]
    ramp = np.arange(64, dtype=np.float32)
    tops, bottoms = ([float((window.rows @ ramp)[row]) for window in seen] for row in (0, -1))
    assert min(tops) >= 0
    assert max(bottoms) <= 63
    sides = np.array(bottoms) - np.array(tops)
    assert sides.min() < 0.75 * 56
    assert sides.max() > 56
    assert np.std(tops) > 2


def test_without_a_range_the_window_is_the_whole() -> None:
    window = random_window(replace(BEST, window=(1, 1)), 16, 16, np.random.default_rng(0))
    assert np.array_equal(window.rows, np.eye(16))


def test_the_way_back_is_the_transposed_matrix() -> None:
    """⟨window(x), y⟩ = ⟨x, back(y)⟩ for any x and y."""
    rng = np.random.default_rng(0)
    window = random_window(BEST, 24, 16, rng)
    x = rng.standard_normal((2, 3, 24, 24)).astype(np.float32)
    y = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    assert (window.of(x) * y).sum() == pytest.approx((x * window.back(y)).sum(), rel=1e-4)
