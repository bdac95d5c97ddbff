"""Tables that a caller holds: DataFrames of pandas and polars, tables of Arrow, data sets of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError, UsageError
from headstart.core.labels import TEXT, kind_of
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.columns import (
    IMAGE_COLUMNS,
    IN_PYTHON,
    PARTS,
    Columns,
    check_names,
    drop_lone_split,
    lay_out,
    pick_column,
    split_of,
)
from headstart.data.in_memory import content_of, name_of_item
from headstart.data.parquet import class_names
from headstart.data.scan import printable
from headstart.data.sources import from_arrays, label_text
from headstart.data.tables import NO_LABEL, NOT_USED, label_of, unused_columns

Read = Callable[[int], Any]


def is_frame(value: Any) -> bool:
    """A whole table with columns by name; or several, by the parts of a data set."""
    if isinstance(value, Mapping):
        return bool(value) and all(is_frame(each) for each in value.values())
    return (hasattr(value, "columns") or hasattr(value, "column_names")) and hasattr(value, "__getitem__")


def frame_dataset(frame: Any, columns: Columns) -> ImageDataset:
    """The labelled images of a table, in its order: paths, from the working directory, or images in its cells.

    Rows without a label are left out and listed. Of Hugging Face's data sets the names of the classes are the labels,
    and of several by name the names are the parts.

    Raises:
        DataError: a column is missing, or may be one of several; an unknown part.
    """
    if isinstance(frame, Mapping):
        return _joined({str(name): frame_dataset(each, columns) for name, each in frame.items()})
    header = names_of(frame)
    image = pick_column(header, columns.image, IMAGE_COLUMNS, IN_PYTHON, "image")
    cells = {at: values_of(frame, name) for at, name in enumerate(header) if at != image}
    count = len(frame)
    rows = [["" if at == image else label_text(cells[at][row]) for at in range(len(header))] for row in range(count)]
    layout = lay_out(header, rows, columns, IN_PYTHON)
    kept = [row for row in range(count) if layout.label < 0 or rows[row][layout.label]]
    labels = [  # as they are, where the table has them: numbers stay numbers
        cells[layout.label][row] if layout.label >= 0 else label_of(rows[row], header, layout) for row in kept
    ]
    part, group = layout.split, layout.group
    read_cell = _cells_of(frame, header[image])
    names = _names(frame, read_cell)
    samples = [
        Sample(
            names[row],
            label_text(label),
            "" if part is None else split_of(rows[row][part], f"{IN_PYTHON}, row {row}", header[part]),
            "" if group is None else rows[row][group],
        )
        for row, label in zip(kept, labels, strict=True)
    ]
    missing = sorted(set(range(count)) - set(kept))
    problems = [Problem(f"row {row}", NO_LABEL, "the label is blank") for row in missing]
    if layout.unused:
        problems.append(Problem(IN_PYTHON.lower(), NOT_USED, unused_columns(layout.unused)))
    reader = _reader(read_cell, kept)
    return ImageDataset("", drop_lone_split(samples), reader, tuple(problems), label_kind=kind_of(labels))


def frame_images(frame: Any) -> ImageDataset:
    """The images of a table without their labels, to predict on."""
    if isinstance(frame, Mapping):
        raise UsageError(f"Received several tables: {', '.join(map(str, frame))}. Give one of them.")
    header = names_of(frame)
    read_cell = _cells_of(frame, header[pick_column(header, None, IMAGE_COLUMNS, IN_PYTHON, "image")])
    samples = [Sample(name, "") for name in _names(frame, read_cell)]
    return ImageDataset("", samples, _reader(read_cell, range(len(frame))))


def names_of(frame: Any) -> list[str]:
    """The names of its columns."""
    given = frame.column_names if hasattr(frame, "column_names") else frame.columns
    if not hasattr(frame, "__len__"):  # Hugging Face's stream
        raise UsageError(
            f"Received {type(frame).__name__}, which is read once, from its beginning. Read it whole: "
            "datasets.Dataset.from_list(list(data), features=data.features)."
        )
    names = [str(name) for name in given]
    check_names(names, IN_PYTHON)
    return names


def values_of(frame: Any, name: str) -> Sequence[Any]:
    """A column, as Python has the values; of Hugging Face's classes their names."""
    values = _listed(_plain(frame)[name])
    if classes := class_names(getattr(frame, "schema", None), name):  # of a table of Arrow
        return [classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value for value in values]
    feature = frame.features[name] if hasattr(frame, "features") else None
    if feature is not None and hasattr(feature, "int2str"):
        return [None if value is None or value < 0 else feature.int2str(value) for value in values]
    return values


def _listed(column: Any) -> Sequence[Any]:
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, method):
            found: Sequence[Any] = getattr(column, method)()
            return found
    return list(column)


def _plain(frame: Any) -> Any:
    """A data set of Hugging Face without a format such as "torch"."""
    return frame.with_format(None) if hasattr(frame, "with_format") else frame


def _cells_of(frame: Any, name: str) -> Read:
    """A function that gives the cell of a row: of Hugging Face's images the file as it was, which is read late."""
    if not hasattr(frame, "features"):
        return _listed(frame[name]).__getitem__
    frame, feature = _plain(frame), frame.features[name]
    if hasattr(feature, "decode") and hasattr(frame, "cast_column"):
        frame = frame.cast_column(name, replace(feature, decode=False))
    return lambda row: frame[row][name]


def _names(frame: Any, cell: Read) -> list[str]:
    """What the images are called: by their paths, or by the row where that would read them all."""
    if hasattr(frame, "features"):
        return [f"row {row}" for row in range(len(frame))]
    return [printable(name_of_item(cell(row), row)) for row in range(len(frame))]


def _reader(cell: Read, rows: Sequence[int]) -> Callable[[int], bytes | NDArray[np.generic]]:
    here = os.getcwd()  # that paths are from, also later

    def read(index: int) -> bytes | NDArray[np.generic]:
        item = cell(rows[index])
        if isinstance(item, str | os.PathLike):
            item = os.path.join(here, item)
        content = content_of(item, f"Row {rows[index]}")
        return content if isinstance(content, bytes) else from_arrays([content]).read(0)

    return read


def _joined(parts: Mapping[str, ImageDataset]) -> ImageDataset:
    """One data set of several, with the part that each is called by."""
    unknown = [name for name in parts if name.casefold() not in PARTS]
    if unknown and len(parts) > 1:
        raise DataError(
            f"Expected data sets called train, validation and test. Received: {', '.join(parts)}. Give those that are "
            "wanted: {'train': data['train'], 'test': data['test']}."
        )
    samples = [
        replace(sample, split=PARTS[name.casefold()] if len(parts) > 1 else sample.split, name=f"{name}/{sample.name}")
        for name, part in parts.items()
        for sample in part.samples
    ]
    places = [(part, row) for part in parts.values() for row in range(len(part))]
    problems = [replace(each, name=f"{name}/{each.name}") for name, part in parts.items() for each in part.problems]
    kinds = {part.label_kind for part in parts.values()}

    def read(index: int) -> bytes | NDArray[np.generic]:
        part, row = places[index]
        return part.read(row)

    return ImageDataset("", samples, read, tuple(problems), label_kind=kinds.pop() if len(kinds) == 1 else TEXT)
