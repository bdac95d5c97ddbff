"""Image data sets from CSV files that name the images, and from IDX files that hold them."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import re
import stat
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError, cannot_read
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.load import Raw
from headstart.data.scan import printable

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_COLUMN = "image"  # the default, which means any of the usual names
IMAGE_COLUMNS = ("file_name", "path", "image", "file", "filename", "filepath", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "target", "category", "labels", "class_name")
NO_LABEL = "no label"  # the kind of a Problem: an image without a class
CSV_SUFFIXES = (".csv", ".tsv")

_IDX = re.compile(r"(?P<stem>.*?)[-._]?(?P<what>images|labels)[-._]idx(?P<dims>\d)-ubyte(\.gz)?", re.IGNORECASE)

Found = tuple[Sample, str]  # a sample and the path that its bytes are read from


def drop_lone_split(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Samples without their split, where all have the same: it tells no training set from a test set."""
    if len({sample.split for sample in samples}) > 1:
        return samples
    return [replace(sample, split="") if sample.split else sample for sample in samples]


def file_dataset(
    root: str, found: Iterable[Found], problems: Iterable[Problem] = (), *, in_order: bool = False
) -> ImageDataset:
    """A data set of image files, sorted by name, so that the order in the source does not matter; or as given."""
    found = list(found) if in_order else sorted(found, key=lambda pair: (pair[0].name, pair[0].label, pair[1]))
    paths = [os.path.abspath(path) for _, path in found]

    def read(index: int) -> bytes:
        with open(paths[index], "rb") as file:
            return file.read()

    return ImageDataset(root, drop_lone_split([sample for sample, _ in found]), read, tuple(problems))


def pick_column(columns: Sequence[str], wanted: str | None, usual: Sequence[str], where: str, what: str) -> str:
    """The column called ``wanted``, or else the first of the ``usual`` names; upper or lower case is the same.

    Raises:
        DataError: there is none; names the columns that were received.
    """
    by_name = {column.strip().casefold(): column for column in reversed(columns)}
    for name in (wanted,) if wanted else usual:
        if name.strip().casefold() in by_name:
            return by_name[name.strip().casefold()]
    expected = repr(wanted) if wanted else f"one of {', '.join(usual)}"
    raise DataError(
        f"{where} has no column for the {what}: expected {expected}; received the columns "
        f"{', '.join(map(repr, columns))}. Rename one, or say which one it is ({what}_column)."
    )


def csv_samples(
    file: str, root: str, *, image_column: str = IMAGE_COLUMN, label_column: str | None = None, split: str = ""
) -> tuple[list[Found], list[Problem]]:
    """The images that a CSV file names, and the problems of single rows.

    Paths are relative to the file's folder and must stay in it; the samples' names are relative to ``root``.
    Optional columns: ``split`` (else ``split`` is taken for every row) and ``group``.

    Raises:
        DataError: not UTF-8, a column missing, a path that leaves the folder, an unknown split.
    """
    rows = csv_rows(file)
    _, header = next(rows, (0, []))
    if not header:
        raise DataError(
            f"{file!r} is empty. Expected a line of column names, such as file_name,label, and one row each."
        )
    where = repr(os.path.basename(file))
    wanted = None if image_column == IMAGE_COLUMN else image_column
    at_path = header.index(pick_column(header, wanted, IMAGE_COLUMNS, where, "image"))
    at_label = header.index(pick_column(header, label_column, LABEL_COLUMNS, where, "label"))
    optional = [column.strip().casefold() for column in header]
    at_split, at_group = (optional.index(name) if name in optional else -1 for name in ("split", "group"))

    found: list[Found] = []
    problems: list[Problem] = []
    paths = _PathsInside(os.path.dirname(os.path.abspath(file)))
    for line, row in rows:
        cells = [cell.strip() for cell in row] + [""] * (len(header) - len(row)) + [""]  # -1 finds an empty cell
        path = paths.find(cells[at_path], f"{where}, line {line}")
        name = printable(os.path.relpath(path, root).replace(os.sep, "/")) if cells[at_path] else f"line {line}"
        if reason := _why_not_there(path) if cells[at_path] else "names no file":
            problems.append(Problem(name, "missing", f"{where}, line {line}: {reason}"))
        elif not cells[at_label]:
            problems.append(Problem(name, NO_LABEL, f"{where}, line {line}: the label is blank"))
        else:
            part = split_of(cells[at_split], f"{where}, line {line}") if at_split >= 0 else split
            found.append((Sample(name, cells[at_label], part, cells[at_group]), path))
    return found, problems


