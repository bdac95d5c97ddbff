"""Images for the network: decoded, resized in the same way everywhere, uint8 RGB; on threads, ahead of the network."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import DataError, UnreadableImageError, reason_of
from headstart.core.processors import AHEAD, CHUNK, cores
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data.formats import HEAD, sniff
from headstart.data.memory import NO_MEMORY, once_more_alone
from headstart.data.opened_image import Raw, Size, opened
from headstart.data.pixels import MOST_PIXELS, Box, Levels, bands, rgb_parts

KEY = 16  # bytes of the hash of an image's content
THUMBNAIL = 16  # side of the grey thumbnail by which near copies are found
SMALL = 4096  # bytes of an image that is decoded in a fifth of a millisecond
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

_PROBLEMS = (UnreadableImageError, MemoryError, OSError)  # of one image; any other is of all
_one_at_a_time = threading.Lock()  # of small images

Parts = Callable[[Box], Image.Image]  # gives any part of an image, in RGB
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
    size: int = 0  # bytes, before it was decoded


def content_key(raw: Raw) -> bytes:
    """A hash of an image's content, 16 bytes."""
    digest = hashlib.blake2b(digest_size=KEY)
    if isinstance(raw, bytes):
        digest.update(raw)
    else:
        digest.update(f"{raw.dtype.str}{raw.shape}".encode())
        digest.update(np.ascontiguousarray(raw).data)
    return digest.digest()


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


@once_more_alone
def decode_whole(raw: Raw, side: int, levels: Levels | None = None) -> NDArray[np.uint8]:
    """The whole of an image for people to look at: uint8 RGB, its longer side at most ``side`` pixels.

    Raises:
        UnreadableImageError: with the reason in ``kind``.
    """
    with opened(raw, draft=lambda whole: (side, side)) as image:
        turn = _turn_of(image.found)
        shrink = min(side / max(image.size), 1)
        width, height = (max(1, round(length * shrink)) for length in image.size)
        whole = (0, 0, *image.size)
        small = _resized(rgb_parts(image.found, levels), whole, whole, (width, height))
        return np.asarray(small.transpose(turn) if turn is not None else small)


def load_images(
    dataset: ImageDataset, indices: Sequence[int], spec: ImageSpec, known: Container[bytes] = ()
) -> list[Decoded]:
    """Read and decode images of a data set, but those whose key is ``known``. Unreadable ones have an ``error``.

    Those of at most `SMALL` bytes are decoded by one thread at a time: it takes as long as threads of Python need to
    change places, so several together would be slower.
    """
    found: dict[int, Decoded] = {}
    small: list[_Read] = []
    for index in indices:
        item = _read(dataset, index, known)
        if isinstance(item, Decoded):
            found[index] = item
        elif _size(item.raw) <= SMALL:
            small.append(item)
        else:
            found[index] = _decoded(item, spec)
    if small:
        with _one_at_a_time:
            found |= {item.index: _decoded(item, spec) for item in small}
    return [found[index] for index in indices]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """One image of a data set, not decoded yet."""

    index: int
    key: bytes
    raw: Raw


def _size(raw: Raw) -> int:
    return len(raw) if isinstance(raw, bytes) else raw.nbytes


def _read(dataset: ImageDataset, index: int, known: Container[bytes]) -> _Read | Decoded:
    try:
        raw = dataset.read(index)
        key = content_key(raw)
        return Decoded(index, key, None, None, size=_size(raw)) if key in known else _Read(index, key, raw)
    except _PROBLEMS as error:
        return _unreadable(index, error)


def _decoded(item: _Read, spec: ImageSpec) -> Decoded:
    raw = item.raw
    try:
        kind = sniff(raw[:HEAD]) if isinstance(raw, bytes) else ""
        return Decoded(item.index, item.key, *decode_with_thumbnail(raw, spec), format=kind, size=_size(raw))
    except _PROBLEMS as error:
        return _unreadable(item.index, error)


