"""Pixels of any depth and mode as 8-bit RGB."""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, _imaging
from PIL.PngImagePlugin import PngImageFile

from headstart.core.errors import UnreadableImageError

Levels = tuple[float, float]  # the values that are black and white

Box = tuple[int, int, int, int]  # left, top, right, bottom
BAND = 1 << 21  # pixels that are converted at a time
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners use, in files of 16 bits too
MOST_PIXELS = 178_956_970  # of a file that is decoded; Pillow refuses more, too
_OTHER_BYTE = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # of Pillow's raw modes
BITS, SAMPLES, _PLANAR, _PHOTOMETRIC = 258, 277, 284, 262  # TIFF's tags,
_WHITE_IS_ZERO, _RGB, _CMYK, _ALPHA = 0, 2, 5, (1, 2)  # values of the photometric, and of the extra samples


class Range(NamedTuple):
    """The values that there are in an image."""

    low: float
    high: float
    whole: bool  # whole numbers


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
        return rgb_parts(image, levels)((0, 0, *image.size))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def rgb_parts(found: Image.Image | NDArray[Any], levels: Levels | None = None) -> Callable[[Box], Image.Image]:
    """A function that gives any part of an image as `to_rgb` would: of a large one the whole would take much memory.

    Raises:
        UnreadableImageError: an array that is no image.
    """
    if isinstance(found, Image.Image) and not is_deep(found):
        image = found
        return lambda box: to_rgb(image.crop(box))
    whole = found if isinstance(found, Image.Image) else checked(found)
    eight_bits = _to_eight_bits(whole, levels)
    return lambda box: to_rgb(Image.fromarray(np.ascontiguousarray(eight_bits(_part(whole, box)))))


def size_of(found: Image.Image | NDArray[Any]) -> tuple[int, int]:
    """Width and height."""
    return found.size if isinstance(found, Image.Image) else (found.shape[1], found.shape[0])


def bands(size: tuple[int, int]) -> Iterator[Box]:
    """An image of a ``size`` from top to bottom in parts that are not large."""
    width, height = size
    rows = max(1, BAND // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _part(found: Image.Image | NDArray[Any], box: Box) -> NDArray[Any]:
    if isinstance(found, Image.Image):
        return np.asarray(found.crop(box))
    left, top, right, bottom = box
    return found[top:bottom, left:right]


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels have more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def checked(pixels: NDArray[Any]) -> NDArray[Any]:
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
    return pixels


def _to_eight_bits(
    found: Image.Image | NDArray[Any], levels: Levels | None
) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """A function for parts of an image, whose levels are those of the whole."""
    kind = _part(found, (0, 0, 1, 1)).dtype
    if kind == np.uint8:
        return lambda part: part
    if kind == np.bool_:
        return lambda part: part.astype(np.uint8) * 255
    there = range_of(found)
    if not math.isfinite(there.high - there.low):
        raise UnreadableImageError("unreadable", "pixels that are not finite")
    low, high = levels or likely_levels(*there)
    opaque = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
    if isinstance(found, np.ndarray) and without_alpha(found).shape != found.shape:
        opaque = (
            high if low == 0 and found[:, :, -1].max() <= high else opaque
        )  # it has the bits of the colours, or all

    def convert(part: NDArray[Any]) -> NDArray[np.uint8]:
        colours = without_alpha(part)
        made = _scaled(colours, low, high)
        return made if colours.shape == part.shape else np.concatenate([made, _scaled(part[:, :, -1:], 0, opaque)], 2)

    return convert


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float64) - low) * (255 / (high - low or 1)) + 0.5
    return np.asarray(np.clip(scaled, 0, 255.5)).astype(np.uint8)


