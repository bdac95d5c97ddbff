"""Images that a caller holds: arrays, tensors, Pillow's images, the contents of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstart.core.errors import UsageError
from headstart.core.types import ImageDataset, Sample
from headstart.data.pixels import to_rgb
from headstart.data.sources import from_arrays, label_texts

WHAT = (
    "Expected a path, a list or a column of paths, arrays (height × width × channels), Pillow's images, or the bytes "
    "of image files."
)
CHANNELS = (1, 3, 4)


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
    contents = [content_of(item, f"Image {index}") for index, item in enumerate(items)]
    arrays = {index: item for index, item in enumerate(contents) if not isinstance(item, bytes)}
    checked = from_arrays([*arrays.values()]) if arrays else None
    row = {index: k for k, index in enumerate(arrays)}
    texts = [""] * len(items) if labels is None else label_texts(labels, len(items), "images")

    def read(index: int) -> bytes | NDArray[np.generic]:
        content = contents[index]
        return content if isinstance(content, bytes) or checked is None else checked.read(row[index])

    names = [name_of_item(item, index) for index, item in enumerate(items)]
    return ImageDataset("", [Sample(name, text) for name, text in zip(names, texts, strict=True)], read)


def content_of(item: Any, what: str) -> bytes | NDArray[Any]:
    """The bytes of an image's file, or its pixels.

    Raises:
        UsageError: something that is no image; it begins with ``what``.
        OSError: a path that cannot be read.
    """
    if is_tensor(item):
        return as_array(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if isinstance(item, Image.Image):
        return np.asarray(to_rgb(ImageOps.exif_transpose(item)))
    if isinstance(item, str | os.PathLike):
        with open(item, "rb") as file:
            return file.read()
    if isinstance(item, Mapping) and {"bytes", "path"} & item.keys():  # as Hugging Face's data sets keep images
        given = item.get("bytes") or item.get("path")
        if given:
            return content_of(given, what)
    if hasattr(item, "read"):
        content = item.read()
        if isinstance(content, bytes):
            return content
    raise UsageError(f"{what}: {WHAT} Received: {type(item).__name__}.")


def name_of_item(item: Any, index: int) -> str:
    """What an image is called in messages and answers: its path where it has one, else by its number."""
    if isinstance(item, Mapping) and item.get("path"):
        item = item["path"]
    elif isinstance(item, Image.Image):
        item = getattr(item, "filename", None) or None  # "" where it was opened from memory
    elif hasattr(item, "read"):
        item = getattr(item, "name", None)  # of an open file; it may be a number
    return os.fspath(item) if isinstance(item, str | os.PathLike) else f"images[{index}]"