def _unreadable(index: int, error: Exception) -> Decoded:
    match error:
        case UnreadableImageError():
            reason = error
        case MemoryError():  # of reading; decoding has its own
            reason = UnreadableImageError("memory", NO_MEMORY)
        case _:
            kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
            reason = UnreadableImageError(kind, reason_of(error))
    return Decoded(index, b"", None, None, reason)


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


@once_more_alone
def _square(raw: Raw, spec: ImageSpec, most: int = MOST_PIXELS) -> Image.Image:
    def draft(whole: Size) -> Size | None:
        """JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the time."""
        need = DRAFT * spec.size / spec.crop / min(whole)
        return (round(whole[0] * need), round(whole[1] * need)) if need < 1 else None

    with opened(raw, most, draft) as image:
        scale = round(image.whole[0] / image.size[0])
        turn = _turn_of(image.found)
        box = _centre(image.whole, scale, spec.crop)
        parts = rgb_parts(image.found, spec.levels)
        square = _scaled(parts, image.size, box, spec, down_first=turn in _ON_ITS_SIDE)
        return square.transpose(turn) if turn is not None else square  # a centred square turns into itself


def _turn_of(found: Image.Image | NDArray[Any]) -> Image.Transpose | None:
    """How an image is to be turned; asked once it is decoded, which turns a TIFF by itself."""
    if not isinstance(found, Image.Image):
        return None
    found.load()
    try:
        return _TURN.get(found.getexif().get(0x0112, 1)) if found.format else None
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
    parts: Parts, whole: Size, box: tuple[float, float, float, float], spec: ImageSpec, *, down_first: bool
) -> Image.Image:
    """The square ``box`` of an image at the size of ``spec``."""
    size = spec.size
    margin = MARGIN * max((box[2] - box[0]) / size, 1)
    start = [max(0, math.floor(edge - margin)) for edge in box[:2]]
    stop = [min(most, math.ceil(edge + margin)) for edge, most in zip(box[2:], whole, strict=True)]
    part = (start[0], start[1], stop[0], stop[1])
    return _resized(parts, part, box, (size, size), _RESAMPLE[spec.resample], down_first=down_first)


def _resized(
    parts: Parts,
    part: Box,
    box: tuple[float, float, float, float],
    size: Size,
    kernel: Image.Resampling = Image.Resampling.BICUBIC,
    *,
    down_first: bool = False,
) -> Image.Image:
    """The ``box`` of an image in a ``size``, in two passes, the first of them across; ``part`` is all that it needs.

    Each rounds to 8 bits, so their order shows. Pillow chooses it by its version and the shape of the photo; here it
    is across as people see the photo, that is down where it lies on its side. The first pass takes the image in bands,
    which gives the same pixels.
    """
    left, top, right, bottom = (edge - part[place % 2] for place, edge in enumerate(box))
    width, height = part[2] - part[0], part[3] - part[1]

    def pieces() -> Iterator[tuple[Size, Image.Image]]:
        """Those of the first pass, and the corners where they lie."""
        for _, start, _, stop in bands((height, width) if down_first else (width, height)):
            long = stop - start  # no image of a band is kept while the next one is taken
            if down_first:
                band = (part[0] + start, part[1], part[0] + stop, part[3])
                yield (start, 0), parts(band).resize((long, size[1]), kernel, (0, top, long, bottom))
            else:
                band = (part[0], part[1] + start, part[2], part[1] + stop)
                yield (0, start), parts(band).resize((size[0], long), kernel, (left, 0, right, long))

    passed = _together(pieces(), (width, size[1]) if down_first else (size[0], height))
    return passed.resize(size, kernel, (left, 0, right, size[1]) if down_first else (0, top, size[0], bottom))


def _together(pieces: Iterator[tuple[Size, Image.Image]], size: Size) -> Image.Image:
    """One image of pieces and their corners."""
    corner, piece = next(pieces)
    if piece.size == size:
        return piece
    whole = Image.new("RGB", size)
    whole.paste(piece, corner)
    for corner, piece in pieces:
        whole.paste(piece, corner)
    return whole
