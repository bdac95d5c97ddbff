"""Images with their labels beside them: pairs, rows of a table, and data sets in the way of torchvision."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.data.columns import IMAGE_COLUMNS
from headstart.data.in_memory import is_tensor


@dataclass(frozen=True)
class InColumns:
    """Rows of a table that a caller has as dictionaries, as the table that they are of."""

    columns: Mapping[str, Sequence[Any]]

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return [*self.columns]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self.columns[name]


def in_hand(data: Any) -> Any:
    """A list of what has no places, such as a zip, and the table of rows; all else as it is."""
    if isinstance(data, Iterator | ItemsView) and not hasattr(data, "read"):
        data = [*data]
    return _in_columns(data) or data


def _in_columns(data: Any) -> InColumns | None:
    """The table of a row, of a list of rows, or of a batch: mappings with a column that is called as images are."""
    if hasattr(data, "to_dict") and hasattr(data, "index") and not hasattr(data, "columns"):  # a row of pandas
        if not _has_images(data.index):
            return None
        data = data.to_dict()
    if isinstance(data, Mapping) and _has_images(data):
        columns = {str(name): values for name, values in data.items()}
        if not all(isinstance(values, list | tuple) or _is_column(values) for values in columns.values()):
            columns = {name: [value] for name, value in columns.items()}
        lengths = {len(values) for values in columns.values()}
        return InColumns(columns) if len(lengths) == 1 else None
    rows = data if isinstance(data, list | tuple) else ()
    if all(isinstance(row, Mapping) and _has_images(row) for row in rows) and len({*map(frozenset, rows)}) == 1:
        return InColumns({str(name): [row[name] for row in data] for name in data[0]})
    return None


def pairs_of(data: Any) -> tuple[list[Any], list[Any]] | None:
    """The images and the labels of pairs, or of a data set that gives such, as torchvision's; None where it is neither.

    Classes that a data set names are the labels. Of photos that it finds in files (``samples``) the files are taken, of
    others the images as it gives them, with its transform.
    """
    if isinstance(data, list | tuple):
        items, names = [*data], None
    elif (found := _data_set(data)) is not None:
        count, read, names = found
        try:
            items = [read(row) for row in range(count)] if count and _is_pair(read(0)) else []
        except (IndexError, KeyError, TypeError):  # it has other keys
            return None
    else:
        return None
    if not items or not all(_is_pair(item) for item in items):
        return None
    labels = [label.item() if is_tensor(label) else label for _, label in items]
    if names and all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        labels = [names[label] for label in labels]
    return [image for image, _ in items], labels


def _data_set(data: Any) -> tuple[int, Callable[[int], Any], Sequence[Any] | None] | None:
    """How many items there are, a function that gives one, and the names of the classes."""
    if hasattr(data, "dataset") and hasattr(data, "indices"):  # a part of another
        whole, rows = _data_set(data.dataset), [int(row) for row in data.indices]
        return None if whole is None else (len(rows), lambda row: whole[1](rows[row]), whole[2])
    if is_tensor(data) or isinstance(data, str | bytes | bytearray | memoryview | os.PathLike | Mapping | range):
        return None
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or hasattr(data, "columns"):
        return None
    names = getattr(data, "classes", None)
    samples = getattr(data, "samples", None)
    if isinstance(samples, list) and not getattr(data, "target_transform", None):
        return len(samples), samples.__getitem__, names
    return len(data), data.__getitem__, names


def _is_pair(item: Any) -> bool:
    """Whether it is an image and a label: a word, or a number."""
    if not isinstance(item, list | tuple) or len(item) != 2:
        return False
    image, label = item
    number = label is None or isinstance(label, str | int | float) or (is_tensor(label) and not np.ndim(label))
    return number and not isinstance(image, int | float | list | tuple | None)


def _has_images(names: Iterable[Any]) -> bool:
    """Whether one of the columns is called as images are; Hugging Face's images are mappings too, and no rows."""
    known = {name.strip().casefold() for name in names if isinstance(name, str)}
    return "bytes" not in known and bool(known & {*IMAGE_COLUMNS})


def _is_column(values: Any) -> bool:
    return is_tensor(values) and np.ndim(values) == 1
