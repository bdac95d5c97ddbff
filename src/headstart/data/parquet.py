"""Image data sets in Parquet files, as on the Hugging Face Hub: a column of image files, a column of labels."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

from headstart.core.cache_folder import free_disk
from headstart.core.errors import DataError, UnreadableImageError, needs, reason_of
from headstart.core.processors import AHEAD, CHUNK
from headstart.core.regular_file import NO_NAME, check_regular, read_regular
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.columns import (
    GROUP_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    Columns,
    check_names,
    label_column,
    optional_column,
    part_in_name,
    pick_column,
    says_part,
    split_of,
)
from headstart.data.formats import MOST_BYTES
from headstart.data.scan import name_below
from headstart.data.spelling import as_whole
from headstart.data.tables import NO_LABEL
from headstart.data.unpacked import Unpacked

OFTEN = 4  # times that a group is decoded from its beginning before it is unpacked
_BATCH_BYTES = 8 << 20  # decoded at once
_KEEP_BYTES = 64 << 20  # kept of what was decoded, and at least:
_KEEP_ROWS = (AHEAD + 2) * CHUNK  # the distance between two decoding threads


@dataclass(frozen=True, slots=True)
class _Group:
    """One row group: Parquet's unit of storage, of any size."""

    file: str
    number: int
    start: int  # its first row, counted over all files
    batch: int  # rows decoded at once
    size: int  # bytes of all its columns


