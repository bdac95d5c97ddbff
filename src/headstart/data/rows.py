"""Tables of numbers: rows of a CSV file or of a named set, each with a label. CSV files that name images are in
`data.tables`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import expanded
from headstart.core.counts import counted
from headstart.core.errors import DataError, UsageError, did_you_mean
from headstart.core.labels import TEXT, in_order, kind_of
from headstart.core.missing import why_missing
from headstart.data.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from headstart.data.inputs import one_each
from headstart.data.named_sets import NAMED_ROWS, from_sklearn
from headstart.data.scan import printable
from headstart.data.sources import label_text
from headstart.data.tables import CSV_SUFFIXES, csv_rows

MISSING = frozenset({"", "?", "-", "na", "n/a", "nan", "null", "none"})  # how a missing value is written

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of numbers, all finite."""

    name: str  # of the file or set
    columns: tuple[str, ...]
    values: NDArray[np.float64]  # (N, columns)
    labels: tuple[str, ...]  # (N,), or none where they are not known
    names: tuple[str, ...]  # what a message calls each: "flowers.csv#7" is line 7
    not_used: tuple[str, ...] = ()  # columns that were left out, and why
    label_kind: str = TEXT  # what the labels were when they were given, see `core.labels`
    classes: tuple[str, ...] = field(init=False)  # sorted once, never derived again

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", in_order(self.labels, self.label_kind))

    def __len__(self) -> int:
        return len(self.values)


def is_rows(data: object) -> bool:
    """Whether this is a table of numbers: a named one, or a CSV file without a column of image names."""
    if not isinstance(data, str | os.PathLike):
        return False
    root = expanded(data)
    if root in NAMED_ROWS and not os.path.isdir(root):
        return True
    if os.path.splitext(root)[1].lower() not in CSV_SUFFIXES or not os.path.isfile(root):
        return False
    numbered = csv_rows(root)
    header = [name.strip().casefold() for name in next(numbered, (0, list[str]()))[1]]
    if "id" in header:  # of an image, or the number of a row
        at = header.index("id")
        return all(len(row) <= at or _number(row[at]) is not None for _, row in numbered)
    return not {*header} & {*IMAGE_COLUMNS}


def open_rows(data: PathLike, label: str | None = None) -> Rows:
    """A named set, or a CSV file with a line of column names; all columns but the label's hold numbers.

    ``label`` names the column of the labels; default: one with a usual name, or the only one with text.

    Raises:
        UsageError: no such file.
        DataError: a missing value or one that is no number, fewer than two classes, no column to learn from.
    """
    root = expanded(data)
    if root in NAMED_ROWS and not os.path.isdir(root):
        return _named_rows(root)
    header, lines, cells = _read(root)
    where = repr(root)
    at = _label_place(header, cells, label, where)
    columns = [place for place in range(len(header)) if place != at]
    if not columns:
        raise DataError(f"{where} has no column beside the label '{header[at]}'. Expected one of numbers at least.")
    labels = [row[at] for row in cells]
    if "" in labels:
        raise DataError(
            f"{where}, line {lines[labels.index('')]}: the label is blank. Fill it in, or leave the row out."
        )
    not_used = {place: why for place in columns if (why := _why_not_used(header[place], [row[place] for row in cells]))}
    used = [place for place in columns if place not in not_used]
    if not used:
        raise DataError(f"{where} has no column to learn from: {'; '.join(not_used.values())}.")
    return check_rows(replace(_rows(root, header, lines, cells, used, labels), not_used=tuple(not_used.values())))


def _why_not_used(name: str, cells: Sequence[str]) -> str:
    """Why nothing is learned from a column, "" where it is: it has no name, counts the rows, or is always the same."""
    shown = f"the column {name!r}" if name else "a column without a name"
    if not name or name.casefold().startswith("unnamed:"):
        return f"{shown} is not used"
    if len(set(cells)) == 1:
        return f"{shown} is not used: it is {cells[0][:20]} in every row"
    numbers = sorted(number for cell in cells if (number := _number(cell)) is not None)
    if len(cells) > 2 and any(numbers == [*range(first, first + len(cells))] for first in (0, 1)):
        return f"{shown} is not used: it counts the rows"
    return ""


def rows_to_predict(path: PathLike, columns: Sequence[str]) -> Rows:
    """Rows of a CSV file to predict on. Its columns are found by name, in any order; other columns are ignored.

    Raises:
        UsageError: no such file.
        DataError: a column is missing; a value is missing or no number.
    """
    root = expanded(path)
    header, lines, cells = _read(root)
    return _rows(root, header, lines, cells, _places_of(columns, header, root), ())


def rows_to_judge(path: PathLike, columns: Sequence[str], label: str | None = None) -> Rows:
    """As `rows_to_predict`, with labels; of a named set all rows.

    Raises:
        UsageError, DataError: as `rows_to_predict`; or it is not known which column holds the labels.
    """
    root = expanded(path)
    if root in NAMED_ROWS and not os.path.isdir(root):
        return _named_rows(root)
    header, lines, cells = _read(root)
    places = _places_of(columns, header, root)
    others = [place for place in range(len(header)) if place not in places]
    names, rest = [header[place] for place in others], [[row[place] for place in others] for row in cells]
    at = _label_place(names, rest, label, repr(root))
    return _rows(root, header, lines, cells, places, [row[at] for row in rest])


def _places_of(columns: Sequence[str], header: Sequence[str], file: str) -> list[int]:
    """Where the columns of a model are."""
    for name in columns:
        if name not in header:
            raise DataError(
                f"{file!r} has no column '{name}', which the model was trained on. {did_you_mean(name, header)}"
            )
    return [header.index(name) for name in columns]


