"""What it takes to decode an image, and how much of that all threads hold at a time."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from headstart.core.errors import UnreadableImageError
from headstart.data.pixels import BITS, SAMPLES

MOST_BYTES = 1_300_000_000  # that all threads hold of images that are being decoded
NO_MEMORY = "not enough memory to decode it; end other programs, or make it smaller"
LARGE = 100_000_000  # bytes that are given back to the system at once
_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # bytes a pixel in Pillow; of the others 4
_OF_DECODER = {  # bytes a pixel that these take, measured, or estimated from above
    "WEBP": 16, "JPEG2000": 20, "AVIF": 14, "HEIF": 14, "ICNS": 20, "DDS": 12, "FITS": 16, "PSD": 8, "QOI": 8, "SGI": 8,
}  # fmt: skip
_COEFFICIENT = 2  # bytes of a JPEG in several passes, for each value of the whole image, whatever is made of it
_SCAN = b"\xff\xda"

F = TypeVar("F", bound=Callable[..., Any])


class Memory:
    """Bytes that threads hold together. One that needs more than are left waits for the others."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held = 0
        self._changed = threading.Condition()
        self._here = threading.local()  # whether this thread holds some, which is all that it needs

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Hold so many bytes.

        Raises:
            UnreadableImageError: of the kind "bomb": more than all threads may hold.
        """
        if count > self.most:
            raise UnreadableImageError(
                "bomb",
                f"decoding takes {count / 1e9:.1f} GB, and {self.most / 1e9:.1f} are allowed; shrink it if it is a "
                "real photo",
            )
        if getattr(self._here, "holds", False):
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._held + count <= self.most)
            self._held += count
        self._here.holds = True
        try:
            yield
        finally:
            if count >= LARGE:
                _give_back()
            self._here.holds = False
            with self._changed:
                self._held -= count
                self._changed.notify_all()


def _give_back() -> None:
    """Return what was freed to the system: glibc keeps a share of it for each thread, which is many times the limit."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


MEMORY = Memory(MOST_BYTES)


def bytes_to_decode(image: Image.Image, size: tuple[int, int], whole: tuple[int, int], raw: bytes) -> int:
    """Bytes that decoding an image takes at most, the file among them.

    Args:
        image: opened, and not decoded.
        size: width and height at which it will be; ``whole`` if not at a fraction.
    """
    pixel = max(_of_pixel(image), _OF_DECODER.get(image.format or "", 0))
    count = len(raw) + size[0] * size[1] * pixel
    if image.format in ("JPEG", "MPO") and raw.count(_SCAN) > 1:  # or a thumbnail inside; it only seems to take more
        count += _COEFFICIENT * whole[0] * whole[1] * len(image.getbands())
    return count


def _of_pixel(image: Image.Image) -> int:
    """Bytes of a pixel in Pillow, and in the array of all its bits where there are more than 8."""
    deep = 0
    if isinstance(image, PngImageFile) and image.tile and str(image.tile[0].args).endswith(";16B"):
        deep = 2 * len(image.getbands())
    tags: Any = getattr(image, "tag_v2", {})
    if image.format == "TIFF" and max(bits := _numbers(tags.get(BITS, 1))) > 8:
        samples = max(len(bits), *_numbers(tags.get(SAMPLES, 1)))
        return samples * -(-max(bits) // 8)  # tifffile decodes it, not Pillow
    return _OF_MODE.get(image.mode, 4) + deep


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(each) for each in value) if isinstance(value, tuple) else (int(value),)


def once_more_alone(function: F) -> F:
    """Where there is not enough memory, call a function again while no other thread decodes.

    Raises:
        UnreadableImageError: of the kind "memory": that was not enough either.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except MemoryError:
            pass  # what it had taken is free only now
        with MEMORY.hold(MEMORY.most):
            try:
                return function(*args, **kwargs)
            except MemoryError as error:
                raise UnreadableImageError("memory", NO_MEMORY) from error

    return cast("F", run)
