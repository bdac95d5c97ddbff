"""Photos made worse as happens outside: noise, blur, JPEG, light and turning (Hendrycks and Dietterich 2019).

Each kind has strengths 1 (little) to 5. Noise, blur, JPEG and brightness are those of ImageNet-C at 224 pixels; the
rotation, which is not among them, fills what comes in from outside with the photo's own edge mirrored.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from headstart.data.load import content_key

Pixels = NDArray[np.uint8]

STRENGTHS = (1, 2, 3, 4, 5)
NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of pixels from 0 to 1
BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)  # radius of the Gaussian, of an image of 224 pixels
QUALITY = (25, 18, 15, 10, 7)  # of the JPEG file
LIGHT = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the brightest channel, of pixels from 0 to 1
DEGREES = (5, 10, 20, 30, 45)  # to one side or the other
NATIVE = 224  # pixels that the blur is meant for


def corrupt(kind: str, image: Pixels, strength: int, seed: int = 0) -> Pixels:
    """An image (size, size, 3), made worse; the same for the same image and seed, whatever others there are.

    Args:
        kind: of `CORRUPTIONS`.
        strength: 1 to 5. The noise, and the side to turn to, are the same at each.
    """
    number = int.from_bytes(content_key(image), "little")
    rng = np.random.default_rng((seed, number))
    return CORRUPTIONS[kind](image, strength - 1, rng)


def noise(image: Pixels, place: int, rng: np.random.Generator) -> Pixels:
    """Gaussian noise on each channel."""
    changed = image / 255 + rng.standard_normal(image.shape, np.float32) * np.float32(NOISE[place])
    return _bytes(changed)


def blur(image: Pixels, place: int, _: np.random.Generator) -> Pixels:
    """A Gaussian blur, as wide of a small image as of a large one."""
    radius = BLUR[place] * len(image) / NATIVE
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def jpeg(image: Pixels, place: int, _: np.random.Generator) -> Pixels:
    """Written as a JPEG file of low quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY[place])
    return np.asarray(Image.open(file, formats=("JPEG",)))


def brightness(image: Pixels, place: int, _: np.random.Generator) -> Pixels:
    """More light: the brightest channel of each pixel is raised, and the others in proportion, so hue stays."""
    pixels = image / np.float32(255)
    value = pixels.max(axis=2, keepdims=True)
    raised = np.minimum(value + np.float32(LIGHT[place]), 1)
    return _bytes(np.where(value > 0, pixels * (raised / np.maximum(value, 1e-6)), raised))


def rotation(image: Pixels, place: int, rng: np.random.Generator) -> Pixels:
    """Turned about its centre; beyond its edges the photo goes on mirrored, so that no black corners tell of it."""
    size = len(image)
    degrees = DEGREES[place] * (1 if rng.random() < 0.5 else -1)
    margin = math.ceil(size * (math.sqrt(2) - 1) / 2) + 1
    wide = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "symmetric"))
    turned = wide.rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(turned.crop((margin, margin, margin + size, margin + size)))


def _bytes(pixels: NDArray[np.floating]) -> Pixels:
    found: Pixels = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    return found


CORRUPTIONS: dict[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    "noise": noise,
    "blur": blur,
    "JPEG": jpeg,
    "brightness": brightness,
    "rotation": rotation,
}
