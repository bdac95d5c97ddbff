"""A canvas: what is changed, the images that it makes, and gradients on the way back."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.imagine.canvas import FourierCanvas, noise_canvas, photo_canvas, spectrum
from headstart.imagine.preset import PRESETS, canvas_size, find_preset

BEST, LESSON = PRESETS["best"], PRESETS["lesson"]


def photo(size: int = 16) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.1, 0.9, (1, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("preset", [BEST, LESSON])
def test_a_canvas_begins_with_the_photo_that_it_is_given(preset: object) -> None:
    images = photo_canvas(preset, photo(), 3).images()  # type: ignore[arg-type]
    assert images.shape == (3, 3, 16, 16)
    assert np.allclose(images, photo(), atol=1e-3)


def test_black_and_white_can_be_drawn_but_for_a_little() -> None:
    ends = np.repeat(np.array([0, 1], np.float32), 8 * 16).reshape(1, 1, 16, 16).repeat(3, axis=1)
    assert np.abs(photo_canvas(BEST, ends, 1).images() - ends).max() < 0.03


def test_the_way_back_is_the_derivative_of_the_images() -> None:
    """Against a difference of the images along a random direction of the amplitudes."""
    rng = np.random.default_rng(0)
    size = 12
    amplitudes, direction = (rng.standard_normal((2, 3, size, size // 2 + 1, 2)).astype(np.float32) for _ in range(2))
    weights = rng.standard_normal((2, 3, size, size)).astype(np.float32)
    amplitudes *= 0.05

    def images_at(shift: float) -> np.ndarray:
        return FourierCanvas(amplitudes + np.float32(shift) * direction, size, 0.1).images()

    step = 1e-3
    measured = (weights * (images_at(step) - images_at(-step))).sum() / (2 * step)
    computed = (FourierCanvas(amplitudes, size, 0.1).pullback(weights) * direction).sum()
    assert computed == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("preset", [BEST, LESSON])
def test_a_step_goes_downhill_and_images_stay_from_0_to_1(preset: object) -> None:
    canvas = noise_canvas(preset, 16, 2, np.random.default_rng(0))  # type: ignore[arg-type]
    uphill = np.zeros((2, 3, 16, 16), np.float32)
    uphill[0, 0] = 1  # red of the first image is to fall, all else of it to stay; the second has no gradient
    before = canvas.images().copy()
    for _ in range(60):
        canvas.step(uphill)
    after = canvas.images()
    assert after[0, 0].mean() < before[0, 0].mean() - 0.2
    assert np.array_equal(after[1], before[1])
    assert after.min() >= 0
    assert after.max() <= 1


def test_a_step_on_pixels_is_as_long_as_its_rate_whatever_the_gradient() -> None:
    for length in (1e-6, 1, 1e6):
        canvas = photo_canvas(find_preset("lesson"), np.full((1, 3, 8, 8), 0.5, np.float32), 1)
        slope = length * np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
        canvas.step(slope)
        assert np.sqrt(np.mean((canvas.images() - 0.5) ** 2)) == pytest.approx(LESSON.rate, rel=1e-3)


def test_noise_is_the_same_for_each_image_and_depends_on_the_seed() -> None:
    one, two = (noise_canvas(BEST, 16, 3, np.random.default_rng(seed)).images() for seed in (0, 1))
    assert np.array_equal(one[0], one[2])
    assert not np.allclose(one[0], two[0])
    again = noise_canvas(BEST, 16, 1, np.random.default_rng(0)).images()
    assert np.allclose(again[0], one[0], atol=1e-6)


@pytest.mark.parametrize("size", [32, 224])
def test_the_contrast_of_noise_does_not_depend_on_the_size(size: int) -> None:
    deviations = [
        noise_canvas(BEST, canvas_size(BEST, size), 1, np.random.default_rng(seed)).images().std() for seed in range(8)
    ]
    assert 0.005 < np.mean(deviations) < 0.1


def test_low_frequencies_weigh_more() -> None:
    scale = spectrum(32)
    assert (np.diff(scale[0, 1:]) < 0).all()
    assert np.isfinite(scale).all()
