"""Images and labels as a caller may have them: paths, arrays, tensors, columns, open files, Pillow's images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstart.core.errors import UsageError
from headstart.core.labels import TEXT, as_kind, kind_of
from headstart.core.types import ImageDataset, Sample
from headstart.data.pixels import to_rgb
from headstart.data.sources import PathLike, from_arrays, from_pairs, label_texts, open_source, unlabelled

Images = PathLike | bytes | Image.Image | ImageDataset | Iterable[Any]  # of paths, arrays, bytes or images
_WHAT = (
    "Expected a path, a list or a column of paths, arrays (height × width × channels), Pillow's images, or the bytes "
    "of image files."
)


def labelled_dataset(data: Images, labels: Iterable[object] | None, kind: str = TEXT) -> ImageDataset:
    """Labelled images as one data set; ``labels`` in the order of the images.

    Args:
        kind: what labels are to be, so far as they can be: of a classifier that they are held against.

    Raises:
        UsageError: images of another kind, not as many labels as images, or labels that are not one for each image.
    """
    if labels is None:
        if isinstance(data, ImageDataset):
            return data
        if isinstance(data, str | os.PathLike):
            return open_source(data)
        if _is_table(data):
            raise UsageError("Received a whole table. Give its columns: (table['path'], table['label']).")
        raise UsageError(
            "Images without labels cannot be scored: name a folder with a folder for each class, or give labels."
        )
    words = [as_kind(label, kind) for label in one_each(labels)]
    if isinstance(data, ImageDataset):
        texts = label_texts(words, len(data), "images")
        samples = [replace(sample, label=text) for sample, text in zip(data.samples, texts, strict=True)]
        return replace(data, samples=samples, label_kind=kind_of(words))
    items = _items(data)
    paths = all(isinstance(item, str | os.PathLike) for item in items)
    return replace((from_pairs if paths else _from_items)(items, words), label_kind=kind_of(words))


def unlabelled_dataset(images: Images) -> ImageDataset:
    """Images without labels as one data set, in their order.

    Raises:
        UsageError: images of another kind, or a path that is not there.
    """
    if isinstance(images, ImageDataset):
        return images
    items = _items(images)
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        return unlabelled(items)
    return _from_items(items, None)


def _items(images: Any) -> list[Any]:
    """The images one by one: paths, arrays, bytes or Pillow's images."""
    if isinstance(images, str | os.PathLike | bytes | bytearray | Image.Image) or hasattr(images, "read"):
        return [images]
    if isinstance(images, Mapping) or _is_table(images):
        raise UsageError(f"Received {type(images).__name__}: give one column of it, or a list. {_WHAT}")
    if not isinstance(images, Iterable):
        raise UsageError(f"{_WHAT} Received: {type(images).__name__}.")
    if _is_tensor(images):
        array = _as_array(images)
        if array.dtype.kind in "OUS":
            return list(array.ravel().tolist())
        single = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
        return [array] if single else [*array]
    return [_as_array(item) if _is_tensor(item) else item for item in images]


def _is_table(value: Any) -> bool:
    """A whole table, as pandas has one."""
    return hasattr(value, "columns") and hasattr(value, "iloc")


def _is_tensor(value: Any) -> bool:
    """Arrays, columns of a table, and tensors of any framework."""
    return hasattr(value, "__array__") and not isinstance(value, Image.Image | str | bytes)  # NumPy's words are str


def _as_array(value: Any) -> NDArray[Any]:
    if hasattr(value, "detach"):  # PyTorch's, perhaps on an accelerator
        value = value.detach().cpu()
    return np.asarray(value)


def _from_items(items: Sequence[Any], labels: Sequence[object] | None) -> ImageDataset:
    """Images in memory: arrays as `from_arrays` has them, and the contents of files."""
    if all(isinstance(item, np.ndarray) for item in items):
        return from_arrays(items, labels)
    contents = [_content(item, index) for index, item in enumerate(items)]
    arrays = {index: item for index, item in enumerate(contents) if not isinstance(item, bytes)}
    checked = from_arrays([*arrays.values()]) if arrays else None
    row = {index: k for k, index in enumerate(arrays)}
    texts = [""] * len(items) if labels is None else label_texts(labels, len(items), "images")

    def read(index: int) -> bytes | NDArray[np.generic]:
        content = contents[index]
        return content if isinstance(content, bytes) or checked is None else checked.read(row[index])

    names = [_name_of(item, index) for index, item in enumerate(items)]
    return ImageDataset("", [Sample(name, text) for name, text in zip(names, texts, strict=True)], read)


def _content(item: Any, index: int) -> bytes | NDArray[Any]:
    if isinstance(item, np.ndarray):
        return item
    if isinstance(item, bytes | bytearray):
        return bytes(item)
    if isinstance(item, Image.Image):
        return np.asarray(to_rgb(ImageOps.exif_transpose(item)))
    if isinstance(item, str | os.PathLike):
        with open(item, "rb") as file:
            return file.read()
    if hasattr(item, "read"):
        content = item.read()
        if isinstance(content, bytes):
            return content
    raise UsageError(f"Image {index}: {_WHAT} Received: {type(item).__name__}.")


def _name_of(item: Any, index: int) -> str:
    return os.fspath(item) if isinstance(item, str | os.PathLike) else f"images[{index}]"


def one_each(labels: Any) -> list[object]:
    """Labels as a list with one for each image.

    Raises:
        UsageError: a dictionary, one-hot rows, or several labels for an image.
    """
    if isinstance(labels, Mapping):
        raise UsageError(
            "Expected labels in the order of the images. Received a dictionary: [labels[p] for p in paths]."
        )
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise UsageError(f"Expected one label for each image. Received: {labels!r:.60}.")
    if _is_tensor(labels):
        array = _as_array(labels)
        if array.ndim == 2 and array.shape[1] == 1:
            raise UsageError(f"Expected one label for each image. Received a column, {array.shape}: labels.ravel().")
        if array.ndim > 1:
            raise UsageError(
                f"Expected one label for each image. Received an array of shape {array.shape}; of one-hot rows take "
                "labels.argmax(axis=1)."
            )
        labels = array.tolist()
    words = list(labels)
    for index, label in enumerate(words):
        if isinstance(label, bytes | list | tuple | set | frozenset | Mapping) or (
            _is_tensor(label) and np.ndim(label)
        ):
            raise UsageError(f"Label {index} is {label!r:.60}. Expected one label for each image, a word or a number.")
    return words


def name_of(data: Images, dataset: ImageDataset) -> str:
    """A short name of the data: of the folder, the file or the named set."""
    place = data if isinstance(data, str | os.PathLike) else dataset.root
    return os.path.basename(os.path.abspath(place)) if place else "in memory"
