"""Which column of a table holds what, and what its cells mean."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headstart.core.errors import DataError, did_you_mean
from headstart.core.text import shortened
from headstart.core.types import Sample

PARTS = {  # words for the parts of a data set
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "tst"), "test"),
}
IMAGE_COLUMNS = (
    "file_name", "path", "image", "file", "filename", "filepath", "file_path", "image_path", "img_path", "img",
    "image_name", "image_file", "image_id", "img_id", "photo", "id",
)  # fmt: skip
LABEL_COLUMNS = ("label", "class", "target", "category", "labels", "class_name", "breed", "species", "diagnosis")
GROUP_COLUMNS = (
    "group", "patient", "patient_id", "patientid", "subject", "subject_id", "participant_id", "lesion_id", "case_id",
    "video", "video_id", "clip", "clip_id", "burst",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "part", "is_valid", "is_test")
IN_PYTHON = "The table"  # what a message calls one that is no file
_TRUE, _FALSE = frozenset(("true", "1", "1.0", "yes")), frozenset(("false", "0", "0.0", "no"))


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns that a caller gives; None: one of the usual names."""

    image: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Layout:
    """The columns of one table, by number."""

    image: int
    label: int  # or -1: each of ``one_hot`` stands for a class
    group: int | None
    split: int | None
    one_hot: tuple[int, ...]
    unused: tuple[str, ...]


def check_names(header: Iterable[str], where: str) -> None:
    """Refuse names that two columns have.

    Raises:
        DataError: names the first.
    """
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(
            f"{where} has two columns called '{shortened(twice[0], 60)}'. Expected a name of its own for each."
        )


def lay_out(header: Sequence[str], rows: Sequence[Sequence[str]], columns: Columns, where: str) -> Layout:
    """Find the columns of a table with these cells.

    The label is a column of a usual name; or the only one that is left; or one-hot columns, a 1 in one of them in each
    row. Groups and parts are taken where columns of the usual names hold them.

    Raises:
        DataError: a column is missing, or may be one of several; names the columns that were received.
    """
    image = pick_column(header, columns.image, IMAGE_COLUMNS, where, "image")
    group = optional_column(header, columns.group, GROUP_COLUMNS, where, "group")
    split = optional_column(header, columns.split, SPLIT_COLUMNS, where, "split")
    if split is not None and columns.split is None and not says_part(header[split], (row[split] for row in rows)):
        split = None
    rest = _others(header, (image, group, split))
    found, one_hot = label_column(header, columns.label, (image, group, split), where), tuple[int, ...]()
    if found is None and not (one_hot := _one_hot(rows, rest)):
        pick_column(header, None, LABEL_COLUMNS, where, "label")
    label = -1 if found is None else found
    used = {image, label, group, split, *one_hot}
    names = [name.strip().casefold() for name in header]
    wanted = {names[at] for at in used if at is not None and at >= 0}
    check_names((name for name in names if name in wanted), where)  # of others it does not matter
    unused = tuple(header[at].strip() for at in rest if at not in used)
    return Layout(image, label, group if group != label else None, split if split != label else None, one_hot, unused)


def find_column(header: Sequence[str], wanted: str | None, usual: Sequence[str]) -> int | None:
    """The number of the column called ``wanted``, or else the first of the ``usual`` names, in any case of letters."""
    by_name = {column.strip().casefold(): at for at, column in reversed([*enumerate(header)])}
    for name in (wanted,) if wanted is not None else usual:
        if name.strip().casefold() in by_name:
            return by_name[name.strip().casefold()]
    return None


def pick_column(header: Sequence[str], wanted: str | None, usual: Sequence[str], where: str, what: str) -> int:
    """As `find_column`, where there must be one.

    Raises:
        DataError: there is none; names the columns that were received, and the option that says which it is.
    """
    found = find_column(header, wanted, usual)
    if found is not None:
        return found
    expected = repr(wanted) if wanted is not None else f"one of {', '.join(usual)}"
    near = f" {did_you_mean(wanted, header)}" if wanted is not None else ""
    shown = ", ".join(repr(column[:40]) for column in header[:12]) + (" …" if len(header) > 12 else "")
    option = f"--{what} COLUMN"
    if where == IN_PYTHON:
        option = "labels='COLUMN'" if what == "label" else f"table.rename(columns={{'COLUMN': '{usual[0]}'}})"
    raise DataError(
        f"{where} has no column for the {what}: expected {expected}; received the columns {shown}.{near} Say which one "
        f"it is: {option}."
    )


def optional_column(
    header: Sequence[str], wanted: str | None, usual: Sequence[str], where: str, what: str
) -> int | None:
    """As `find_column`; one that is asked for by name must be there.

    Raises:
        DataError: it is not.
    """
    return find_column(header, None, usual) if wanted is None else pick_column(header, wanted, usual, where, what)


def label_column(header: Sequence[str], wanted: str | None, taken: Sequence[int | None], where: str) -> int | None:
    """The column of the labels: the one asked for, one of a usual name, or the only one that is not ``taken``.

    Raises:
        DataError: the one asked for is not there.
    """
    found = optional_column(header, wanted, LABEL_COLUMNS, where, "label")
    if wanted is not None or (found is not None and found != taken[0]):
        return found
    rest = _others(header, taken)
    return rest[0] if len(rest) == 1 else None


def _others(header: Sequence[str], taken: Sequence[int | None]) -> list[int]:
    """The columns with a name that are not taken."""
    return [at for at, name in enumerate(header) if at not in taken and name.strip()]


def _one_hot(rows: Sequence[Sequence[str]], at: Sequence[int]) -> tuple[int, ...]:
    """Those of the columns that hold 0 and 1 alone, if each row has one 1 in them; else none."""
    binary = [k for k in at if all(row[k].strip() in ("0", "1", "0.0", "1.0") for row in rows)]
    if len(binary) < 2 or any(sum(float(row[k]) for k in binary) != 1 for row in rows):
        return ()
    return tuple(binary)


def says_part(column: str, cells: Iterable[str]) -> bool:
    """Whether a column of a usual name says the part of the data: "split" does, others if their cells do."""
    if column.strip().casefold() == "split":
        return True
    words = {cell.strip().casefold() for cell in cells}
    return words <= {"", *PARTS, *(_TRUE | _FALSE if _is_question(column) else ())}


def split_of(cell: str, where: str, column: str = "split") -> str:
    """Which of "train", "val" and "test"; "" for a blank cell. A column "is_valid" says yes or no.

    Raises:
        DataError: none of them.
    """
    word = cell.strip().casefold()
    if _is_question(column) and word in _TRUE | _FALSE:
        return ("val" if "valid" in column.casefold() else "test") if word in _TRUE else "train"
    if not word or word in PARTS:
        return PARTS.get(word, "")
    raise DataError(f"{where}: expected the split train, val or test, received {cell[:40]!r}.")


def _is_question(column: str) -> bool:
    return column.strip().casefold() in ("is_valid", "is_test")


def drop_lone_split(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Samples without their split, where all have the same: it tells no training set from a test set."""
    if len({sample.split for sample in samples}) > 1:
        return samples
    return [replace(sample, split="") if sample.split else sample for sample in samples]


def part_in_name(path: str) -> str:
    """The part that a file's name says ("train.csv", "cifar-test-0000.parquet"), or ""."""
    stem = os.path.splitext(os.path.basename(path))[0].lower()
    words = "".join(sign if sign.isalpha() else " " for sign in stem).split()
    return next((PARTS[word] for word in words if word in PARTS), "")
