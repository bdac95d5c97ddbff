"""Images that a caller holds: arrays, tensors, Pillow's images, the contents of files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstart.core.errors import UsageError, reason_of
from headstart.core.missing import why_missing
from headstart.core.regular_file import read_regular
from headstart.core.types import ImageDataset, Sample
from headstart.data.formats import MOST_BYTES
from headstart.data.mistaken import WHAT, described
from headstart.data.pixels import to_rgb
from headstart.data.sources import from_arrays, label_texts

CHANNELS = (1, 3, 4)
LONGEST_PATH = 4096  # bytes


def is_tensor(value: Any) -> bool:
    """Arrays, columns of a table, and tensors of any framework."""
    return hasattr(value, "__array__") and not isinstance(value, Image.Image | str | bytes)  # NumPy's words are str


def as_array(value: Any) -> NDArray[Any]:
    """An array; PyTorch's images (…, channels, height, width), of any device, with the channels last."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    array = np.asarray(value.detach().cpu())
    first = array.ndim in (3, 4) and array.shape[-3] in CHANNELS and array.shape[-1] not in CHANNELS
    return np.moveaxis(array, -3, -1) if first else array


def from_items(items: Sequence[Any], labels: Sequence[object] | None) -> ImageDataset:
    """Images in memory: arrays as `from_arrays` has them, and the contents of files."""
    if all(isinstance(item, np.ndarray) for item in items):
        return from_arrays(items, labels)
    contents = [_content_at(item, f"Image {index}") for index, item in enumerate(items)]
    arrays = {index: item for index, item in enumerate(contents) if not isinstance(item, bytes)}
    checked = from_arrays([*arrays.values()]) if arrays else None
    row = {index: k for k, index in enumerate(arrays)}
    texts = [""] * len(items) if labels is None else label_texts(labels, len(items), "images")

    def read(index: int) -> bytes | NDArray[np.generic]:
        content = contents[index]
        return content if isinstance(content, bytes) or checked is None else checked.read(row[index])

    names = [name_of_item(item, index) for index, item in enumerate(items)]
    return ImageDataset("", [Sample(name, text) for name, text in zip(names, texts, strict=True)], read)


def _content_at(item: Any, what: str) -> bytes | NDArray[Any]:
    """As `content_of`, where a path that cannot be read is a sentence."""
    try:
        return content_of(item, what)
    except OSError as error:
        if not isinstance(item, str | os.PathLike):
            raise UsageError(f"{what} cannot be read: {reason_of(error)}.") from error
        raise UsageError(why_missing(item) or f"'{os.fspath(item)}' cannot be read: {reason_of(error)}.") from error


def content_of(item: Any, what: str) -> bytes | NDArray[Any]:
    """The bytes of an image's file, or its pixels.

    Raises:
        UsageError: something that is no image; it begins with ``what``.
        OSError: a path that cannot be read.
    """
    if is_tensor(item):
        return as_array(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return _not_a_path(bytes(item), what)
    if isinstance(item, Image.Image):
        try:
            return np.asarray(to_rgb(ImageOps.exif_transpose(item)))
        except ValueError as error:  # Pillow's word for it
            raise UsageError(f"{what}: the image cannot be read: {error}. Open it again, or give its path.") from error
    if isinstance(item, str | os.PathLike):
        return read_regular(item, MOST_BYTES)
    if is_hugging_face_image(item):
        given = item.get("bytes") or item.get("path")
        if given:
            return content_of(given, what)
    if hasattr(item, "read"):
        return _rest_of(item, what)
    raise UsageError(f"{what}: {WHAT[0].lower()}{WHAT[1:]} Received: {described(item)}.")


def is_hugging_face_image(item: Any) -> bool:
    """Whether it is a file's content with its path, as those data sets keep an image."""
    return isinstance(item, Mapping) and "bytes" in item and {*item} <= {"bytes", "path"}


def _not_a_path(content: bytes, what: str) -> bytes:
    """The content of a file.

    Raises:
        UsageError: it is the path of one.
    """
    if len(content) < LONGEST_PATH and b"\0" not in content and os.path.exists(content):
        raise UsageError(f"{what}: received the path {content!r} as bytes. Give it as text: os.fsdecode(path).")
    return content


def _rest_of(file: Any, what: str) -> bytes:
    """What an open file has from where it stands.

    Raises:
        UsageError: it is closed, at its end, or opened as text.
    """
    if getattr(file, "closed", False):
        raise UsageError(f"{what}: the file is closed. Give its path, or open it again.")
    content = "" if isinstance(file, io.TextIOBase) else file.read()
    if isinstance(content, str):
        raise UsageError(
            f"{what}: expected the bytes of an image's file. Received: a file opened as text ({described(file)}). "
            'Open it with "rb".'
        )
    if not content and hasattr(file, "tell") and file.tell():
        raise UsageError(f"{what}: the file was read to its end. Go back to its beginning: file.seek(0).")
    if not isinstance(content, bytes):
        raise UsageError(f"{what}: expected a file that gives bytes. Received: {described(content)}.")
    return content


def name_of_item(item: Any, index: int) -> str:
    """What an image is called in messages and answers: its path where it has one, else by its number."""
    if isinstance(item, Mapping) and item.get("path"):
        item = item["path"]
    elif isinstance(item, Image.Image):
        item = getattr(item, "filename", None) or None  # "" where it was opened from memory
    elif hasattr(item, "read"):
        item = getattr(item, "name", None)  # of an open file; it may be a number
    return os.fspath(item) if isinstance(item, str | os.PathLike) else f"images[{index}]"
