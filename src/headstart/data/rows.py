"""Tables of numbers: rows of a CSV file, a named set or a table in memory, each with a label. CSV files that name
images are in `data.tables`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import expanded
from headstart.core.counts import counted, verb
from headstart.core.errors import LISTED, DataError, did_you_mean, listed
from headstart.core.labels import TEXT, in_order, kind_of
from headstart.core.text import shortened
from headstart.data.cells import Cells, cells_of, read_cells
from headstart.data.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from headstart.data.csv_files import CSV_SUFFIXES, csv_rows
from headstart.data.frames import is_frame
from headstart.data.inputs import one_each
from headstart.data.mistaken import described, has_no_order
from headstart.data.named_sets import NAMED_ROWS, from_sklearn
from headstart.data.scan import printable
from headstart.data.sources import label_text

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


def open_rows(data: PathLike | Any, label: str | None = None) -> Rows:
    """A named set, a CSV file with a line of column names, or a table in memory; all columns but the label's hold
    numbers.

    ``label`` names the column of the labels; default: one with a usual name, or the only one with text.

    Raises:
        UsageError: no such file.
        DataError: a missing value or one that is no number, fewer than two classes, no column to learn from.
    """
    if _is_named(data):
        return _named_rows(os.fspath(data))
    cells = _cells(data)
    at = _label_place(cells.header, cells.rows, label, cells.where)
    if len(cells.header) == 1:
        raise DataError(
            f"{cells.where} has no column beside the label '{cells.header[at]}'. Expected one of numbers at least."
        )
    return _to_learn_from(cells, [place for place in range(len(cells.header)) if place != at], cells.column(at))


def _to_learn_from(cells: Cells, columns: Sequence[int], given: Sequence[object]) -> Rows:
    """The rows of a table with their labels; columns from which nothing can be learned are left out."""
    labels = [label_text(label) for label in given]
    if "" in labels:
        raise DataError(f"{cells.at(labels.index(''))}: the label is blank. Fill it in, or leave the row out.")
    why = {place: _why_not_used(cells.header[place], [row[place] for row in cells.rows]) for place in columns}
    not_used = tuple(filter(None, why.values()))
    if len(not_used) > LISTED:
        not_used = (*not_used[: LISTED - 1], f"nor are {len(not_used) - LISTED + 1} more columns")
    used = [place for place in columns if not why[place]]
    if not used:
        raise DataError(f"{cells.where} has no column to learn from: {'; '.join(not_used)}.")
    kind = TEXT if cells.given is None else kind_of(given)
    return check_rows(replace(_rows(cells, used, labels), not_used=not_used, label_kind=kind))


def _is_named(data: Any) -> bool:
    return isinstance(data, str | os.PathLike) and os.fspath(data) in NAMED_ROWS and not os.path.isdir(data)


def _cells(data: PathLike | Any) -> Cells:
    return read_cells(expanded(data)) if isinstance(data, str | os.PathLike) else cells_of(data)


def _why_not_used(name: str, cells: Sequence[str]) -> str:
    """Why nothing is learned from a column, "" where it is: it has no name, counts the rows, or is always the same."""
    shown = f"the column {shortened(name, 60)!r}" if name else "a column without a name"
    if not name or name.casefold().startswith("unnamed:"):
        return f"{shown} is not used"
    if len(set(cells)) == 1:
        return f"{shown} is not used: it is {cells[0][:20] or 'blank'} in every row"
    numbers = sorted(number for cell in cells if (number := _number(cell)) is not None)
    if len(cells) > 2 and any(numbers == [*range(first, first + len(cells))] for first in (0, 1)):
        return f"{shown} is not used: it counts the rows"
    return ""


def rows_to_predict(data: PathLike | Any, columns: Sequence[str]) -> Rows:
    """Rows of a CSV file, a named set or a table in memory to predict on.

    Its columns are found by name, in any order; other columns are ignored.

    Raises:
        UsageError: no such file.
        DataError: a column is missing; a value is missing or no number.
    """
    if _is_named(data):
        rows = _named_rows(os.fspath(data))
        places = _places_of(columns, rows.columns, repr(rows.name))
        return replace(rows, columns=tuple(columns), values=rows.values[:, places])
    cells = _cells(data)
    return _rows(cells, _places_of(columns, cells.header, cells.where), ())


def rows_to_judge(data: PathLike | Any, columns: Sequence[str], label: str | None = None) -> Rows:
    """As `rows_to_predict`, with labels.

    Raises:
        UsageError, DataError: as `rows_to_predict`; or it is not known which column holds the labels.
    """
    if _is_named(data):
        return rows_to_predict(data, columns)
    cells = _cells(data)
    places = _places_of(columns, cells.header, cells.where)
    others = sorted({*range(len(cells.header))} - {*places})
    at = others[_label_place(*cells.part(others), label, cells.where)]
    given = cells.column(at)
    kind = TEXT if cells.given is None else kind_of(given)
    return replace(_rows(cells, places, [label_text(each) for each in given]), label_kind=kind)


def _places_of(columns: Sequence[str], header: Sequence[str], where: str) -> list[int]:
    """Where the columns of a model are."""
    places = {name: place for place, name in enumerate(header)}
    for name in columns:
        if name not in places:
            raise DataError(
                f"{where} has no column '{name}', which the model was trained on. {did_you_mean(name, header)}"
            )
    return [places[name] for name in columns]


def rows_with_labels(values: Any, labels: Iterable[object]) -> Rows:
    """Rows in memory with a label for each: an array of numbers, or a table whose columns all hold numbers.

    Raises:
        UsageError, DataError: as `rows_from_arrays`, or as `open_rows`.
    """
    given = one_each(labels)
    if not is_frame(values):
        return rows_from_arrays(values, given)
    cells = cells_of(values)
    if len(cells.rows) != len(given):
        raise DataError(
            f"Expected a label for each row. Received: {counted(len(cells.rows), 'row')} and "
            f"{counted(len(given), 'label')}."
        )
    return replace(_to_learn_from(cells, range(len(cells.header)), given), label_kind=kind_of(given))


def rows_from_arrays(values: Any, labels: Iterable[object], columns: Sequence[str] | None = None) -> Rows:
    """Rows in memory: numbers (N, columns), and a label for each.

    A column that is the same in every row stays, so that others have their places; a sentence says so.

    Raises:
        UsageError: labels that are not one for each row.
        DataError: other shapes, a value that is not finite, fewer than two classes.
    """
    given = one_each(labels)
    matrix, words = matrix_of(values), tuple(map(label_text, given))
    if len(matrix) != len(words) or "" in words:
        raise DataError(
            f"Expected a label for each row. Received: {counted(len(matrix), 'row')} and "
            f"{counted(len(words), 'label')}{', a blank one' * ('' in words)}."
        )
    names = tuple(columns or (f"column {place}" for place in range(1, matrix.shape[1] + 1)))
    if len(names) != matrix.shape[1]:
        raise DataError(f"Expected a name for each of {counted(matrix.shape[1], 'column')}. Received: {len(names)}.")
    if len(bad := np.argwhere(~np.isfinite(matrix))):
        row, column = bad[0].tolist()
        raise DataError(f"Row {row}, {names[column]}: expected a finite number. Received: {matrix[row, column]}.")
    rows = tuple(f"row {place}" for place in range(len(words)))
    return check_rows(Rows("rows", names, matrix, words, rows, label_kind=kind_of(given)))


def matrix_of(values: Any, columns: int | None = None) -> NDArray[np.float64]:
    """Numbers of shape (rows, columns).

    Raises:
        DataError: something else; the sentence says what came.
    """
    expected = f"Expected numbers of shape (rows, {columns or 'columns'})."
    if values is None or isinstance(values, str | bytes | int | float | Mapping) or has_no_order(values):
        raise DataError(f"{expected} Received: {described(values)}.")
    try:
        matrix = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except ValueError as error:
        raise DataError(f"{expected} Received: rows of several lengths.") from error
    if matrix.dtype.kind == "O" and matrix.ndim == 2 and all(isinstance(each, Real) for each in matrix.flat):
        matrix = matrix.astype(np.float64)
    if matrix.dtype.kind not in "fiub" and matrix.size:
        words = [each for each in matrix.ravel().tolist() if not isinstance(each, Real)]
        among = f", {described(words[0])} among them" if words else ""
        raise DataError(f"{expected} Received: {described(values)}{among}.")
    if matrix.ndim != 2 or 0 in matrix.shape or (columns and matrix.shape[1] != columns):
        hint = ""
        if matrix.ndim == 1 and matrix.size:
            hint = " Of one row: values[None]."
        elif matrix.ndim > 2 and 0 not in matrix.shape:
            hint = " Of images as rows: values.reshape(len(values), -1)."
        raise DataError(f"{expected} Received: shape {matrix.shape}.{hint}")
    return matrix.astype(np.float64)


def check_rows(rows: Rows) -> Rows:
    """Check rows to train on, and return them.

    Raises:
        DataError: fewer than two classes, or no column that differs.
    """
    if len(rows.classes) < 2:
        raise DataError(
            f"'{rows.name}': expected two classes or more. Received: {counted(len(rows), 'row')} of "
            f"{', '.join(map(repr, rows.classes)) or 'none'}. Another column holds the labels? Name it: --label NAME"
        )
    constant = [
        name for name, same in zip(rows.columns, (rows.values == rows.values[0]).all(axis=0), strict=True) if same
    ]
    if len(constant) == len(rows.columns):
        raise DataError(f"'{rows.name}': no column to learn from, as each is the same in every row.")
    if not constant:
        return rows
    more = f" and {len(constant) - 3} more" if len(constant) > 3 else ""
    said = f"{', '.join(constant[:3])}{more} {verb(len(constant))} the same in every row: nothing is learned from that"
    return replace(rows, not_used=(*rows.not_used, said))


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
        f"(columns: {listed(repr(name[:40]) for name in header)})"
    )


def _rows(cells: Cells, places: Sequence[int], labels: Sequence[str]) -> Rows:
    values = np.empty((len(cells.rows), len(places)))
    for row, words in enumerate(cells.rows):
        for column, place in enumerate(places):
            number = _number(words[place])
            if number is None:
                raise DataError(
                    f"{cells.at(row)}, column '{shortened(cells.header[place], 60)}': {_why_no_number(words[place])}"
                )
            values[row, column] = number
    name = printable(cells.name)
    columns = tuple(cells.header[place] for place in places)
    names = tuple(f"row {row}" if cells.given is not None else f"{name}#{row}" for row in cells.lines)
    return Rows(name, columns, values, tuple(labels), names)


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