def csv_rows(file: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line and the cells of each row that is not blank; the header comes first."""
    try:
        with open(file, "rb") as opened:
            text = opened.read().decode("utf-8-sig")
    except OSError as error:
        raise cannot_read(file, error) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file!r} is not UTF-8 text (byte {error.start}). Save it again as CSV in UTF-8.") from error
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file!r}, line {line}: {error}. Expected CSV, text with a comma in it in quotes.") from error


def split_of(cell: str, where: str) -> str:
    """Which of "train", "val" and "test"; "" for a blank cell."""
    if not cell or cell.casefold() in SPLIT_NAMES:
        return SPLIT_NAMES.get(cell.casefold(), "")
    raise DataError(f"{where}: expected the split train, val or test, received {cell!r}.")


class _PathsInside:
    """Finds the files that a CSV file names, and refuses those outside its folder; links are followed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.real = os.path.realpath(folder)
        self.checked: dict[str, bool] = {}  # a folder is resolved once, not once for each of its photos

    def find(self, name: str, where: str) -> str:
        path = os.path.join(self.folder, name)
        if "\\" in name and not os.path.lexists(path):  # written on Windows
            path = os.path.join(self.folder, name.replace("\\", "/"))
        parent, base = os.path.split(path)
        if base in (os.curdir, os.pardir):
            parent = path
        if parent not in self.checked:
            self.checked[parent] = self._inside(parent)
        if self.checked[parent] and not (os.path.islink(path) and not self._inside(path)):
            return path
        raise DataError(
            f"{where}: {name!r} leads out of the folder {self.folder!r}. Keep the images in the folder of the CSV "
            "file, or move the CSV file up to a folder that holds them all."
        )

    def _inside(self, path: str) -> bool:
        try:
            return os.path.commonpath((self.real, os.path.realpath(path))) == self.real
        except ValueError:  # another drive, or a name that no file can have
            return "\0" in path


def _why_not_there(path: str) -> str:
    try:
        return "" if stat.S_ISREG(os.stat(path).st_mode) else "not a file"
    except OSError as error:
        return (error.strerror or "not there").lower()
    except ValueError:
        return "no file can have this name"


def idx_pairs(folder: str, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Paths of the image and label files among ``names``, by the beginning of their names.

    Raises:
        DataError: images without labels or the other way round.
    """
    halves: dict[str, dict[str, str]] = {}
    for name in sorted(names, reverse=True):  # so that an unpacked file is preferred to its .gz
        if match := _IDX.fullmatch(name):
            halves.setdefault(match["stem"], {})[match["what"].lower()] = os.path.join(folder, name)
    for stem, half in halves.items():
        for there, lacks, dims in (("images", "labels", 1), ("labels", "images", 3)):
            if lacks not in half:
                raise DataError(
                    f"{half[there]!r} has no {lacks} beside it. Expected {stem}-{lacks}-idx{dims}-ubyte, or with .gz."
                )
    return {stem: (half["images"], half["labels"]) for stem, half in sorted(halves.items())}


def is_idx(name: str) -> str:
    """The beginning of an IDX file's name; "" for any other name."""
    match = _IDX.fullmatch(name)
    return match["stem"] or match["what"] if match else ""


def idx_dataset(root: str, pairs: dict[str, tuple[str, str]]) -> ImageDataset:
    """Images (uint8, height × width) and labels "0", "1", … of IDX files, the format of MNIST.

    Raises:
        DataError: a file that is not IDX, is truncated, or does not fit its counterpart.
    """
    samples: list[Sample] = []
    stacks: list[NDArray[np.uint8]] = []
    for stem, (image_file, label_file) in pairs.items():
        images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1)
        if len(images) != len(labels):
            raise DataError(f"{image_file!r} holds {len(images)} images, but {label_file!r} {len(labels)} labels.")
        words = re.split(r"[^a-z0-9]+", stem.lower())
        split = "test" if "t10k" in words else next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")
        file = printable(os.path.basename(image_file))
        samples += [Sample(f"{file}#{row}", str(label), split) for row, label in enumerate(labels.tolist())]
        stacks.append(images)
    starts = list(accumulate((len(stack) for stack in stacks), initial=0))

    def read(index: int) -> Raw:
        stack = bisect_right(starts, index) - 1
        return np.asarray(stacks[stack][index - starts[stack]])

    return ImageDataset(root, drop_lone_split(samples), read)


def _read_idx(path: str, dims: int) -> NDArray[np.uint8]:
    """Unsigned bytes. The file has 0, 0, 8, ``dims``, then the sizes, big-endian, then the values."""
    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"  # by content: a browser may have unpacked a .gz
        with gzip.open(path) if packed else open(path, "rb") as file:
            head = file.read(4 + 4 * dims)
            if head[:4] != bytes((0, 0, 8, dims)):
                raise DataError(f"{path!r} is no IDX file of bytes in {dims} dimension(s): it begins {head[:4]!r}.")
            shape = struct.unpack(f">{dims}I", head[4:]) if len(head) == 4 + 4 * dims else (0,)
            promised = math.prod(shape)
            content = _read_up_to(file, promised + 1) if packed else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path!r} is damaged or truncated: {error}. Fetch it again.") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    came = len(content) if packed else os.path.getsize(path) - len(head)
    if came != promised or not promised:
        raise DataError(f"{path!r} is damaged or truncated: its header promises {promised} bytes, {came} came.")
    if packed:
        return np.frombuffer(content, np.uint8).reshape(shape)
    return np.memmap(path, np.uint8, "r", offset=len(head), shape=shape)


def _read_up_to(file: gzip.GzipFile | io.BufferedReader, size: int) -> bytes | bytearray:
    """At most ``size`` bytes; takes no more memory than there is content, whatever the header says."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(1 << 20, size - len(content)))):
        content += piece
    return content
