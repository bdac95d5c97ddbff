"""Images for the network: decoded, resized in the same way everywhere, uint8 RGB; on threads, ahead of the network."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from headstart.core.errors import DataError, UnreadableImageError, reason_of
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data.formats import HEAD, HEIF, has_avif, has_heif, sniff, unknown_format
from headstart.data.pixels import (
    MOST_PIXELS,
    Levels,
    check_pixels,
    deep_pixels,
    from_array,
    no_tiff_messages,
    read_tiff,
    to_rgb,
    too_many_pixels,
)

_PLUGINS = (TiffImagePlugin, WebPImagePlugin)  # the two that Pillow does not load by itself, without the other forty
KEY = 16  # bytes of the hash of an image's content
THUMBNAIL = 16  # side of the grey thumbnail by which near copies are found
AHEAD = 12  # chunks decoded ahead of the network; with CHUNK it bounds the memory whatever the number of images
CHUNK = 8
PASSES = "across, down"  # of resizing, each of which rounds to 8 bits
MARGIN = 3  # pixels of the result, or of the photo where those are smaller: more than any kernel reaches
DRAFT = 4  # a JPEG is decoded at a fraction that leaves this many times the pixels that are needed; see docs/export.md

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_TURN = {  # EXIF orientation -> the operation that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ON_ITS_SIDE = frozenset(_TURN[orientation] for orientation in (5, 6, 7, 8))
_DECODERS = {"JPEG": ("JPEG", "MPO"), "BMP": ("BMP", "DIB")}
_CUT = ("truncated", "eof", "unexpected end", "broken data stream", "not enough")  # in decoders' messages

# Pillow warns from 89 megapixels and refuses from 179. Large photos need no warning; refused ones are reported.
# Its warnings about damaged EXIF data, common in Kaggle's photos, are of no use either: only the pixels count.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Raw = bytes | NDArray[np.generic]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One image of a data set. ``pixels`` is None where the image is known or unreadable."""

    index: int
    key: bytes  # hash of the content; empty for an unreadable image
    pixels: NDArray[np.uint8] | None  # (size, size, 3)
    thumbnail: NDArray[np.uint8] | None  # (THUMBNAIL, THUMBNAIL), grey
    error: UnreadableImageError | None = None
    format: str = ""  # of FORMATS, as the file itself says; "" for pixels


def content_key(raw: Raw) -> bytes:
    """A hash of an image's content, 16 bytes."""
    digest = hashlib.blake2b(digest_size=KEY)
    if isinstance(raw, bytes):
        digest.update(raw)
    else:
        digest.update(f"{raw.dtype.str}{raw.shape}".encode())
        digest.update(np.ascontiguousarray(raw).data)
    return digest.digest()


def open_image(raw: Raw, levels: Levels | None = None, most: int = MOST_PIXELS) -> Image.Image:
    """Open an image; its pixels are not decoded yet, unless they have more than 8 bits; see `open_unscaled`."""
    found = open_unscaled(raw, most)
    return found if isinstance(found, Image.Image) else from_array(found, levels)


def open_unscaled(raw: Raw, most: int = MOST_PIXELS) -> Image.Image | NDArray[Any]:
    """Open an image: one of Pillow's, or an array where that would not have all bits.

    Args:
        most: pixels of a file that may be decoded; the file's header says how many it has.

    Raises:
        UnreadableImageError: empty, of an unknown format, or too large to be decoded safely.
    """
    if not isinstance(raw, bytes):
        return raw
    if not raw:
        raise UnreadableImageError("empty", "0 bytes")
    known = sniff(raw[:HEAD])
    if known == "TIFF":
        no_tiff_messages()
    try:  # no other decoder is tried: some start a program
        if (known == HEIF.name and not has_heif()) or (known == "AVIF" and not has_avif()):
            raise unknown_format(raw[:HEAD])
        image = Image.open(io.BytesIO(raw), formats=_DECODERS.get(known, (known or "TGA",)))
        check_pixels(image.width * image.height, most)
        pixels = deep_pixels(raw, image)
        return image if pixels is None else pixels
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise too_many_pixels(min(most, MOST_PIXELS)) from error
    except Exception as error:  # a damaged header can raise nearly anything
        if not known:
            raise unknown_format(raw[:HEAD]) from error
        if isinstance(error, UnidentifiedImageError):
            if known == "TIFF" and (pixels := _try_tiff(raw, most)) is not None:
                return pixels
            detail = f"begins as a {known} file, but its header is cut short or damaged"
            raise UnreadableImageError("truncated", detail) from error
        raise why_unreadable(error) from error


def _try_tiff(raw: bytes, most: int) -> NDArray[Any] | None:
    """The pixels of a TIFF file that Pillow does not know, or None."""
    try:
        return read_tiff(raw, most)
    except UnreadableImageError as error:
        if error.kind == "bomb":
            raise
        return None
    except Exception:  # it is damaged, which Pillow's error says better
        return None


