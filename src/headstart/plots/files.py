"""Pictures and tables as files: named after what they show, and complete or absent."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from headstart.core.atomic_files import beside, put
from headstart.core.errors import UsageError

LONGEST = 80  # characters of a file's name that come from what it shows
_UNSAFE = re.compile(r'[\\/:*?"<>|\s\x00-\x1f\x7f]+')


def file_names(shown: Sequence[str], endings: Sequence[str]) -> list[tuple[str, ...]]:
    """For each class or photo the names of its files, one for each of ``endings``; a number is added where a name is
    taken, also by another in upper and lower case, which some disks do not tell apart.
    """
    taken: set[str] = set()
    found = []
    for name in shown:
        stem = _UNSAFE.sub("_", name).strip("._")[:LONGEST] or "_"
        files, number = tuple(stem + end for end in endings), 1
        while not taken.isdisjoint(file.casefold() for file in files):
            number += 1
            files = tuple(f"{stem}-{number}{end}" for end in endings)
        taken.update(file.casefold() for file in files)
        found.append(files)
    return found


def write_files(files: Mapping[str, Callable[[Path], object]], folder: str | os.PathLike[str]) -> list[Path]:
    """Write files into a folder, each by a function that is given a path; one that is there is replaced.

    Raises:
        UsageError: the folder cannot be written to.
    """
    paths = []
    try:
        for name, write in files.items():
            target = Path(folder) / name
            with beside(target) as made:
                write(made / name)
                put(made / name, target)
            paths.append(target)
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be written to: {error.strerror or error}.") from error
    return paths


def write_rows(rows: Iterable[Sequence[object]], path: Path) -> None:
    """Rows as a CSV file; what `write_files` calls."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
