"""The answers of a model as a table for a spreadsheet, and photos in folders by what is on them."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import shown
from headstart.core.atomic_files import beside, put
from headstart.core.errors import UsageError, needs
from headstart.core.labels import kind_of

PARQUET = ".parquet"
ENDINGS = (".csv", PARQUET)  # of tables
CELLS = 1 << 18  # of a row group of Parquet
UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]')


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of one image or row."""

    name: str
    probabilities: NDArray[np.floating]  # (K,)
    unknown: bool

    def top(self, classes: Sequence[str], count: int = 1) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(classes[k], float(self.probabilities[k])) for k in order.tolist()]

    def as_json(self, classes: Sequence[str], top: int, *, every: bool) -> dict[str, Any]:
        """Plain values; with the ``top`` classes where they are more than one, and with ``every`` probability."""
        first, chance = self.top(classes)[0]
        found: dict[str, Any] = {"path": self.name, "label": first, "probability": chance, "unknown": self.unknown}
        if top > 1:
            found["top"] = [{"label": label, "probability": p} for label, p in self.top(classes, top)]
        if every:
            found["probabilities"] = dict(zip(classes, self.probabilities.tolist(), strict=True))
        return found


def check_table(file: str) -> None:
    """Refuse the name of a table that cannot be written, before any answer is given.

    Raises:
        UsageError: it is neither CSV nor Parquet.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    if not file.lower().endswith(ENDINGS):
        raise UsageError(f"--out: expected a name that ends in {' or '.join(ENDINGS)}. Received: '{file}'.")
    if file.lower().endswith(PARQUET):
        with needs("pyarrow", "data", "Writing Parquet files"):
            import pyarrow.parquet  # noqa: F401


def write_answers(
    answers: Iterable[Answer], classes: Sequence[str], file: Path, *, top: int = 1, every: bool = False
) -> None:
    """A table with a row each: Parquet where the name ends in .parquet, else CSV. It is there when it is whole, in the
    place of an older one.

    Columns: path, label, probability, unknown; with ``top`` label_2, probability_2 and so on; with ``every`` one for
    the probability of each class.

    Raises:
        UsageError: it cannot be written.
    """
    columns = columns_of(classes, top=top, every=every)
    rows = ([as_text(each.name), *row_of(each, classes, top=top, every=every)] for each in answers)
    with cannot_be_written(file), beside(file) as folder:
        write_table(folder / file.name, columns, rows)
        put(folder / file.name, file)


@contextmanager
def cannot_be_written(file: Path, more: str = "") -> Iterator[None]:
    """Turn a failure of the disk into a `UsageError` that names the file, with ``more`` sentences."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"'{file}' cannot be written: {error.strerror or error}.{more}") from error


def columns_of(classes: Sequence[str], *, top: int, every: bool, errors: bool = False) -> dict[str, type]:
    """The columns of a table with the type of each; with ``errors`` one for what was wrong."""
    columns: dict[str, type] = {"path": str, "label": str, "probability": float, "unknown": bool}
    if errors:
        columns["error"] = str
    for k in range(2, min(top, len(classes)) + 1):
        columns |= {f"label_{k}": str, f"probability_{k}": float}
    if every:
        columns |= {f"probability of {name}" if name in columns else name: float for name in classes}
    return columns


def row_of(answer: Answer, classes: Sequence[str], *, top: int, every: bool, errors: bool = False) -> list[Any]:
    """What stands in the columns after the path."""
    (label, chance), *others = answer.top(classes, top)
    more = [value for pair in others for value in pair]
    none = [None] if errors else []
    return [label, chance, answer.unknown, *none, *more, *(answer.probabilities.tolist() if every else ())]


def as_text(path: str) -> str:
    """The name of a file, which may be no text, as text."""
    return path.encode(errors="backslashreplace").decode()