def rows_from_arrays(values: Any, labels: Iterable[object], columns: Sequence[str] | None = None) -> Rows:
    """Rows in memory: numbers (N, columns), and a label for each.

    Raises:
        UsageError: labels that are not one for each row.
        DataError: other shapes, a value that is not finite, a constant column, fewer than two classes.
    """
    given = one_each(labels)
    matrix, words = np.asarray(values), tuple(map(label_text, given))
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or len(matrix) != len(words) or "" in words:
        raise DataError(
            "Expected numbers of shape (rows, columns), and a label for each row. Received: "
            f"{matrix.dtype} {matrix.shape} and {counted(len(words), 'label')}{', a blank one' * ('' in words)}."
        )
    names = tuple(columns or (f"column {place}" for place in range(1, matrix.shape[1] + 1)))
    if len(names) != matrix.shape[1]:
        raise DataError(f"Expected a name for each of {counted(matrix.shape[1], 'column')}. Received: {len(names)}.")
    numbers = matrix.astype(np.float64)
    if len(bad := np.argwhere(~np.isfinite(numbers))):
        row, column = bad[0].tolist()
        raise DataError(f"Row {row}, {names[column]}: expected a finite number. Received: {numbers[row, column]}.")
    rows = tuple(f"row {place}" for place in range(len(words)))
    return check_rows(Rows("rows", names, numbers, words, rows, label_kind=kind_of(given)))


def check_rows(rows: Rows) -> Rows:
    """Check rows to train on, and return them.

    Raises:
        DataError: fewer than two classes, or a column that is the same everywhere.
    """
    if len(rows.classes) < 2:
        raise DataError(
            f"'{rows.name}': expected two classes or more. Received: {counted(len(rows), 'row')} of "
            f"{', '.join(map(repr, rows.classes)) or 'none'}. Another column holds the labels? Name it: --label NAME"
        )
    for name, column in zip(rows.columns, rows.values.T, strict=True):
        if (column == column[0]).all():
            raise DataError(
                f"'{rows.name}': column '{name}' is {column[0]:g} in every row, so it tells nothing about the class. "
                "Leave it out."
            )
    return rows


def _read(file: str) -> tuple[list[str], list[int], list[list[str]]]:
    """Names of the columns; number and cells of each line below them."""
    if missing := why_missing(file):
        raise UsageError(f"{missing} {did_you_mean(file, NAMED_ROWS)}")
    if os.path.isdir(file):
        raise UsageError(f"{file!r} is a folder. Expected a CSV file of numbers.")
    where = repr(file)
    rows = csv_rows(file)
    header = [name.strip() for name in next(rows, (0, list[str]()))[1]]
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{where} has two columns called '{twice[0]}'. Expected a name of its own for each.")
    lines, cells = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{where}, line {line}: expected {counted(len(header), 'value')}. Received: {len(row)}.")
        lines.append(line)
        cells.append([cell.strip() for cell in row])
    if not lines:
        raise DataError(f"{where} has no rows. Expected a line of column names, and one line below for each row.")
    return header, lines, cells


def _label_place(header: Sequence[str], cells: Sequence[Sequence[str]], wanted: str | None, where: str) -> int:
    folded = [name.casefold() for name in header]
    if wanted is not None:
        if wanted.strip().casefold() not in folded:
            raise DataError(f"{where} has no column '{wanted}'. {did_you_mean(wanted, header)}")
        return folded.index(wanted.strip().casefold())
    if named := [folded.index(name) for name in LABEL_COLUMNS if name in folded]:
        return named[0]
    text = [place for place in range(len(header)) if all(_number(row[place]) is None for row in cells)]
    if len(text) == 1:
        return text[0]
    raise DataError(
        f"{where}: which column holds the labels? None is called {', '.join(LABEL_COLUMNS)}, and "
        f"{'none holds' if not text else f'{len(text)} hold'} text. Name it: --label NAME "
        f"(columns: {', '.join(map(repr, header))})"
    )


def _rows(
    file: str,
    header: Sequence[str],
    lines: Sequence[int],
    cells: Sequence[Sequence[str]],
    places: Sequence[int],
    labels: Sequence[str],
) -> Rows:
    values = np.empty((len(cells), len(places)))
    for row, (line, words) in enumerate(zip(lines, cells, strict=True)):
        for column, place in enumerate(places):
            number = _number(words[place])
            if number is None:
                at = f"{file!r}, line {line}, column '{header[place]}'"
                raise DataError(f"{at}: {_why_no_number(words[place])}")
            values[row, column] = number
    name = printable(file)
    columns = tuple(header[place] for place in places)
    return Rows(name, columns, values, tuple(labels), tuple(f"{name}#{line}" for line in lines))


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _why_no_number(cell: str) -> str:
    if cell.casefold() in MISSING:
        return f"a value is missing ({cell!r}). Fill it in, or leave the row or the column out."
    if _number(cell.replace(",", ".")) is not None:
        return f"expected a number with a decimal point. Received: {cell!r}."
    return (
        f"expected a number. Received: {cell[:40]!r}. Write words as numbers (a column of 0 and 1 for each), "
        "or leave the column out."
    )


def _named_rows(name: str) -> Rows:
    data = from_sklearn(name)
    labels = tuple(str(data.target_names[number]) for number in data.target.tolist())
    names = tuple(f"{name}#{place}" for place in range(len(labels)))
    return Rows(name, tuple(map(str, data.feature_names)), data.data.astype(np.float64), labels, names)
