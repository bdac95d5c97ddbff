"""The plan of the work on a data set: its units, in the order of its images."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from headstart.core.errors import DataError, UsageError, reason_of
from headstart.core.labels import TEXT
from headstart.core.types import ImageDataset, Problem
from headstart.data.columns import Columns
from headstart.data.listing import list_images
from headstart.data.parquet import parquet_dataset
from headstart.data.remote import fetched, is_remote, joined, listed, remote_images, shards_in
from headstart.data.shards import parquet_files, tar_files
from headstart.data.sources import open_source
from headstart.data.tars import tar_dataset, tar_images
from headstart.scale.image_list import read_list, write_list
from headstart.scale.unit import MOST, PART, Unit, hashed, size_and_time

PARQUET, TAR, REMOTE, OTHER = "parquet", "tar", "remote", "other"  # kinds of paths


@dataclass(frozen=True)
class Source:
    """A data set as it was named."""

    data: str
    columns: Columns = field(default_factory=Columns)
    label_from: str | None = None
    labelled: bool = True

    def open(self) -> ImageDataset:
        """All of it, see `open_source`."""
        return open_source(
            self.data,
            image_column=self.columns.image,
            label_column=self.columns.label,
            group_column=self.columns.group,
            split_column=self.columns.split,
            label_from=self.label_from,
        )


@dataclass(frozen=True)
class Plan:
    """All units of a data set, in the order of its images."""

    source: Source
    units: tuple[Unit, ...]
    label_kind: str = TEXT
    left_out: tuple[Problem, ...] = ()  # by the source of a list; files have their own

    def open(self, unit: Unit) -> ImageDataset:
        """The images of a unit, and what was left out of it."""
        if unit.listed:
            return read_list(self.source.data, unit)
        whole = _opened(self.source, unit.file)
        start, stop = (len(whole) * number // unit.of for number in (unit.number, unit.number + 1))
        return replace(whole.part(range(start, stop)), problems=() if unit.number else whole.problems)


def make_plan(source: Source, folder: Path) -> Plan:
    """Cut a labelled data set into units; the list of a folder's photos is written into ``folder``.

    Raises:
        UsageError, DataError: as `open_source`; or the images have no files that other processes could read.
    """
    if is_remote(source.data):
        return _remote_plan(source, folder)
    if files := parquet_files(source.data):
        return Plan(source, tuple(unit for file in files for unit in _parts(source.data, file)))
    dataset = source.open()
    if dataset.files is None:
        raise UsageError(
            f"'{source.data}' has no image files that several processes could read. Expected a folder of photos, a "
            "table of their names, or Parquet or tar files."
        )
    return Plan(source, write_list(dataset, folder), dataset.label_kind, dataset.problems)


def _remote_plan(source: Source, folder: Path) -> Plan:
    """The plan of what is at an address: a unit for each file that holds many images, or a list of photos."""
    units, known = _remote_shards(source.data)
    if units:
        return Plan(source, units)
    dataset = source.open()
    units = write_list(dataset, folder, known=known)
    return Plan(source, units, dataset.label_kind, dataset.problems)


def _remote_shards(url: str) -> tuple[tuple[Unit, ...], dict[str, tuple[int, int]]]:
    """A unit for each file at an address that holds many images; and bytes and time of all files there."""
    there = listed(url)
    known = {joined(url, each.path): (each.size, round((each.mtime or 0) * 1e9)) for each in there}
    files = shards_in(url, there) or []
    return tuple(
        Unit(file, hashed(file.encode()), hashed(json.dumps(known[file]).encode()), 0) for file in files
    ), known


def plan_of_paths(paths: Sequence[str], folder: Path) -> Plan:
    """Cut images to predict on into units: files, folders, patterns, and files that hold many images.

    Raises:
        UsageError, DataError: as `Listing.add`; or an address.
    """
    units = list[Unit]()
    for kind, some in groupby(paths, _kind_of):
        for path in some if kind != OTHER else ():
            if kind == PARQUET:
                units += [unit for file in parquet_files(path) for unit in _parts(path, file)]
            elif kind == REMOTE:
                shards, known = _remote_shards(path)
                units += shards or write_list(remote_images(path), folder, known=known)
            else:
                units += write_list(tar_images(path, tar_files(path)), folder)
        if kind == OTHER:
            listing = list_images(some, missing_too=True)
            listing.check(urls=False)
            units += write_list(replace(listing.dataset(), files=listing.paths), folder, listing.problems)
    return Plan(Source("", labelled=False), tuple(units))


def _kind_of(path: str) -> str:
    if is_remote(path):
        return REMOTE
    return PARQUET if parquet_files(path) else TAR if tar_files(path) else OTHER


def _parts(data: str, file: str) -> Iterator[Unit]:
    """The units of a file that holds many images."""
    length, changed = size_and_time(file)
    images = _rows_in(file)
    of = max(1, round(length / PART), -(-images // MOST))
    below = os.path.relpath(file, data) if os.path.isdir(data) else os.path.basename(file)
    for number in range(of):
        place, stamp = hashed(json.dumps([below, number, of]).encode()), hashed(json.dumps([length, changed]).encode())
        yield Unit(os.path.abspath(file), place, stamp, images // of, number=number, of=of)


def _rows_in(file: str) -> int:
    """The rows of a Parquet file, which it says at its end."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"'{file}' cannot be read as Parquet: {reason_of(error)}.") from error


@lru_cache(4)
def _opened(source: Source, file: str) -> ImageDataset:
    """A file that holds many images, kept open for its next part; one at an address is copied first, for as long."""
    if not is_remote(file):
        return _images_in(source, source.data if os.path.isdir(source.data) else file, file)
    place = tempfile.TemporaryDirectory(prefix="headstart-")
    copy = fetched(file, place.name)
    found = _images_in(source, str(copy.parent), str(copy))
    weakref.finalize(found.read, place.cleanup)
    return found


def _images_in(source: Source, root: str, file: str) -> ImageDataset:
    if file.lower().endswith(".tar"):
        if not source.labelled:
            return tar_images(root, [file])
        return tar_dataset(root, [file], source.columns, source.label_from, whole=False)
    found = parquet_dataset(root, [file], source.columns, whole=False, labelled=source.labelled)
    if source.labelled:
        return found
    folder = os.path.dirname(file)
    return replace(found, samples=[replace(each, name=os.path.join(folder, each.name)) for each in found.samples])