def without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    """The grey or the colours of HW or HWC pixels: how opaque they are has levels of its own."""
    return pixels[:, :, :-1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else pixels


def range_of(found: Image.Image | NDArray[Any]) -> Range:
    """That of the grey or the colours of an image."""
    ends, whole = list[tuple[float, float]](), True
    for band in bands(size_of(found)):
        part = without_alpha(_part(found, band))
        ends.append((float(part.min()), float(part.max())))
        whole = part.dtype.kind != "f"
    low, high = np.min([low for low, _ in ends]), np.max([high for _, high in ends])  # NaN, if one of them is
    return Range(float(low), float(high), whole)


def likely_levels(low: float, high: float, whole: bool) -> Levels:
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
    if image.format != "TIFF" or max(np.ravel(tags.get(BITS, (1,)))) <= 8:
        return None
    known_to_pillow = tags.get(_PLANAR, 1) != 2 and tags.get(_PHOTOMETRIC, 1) != _WHITE_IS_ZERO
    if known_to_pillow and is_deep(image):
        return None
    try:
        return pixels_of_tiff(open_tiff(raw))
    except MemoryError:
        raise
    except Exception:  # a compression that tifffile alone does not know; 8 bits are better than none
        if not known_to_pillow:
            raise
        return None


def _deep_png(raw: bytes) -> NDArray[np.uint16]:
    """Pillow unpacks the upper byte of every value; asked for the other byte order, the lower one."""
    upper, lower = PngImageFile(io.BytesIO(raw)), PngImageFile(io.BytesIO(raw))
    lower.tile = [tile._replace(args=_OTHER_BYTE[str(tile.args)]) for tile in lower.tile]
    pixels = np.zeros((upper.height, upper.width, len(upper.getbands())), np.uint16)
    for image, shift in ((upper, 8), (lower, 0)):
        for band in bands(image.size):
            pixels[band[1] : band[3]] |= np.asarray(image.crop(band)).astype(np.uint16) << shift
        image.close()  # which frees its pixels
    return pixels


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


def open_tiff(raw: bytes, most: int = MOST_PIXELS) -> Any:
    """The first page of a TIFF file, of tifffile's.

    Raises:
        UnreadableImageError: it has more than ``most`` pixels.
    """
    import tifffile

    page = tifffile.TiffFile(io.BytesIO(raw)).pages[0]
    check_pixels(page.imagewidth * page.imagelength, most)
    return page


def pixels_of_tiff(page: Any) -> NDArray[Any]:
    """The pixels of such a page, H × W or H × W × channels, 0 being black."""
    pixels = np.asarray(page.asarray())
    if pixels.ndim == 3 and page.planarconfig == 2:
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == _WHITE_IS_ZERO:
        if pixels.dtype == np.bool_:
            np.logical_not(pixels, out=pixels)
        else:
            np.subtract(pixels.dtype.type(_white_of(pixels)), pixels, out=pixels)
    return _colours_of(pixels, page) if pixels.ndim == 3 else pixels


def _white_of(pixels: NDArray[Any]) -> float:
    return float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else max(1.0, float(pixels.max()))


def _colours_of(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    """Grey or RGB, with transparency if that is what the next channel is; without other bands, such as infrared."""
    if page.photometric == _CMYK and pixels.shape[2] >= 4:
        white = _white_of(pixels)
        for _, top, _, bottom in bands(size_of(pixels)):
            ink = pixels[top:bottom, :, :4].astype(np.float64)
            colours = (white - ink[:, :, :3]) * (white - ink[:, :, 3:]) / white
            pixels[top:bottom, :, :3] = np.rint(colours) if pixels.dtype.kind in "ui" else colours
        return pixels[:, :, :3]
    alpha = [kind in _ALPHA for kind in page.extrasamples]
    if page.photometric == _RGB:
        return pixels[:, :, : 4 if alpha[:1] == [True] else 3]
    channels = pixels.shape[2]  # called grey, as several bands of a satellite are too: of four, three are the colours
    return pixels if any(alpha) else pixels[:, :, : {2: 1, 4: 3}.get(channels, channels)]
