"""An image of any kind opened: what it is by its content, and its pixels, with the memory that they take held."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from headstart.core.errors import UnreadableImageError
from headstart.data.formats import HEAD, HEIF, has_avif, has_heif, sniff, unknown_format
from headstart.data.memory import MEMORY, bytes_to_decode
from headstart.data.pixels import (
    MOST_PIXELS,
    check_pixels,
    checked,
    deep_pixels,
    no_tiff_messages,
    open_tiff,
    pixels_of_tiff,
    size_of,
    too_many_pixels,
)

_PLUGINS = (TiffImagePlugin, WebPImagePlugin)  # the two that Pillow does not load by itself, without the other forty
_DECODERS = {"JPEG": ("JPEG", "MPO"), "BMP": ("BMP", "DIB")}
_CUT = ("truncated", "eof", "unexpected end", "broken data stream", "not enough")  # in decoders' messages
JPEG2000, HALVINGS = "JPEG2000", 3  # of a JPEG 2000, which usually has 5
_NO_MEMORY = "out of memory"  # in Pillow's, which is no MemoryError then

# Pillow warns from 89 megapixels and refuses from 179. Large photos need no warning; refused ones are reported.
# Its warnings about damaged EXIF data, common in Kaggle's photos, are of no use either: only the pixels count.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Raw = bytes | NDArray[np.generic]
Size = tuple[int, int]  # width and height


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """One of Pillow's images, decoded when it is asked for its pixels; or an array, where Pillow has not all bits."""

    found: Image.Image | NDArray[Any]
    whole: Size  # before a JPEG was opened at a fraction

    @property
    def size(self) -> Size:
        """Width and height."""
        return size_of(self.found)


@contextmanager
def opened(
    raw: Raw, most: int = MOST_PIXELS, draft: Callable[[Size], Size | None] | None = None
) -> Iterator[OpenedImage]:
    """Open an image. What decoding it takes is held until the end, and waited for where other threads hold much.

    Args:
        most: pixels of a file that may be decoded; the file's header says how many it has.
        draft: the size that is enough of one of this size, for a JPEG, which is decoded at a fraction; None: all.

    Raises:
        UnreadableImageError: with the reason in ``kind``: empty, of an unknown format, too large, damaged.
    """
    if not isinstance(raw, bytes):
        with _reasons():
            array = checked(raw)
            yield OpenedImage(array, size_of(array))
        return
    if not raw:
        raise UnreadableImageError("empty", "0 bytes")
    image = _header(raw, most)
    if isinstance(image, Image.Image):
        whole = image.size
        enough = draft(whole) if draft else None
        if enough:
            image.draft(None, enough)
        with MEMORY.hold(_reduced(image, whole, raw)), _reasons():
            if image.format == JPEG2000:
                image.load()  # whose size may be smaller then
            pixels = deep_pixels(raw, image)
            try:
                yield OpenedImage(image if pixels is None else pixels, whole)
            finally:
                image.close()  # which frees its pixels before others get their share
        return
    with MEMORY.hold(len(raw) + image.nbytes), _reasons():
        pixels = pixels_of_tiff(image)
        yield OpenedImage(pixels, size_of(pixels))


def _header(raw: bytes, most: int) -> Any:
    """One of Pillow's images; or a page of a TIFF file that Pillow does not know."""
    known = sniff(raw[:HEAD])
    if known == "TIFF":
        no_tiff_messages()
    try:  # no other decoder is tried: some start a program
        if (known == HEIF.name and not has_heif()) or (known == "AVIF" and not has_avif()):
            raise unknown_format(raw[:HEAD])
        image = Image.open(io.BytesIO(raw), formats=_DECODERS.get(known, (known or "TGA",)))
        check_pixels(image.width * image.height, most)
        return image
    except (UnreadableImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise too_many_pixels(min(most, MOST_PIXELS)) from error
    except Exception as error:  # a damaged header can raise nearly anything
        if not known:
            raise unknown_format(raw[:HEAD]) from error
        if isinstance(error, UnidentifiedImageError):
            if known == "TIFF" and (page := _try_tiff(raw, most)) is not None:
                return page
            detail = f"begins as a {known} file, but its header is cut short or damaged"
            raise UnreadableImageError("truncated", detail) from error
        raise _why_unreadable(error) from error


def _reduced(image: Any, whole: Size, raw: bytes) -> int:
    """Bytes that decoding takes, which a JPEG 2000 file that would take too many does at 1/2, 1/4 or 1/8."""
    count = bytes_to_decode(image, image.size, whole, raw)
    if image.format == JPEG2000 and count > MEMORY.most:
        for halvings in range(1, HALVINGS + 1):
            part = whole[0] >> halvings, whole[1] >> halvings
            count = bytes_to_decode(image, part, whole, raw)
            if count <= MEMORY.most:
                image.reduce = halvings
                break
    return count


def _try_tiff(raw: bytes, most: int) -> Any:
    """The first page of a TIFF file that Pillow does not know, or None."""
    try:
        return open_tiff(raw, most)
    except (UnreadableImageError, MemoryError):
        raise
    except Exception:  # it is damaged, which Pillow's error says better
        return None


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever a damaged file raises while it is decoded becomes an `UnreadableImageError`."""
    try:
        yield
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:  # from struct.error to IndexError
        if _NO_MEMORY in str(error).lower():
            raise MemoryError(str(error)) from error
        raise _why_unreadable(error) from error


def _why_unreadable(error: Exception) -> UnreadableImageError:
    text = str(error) or type(error).__name__
    if text.startswith("decoder error"):  # of libtiff, with its number
        text = f"its pixels are damaged, or compressed in a way that is not known ({text})"
    cut = any(word in text.lower() for word in _CUT)
    return UnreadableImageError("truncated" if cut else "unreadable", text)
