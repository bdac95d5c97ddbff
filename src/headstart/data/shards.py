"""Files that hold many images each: which of a folder, of a pattern, or of a pattern with numbers in braces."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from headstart.core.errors import UsageError
from headstart.core.types import ImageDataset
from headstart.data.columns import PARTS, Columns
from headstart.data.idx import is_idx
from headstart.data.parquet import parquet_dataset
from headstart.data.patterns import matches
from headstart.data.scan import entries, scan
from headstart.data.tables import METADATA
from headstart.data.tars import tar_dataset

TAR_SUFFIXES, PARQUET_SUFFIXES = (".tar",), (".parquet", ".pq")
PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
MOST_NAMES = 1_000_000  # that braces stand for
_BRACES = re.compile(r"\{(?:([0-9]+)\.\.([0-9]+)|([^{}]*,[^{}]*))\}")


def in_braces(pattern: str) -> list[str]:
    """The names that a pattern with braces stands for: {000..003}, as WebDataset writes it, or {cat,dog}; none else.

    Raises:
        UsageError: they are too many, or a range goes backwards.
    """
    if not _BRACES.search(pattern) or os.path.lexists(pattern):
        return []
    found = [pattern]
    while match := _BRACES.search(found[0]):
        first, last, words = match.groups()
        if words is None:
            numbers = range(int(first), int(last) + 1)
            if not 0 < len(numbers) <= MOST_NAMES:
                raise UsageError(
                    f"{match[0]}: expected a first number and a last one, up to {MOST_NAMES:,}. Received: {pattern!r}."
                )
        filled = [f"{n:0{len(first)}d}" for n in numbers] if words is None else words.split(",")
        if len(found) * len(filled) > MOST_NAMES:
            raise UsageError(f"Expected up to {MOST_NAMES:,} names. Received: {pattern!r}.")
        found = [each.replace(match[0], word, 1) for each in found for word in filled]
    return found


def shards(root: str, files: Sequence[str], columns: Columns, label_from: str | None = None) -> ImageDataset | None:
    """The images in files that are all tar files, or all Parquet files; None where they are others."""
    if files and all(path.lower().endswith(TAR_SUFFIXES) for path in files):
        return tar_dataset(root, files, columns, label_from)
    if files and label_from is None and all(path.lower().endswith(PARQUET_SUFFIXES) for path in files):
        return parquet_dataset(root, files, columns)
    return None


def of_braces(pattern: str, files: Sequence[str], columns: Columns, label_from: str | None) -> ImageDataset:
    """The images in the files that a pattern with braces stands for.

    Raises:
        UsageError: one is not there, or they are no shards.
    """
    missing = [path for path in files if not os.path.exists(path)]
    if missing:
        many = f"{len(missing)} of {len(files)} files are" if len(files) > 1 else "the file is"
        raise UsageError(f"{pattern!r}: {many} not there, first '{missing[0]}'.")
    found = shards(pattern, files, columns, label_from)
    if found is None:
        raise UsageError(
            f"Braces stand for tar files, or for Parquet files without --label-from. Received: {pattern!r}."
        )
    return found


def parquet_files(data: str) -> list[str]:
    """The Parquet files that a data set is made of, which hold its images; none for one of another kind."""
    if os.path.isdir(data):
        others = any(entry.name == METADATA or is_idx(entry.name) for entry in entries(data))
        return [] if others or tars_in(data) else files_in(data)
    return _all_named(data, PARQUET_SUFFIXES)


def tar_files(data: str) -> list[str]:
    """The tar files that a data set is made of; none for one of another kind."""
    return tars_in(data) if os.path.isdir(data) else _all_named(data, TAR_SUFFIXES)


def _all_named(data: str, suffixes: tuple[str, ...]) -> list[str]:
    """A file, or those of a pattern, where all have such names."""
    files = in_braces(data) or matches(data) or [data]
    return files if all(path.lower().endswith(suffixes) for path in files) else []


def files_in(root: str, suffixes: tuple[str, ...] = PARQUET_SUFFIXES[:1]) -> list[str]:
    """The shards in the folder itself, or as the Hub keeps them: in data/, or default/train/."""
    for folder in (root, os.path.join(root, "data"), os.path.join(root, "default")):
        inside = [folder, *(os.path.join(folder, name) for name in PARTS)] if os.path.isdir(folder) else []
        files = [
            os.path.join(place, entry.name)
            for place in inside if os.path.isdir(place)
            for entry in entries(place) if entry.name.endswith(suffixes)
        ]  # fmt: skip
        if files:
            return sorted(files)
    return []


def tars_in(root: str) -> list[str]:
    """The tar files of a folder in which they are the data set: no image lies beside them, nor a table with images.

    A Parquet file beside each tar, as img2dataset writes it, holds no images.
    """
    tars = files_in(root, TAR_SUFFIXES)
    if not tars or not {os.path.splitext(path)[0] for path in files_in(root)} <= {path[:-4] for path in tars}:
        return []
    return [] if scan(root).images else tars
