"""Image data sets from CSV files that name the images, with their labels, groups and parts."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from headstart.core.counts import counted, verb
from headstart.core.errors import DataError
from headstart.core.regular_file import NO_NAME, read_regular
from headstart.core.text import one_line
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.columns import (
    IMAGE_COLUMNS,
    Columns,
    Layout,
    drop_lone_split,
    lay_out,
    part_in_name,
    pick_column,
    split_of,
)
from headstart.data.csv_files import csv_rows
from headstart.data.formats import MOST_BYTES, REMEDIES, SUFFIXES, suffix_of
from headstart.data.scan import entries, name_below, printable, scan
from headstart.data.spelling import one_spelling

METADATA = "metadata.csv"  # a table that says the labels of the folder it is in
NO_LABEL = "no label"  # kinds of a Problem: an image without a class,
NOT_USED = "not used"  # and a column that is not used

Found = tuple[Sample, str]  # a sample and the path that its bytes are read from
Reader = Callable[[str], bytes]


def file_dataset(
    root: str,
    found: Iterable[Found],
    problems: Iterable[Problem] = (),
    *,
    in_order: bool = False,
    reader: Reader | None = None,
) -> ImageDataset:
    """A data set of image files, sorted by name, so that the order in the source does not matter; or as given.

    Args:
        reader: of what is no path on a disk, such as an address.
    """
    found = list(found) if in_order else sorted(found, key=lambda pair: (pair[0].name, pair[0].label, pair[1]))
    paths = [path if reader else os.path.abspath(path) for _, path in found]

    def read(index: int) -> bytes:
        return reader(paths[index]) if reader else read_regular(paths[index], MOST_BYTES)

    samples = drop_lone_split([sample for sample, _ in found])
    return ImageDataset(root, samples, read, tuple(problems), files=paths)


def table_dataset(root: str, files: Sequence[tuple[str, str]], columns: Columns) -> ImageDataset:
    """The images that CSV files name; each file with the part that all its rows are of, "" where it does not say.

    Raises:
        DataError: not UTF-8, a column missing, a path that leaves the folder, an unknown part, no image that is there.
    """
    found: list[Found] = []
    problems: list[Problem] = []
    for file, split in files:
        more = csv_samples(file, root, columns, split)
        found += more[0]
        problems += more[1]
    if not found:
        first = f" First of {counted(len(problems), 'problem')}: {problems[0].detail}." if problems else ""
        named = ", ".join(repr(name_below(root, file)) for file, _ in files)
        why = first or " Expected a row for each image below the column names."
        raise DataError(f"{named} {verb(len(files), 'names', 'name')} no labelled image that is there.{why}")
    problems += _not_named(root, found, [file for file, _ in files])
    return labelled_files(root, found, problems)


def labelled_files(
    root: str, found: Sequence[Found], problems: Iterable[Problem], reader: Reader | None = None
) -> ImageDataset:
    """A data set of image files with one spelling of each label; what is doubtful about labels is a problem more."""
    samples, doubts = one_spelling([sample for sample, _ in found])
    pairs = [(sample, path) for sample, (_, path) in zip(samples, found, strict=True)]
    return file_dataset(root, pairs, [*problems, *doubts], reader=reader)


def _not_named(root: str, found: Sequence[Found], files: Sequence[str]) -> list[Problem]:
    """One problem for each folder with images that no table names, of the folders that hold named ones."""
    named: defaultdict[str, set[str]] = defaultdict(set)
    for _, path in found:
        folder, name = os.path.split(os.path.normpath(path))
        named[folder].add(name)
    tables = " or ".join(repr(name_below(root, file)) for file in files[:3])
    problems = []
    for folder, names in sorted(named.items()):
        there = {entry.name for entry in entries(folder) if suffix_of(entry.name) in SUFFIXES and entry.is_file()}
        if missing := sorted(there - names):
            shown = name_below(root, os.path.join(folder, missing[0]))
            more = "this image is" if len(missing) == 1 else f"{len(missing)} images, this one first, are"
            problems.append(Problem(shown, NO_LABEL, f"{more} not named in {tables}"))
    return problems


def csv_samples(file: str, root: str, columns: Columns, split: str = "") -> tuple[list[Found], list[Problem]]:
    """The images that a CSV file names, and the problems of single rows.

    Names are paths relative to the file's folder, in which they must stay; or the file's name alone, without its
    ending too, of an image that is anywhere below. The samples' names are relative to ``root``.

    Raises:
        DataError: not UTF-8, a column missing, a path that leaves the folder, an unknown part.
    """
    table = name_below(root, file)
    where = repr(table)
    numbered, header = [*csv_rows(file)], list[str]()
    if numbered:
        header = numbered.pop(0)[1]
    if not header:
        raise DataError(
            f"{file!r} is empty. Expected a line of column names, such as file_name,label, and one row each."
        )
    pick_column(header, columns.image, IMAGE_COLUMNS, where, "image")
    rows = [_cells(row, len(header), f"{where}, line {line}") for line, row in numbered]
    layout = lay_out(header, rows, columns, where)
    split = split or (part_in_name(file) if layout.split is None else "")
    images = _Images(os.path.dirname(os.path.abspath(file)), split)
    found: list[Found] = []
    problems: list[Problem] = []
    for (line, _), cells in zip(numbered, rows, strict=True):
        here = f"{where}, line {line}"
        path = images.find(cells[layout.image], here) if cells[layout.image] else ""
        name = name_below(root, path) if path else f"{table}, line {line}"
        label = label_of(cells, header, layout)
        if reason := images.why_not_there(path) if path else "names no file":
            problems.append(Problem(name, "missing", f"{here}: {reason}"))
        elif remedy := REMEDIES.get(suffix_of(path)):
            problems.append(Problem(name, "unreadable", remedy))
        elif not label:
            problems.append(Problem(name, NO_LABEL, f"{here}: the label is blank"))
        else:
            part = split if layout.split is None else split_of(cells[layout.split], here, header[layout.split])
            found.append((Sample(name, label, part, "" if layout.group is None else cells[layout.group]), path))
    if layout.unused:
        problems.append(Problem(table, NOT_USED, unused_columns(layout.unused)))
    return found, problems


def unused_columns(names: Sequence[str]) -> str:
    """A sentence on columns that are not used."""
    shown = ", ".join(printable(name) for name in names[:8]) + (" …" if len(names) > 8 else "")
    word = "columns are" if len(names) > 1 else "column is"
    return f"the {word} not used: {shown}. Images that belong together (a patient, a video): --group COLUMN"


def label_of(cells: Sequence[str], header: Sequence[str], layout: Layout) -> str:
    """The label of a row: a cell, or the name of the one-hot column with the 1."""
    if layout.label >= 0:
        return cells[layout.label]
    return next(header[at].strip() for at in layout.one_hot if float(cells[at]) == 1)


def _cells(row: Sequence[str], count: int, where: str) -> list[str]:
    """A row with as many cells as there are columns.

    Raises:
        DataError: it has more, of which one is not blank.
    """
    cells = [cell.strip() for cell in row]
    if any(cells[count:]):
        shown = one_line(", ".join(cells[:6])[:120])
        raise DataError(
            f"{where}: expected {count} cells, received {len(cells)} ({shown}). A text with the separator in it "
            "stands in quotes."
        )
    return cells[:count] + [""] * (count - len(cells))


class _Images:
    """Finds the files that a table names, and refuses those outside its folder; links are followed."""

    def __init__(self, folder: str, part: str) -> None:
        self.folder, self.part = folder, part
        self.real = os.path.realpath(folder)
        self.checked: dict[str, bool] = {}  # a folder is resolved once, not once for each of its photos

    def find(self, name: str, where: str) -> str:
        """The path of a file; of one that is not there, where it was looked for."""
        path = os.path.join(self.folder, name)
        if not os.path.lexists(path):
            slashes = name.replace("\\", "/")  # written on Windows
            path = self._elsewhere(slashes, where) or os.path.join(self.folder, slashes)
        parent, base = os.path.split(path)
        if base in (os.curdir, os.pardir):
            parent = path
        if parent not in self.checked:
            self.checked[parent] = self._inside(parent)
        if self.checked[parent] and not (os.path.islink(path) and not self._inside(path)):
            return path
        raise DataError(
            f"{where}: {name[:120]!r} leads out of the folder {self.folder!r}. Keep the images in the folder of the "
            "CSV file, or move the CSV file up to a folder that holds them all."
        )

    def why_not_there(self, path: str) -> str:
        """Why there is no file, "" where there is one."""
        looked_for = f" ({printable(path[-200:])})"
        try:
            return "" if stat.S_ISREG(os.stat(path).st_mode) else f"not a file{looked_for}"
        except OSError as error:
            return (error.strerror or "not there").lower() + looked_for
        except ValueError:
            return NO_NAME

    def _elsewhere(self, name: str, where: str) -> str:
        """The one image below the folder that a name may mean: without folder or ending, or in other capitals."""
        parts = [part for part in name.casefold().split("/") if part not in ("", os.curdir)]
        if os.pardir in parts or "\0" in name or not parts or os.path.isabs(name):
            return ""
        with_ending = suffix_of(parts[-1]) in SUFFIXES
        same = (self._below if with_ending else self._stems).get(parts[-1], [])
        if len(parts) > 1:
            wanted = "/" + "/".join(parts)
            same = [
                each for each in same if (f"/{each}" if with_ending else _stem(f"/{each}")).casefold().endswith(wanted)
            ]
        same = [each for each in same if self.part and part_in_name(each.split("/", 1)[0]) == self.part] or same
        if len(same) > 1:
            raise DataError(
                f"{where}: {name[:120]!r} may be several files: {', '.join(repr(each) for each in sorted(same)[:3])}. "
                "Write their folders into the table."
            )
        return os.path.join(self.folder, same[0]) if same else ""

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        """Paths of all images below the folder, by their file's name in small letters."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for each in scan(self.folder).images:
            found[each.rpartition("/")[2].casefold()].append(each)
        return dict(found)

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        """The same by the name without its ending."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for base, paths in self._below.items():
            found[_stem(base)] += paths
        return dict(found)

    def _inside(self, path: str) -> bool:
        try:
            return os.path.commonpath((self.real, os.path.realpath(path))) == self.real
        except ValueError:  # another drive, or a name that no file can have
            return "\0" in path


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if "." in name.rpartition("/")[2] else name
