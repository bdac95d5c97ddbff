"""Images and labels as a caller may have them: paths, arrays, tensors, columns, open files, Pillow's images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import UsageError
from headstart.core.labels import TEXT, as_given, as_kind, kind_of
from headstart.core.missing import why_missing
from headstart.core.types import ImageDataset
from headstart.data.columns import Columns
from headstart.data.frames import frame_dataset, frame_images, is_frame
from headstart.data.in_memory import as_array, from_items, is_hugging_face_image, is_tensor
from headstart.data.mistaken import described, has_no_order, why_no_images, why_not_labelled
from headstart.data.pairs import in_hand, pairs_of
from headstart.data.patterns import filled_in, matches
from headstart.data.scan import printable
from headstart.data.sources import PathLike, from_pairs, label_texts, open_source, unlabelled

CHANNELS = (1, 2, 3, 4)
Images = PathLike | bytes | Image.Image | ImageDataset | Iterable[Any]  # of paths, arrays, bytes or images


def labelled_dataset(data: Images, labels: Iterable[object] | None, kind: str = TEXT) -> ImageDataset:
    """Labelled images as one data set; ``labels`` in the order of the images, or the name of a table's column.

    Args:
        kind: what labels are to be, so far as they can be: of a classifier that they are held against.

    Raises:
        UsageError: images of another kind, not as many labels as images, or labels that are not one for each image.
    """
    data = in_hand(data)
    if is_frame(data):
        if labels is None or isinstance(labels, str):
            return _of_kind(frame_dataset(data, Columns(label=labels)), kind)
        data = frame_images(data)
    if labels is None:
        if isinstance(data, ImageDataset):
            return data
        if isinstance(data, str | os.PathLike):
            return open_source(data)
        if (pairs := pairs_of(data)) is None:
            raise UsageError(why_not_labelled(data))
        data, labels = pairs
    if isinstance(labels, str) and isinstance(data, str | os.PathLike):
        raise UsageError(
            f"Expected one label for each image. Received: {labels!r:.60}. If that is a column of a table: "
            f"hs.open_source({os.fspath(data)!r}, label_column={labels!r:.60})."
        )
    words = [as_kind(label, kind) for label in one_each(labels)]
    if isinstance(data, str | os.PathLike) and (missing := why_missing(data)) and not matches(data):
        raise UsageError(missing)
    if isinstance(data, ImageDataset):
        texts = label_texts(words, len(data), "images")
        samples = [replace(sample, label=text) for sample, text in zip(data.samples, texts, strict=True)]
        return replace(data, samples=samples, label_kind=kind_of(words))
    items = _items(data, labelled=True)
    paths = all(isinstance(item, str | os.PathLike) for item in items)
    items = filled_in(items) if paths else items
    return replace((from_pairs if paths else from_items)(items, words), label_kind=kind_of(words))


def _of_kind(dataset: ImageDataset, kind: str) -> ImageDataset:
    """The same with labels of another kind, so far as they can be."""
    if kind in (TEXT, dataset.label_kind):
        return dataset
    return labelled_dataset(dataset, as_given([each.label for each in dataset.samples], dataset.label_kind), kind)


def unlabelled_dataset(images: Images, *, all_listed: bool = False) -> ImageDataset:
    """Images without labels as one data set, in their order.

    Args:
        all_listed: take files of a list that are not there, and what a folder holds that cannot be read, as images
            that cannot be read; else the first are refused, and the others are left out with a `DataWarning`.

    Raises:
        UsageError: images of another kind, or a path that is not there.
    """
    if isinstance(images, ImageDataset):
        return images
    images = in_hand(images)
    if is_frame(images):
        return frame_images(images)
    items = _items(images)
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        return unlabelled(images if isinstance(images, str | os.PathLike) else items, all_listed=all_listed)
    return from_items(items, None)


def _items(images: Any, *, labelled: bool = False) -> list[Any]:
    """The images one by one: paths, arrays, bytes or Pillow's images."""
    if (
        is_hugging_face_image(images)
        or isinstance(images, str | os.PathLike | bytes | bytearray | Image.Image)
        or hasattr(images, "read")
    ):
        return [images]
    if is_tensor(images):
        return _in_array(as_array(images), labelled=labelled)
    if not labelled and not isinstance(images, list | tuple) and (pairs := pairs_of(images)) is not None:
        return pairs[0]
    if isinstance(images, Mapping) or has_no_order(images) or not isinstance(images, Iterable) or pairs_of(images):
        raise UsageError(why_no_images(images))
    return [as_array(item) if is_tensor(item) else item for item in images]


def _in_array(array: NDArray[Any], *, labelled: bool) -> list[Any]:
    """The images in an array, or the one that it is."""
    if array.dtype.kind in "OUS":
        return list(array.ravel().tolist())
    if array.ndim < 2:
        raise UsageError(
            "Expected images of height × width × channels, or several of them: (N, height, width, channels). Received: "
            f"{array.dtype} of shape {array.shape}."
        )
    if not labelled and array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in CHANNELS:
        raise UsageError(
            f"Received shape {array.shape}, which may be one photo with its channels first, or {array.shape[0]} grey "
            "ones. Move the channels last: image.transpose(1, 2, 0). If they are grey photos: images[..., None]."
        )
    single = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)
    return [array] if single and not (labelled and array.ndim == 2) else [*array]


def one_each(labels: Any) -> list[object]:
    """Labels as a list with one for each image.

    Raises:
        UsageError: a dictionary, one-hot rows, or several labels for an image.
    """
    if isinstance(labels, Mapping):
        raise UsageError(
            "Expected labels in the order of the images. Received a dictionary: [labels[p] for p in paths]."
        )
    if has_no_order(labels):
        raise UsageError(
            f"Expected labels in the order of the images. Received a {type(labels).__name__}, which has no order: give "
            "a list."
        )
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise UsageError(f"Expected one label for each image. Received: {described(labels)}.")
    if is_tensor(labels):
        array = as_array(labels)
        if array.ndim == 2 and array.shape[1] == 1 and hasattr(labels, "columns"):  # a table with one column
            array = array.ravel()
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
            several = " Of one-hot rows take np.argmax(labels, axis=1)." if _is_one_hot(label) else ""
            raise UsageError(
                f"Label {index} is {label!r:.60}. Expected one label for each image, a word or a number.{several}"
            )
    return words


def _is_one_hot(label: Any) -> bool:
    """Whether it is a row with one 1 among zeros."""
    values = [*label] if isinstance(label, list | tuple) else []
    return len(values) > 1 and all(value in (0, 1) for value in values) and sum(map(float, values)) == 1


def name_of(data: Images, dataset: ImageDataset) -> str:
    """A short name of the data: of the folder, the file or the named set."""
    place = data if isinstance(data, str | os.PathLike) else dataset.root
    return printable(os.path.basename(os.path.abspath(place))) if place else "in memory"