def decode(raw: Raw, spec: ImageSpec, most: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """The centred square of an image at the size of ``spec``: uint8 RGB, shape (size, size, 3).

    Args:
        most: pixels of a file that may be decoded.

    Raises:
        UnreadableImageError: with the reason in ``kind``.
    """
    return np.asarray(_square(raw, spec, most))


def decode_with_thumbnail(raw: Raw, spec: ImageSpec) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """As `decode`, and the grey thumbnail (THUMBNAIL, THUMBNAIL) of the same square."""
    square = _square(raw, spec)
    return np.asarray(square), np.asarray(square.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def decode_whole(raw: Raw, side: int, levels: Levels | None = None) -> NDArray[np.uint8]:
    """The whole of an image for people to look at: uint8 RGB, its longer side at most ``side`` pixels.

    Raises:
        UnreadableImageError: with the reason in ``kind``.
    """
    image = open_image(raw, levels)
    try:
        image.draft(None, (side, side))
        image.load()
        turn = _turn_of(image)
        image = to_rgb(image, levels)
        scale = side / max(image.size)
        if scale < 1:
            width, height = (max(1, round(length * scale)) for length in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(image.transpose(turn) if turn is not None else image)
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise why_unreadable(error) from error


def load_image(dataset: ImageDataset, index: int, spec: ImageSpec, known: Container[bytes] = ()) -> Decoded:
    """Read and decode one image of a data set, unless its key is ``known``. An unreadable one has an ``error``."""
    try:
        raw = dataset.read(index)
        key = content_key(raw)
        if key in known:
            return Decoded(index, key, None, None)
        kind = sniff(raw[:HEAD]) if isinstance(raw, bytes) else ""
        return Decoded(index, key, *decode_with_thumbnail(raw, spec), format=kind)
    except UnreadableImageError as error:
        return Decoded(index, b"", None, None, error)
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        return Decoded(index, b"", None, None, UnreadableImageError(kind, reason_of(error)))


def became_unreadable(dataset: ImageDataset, index: int, error: Exception | None) -> DataError:
    """The error for an image that could be read when the work began, and now cannot."""
    return DataError(
        f"'{dataset.samples[index].name}' could be read before, and now cannot: {reason_of(error)}. "
        "Put it back, or leave it out and start again."
    )


def in_chunks(
    work: Callable[[Sequence[int]], Iterable[T]], indices: Sequence[int], threads: int | None = None
) -> Iterator[T]:
    """Results of ``work`` on chunks of ``indices``: in order, on threads, up to `AHEAD` chunks ahead."""
    chunks = (indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK))
    pool = ThreadPoolExecutor(threads or cores(), thread_name_prefix="headstart")
    waiting: deque[Future[Iterable[T]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) >= AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:  # also when the caller stops early: nothing goes on in the background
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _square(raw: Raw, spec: ImageSpec, most: int = MOST_PIXELS) -> Image.Image:
    image = open_image(raw, spec.levels, most)
    try:
        whole = image.size
        need = DRAFT * spec.size / spec.crop / min(whole)
        if need < 1:  # JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the time
            image.draft(None, (round(whole[0] * need), round(whole[1] * need)))
        scale = round(whole[0] / image.size[0])
        image.load()
        turn = _turn_of(image)  # asked after loading, which turns a TIFF by itself
        image = to_rgb(image, spec.levels)
        box = _centre(whole, scale, spec.crop)
        square = _scaled(image, box, spec, down_first=turn in _ON_ITS_SIDE)
        return square.transpose(turn) if turn is not None else square  # a centred square turns into itself
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything, from struct.error to IndexError
        raise why_unreadable(error) from error


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURN.get(image.getexif().get(0x0112, 1)) if image.format else None
    except Exception:  # a damaged EXIF block says nothing about the photo itself
        return None


def _centre(whole: tuple[int, int], scale: int, crop: float) -> tuple[float, float, float, float]:
    """The centred square of an image of the size ``whole``, in the pixels of the same decoded at 1 / ``scale``.

    Those are rounded up to whole pixels, so the centre of what was decoded would lie beside that of the image.
    """
    side = min(whole) * crop
    left, top = (whole[0] - side) / 2, (whole[1] - side) / 2
    return left / scale, top / scale, (left + side) / scale, (top + side) / scale


def _scaled(
    image: Image.Image, box: tuple[float, float, float, float], spec: ImageSpec, *, down_first: bool
) -> Image.Image:
    """The square ``box`` of an image at the size of ``spec``, in two passes, the first of them across.

    Each rounds to 8 bits, so their order shows. Pillow chooses it by its version and the shape of the photo; here it
    is across as people see the photo, that is down where it lies on its side.
    """
    size, kernel = spec.size, _RESAMPLE[spec.resample]
    margin = MARGIN * max((box[2] - box[0]) / size, 1)
    start = [max(0, math.floor(edge - margin)) for edge in box[:2]]
    stop = [min(most, math.ceil(edge + margin)) for edge, most in zip(box[2:], image.size, strict=True)]
    part = image.crop((start[0], start[1], stop[0], stop[1]))
    left, top, right, bottom = (edge - start[place % 2] for place, edge in enumerate(box))
    if down_first:
        part = part.resize((part.width, size), kernel, (0, top, part.width, bottom))
        return part.resize((size, size), kernel, (left, 0, right, size))
    part = part.resize((size, part.height), kernel, (left, 0, right, part.height))
    return part.resize((size, size), kernel, (0, top, size, bottom))


def why_unreadable(error: Exception) -> UnreadableImageError:
    text = str(error) or type(error).__name__
    if text.startswith("decoder error"):  # of libtiff, with its number
        text = f"its pixels are damaged, or compressed in a way that is not known ({text})"
    cut = any(word in text.lower() for word in _CUT)
    return UnreadableImageError("truncated" if cut else "unreadable", text)
