"""What was given where images or labels were expected: what it is, and what to give instead."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, KeysView, Mapping, Sequence, Set, Sized
from typing import Any

from headstart.core.counts import counted

WHAT = (
    "Expected a path, a list or a column of paths, arrays (height × width × channels), Pillow's images, or the bytes "
    "of image files."
)
LABELLED = (
    "Expected a folder with a folder for each class, a table that names photos and labels, or photos with labels."
)


def described(value: Any) -> str:
    """What a value is, in a few words and without an address."""
    if value is None or isinstance(value, bool | int | float | str):
        return f"{value!r:.60}"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{type(value).__name__} of shape {shape}"
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"a {type(value).__name__} of {len(value)}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}" if not isinstance(value, type) else f"the class {value.__name__}"
    return type(value).__name__


def has_no_order(value: Any) -> bool:
    """Whether it is a set: the labels of its elements cannot be told. The keys of a dictionary have an order."""
    return isinstance(value, Set) and not isinstance(value, KeysView | ItemsView | Sequence)


def why_not_labelled(data: Any) -> str:
    """A sentence on data of which the labels are not known: what came, and how to give them."""
    name = type(data).__name__
    if has_no_order(data):
        return f"Received a {name}, which has no order. Give a list, and labels=[…] in its order."
    if isinstance(data, Mapping):
        return _why_no_mapping(data)
    if hasattr(data, "batch_size") and hasattr(data, "dataset"):
        return f"Received a {name}, which gives batches. Give the data set in it: loader.dataset."
    if hasattr(data, "as_numpy_iterator"):
        return (
            f"Received a data set of TensorFlow ({name}). Give images and labels apart: "
            "images, labels = zip(*data.unbatch().as_numpy_iterator())."
        )
    if hasattr(data, "ngroups"):
        return f"Received groups of a table ({name}). Give the table itself, with a column of paths and one of labels."
    if isinstance(data, tuple) and len(data) == 2 and all(map(_is_series, data)):
        return "Received a tuple of two. Give the images and the labels as two arguments, not as one tuple."
    if isinstance(data, Iterable) and isinstance(data, Sized) and len(data) and not isinstance(data, bytes):
        given = f"Received {counted(len(data), 'image')} without labels ({described(data)})."
        return f"{given} Give labels=[…], one for each image, or a folder with a folder for each class."
    return f"{LABELLED} Received: {described(data)}."


def why_no_images(data: Any) -> str:
    """A sentence on what is no images, to predict on."""
    name = type(data).__name__
    if has_no_order(data):
        return f"Received a {name}, which has no order. Give a list."
    if isinstance(data, Mapping):
        return f"Received a {name}: give one column of it, or a list. {WHAT}"
    if isinstance(data, list | tuple) and data and all(isinstance(each, tuple) and len(each) == 2 for each in data):
        return f"Received pairs: give the images alone, [image for image, _ in pairs]. {WHAT}"
    return f"{WHAT} Received: {described(data)}."


def why_no_rows(data: Any) -> str:
    """A sentence on what is no table of numbers with labels."""
    expected = "Expected a CSV file, a named set, a table with a column of labels, or numbers with labels."
    if isinstance(data, Mapping):
        if {"data", "target"} <= {*data}:  # as scikit-learn's loaders give one
            return (
                f"Received a {type(data).__name__}: give data['data'] and data['target'], as return_X_y=True has them."
            )
        return f"{expected} Received: {described(data)}. Of columns: pandas.DataFrame(data)."
    if isinstance(data, tuple) and len(data) == 2 and all(map(_is_series, data)):
        return "Received a tuple of two. Give the numbers and the labels as two arguments, not as one tuple."
    if _is_series(data) and not isinstance(data, set | frozenset):
        return (
            f"Received rows without labels ({described(data)}). Give labels as the second argument, one for each row."
        )
    return f"{expected} Received: {described(data)}."


def _why_no_mapping(data: Mapping[Any, Any]) -> str:
    values = [*data.values()]
    shown = f"Received a {type(data).__name__} of {len(values)}"
    if not values:
        return f"{LABELLED} {shown}."
    if all(_is_series(value) for value in values):
        if {"image", "images", "path", "paths", "file", "files", "data"} & {str(key).casefold() for key in data}:
            return f"{shown} columns. Give two of them: images and labels."
        return (
            f"{shown} lists. If each holds the photos of a class: "
            "images = [p for photos in data.values() for p in photos]; "
            "labels = [name for name, photos in data.items() for p in photos]."
        )
    return f"{shown}. If it gives a label for each path: images = list(data), labels = list(data.values())."


def _is_series(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
