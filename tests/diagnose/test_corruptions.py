"""Photos made worse: each kind does what it says, more so with its strength, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.diagnose.corruptions import CORRUPTIONS, NOISE, STRENGTHS, corrupt
from making import picture

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return picture("discs", 3, size=112)


def differs(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_is_worse_with_its_strength(kind: str, photo: Pixels) -> None:
    kept = photo.copy()
    worse = [corrupt(kind, photo, strength) for strength in STRENGTHS]
    assert {(image.shape, image.dtype.name) for image in worse} == {(photo.shape, "uint8")}
    changes = [differs(image, photo) for image in worse]
    assert changes[0] > 1
    if kind != "rotation":  # bars that are turned further may lie on others
        assert changes == sorted({*changes})
    assert (photo == kept).all()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_image_is_made_worse_in_the_same_way(kind: str, photo: Pixels) -> None:
    assert (corrupt(kind, photo, 3, seed=1) == corrupt(kind, photo.copy(), 3, seed=1)).all()


def test_noise_is_of_the_seed_and_of_the_image() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    first, second = corrupt("noise", grey, 1, seed=0), corrupt("noise", grey, 1, seed=1)
    assert differs(first, second) > 10
    other = grey.copy()
    other[0, 0] = 0
    assert differs(corrupt("noise", other, 1), first) > 10
    for strength in (1, 2):  # a stronger one is cut off at black and white
        assert corrupt("noise", grey, strength).std() / 255 == pytest.approx(NOISE[strength - 1], rel=0.05)


def test_blur_is_as_wide_of_a_small_image_as_of_a_large_one() -> None:
    """A white point is spread over the same share of the photo."""
    shares = []
    for size in (112, 224):
        point = np.zeros((size, size, 3), np.uint8)
        point[size // 2 - size // 16 : size // 2 + size // 16, size // 2 - size // 16 : size // 2 + size // 16] = 255
        blurred = corrupt("blur", point, 5)[size // 2, :, 0].astype(float)
        shares.append(float((blurred > 10).mean()))
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert shares[0] > 0.16  # the square alone covers an eighth


def test_more_light_keeps_the_hue() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = (100, 50, 0), (250, 125, 0)
    bright = corrupt("brightness", image, 3)
    assert bright[0, 0].tolist() == [177, 88, 0]  # 100 + 0.3 · 255
    assert bright[0, 1].tolist() == [255, 128, 0]
    assert bright[1, 1].tolist() == [77, 77, 77]


def test_jpeg_leaves_blocks_of_eight_pixels(photo: Pixels) -> None:
    worst = corrupt("JPEG", photo, 5).astype(float)
    steps = np.abs(np.diff(worst, axis=1)).mean(axis=(0, 2))
    inside = np.delete(steps, np.arange(7, len(steps), 8))
    assert steps[7::8].mean() > inside.mean()


def test_a_turned_photo_has_no_black_corners_and_its_centre_stays() -> None:
    grey = np.full((65, 65, 3), 200, np.uint8)
    grey[30:35, 30:35] = 50
    sides = set()
    for seed in range(8):
        turned = corrupt("rotation", grey, 5, seed)
        assert turned[[0, 0, -1, -1], [0, -1, 0, -1]].min() == 200
        assert turned[32, 32, 0] == 50
        wedge = np.full((65, 65, 3), 200, np.uint8)
        wedge[:32, 32:] = 0  # above and to the right
        again = corrupt("rotation", wedge, 3, seed)
        sides.add(bool(again[10, 27, 0] < 100))
    assert sides == {True, False}  # to the left with one seed, to the right with another