def parquet_dataset(
    root: str, files: Sequence[str], wanted: Columns, *, whole: bool = True, labelled: bool = True
) -> ImageDataset:
    """The rows of Parquet files; a file called train…, validation… or test… gives its rows that split.

    Images are ``struct{bytes, path}`` or binary. Labels are strings or integers, with class names where the schema's
    ``huggingface`` metadata has them. Optional columns: ``split`` and ``group``. Rows are read when they are needed;
    the memory does not grow with the files.

    Args:
        whole: False for some files of a data set: what is known of all of them alone is left to `as_whole`.
        labelled: False for images to predict on: no label is looked for.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: not Parquet, or a column is missing or of another type.
    """
    with needs("pyarrow", "data", "Reading Parquet files"):
        import pyarrow as pa
        from pyarrow import parquet as pq

    samples: list[Sample] = []
    problems: list[Problem] = []
    rows: list[int] = []
    groups: list[_Group] = []
    columns: dict[str, str] = {}
    folder = root if os.path.isdir(root) else os.path.dirname(root)
    start = 0
    for path in files:
        where = name_below(folder, path)
        try:
            check_regular(path)
            with pq.ParquetFile(path) as file:
                columns[path] = _image_column(file.schema_arrow, wanted.image, repr(where))
                for number in range(file.metadata.num_row_groups):
                    meta = file.metadata.row_group(number)
                    average = meta.total_byte_size // max(meta.num_rows, 1) + 1
                    batch = min(max(_BATCH_BYTES // average, CHUNK), 1024)
                    groups.append(_Group(path, number, start, batch, meta.total_byte_size))
                    start += meta.num_rows
                first = start - file.metadata.num_rows
                described = _described(file, path, where, columns[path], wanted)
                for row, item in enumerate(described if labelled else _unlabelled(file, where)):
                    if isinstance(item, Sample):
                        samples.append(item)
                        rows.append(first + row)
                    else:
                        problems.append(item)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # also of values, as text that is none
            raise DataError(
                f"{path!r} cannot be read as Parquet: {' '.join(reason_of(error).split()).rstrip(' .')}."
            ) from error

    images = _Images(groups, columns, os.path.dirname(os.path.abspath(files[0])))
    found = ImageDataset(root, samples, lambda index: images.read(rows[index]), tuple(problems))
    return as_whole(found) if whole else found


def _image_column(schema: Any, wanted: str | None, where: str) -> str:
    holds = {str(field.name): _holds_images(field.type) for field in schema}
    usable = [name for name, usable in holds.items() if usable]
    if wanted is None and len(usable) == 1:
        return usable[0]
    header = [*holds]
    name = header[pick_column(header, wanted, IMAGE_COLUMNS, where, "image")]
    if not holds[name]:
        raise DataError(
            f"{where}: the column {name!r} should hold images, as binary or struct{{bytes, path}}; it is of type "
            f"{schema.field(name).type}."
        )
    return name


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _holds_images(kind.field(at).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _described(file: Any, path: str, where: str, image: str, wanted: Columns) -> Iterator[Sample | Problem]:
    """Each row of one file without its image: a sample, or the problem with it."""
    schema = file.schema_arrow
    header = [str(name) for name in schema.names]
    group_at = optional_column(header, wanted.group, GROUP_COLUMNS, repr(where), "group")
    split_at = optional_column(header, wanted.split, SPLIT_COLUMNS, repr(where), "split")
    taken = (header.index(image), group_at, split_at)
    label_at = label_column(header, wanted.label, taken, repr(where))
    if label_at is None:
        label_at = pick_column(header, None, LABEL_COLUMNS, repr(where), "label")
    column = header[label_at]
    names = class_names(schema, column)
    group, split = (None if at in (None, label_at, taken[0]) else header[at] for at in (group_at, split_at))
    extra = [name for name in (group, split) if name is not None]
    check_names((name for name in header if name in (image, column, *extra)), repr(where))
    table = file.read(columns=[column, *extra])
    held = sum(file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups))
    if not file.metadata.num_rows == held == len(table):
        raise DataError(
            f"{path!r} is damaged: it promises {file.metadata.num_rows} rows, and has {held}. Fetch it again."
        )
    values = {name: table.column(name).to_pylist() for name in (column, *extra)}
    if split and wanted.split is None and not says_part(split, map(_text, values[split])):
        split = None
    of_file = part_in_name(path) or part_in_name(os.path.dirname(path))
    for row, value in enumerate(values[column]):
        name = f"{where}#{row}"
        label = _label(value, names, f"{where!r}, row {row}")
        if label is None:
            yield Problem(name, NO_LABEL, f"the column {column!r} holds {str(value)[:40]!r}")
            continue
        part = split_of(_text(values[split][row]), f"{where!r}, row {row}", split) if split else of_file
        yield Sample(name, label, part, _text(values[group][row]) if group else "")


def _unlabelled(file: Any, where: str) -> Iterator[Sample]:
    """Each row of one file."""
    return (Sample(f"{where}#{row}", "") for row in range(file.metadata.num_rows))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _label(value: object, names: Sequence[str], where: str) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, int) and names:
        return names[value] if 0 <= value < len(names) else None  # the Hub writes -1 where labels are kept back
    if isinstance(value, (int, str)):
        return str(value).strip()
    raise DataError(f"{where}: expected a label that is text or a whole number, received {type(value).__name__}.")


def class_names(schema: Any, column: str) -> list[str]:
    """What `datasets` writes into the schema: {"info": {"features": {column: {"names": [...]}}}}."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (AttributeError, TypeError, KeyError, ValueError):  # no class names, or another form: integers stay integers
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _value(scalar: Any) -> Any:
    """A cell of the image column in Python; without a path that is no text."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return {"bytes": scalar["bytes"].as_py()}


class _Images:
    """The image column of all files, decoded a batch at a time and kept for a while.

    A row group can only be decoded from its beginning, so reading in order is fast and going back is not: a group that
    is begun again and again is unpacked into a temporary file. One lock: threads that ask for neighbouring rows find
    them in the same batch.
    """

    def __init__(self, groups: Sequence[_Group], columns: dict[str, str], folder: str) -> None:
        self._folder = folder
        self._groups = groups
        self._columns = columns
        self._starts = [group.start for group in groups]
        self._lock = Lock()
        self._kept: deque[tuple[int, Any]] = deque()  # first row and array of each batch
        self._open = -1  # the group that is being decoded,
        self._next = 0  # the row that its next batch begins with,
        self._batches: Iterator[Any] = iter(())  # and these batches
        self._broken: dict[int, str] = {}  # a damaged group is tried once, not once a row
        self._begun: Counter[int] = Counter()  # how often each group was decoded from its beginning on
        self._unpacked: dict[int, Unpacked] = {}

    def read(self, row: int) -> bytes:
        at = bisect_right(self._starts, row) - 1
        found = None
        if at not in self._unpacked:
            with self._lock:
                found = None if at in self._unpacked else self._find(row) or self._decode(at, row)
        value = _value(found[1][row - found[0]]) if found else self._unpacked[at][row - self._starts[at]]
        content = value["bytes"] if isinstance(value, dict) else value
        if content is None and isinstance(value, dict) and value.get("path"):
            return self._beside(str(value["path"]))
        if content is None:
            raise UnreadableImageError("empty", "the file has no bytes for this image")
        return bytes(content)

    def _beside(self, name: str) -> bytes:
        """The file that a row names instead of holding it; it must be in the Parquet file's folder."""
        if "\0" in name:
            raise UnreadableImageError("missing", NO_NAME)
        path = os.path.realpath(os.path.join(self._folder, name))
        if os.path.commonpath((path, os.path.realpath(self._folder))) != os.path.realpath(self._folder):
            raise UnreadableImageError("missing", f"{name[:120]!r} leads out of the folder of the Parquet file")
        return read_regular(path, MOST_BYTES)

    def _find(self, row: int) -> tuple[int, Any] | None:
        return next(
            ((start, batch) for start, batch in reversed(self._kept) if start <= row < start + len(batch)), None
        )

    def _decode(self, at: int, row: int) -> tuple[int, Any] | None:
        """First row and array of the batch with that row; None where the group was unpacked instead."""
        import pyarrow as pa

        if at in self._broken:
            raise UnreadableImageError("unreadable", self._broken[at])
        try:
            if at != self._open or row < self._next:
                self._begun[at] += 1
                if self._begun[at] == OFTEN and self._unpack(at):
                    return None
                self._batches, self._open, self._next = self._batches_of(at), at, self._groups[at].start
            while True:
                batch = next(self._batches).column(0)
                self._kept.append((self._next, batch))
                self._next += len(batch)
                self._forget()
                if row < self._next:
                    return self._kept[-1]
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._broken[at] = f"damaged Parquet file: {' '.join(str(error).split())}"
            raise UnreadableImageError("unreadable", self._broken[at]) from error

    def _unpack(self, at: int) -> bool:
        """Unpack a group, where the disk has room for it; else it goes on as before."""
        if self._groups[at].size > free_disk():
            return False
        values = (_value(scalar) for batch in self._batches_of(at) for scalar in batch.column(0))
        items = (value.get("bytes") or value if isinstance(value, dict) else value for value in values)
        with suppress(OSError):  # the disk is full after all
            self._unpacked[at] = Unpacked(items)
        return at in self._unpacked

    def _batches_of(self, at: int) -> Iterator[Any]:
        """The batches of a group from its beginning on."""
        from pyarrow import parquet as pq

        group = self._groups[at]
        file = pq.ParquetFile(group.file, buffer_size=1 << 20, pre_buffer=False)  # else the whole group is held
        column = self._columns[group.file]
        batches: Iterator[Any] = file.iter_batches(
            group.batch, row_groups=[group.number], columns=[column], use_threads=False
        )
        return batches

    def _forget(self) -> None:
        size = sum(batch.nbytes for _, batch in self._kept)
        rows = sum(len(batch) for _, batch in self._kept)
        while size > _KEEP_BYTES and rows - len(self._kept[0][1]) >= _KEEP_ROWS:
            _, oldest = self._kept.popleft()
            size, rows = size - oldest.nbytes, rows - len(oldest)
