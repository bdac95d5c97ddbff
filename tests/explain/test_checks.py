"""Tests of explanations: what they measure, and the sentences where an explanation fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from headstart.core.types import ImageSpec
from headstart.explain.check import check_explanations
from headstart.explain.explain import explain_photos
from headstart.explain.faithfulness import average_drop, centre_blob, insertion_deletion, road
from headstart.explain.imputation import imputed, smooth
from headstart.explain.randomisation import (
    complexity_rise,
    other_classes,
    random_logit,
    randomised,
    rank_correlation,
)
from making import picture

SIZE = 32


class Corner:
    """A network that looks at the upper left corner of a photo alone: the brighter, the more it is of class 1."""

    spec = ImageSpec(SIZE)

    def forward(self, images: Any) -> Any:
        floats = images / 255 if images.dtype == np.uint8 else images
        bright = 20 * (floats[:, :8, :8].mean((1, 2, 3)) - 0.6)
        return np.stack([-bright, bright], 1)


def photo() -> NDArray[np.uint8]:
    """Bright in the corner, and dark and bright elsewhere."""
    pixels = picture("discs", 3, SIZE)
    pixels[:8, :8] = 250
    return pixels


def corner_map(size: int = SIZE) -> NDArray[np.float32]:
    """What the network looks at."""
    values = np.random.default_rng(0).uniform(0, 0.01, (size, size)).astype(np.float32)
    values[: size // 4, : size // 4] += 1
    return values


def figures(values: NDArray[np.float32]) -> tuple[float, ...]:
    """Insertion, deletion, drop and ROAD of a map for the network."""
    images, maps, classes = photo()[None], values[None], np.array([1])
    pixels = insertion_deletion(Corner(), images, maps, classes)
    drop, _ = average_drop(Corner(), images, maps, classes)
    left = road(Corner(), images, maps, classes).probability.mean()
    return float(pixels.insertion[0]), float(pixels.deletion[0]), float(drop[0]), float(left)


def test_a_map_of_what_the_network_looks_at_beats_a_blob_and_its_own_opposite() -> None:
    right, blob, wrong = (figures(each) for each in (corner_map(), centre_blob(SIZE), 1.1 - corner_map()))
    assert right[0] > 0.9 > blob[0] > wrong[0] + 0.2
    assert right[1] < 0.1 < 0.9 < blob[1] < wrong[1]
    assert right[2] < 0.05 < 0.5 < blob[2]
    assert right[3] < 0.05 < 0.9 < blob[3]


def test_curves_begin_and_end_with_the_photo_and_one_colour() -> None:
    images = np.stack([photo(), picture("waves", 1, SIZE)])
    maps, classes = np.stack([corner_map()] * 2), np.array([1, 0])
    found = insertion_deletion(Corner(), images, maps, classes, steps=5)
    logits = Corner().forward(images)
    whole = np.exp(logits - logits.max(1, keepdims=True))
    whole = (whole / whole.sum(1, keepdims=True))[np.arange(2), classes]
    np.testing.assert_allclose(found.inserted[:, -1], whole, atol=1e-6)
    np.testing.assert_allclose(found.deleted[:, 0], whole, atol=1e-6)
    np.testing.assert_allclose(found.inserted[:, 0], found.deleted[:, -1], atol=1e-6)
    assert found.inserted.shape == (2, 6)


def test_fading_may_raise_the_probability() -> None:
    dark = photo()
    dark[:8, :8] = 60
    drop, increase = average_drop(Corner(), dark[None], 1.1 - corner_map()[None], np.array([1]))
    assert (drop.tolist(), increase.tolist()) == ([0], [True])


# --- imputation -------------------------------------------------------------------------------------------------------


def test_a_hole_in_a_slope_is_filled_with_the_slope() -> None:
    y, x = np.mgrid[:40, :56] / 56
    image = np.stack([x, 0.3 + 0.5 * y, 0.2 + 0.3 * x + 0.4 * y])
    known = np.ones((40, 56))
    known[7:33, 5:50] = 0
    np.testing.assert_allclose(smooth(image * known, known, 1e-9), image, atol=1e-7)


def test_every_pixel_is_the_mean_of_its_neighbours_up_to_the_border() -> None:
    rng = np.random.default_rng(0)
    image, known = rng.uniform(0, 1, (3, 19, 23)), (rng.uniform(size=(19, 23)) < 0.2).astype(float)
    known[:, :6] = 0
    found = smooth(image, known, 1e-10)
    kernel = np.array([(1, 2, 1), (2, 0, 2), (1, 2, 1)]) / 12
    for row, column in zip(*np.nonzero(known == 0), strict=True):
        around = [
            (kernel[i + 1, j + 1], found[:, row + i, column + j])
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if 0 <= row + i < 19 and 0 <= column + j < 23
        ]
        mean = sum(weight * value for weight, value in around) / sum(weight for weight, _ in around)
        np.testing.assert_allclose(found[:, row, column], mean, atol=1e-7)
    np.testing.assert_array_equal((found * known), image * known)


def test_noise_is_added_where_pixels_are_gone_and_stays_within_the_range() -> None:
    image = np.full((16, 16, 3), 0.999)
    order = np.arange(16, 128)
    found = imputed(image, order, np.random.default_rng(0), noise=0.05)
    assert found.max() <= 1
    changed = (found != image).any(-1).ravel()
    assert changed[order].mean() > 0.8
    assert not changed[:16].any()
    assert not changed[128:].any()


# --- randomisation ----------------------------------------------------------------------------------------------------


def test_similarity_is_one_for_the_same_map_at_any_scale() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 1, 20, 20)).cumsum(2).cumsum(3)
    assert random_logit(one, 3 * one) == pytest.approx([1])
    assert random_logit(one, other)[0] < 0.8
    assert np.isnan(random_logit(np.ones((1, 9, 9)), np.ones((1, 9, 9)))[0])


def test_complexity_rises_from_a_spot_to_noise() -> None:
    spot = centre_blob(40)[None] > 0.9
    noise = np.random.default_rng(0).uniform(size=(1, 40, 40))
    assert complexity_rise(spot.astype(float), noise)[0] > 1
    assert complexity_rise(noise, noise).tolist() == [0]
    assert np.isnan(complexity_rise(np.zeros((1, 4, 4)), noise)[0])


def test_rank_correlation_with_equal_values() -> None:
    one = np.array([[1, 2, 2, 5]])
    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    # by hand: ranks (1, 2.5, 2.5, 4) against (2, 1, 3, 4)
    assert rank_correlation(one, np.array([[2, 1, 3, 4]])) == pytest.approx(3.0 / np.sqrt(4.5 * 5))
    assert rank_correlation(one, np.ones((1, 4))) == 0


def test_another_class_is_never_the_same() -> None:
    classes = np.arange(3).repeat(50)
    others = other_classes(classes, 3)
    assert (others != classes).all()
    assert {(a, b) for a, b in zip(classes.tolist(), others.tolist(), strict=True)} == {
        (a, b) for a in range(3) for b in range(3) if a != b
    }


# --- all of them on one explanation -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> hs.Classifier:
    return hs.load(bundle)


@pytest.fixture(scope="module")
def explained(classifier: hs.Classifier) -> hs.Explanation:
    (found,) = explain_photos(classifier, [picture("discs", 99, 64)], crop=False)
    return found


def test_an_explanation_has_all_figures(classifier: hs.Classifier, explained: hs.Explanation) -> None:
    told: list[tuple[str, int, int]] = []
    one, other = check_explanations(classifier, [explained] * 2, progress=lambda *step: told.append(step))
    assert told == [("tests", 1, 2), ("tests", 2, 2)]
    assert one.road == other.road  # the same noise
    assert one.score is not None
    assert one.insertion is not None
    assert one.deletion is not None
    assert one.score == one.insertion - one.deletion
    pixels = insertion_deletion(
        classifier.network, explained.pixels[None], explained.at_size(64)[None], np.array([explained.index])
    )
    assert one.insertion == pytest.approx(pixels.insertion[0], abs=1e-3)
    (stranger,) = explain_photos(randomised(classifier), [explained.pixels], explained.label, crop=False)
    assert one.unchanged == pytest.approx(rank_correlation(explained.at_size(64), stranger.at_size(64)), abs=1e-6)
    assert one.complexity_rise == pytest.approx(
        complexity_rise(explained.at_size(64)[None], stranger.at_size(64)[None])[0], abs=1e-6
    )


def test_an_empty_map_is_told(classifier: hs.Classifier, explained: hs.Explanation) -> None:
    empty = replace(explained, values=np.zeros_like(explained.values))
    (check,) = check_explanations(classifier, [empty])
    assert check.warnings == empty.warnings
    assert "The map is empty: no place speaks for or against 'discs'." in check.warnings
    assert (check.score, check.road, check.drop, check.random_logit, check.unchanged) == (None,) * 5
    assert check.blob != 0


def test_a_blob_is_no_better_than_a_blob(classifier: hs.Classifier, explained: hs.Explanation) -> None:
    (check,) = check_explanations(classifier, [replace(explained, values=centre_blob(64))])
    assert check.score == pytest.approx(check.blob, abs=1e-5)  # measured beside other maps, in other batches
    assert check.road_blob > 0
    assert any("no better than a blob in the middle" in warning for warning in check.warnings)


def test_a_map_that_random_weights_give_too_is_told(classifier: hs.Classifier, explained: hs.Explanation) -> None:
    (stranger,) = explain_photos(randomised(classifier), [explained.pixels], explained.label, crop=False)
    (check,) = check_explanations(classifier, [replace(explained, values=stranger.values)])
    assert check.unchanged == pytest.approx(1)
    assert check.complexity_rise == pytest.approx(0)
    assert any("nearly the same with random weights" in warning for warning in check.warnings)


def test_integrated_gradients_that_miss_are_told(explained: hs.Explanation) -> None:
    assert replace(explained, steps=128, gap=0.04).warnings == ()
    missed = replace(explained, steps=128, gap=0.31).warnings
    assert missed == ("After 128 steps the attributions miss the difference of the logits by 31%.",)


def test_random_weights_change_everything_and_leave_the_classifier_alone(classifier: hs.Classifier) -> None:
    before = {name: array.copy() for name, array in classifier.weights.items()}
    stranger = randomised(classifier)
    kernels = [name for name, array in before.items() if array.ndim > 1]
    assert all((stranger.weights[name] != before[name]).any() for name in kernels)
    assert all((classifier.weights[name] == array).all() for name, array in before.items())
    assert all((randomised(classifier).weights[name] == stranger.weights[name]).all() for name in kernels)
