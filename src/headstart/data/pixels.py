"""Pixels of any depth and mode as 8-bit RGB."""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import math
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, _imaging
from PIL.PngImagePlugin import PngImageFile

from headstart.core.errors import UnreadableImageError

Levels = tuple[float, float]  # the values that are black and white
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners use, in files of 16 bits too
MOST_PIXELS = 178_956_970  # of a file that is decoded; Pillow refuses more, too
_OTHER_BYTE = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # of Pillow's raw modes
_PLANAR, _PHOTOMETRIC, _BITS = 284, 262, 258  # TIFF's tags,
_WHITE_IS_ZERO, _RGB, _CMYK, _ALPHA = 0, 2, 5, (1, 2)  # values of the photometric, and of the extra samples


def check_pixels(count: int, most: int) -> None:
    """Refuse a file with more pixels than may be decoded.

    Raises:
        UnreadableImageError: of the kind "bomb".
    """
    if count > most:
        raise too_many_pixels(most)


def too_many_pixels(most: int) -> UnreadableImageError:
    """The error for a file with more pixels than may be decoded."""
    millions = f"{most // 10**6}" if most >= 10**6 else f"{most / 1e6:.2g}"
    return UnreadableImageError("bomb", f"over {millions} megapixels; shrink it if it is a real photo")


def to_rgb(image: Image.Image, levels: Levels | None = None) -> Image.Image:
    """Any mode to 8-bit RGB: more than 8 bits are scaled from ``levels``, transparent pixels become white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if is_deep(image):
        return from_array(np.asarray(image), levels).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels have more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def from_array(pixels: NDArray[Any], levels: Levels | None = None) -> Image.Image:
    """HW or HWC, 1 to 4 channels: booleans, integers or floats."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 3 and pixels.shape[2] > 4:
        raise UnreadableImageError(
            "unreadable",
            f"{pixels.shape[2]} bands, and nothing says which are red, green and blue: save those three as PNG",
        )
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (2, 3, 4)) or 0 in pixels.shape:
        raise UnreadableImageError("unreadable", f"expected height × width [× channels], received shape {pixels.shape}")
    if pixels.dtype.kind not in "buif":
        raise UnreadableImageError("unreadable", f"expected numbers, received pixels of type {pixels.dtype}")
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype != np.uint8:
        pixels = _eight_bits(pixels, levels)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _eight_bits(pixels: NDArray[Any], levels: Levels | None) -> NDArray[np.uint8]:
    colours = without_alpha(pixels)
    low, high = float(colours.min()), float(colours.max())
    if not math.isfinite(high - low):
        raise UnreadableImageError("unreadable", "pixels that are not finite")
    low, high = levels or likely_levels(low, high, whole=pixels.dtype.kind != "f")
    found = _scaled(colours, low, high)
    if colours.shape == pixels.shape:
        return found
    alpha = pixels[:, :, -1:]
    opaque = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    opaque = high if low == 0 and alpha.max() <= high else opaque  # it has the bits of the colours, or all
    return np.concatenate([found, _scaled(alpha, 0.0, opaque)], axis=2)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float64) - low) * (255 / (high - low or 1)) + 0.5
    return np.asarray(np.clip(scaled, 0, 255.5)).astype(np.uint8)


def without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    """The grey or the colours of HW or HWC pixels: how opaque they are has levels of its own."""
    return pixels[:, :, :-1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else pixels


def likely_levels(low: float, high: float, *, whole: bool) -> Levels:
    """Black and white, by the lowest and the highest value there are.

    Whole numbers have the fewest bits of `DEPTHS` that hold them, and other numbers go from 0 to 1; where the values
    go beyond, their own range counts.
    """
    whites = [2.0**bits - 1 for bits in DEPTHS] if whole else [1.0]
    white = next((white for white in whites if high <= white), None)
    return (low, high) if low < 0 or white is None else (0.0, white)


def deep_pixels(raw: bytes, image: Image.Image) -> NDArray[Any] | None:
    """All bits of a file of which Pillow gives 8, or gives them wrong; None for any other, as which it is to be read.

    Args:
        image: the same file, opened.
    """
    if isinstance(image, PngImageFile):
        return _deep_png(raw) if image.tile and str(image.tile[0].args) in _OTHER_BYTE else None
    tags: Any = getattr(image, "tag_v2", {})
    if image.format != "TIFF" or max(np.ravel(tags.get(_BITS, (1,)))) <= 8:
        return None
    if tags.get(_PLANAR, 1) == 2 or tags.get(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        return read_tiff(raw)
    if is_deep(image):
        return None
    try:
        return read_tiff(raw)
    except Exception:  # a compression that tifffile alone does not know; 8 bits are better than none
        return None


def _deep_png(raw: bytes) -> NDArray[np.uint16]:
    """Pillow unpacks the upper byte of every value; asked for the other byte order, the lower one."""
    parts = []
    for lower in (False, True):
        image = PngImageFile(io.BytesIO(raw))
        if lower:
            image.tile = [tile._replace(args=_OTHER_BYTE[str(tile.args)]) for tile in image.tile]
        parts.append(np.asarray(image).astype(np.uint16))
    return np.asarray(parts[0] * 256 + parts[1], np.uint16)


@functools.cache
def no_tiff_messages() -> None:
    """Have libtiff, which is Pillow's, and tifffile print nothing from now on: what they say of a damaged file does not
    name it, and many are decoded at a time. Its `Problem` does.

    For the whole process, as Pillow has it for libtiff's warnings. Where libtiff is inside of Pillow's own library, as
    on Windows, it cannot be reached, and prints.
    """
    for name in ("tifffile", "PIL"):  # else Python prints what nobody handles
        logging.getLogger(name).addHandler(logging.NullHandler())
    with suppress(AttributeError, OSError):
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


def read_tiff(raw: bytes, most: int = MOST_PIXELS) -> NDArray[Any]:
    """The first page of a TIFF file, H × W or H × W × channels, 0 being black.

    Raises:
        UnreadableImageError: it has more than ``most`` pixels.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        page = file.pages[0]
        check_pixels(page.imagewidth * page.imagelength, most)
        pixels = np.asarray(page.asarray())
        if pixels.ndim == 3 and page.planarconfig == 2:
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == _WHITE_IS_ZERO:
            pixels = (_white_of(pixels) - pixels).astype(pixels.dtype)
        if pixels.ndim == 3:
            pixels = _colours_of(pixels, page)
    return pixels


def _white_of(pixels: NDArray[Any]) -> float:
    return float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else max(1.0, float(pixels.max()))


def _colours_of(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    """Grey or RGB, with transparency if that is what the next channel is; without other bands, such as infrared."""
    if page.photometric == _CMYK and pixels.shape[2] >= 4:
        white = _white_of(pixels)
        ink = pixels[:, :, :4].astype(np.float64)
        colours = (white - ink[:, :, :3]) * (white - ink[:, :, 3:]) / white
        return np.asarray(np.rint(colours) if pixels.dtype.kind in "ui" else colours).astype(pixels.dtype)
    alpha = [kind in _ALPHA for kind in page.extrasamples]
    if page.photometric == _RGB:
        return pixels[:, :, : 4 if alpha[:1] == [True] else 3]
    bands = pixels.shape[2]  # called grey, as several bands of a satellite are too: of four, three are the colours
    return pixels if any(alpha) else pixels[:, :, : {2: 1, 4: 3}.get(bands, bands)]
