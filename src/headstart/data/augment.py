"""Augmentation: random flips, crops, rotations and colours of a photo. No pixel comes from outside the photo."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Strength:
    """The limits of an augmentation."""

    flip: bool = False  # left and right, half of the time
    smallest: float = 1.0  # side of the cropped square, as a share of the usual one
    largest: float = 1.0
    turn: float = 0.0  # degrees, either way
    colour: float = 0.0  # brightness, contrast and saturation, either way, as a share


STRENGTHS = {
    "none": Strength(),
    "flips": Strength(flip=True),
    "light": Strength(flip=True, smallest=0.8, largest=1.1, turn=8, colour=0.15),
    "strong": Strength(flip=True, smallest=0.5, largest=1.1, turn=20, colour=0.35),
}
MARGIN = 1.15  # side of the decoded square as a share of the usual one, for augmentations that crop
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601


def margin_of(strength: str) -> float:
    """How much wider than the usual square a photo should be decoded for `augment`."""
    chosen = _strength(strength)
    return MARGIN if chosen.smallest < chosen.largest else 1.0


def augment(
    image: Image.Image | NDArray[np.uint8],
    rng: np.random.Generator,
    strength: str,
    size: int | None = None,
    view: float = 1.0,
) -> NDArray[np.uint8]:
    """A random variant of a square RGB picture: mirrored, cropped, turned, in other colours; uint8, (size, size, 3).

    Args:
        image: square; height × width × 3 where it is an array.
        rng: always used for the same number of draws.
        strength: one of `STRENGTHS`.
        size: of the result, pixels; default: that of the picture.
        view: side of the central square without augmentation, as a share of the picture's.

    Raises:
        UsageError: an unknown strength, or a picture that is not square or not RGB.
    """
    chosen = _strength(strength)
    picture = image if isinstance(image, Image.Image) else _picture(image)
    if picture.width != picture.height or picture.mode != "RGB":
        raise UsageError(f"Expected a square RGB picture. Received: {picture.mode}, {picture.size}.")
    size = size or picture.width
    flip, scale, turn, *shifts, light, contrast, saturation = rng.random(8)
    seen = _square(
        picture,
        size,
        side=view * (chosen.smallest + (chosen.largest - chosen.smallest) * scale),
        turn=math.radians(chosen.turn) * (2 * turn - 1),
        shifts=(2 * shifts[0] - 1, 2 * shifts[1] - 1) if chosen.smallest < chosen.largest else (0.0, 0.0),
        mirror=chosen.flip and flip < 0.5,
    )
    if chosen.colour:
        seen = _colours(seen, *(1 + chosen.colour * (2 * each - 1) for each in (light, contrast, saturation)))
    return np.asarray(seen)


def _strength(name: str) -> Strength:
    if name not in STRENGTHS:
        raise UsageError(f"There is no augmentation '{name}'. {did_you_mean(name, STRENGTHS)}")
    return STRENGTHS[name]


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UsageError(f"Expected a uint8 picture of three colours. Received: {pixels.dtype} {pixels.shape}.")
    return Image.fromarray(pixels)


def _square(
    picture: Image.Image, size: int, side: float, turn: float, shifts: tuple[float, float], mirror: bool
) -> Image.Image:
    """A turned square of the picture, resampled once; made smaller where it would reach beyond the edge.

    ``side`` is a share of the picture's; ``shifts`` are from -1 to 1, which is the edge.
    """
    cos, sin = math.cos(turn), math.sin(turn)
    reach = abs(cos) + abs(sin)  # how much wider a turned square is
    side = min(side, 1 / reach)
    room = (1 - side * reach) / 2
    if side == 1 and size == picture.width and not turn:
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else picture
    step = side * picture.width / size  # pixels of the picture that one of the result stands for
    across, down = (-step if mirror else step) * cos, step * sin
    along, under = (-step if mirror else step) * -sin, step * cos
    centre = [picture.width * (0.5 + room * shift) for shift in shifts]
    start = centre[0] - (across + down) * size / 2, centre[1] - (along + under) * size / 2
    data = (across, down, start[0], along, under, start[1])
    return picture.transform(
        (size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )  # bicubic costs three times as much


def _colours(picture: Image.Image, light: float, contrast: float, saturation: float) -> Image.Image:
    """Brightness, contrast and saturation in one matrix: each is linear in the colours."""
    mean = float(np.asarray(picture.resize((16, 16), Image.Resampling.BOX)).mean(axis=(0, 1)) @ _GREY)
    mix = saturation * np.eye(3) + (1 - saturation) * _GREY
    matrix = np.column_stack([light * contrast * mix, np.full(3, light * (1 - contrast) * mean)])
    return picture.convert("RGB", tuple(matrix.ravel().tolist()))
