"""Units of work: parts of a data set, each small enough for one task, which a rerun finds again.

A folder's photos are listed once, into a file of the store, and cut where the name of a photo says so: one photo more
changes one unit, not all that follow. Parquet and tar files are cut into parts of about `PART` bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from headstart.core.errors import DataError, UsageError, reason_of
from headstart.core.labels import TEXT
from headstart.core.regular_file import read_regular
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.columns import Columns
from headstart.data.formats import MOST_BYTES
from headstart.data.parquet import parquet_dataset
from headstart.data.sources import open_source, shard_files
from headstart.scale.shards import UNFINISHED

PART = 64 << 20  # bytes
MOST = 4096  # images of a unit
FEWEST = 64  # before a name may end a unit,
ENDS, ENDS_OF_MANY = 128, 1024  # which one in so many does; the second where there are
MANY = 1 << 16  # images
_HASH = 16  # bytes


@dataclass(frozen=True)
class Source:
    """A data set as it was named."""

    data: str
    columns: Columns = field(default_factory=Columns)
    label_from: str | None = None

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
class Unit:
    """Images of a list, or part ``number`` of ``of`` of a file that holds many."""

    file: str  # the list, in the store; or the file
    place: str  # hexadecimal: the same when the content has changed
    stamp: str  # hexadecimal: of the names, labels, sizes and times of what is in it
    images: int  # of a file, about
    start: int = 0  # byte in the list
    number: int = 0
    of: int = 1

    @property
    def name(self) -> str:
        """That of its shard."""
        return f"{self.place}-{self.stamp}"


@dataclass(frozen=True)
class Plan:
    """All units of a data set, in the order of its images."""

    source: Source
    units: tuple[Unit, ...]
    listed: bool  # whether the units are images of a list
    label_kind: str = TEXT
    left_out: tuple[Problem, ...] = ()  # by the source of a list; files have their own

    def open(self, unit: Unit) -> ImageDataset:
        """The images of a unit, and what was left out of it."""
        if self.listed:
            return _of_list(self.source.data, unit)
        whole = _opened(self.source, unit.file)
        start, stop = (len(whole) * number // unit.of for number in (unit.number, unit.number + 1))
        return replace(whole.part(range(start, stop)), problems=() if unit.number else whole.problems)


def make_plan(source: Source, folder: Path) -> Plan:
    """Cut a data set into units; the list of a folder's photos is written into ``folder``.

    Raises:
        UsageError, DataError: as `open_source`; or the images have no files that other processes could read.
    """
    if files := shard_files(source.data):
        return Plan(source, tuple(unit for file in files for unit in _parts(source.data, file)), False)
    dataset = source.open()
    if dataset.files is None:
        raise UsageError(
            f"'{source.data}' has no image files that several processes could read. Expected a folder of photos, a "
            "table of their names, or Parquet or tar files."
        )
    return Plan(source, tuple(_listed(dataset, dataset.files, folder)), True, dataset.label_kind, dataset.problems)


def _listed(dataset: ImageDataset, files: Sequence[str], folder: Path) -> Iterator[Unit]:
    """Write the list, a line for each image, and cut it into units."""
    folder.mkdir(parents=True, exist_ok=True)
    made, digest, start = folder / f"{UNFINISHED}{secrets.token_hex(8)}", hashlib.blake2b(digest_size=_HASH), 0
    found = []
    with made.open("xb") as out:
        for name, lines in _cut(dataset, files):
            content = b"".join(lines)
            digest.update(content)
            out.write(content)
            found.append(Unit("", _hex(name.encode("utf-8", "surrogateescape")), _hex(content), len(lines), start))
            start += len(content)
    file = folder / f"{digest.hexdigest()}.jsonl"
    made.replace(file)
    yield from (replace(unit, file=os.fspath(file)) for unit in found)


def _cut(dataset: ImageDataset, files: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
    """The lines of each unit, with the name of its first image."""
    one_in = ENDS if len(dataset) < MANY else ENDS_OF_MANY
    first, lines, size = "", list[bytes](), 0
    for sample, path in zip(dataset.samples, files, strict=True):
        length, changed = _size_and_time(path)
        first, size = (first, size + length) if lines else (sample.name, length)
        lines.append(json.dumps([*astuple(sample), path, length, changed]).encode() + b"\n")
        if len(lines) == MOST or size >= 2 * PART or (len(lines) >= FEWEST and _may_end(sample, one_in)):
            yield first, lines
            lines = []
    if lines:
        yield first, lines


def _may_end(sample: Sample, one_in: int) -> bool:
    """Whether a unit may end with this image."""
    digest = hashlib.blake2b(sample.name.encode("utf-8", "surrogateescape"), digest_size=4).digest()
    return int.from_bytes(digest, "little") % one_in == 0


def _parts(data: str, file: str) -> Iterator[Unit]:
    """The units of a file that holds many images."""
    length, changed = _size_and_time(file)
    images = _rows_in(file)
    of = max(1, round(length / PART), -(-images // MOST))
    below = os.path.relpath(file, data) if os.path.isdir(data) else os.path.basename(file)
    for number in range(of):
        place = _hex(json.dumps([below, number, of]).encode())
        stamp = _hex(json.dumps([length, changed]).encode())
        yield Unit(file, place, stamp, images // of, number=number, of=of)


def _rows_in(file: str) -> int:
    """The rows of a Parquet file, which it says at its end."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"'{file}' cannot be read as Parquet: {reason_of(error)}.") from error


def _of_list(root: str, unit: Unit) -> ImageDataset:
    """The images of a unit of a list."""
    with open(unit.file, "rb") as file:
        file.seek(unit.start)
        rows = [json.loads(file.readline()) for _ in range(unit.images)]
    samples, files = [Sample(*row[:4]) for row in rows], [row[4] for row in rows]
    return ImageDataset(root, samples, lambda row: read_regular(files[row], MOST_BYTES), files=files)


@lru_cache(4)
def _opened(source: Source, file: str) -> ImageDataset:
    """A file that holds many images, kept open for its next part."""
    root = source.data if os.path.isdir(source.data) else file
    return parquet_dataset(root, [file], source.columns, whole=False)


def _size_and_time(path: str) -> tuple[int, int]:
    """Bytes, and nanoseconds; zeros for a file that is not there, of which its reader tells."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _hex(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_HASH).hexdigest()
