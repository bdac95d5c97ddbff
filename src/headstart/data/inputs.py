"""Images and labels as a caller may have them: paths, arrays, tensors, columns, open files, Pillow's images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from headstart.core.errors import UsageError
from headstart.core.labels import TEXT, as_given, as_kind, kind_of
from headstart.core.types import ImageDataset
from headstart.data.columns import Columns
from headstart.data.frames import frame_dataset, frame_images, is_frame
from headstart.data.in_memory import WHAT, as_array, from_items, is_tensor
from headstart.data.sources import PathLike, from_pairs, label_texts, open_source, unlabelled

Images = PathLike | bytes | Image.Image | ImageDataset | Iterable[Any]  # of paths, arrays, bytes or images


def labelled_dataset(data: Images, labels: Iterable[object] | None, kind: str = TEXT) -> ImageDataset:
    """Labelled images as one data set; ``labels`` in the order of the images, or the name of a table's column.

    Args:
        kind: what labels are to be, so far as they can be: of a classifier that they are held against.

    Raises:
        UsageError: images of another kind, not as many labels as images, or labels that are not one for each image.
    """
    if is_frame(data):
        if labels is None or isinstance(labels, str):
            return _of_kind(frame_dataset(data, Columns(label=labels)), kind)
        data = frame_images(data)
    if labels is None:
        if isinstance(data, ImageDataset):
            return data
        if isinstance(data, str | os.PathLike):
            return open_source(data)
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
    return replace((from_pairs if paths else from_items)(items, words), label_kind=kind_of(words))


def _of_kind(dataset: ImageDataset, kind: str) -> ImageDataset:
    """The same with labels of another kind, so far as they can be."""
    if kind in (TEXT, dataset.label_kind):
        return dataset
    return labelled_dataset(dataset, as_given([each.label for each in dataset.samples], dataset.label_kind), kind)


def unlabelled_dataset(images: Images) -> ImageDataset:
    """Images without labels as one data set, in their order.

    Raises:
        UsageError: images of another kind, or a path that is not there.
    """
    if isinstance(images, ImageDataset):
        return images
    if is_frame(images):
        return frame_images(images)
    items = _items(images)
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        return unlabelled(items)
    return from_items(items, None)


def _items(images: Any) -> list[Any]:
    """The images one by one: paths, arrays, bytes or Pillow's images."""
    if isinstance(images, str | os.PathLike | bytes | bytearray | Image.Image) or hasattr(images, "read"):
        return [images]
    if isinstance(images, Mapping):
        raise UsageError(f"Received {type(images).__name__}: give one column of it, or a list. {WHAT}")
    if not isinstance(images, Iterable):
        raise UsageError(f"{WHAT} Received: {type(images).__name__}.")
    if is_tensor(images):
        array = as_array(images)
        if array.dtype.kind in "OUS":
            return list(array.ravel().tolist())
        single = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
        return [array] if single else [*array]
    return [as_array(item) if is_tensor(item) else item for item in images]


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
    if is_tensor(labels):
        array = as_array(labels)
        if array.ndim == 2 and array.shape[1] == 1:
            raise UsageError(f"Expected one label for each image. Received a column, {array.shape}: labels.ravel().")
        if array.ndim > 1:
            raise UsageError(
                f"Expected one label for each image. Received an array of shape {array.shape}; of one-hot rows take "
                "labels.argmax(axis=1)."
            )
        labels = array.tolist()
    words = [label.item() if is_tensor(label) and not np.ndim(label) else label for label in labels]
    for index, label in enumerate(words):
        if isinstance(label, bytes | list | tuple | set | frozenset | Mapping) or (is_tensor(label) and np.ndim(label)):
            raise UsageError(f"Label {index} is {label!r:.60}. Expected one label for each image, a word or a number.")
    return words


def name_of(data: Images, dataset: ImageDataset) -> str:
    """A short name of the data: of the folder, the file or the named set."""
    place = data if isinstance(data, str | os.PathLike) else dataset.root
    return os.path.basename(os.path.abspath(place)) if place else "in memory"
