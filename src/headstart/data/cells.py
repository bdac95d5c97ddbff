"""A table of numbers as text, cell by cell: of a CSV file, or one that a caller holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core.counts import counted
from headstart.core.errors import DataError, UsageError, did_you_mean
from headstart.core.missing import why_missing
from headstart.data.columns import IN_PYTHON, check_names
from headstart.data.csv_files import csv_rows
from headstart.data.frames import names_of, values_of
from headstart.data.named_sets import NAMED_ROWS
from headstart.data.sources import label_text


@dataclass(frozen=True)
class Cells:
    """A table as text."""

    name: str  # of the file, "rows" where it is none
    where: str  # what a sentence calls it
    line: str  # what a sentence calls a row: the line of a file
    header: Sequence[str]
    lines: Sequence[int]  # the number of each row
    rows: Sequence[Sequence[str]]
    given: Sequence[Sequence[Any]] | None = None  # the columns as they are, where they are not text

    def at(self, row: int) -> str:
        """Where a row is, for a sentence."""
        return f"{self.where}, {self.line} {self.lines[row]}"

    def column(self, place: int) -> list[Any]:
        """A column, as it was given."""
        return [row[place] for row in self.rows] if self.given is None else [*self.given[place]]

    def part(self, places: Sequence[int]) -> tuple[list[str], list[list[str]]]:
        """The names and the cells of some columns."""
        return [self.header[place] for place in places], [[row[place] for place in places] for row in self.rows]


def read_cells(file: str) -> Cells:
    """The cells of a CSV file.

    Raises:
        UsageError: no such file.
        DataError: a name that two columns have, a line with more or fewer cells, no rows.
    """
    if missing := why_missing(file):
        named = "" if "Did you mean" in missing else did_you_mean(file, NAMED_ROWS)
        raise UsageError(f"{missing} {named}".strip())
    if os.path.isdir(file):
        raise UsageError(f"{file!r} is a folder. Expected a CSV file of numbers.")
    where = repr(file)
    rows = csv_rows(file)
    header = [name.strip() for name in next(rows, (0, list[str]()))[1]]
    check_names(header, where)
    lines, cells = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{where}, line {line}: expected {counted(len(header), 'value')}. Received: {len(row)}.")
        lines.append(line)
        cells.append([cell.strip() for cell in row])
    if not lines:
        raise DataError(f"{where} has no rows. Expected a line of column names, and one line below for each row.")
    return Cells(file, where, "line", header, lines, cells)


def cells_of(frame: Any) -> Cells:
    """The cells of a DataFrame, a table of Arrow, or a data set of Hugging Face.

    Raises:
        DataError: a name that two columns have, no rows.
    """
    header = names_of(frame)
    columns = [values_of(frame, name) for name in header]
    if not len(frame):
        raise DataError(f"{IN_PYTHON} has no rows.")
    texts = [[_text(value) for value in column] for column in columns]
    return Cells("rows", IN_PYTHON, "row", header, range(len(frame)), [*zip(*texts, strict=True)], columns)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else label_text(value)