def write_table(file: Path, columns: Mapping[str, type], rows: Iterator[list[Any]]) -> None:
    """Rows as Parquet where the name ends in .parquet, else as CSV, in little memory; None is an empty cell."""
    (_write_parquet if file.suffix.lower() == PARQUET else _write_csv)(file, columns, rows)


def _write_csv(file: Path, columns: Mapping[str, type], rows: Iterable[list[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(rows)


def arrow_types(columns: Mapping[str, type]) -> list[Any]:
    """The type of each column in Arrow."""
    import pyarrow as pa

    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    return [kinds[kind] for kind in columns.values()]


def _write_parquet(file: Path, columns: Mapping[str, type], rows: Iterator[list[Any]]) -> None:
    """Rows in groups, of which one at a time is in memory."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    schema = pa.schema([*zip(columns, arrow_types(columns), strict=True)])
    with file.open("wb") as opened, pq.ParquetWriter(opened, schema) as writer:  # not every name is one for pyarrow
        while group := list(islice(rows, max(CELLS // len(columns), 1))):
            arrays = [
                pa.array(values, kind) for values, kind in zip(zip(*group, strict=True), schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            opened.flush()


def put_into(folder: Path, label: str, photo: str, *, link: bool, name: str | None = None) -> Path:
    """A copy of a photo, or a link to it, in the folder of its label; nothing that is there is replaced.

    Args:
        name: that it gets, or one with a number; None: its own.

    Raises:
        UsageError: it cannot be written.
    """
    inside = folder / (UNSAFE.sub("_", label).strip(". ") or "_")

    def put(target: Path) -> None:
        if link:
            target.symlink_to(os.path.abspath(photo))
        else:
            _copy(photo, target)

    try:
        os.stat(photo)  # what is not there gets no name in the folder
        inside.mkdir(parents=True, exist_ok=True)
        return under_free_name(inside, name or os.path.basename(photo), put)
    except OSError as error:
        raise UsageError(f"'{name or photo}' cannot be put into '{inside}': {error.strerror or error}.") from error


def under_free_name(folder: Path, name: str, put: Callable[[Path], None]) -> Path:
    """Put something into a folder under its name, or one with a number; ``put`` raises where there is such a file."""
    stem, suffix = os.path.splitext(name)
    for number in count(1):
        target = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        with suppress(FileExistsError):
            put(target)
            return target
    raise AssertionError("numbers have no end")


def _copy(photo: str, target: Path) -> None:
    """Copy to a new file; where that fails, there is none."""
    target.open("xb").close()  # takes the name, which somebody else may want too
    try:
        shutil.copy2(photo, target)
    except BaseException:
        target.unlink()
        raise


def check_unknown(unknown: object, classes: NDArray[Any]) -> None:
    """Refuse an answer for what is unknown that is no label, or is that of a class.

    Raises:
        UsageError: either.
    """
    known = classes.tolist()
    if unknown is not None and not isinstance(unknown, str | Real | np.bool_):
        raise UsageError(f'unknown: expected one label, such as "unknown" or -1. Received: {shown(unknown)}.')
    if unknown in known:
        raise UsageError(
            f"unknown: {shown(unknown)} is one of the classes, which could not be told apart then. Give another word."
        )


def with_unknown(
    chosen: Sequence[int] | NDArray[np.int_],
    strange: Sequence[bool] | NDArray[np.bool_],
    classes: NDArray[Any],
    unknown: object,
) -> NDArray[Any]:
    """The class of each (N,), by its place in ``classes``, and ``unknown`` for those that are strange."""
    labels = [unknown if other else classes[k] for k, other in zip(chosen, strange, strict=True)]
    return np.array(labels, None if kind_of([unknown]) == kind_of(classes.tolist()) else object)


def top_of(probabilities: NDArray[np.floating], classes: NDArray[Any], count: int) -> list[list[tuple[Any, float]]]:
    """Of each row (N, K) the ``count`` most probable classes with their probabilities, the most probable first."""
    labels = classes.tolist()
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [[(labels[k], float(row[k])) for k in order] for row, order in zip(probabilities, best, strict=True)]
