"""How a photo is scaled: across first, then down, each in 8 bits, on every version of Pillow and however it lies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstart.core.types import ImageSpec
from headstart.data.load import decode

SHAPES = [(187, 168), (256, 200), (200, 256), (300, 224), (900, 90), (90, 900), (64, 64), (41, 33), (3, 70), (1, 1)]
SPECS = [ImageSpec(64), ImageSpec(48, crop=1.0), ImageSpec(83, resample="bilinear", crop=0.5)]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def weights(length: int, side: float, spec: ImageSpec) -> NDArray[np.float64]:
    """(size, length): what each pixel of a line gives to each of the result."""
    step = side / spec.size
    wide, start = max(step, 1.0), (length - side) / 2
    centres = start + (np.arange(spec.size)[:, None] + 0.5) * step
    d = np.abs((np.arange(length) - centres + 0.5) / wide)
    if spec.resample == "bilinear":
        kernel = np.maximum(1 - d, 0)
    else:  # Keys' cubic with a = -0.5
        far = -0.5 * (((d - 5) * d + 8) * d - 4)
        kernel = np.where(d < 1, (1.5 * d - 2.5) * d * d + 1, np.where(d < 2, far, 0))
    return np.asarray(kernel / kernel.sum(1, keepdims=True), np.float64)


def in_bytes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.floor(values + 0.5), 0, 255)


def scaled(pixels: NDArray[np.uint8], spec: ImageSpec, *, across_first: bool = True) -> NDArray[np.float64]:
    height, width = pixels.shape[:2]
    side = min(height, width) * spec.crop
    across, down = weights(width, side, spec), weights(height, side, spec)
    if across_first:
        return in_bytes(np.einsum("yh,hxc->yxc", down, in_bytes(np.einsum("xw,hwc->hxc", across, pixels))))
    return in_bytes(np.einsum("xw,ywc->yxc", across, in_bytes(np.einsum("yh,hwc->ywc", down, pixels))))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.resample} {spec.crop}")
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_across_first_then_down(height: int, width: int, spec: ImageSpec) -> None:
    pixels = noise(height, width)
    found = np.abs(decode(pixels, spec) - scaled(pixels, spec))
    assert found.max() <= 1
    assert (found > 0).mean() < 0.01  # what lies in the middle between two bytes


def test_the_other_order_would_be_seen() -> None:
    pixels = noise(256, 200)
    assert (decode(pixels, SPECS[0]) != scaled(pixels, SPECS[0], across_first=False)).mean() > 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("height", "width"), [(150, 110), (110, 150)])
def test_a_photo_that_lies_on_its_side_gets_the_pixels_of_one_that_stands(
    orientation: int, height: int, width: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    kept = io.BytesIO()
    Image.fromarray(noise(height, width)).save(kept, "PNG", exif=exif)
    standing = np.asarray(ImageOps.exif_transpose(Image.open(kept)))
    np.testing.assert_array_equal(decode(kept.getvalue(), SPECS[0]), decode(standing, SPECS[0]))
