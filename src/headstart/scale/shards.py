"""A shard: the features of some images in one Arrow file, written whole or not at all.

The file is an Arrow stream, and after it 16 bytes: the hash of all that comes before. A byte that was flipped is found
when the shard is opened. The features themselves stay on the disk and are mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import CheckError, reason_of
from headstart.core.regular_file import check_regular
from headstart.core.types import Problem, Sample
from headstart.data.load import KEY, THUMBNAIL

FORMAT = 1
SUFFIX, UNFINISHED = ".arrow", ".shard-"  # of names
_ABOUT = b"headstart"  # key in the schema's metadata
_HASH = 16  # bytes, at the end of the file
_TEXTS = ("name", "label", "split", "group", "format", "problem", "detail")


class DamagedError(CheckError):
    """A shard that is not what was written."""


@dataclass(eq=False)
class Rows:
    """Images with their features, row by row. ``problem`` is "" where an image could be read."""

    samples: list[Sample]
    keys: NDArray[np.uint8]  # (N, KEY) hashes of the contents
    features: NDArray[np.float16]  # (N, D); zero where an image could not be read
    thumbnails: NDArray[np.uint8]  # (N, THUMBNAIL, THUMBNAIL)
    formats: list[str]
    problems: list[str]  # kind of the problem of each
    details: list[str]
    left_out: list[Problem] = field(default_factory=list)  # what the source left out, and is no row

    @classmethod
    def of(cls, samples: Sequence[Sample], width: int, left_out: Sequence[Problem] = ()) -> Rows:
        """Empty rows for these samples."""
        count = len(samples)
        return cls(
            [*samples],
            np.zeros((count, KEY), np.uint8),
            np.zeros((count, width), np.float16),
            np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8),
            [""] * count,
            [""] * count,
            [""] * count,
            [*left_out],
        )


def write_shard(path: Path, rows: Rows, space: Mapping[str, object]) -> None:
    """Write a shard; until it is whole nothing is at ``path``. ``space`` is all that the features depend on.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa

    count = len(rows.samples)
    said = {
        "format": FORMAT,
        "space": dict(space),
        "images": count,
        "least": float(rows.features.min(initial=0)),
        "left_out": [[each.name, each.kind, each.detail] for each in rows.left_out],
    }
    texts = {
        "name": [sample.name for sample in rows.samples],
        "label": [sample.label for sample in rows.samples],
        "split": [sample.split for sample in rows.samples],
        "group": [sample.group for sample in rows.samples],
        "format": rows.formats,
        "problem": rows.problems,
        "detail": rows.details,
    }
    arrays = [pa.array([os.fsencode(text) for text in texts[name]], pa.binary()) for name in _TEXTS]
    arrays += [_lists(rows.keys, pa.uint8()), _lists(rows.features, pa.float16())]
    arrays.append(_lists(rows.thumbnails.reshape(count, THUMBNAIL**2), pa.uint8()))
    batch = pa.RecordBatch.from_arrays(arrays, [*_TEXTS, "key", "features", "thumbnail"])
    write_whole(path, batch, said)


def write_whole(path: Path, batch: Any, said: Mapping[str, Any]) -> None:
    """Write an Arrow batch, and what is said of it, with the hash of both; until that is there nothing is at ``path``.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema.with_metadata({_ABOUT: json.dumps(dict(said))})) as stream:
        stream.write_batch(batch)
    content = sink.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        with made.open("xb") as file:
            file.write(content)
            file.write(_hash(content))
        made.replace(path)  # not synced before: after a power cut the hash tells
    except BaseException:
        with suppress(OSError):
            made.unlink()
        raise


def read_whole(path: Path) -> tuple[dict[str, Any], Any]:
    """What `write_whole` wrote: what is said of the batch, and the batch itself, which stays on the disk.

    Raises:
        DamagedError: it is not what was written.
    """
    import pyarrow as pa

    try:
        check_regular(path)
        with pa.memory_map(os.fspath(path)) as file:
            content = file.read_buffer()
        end = content.size - _HASH
        if end <= 0 or _hash(content[:end]) != bytes(content[end:]):
            raise DamagedError(f"'{path}' is damaged: its content is not what was written. Run the same once more.")
        with pa.ipc.open_stream(content[:end]) as stream:
            return json.loads(stream.schema.metadata[_ABOUT]), stream.read_next_batch()
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"'{path}' cannot be read as a shard: {reason_of(error)}.") from error


def about(path: Path) -> dict[str, Any]:
    """What is said of the features in a shard, unchecked; nothing where it cannot be read."""
    import pyarrow as pa

    try:
        with pa.memory_map(os.fspath(path)) as file, pa.ipc.open_stream(file) as stream:
            said = json.loads(stream.schema.metadata[_ABOUT])
            return said if isinstance(said, dict) else {}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return {}


class Shard:
    """A shard that was opened and found whole.

    Raises:
        DamagedError: it is not what was written.
        CheckError: it has other features than those of ``space``.
    """

    def __init__(self, path: Path, space: Mapping[str, object]) -> None:
        self.path = path
        said, self._batch = read_whole(path)
        _check_space(path, said, space)
        self.least: float = said["least"]
        self.left_out = [Problem(*each) for each in said["left_out"]]

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @cached_property
    def samples(self) -> list[Sample]:
        """The images by name, label, part and group."""
        columns = (self.texts(name) for name in ("name", "label", "split", "group"))
        return [Sample(*each) for each in zip(*columns, strict=True)]

    @property
    def keys(self) -> list[bytes]:
        """Hashes of the contents; empty where an image could not be read."""
        rows = self._array("key", np.uint8)
        return [row.tobytes() if usable else b"" for row, usable in zip(rows, self.usable, strict=True)]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which images could be read (N,)."""
        return np.array([not text for text in self.texts("problem")], bool)

    @property
    def problems(self) -> list[Problem]:
        """Those of the images that could not be read."""
        columns = zip(self.texts("name"), self.texts("problem"), self.texts("detail"), strict=True)
        return [Problem(*each) for each in columns if each[1]]

    @cached_property
    def formats(self) -> list[str]:
        """What each file is, of `data.formats`."""
        return self.texts("format")

    @cached_property
    def features(self) -> NDArray[np.float16]:
        """(N, D), on the disk."""
        return self._array("features", np.float16)

    @cached_property
    def thumbnails(self) -> NDArray[np.uint8]:
        """(N, THUMBNAIL, THUMBNAIL), on the disk."""
        return self._array("thumbnail", np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)

    def texts(self, name: str) -> list[str]:
        """A column of text."""
        return [os.fsdecode(text) for text in self._batch.column(name).to_pylist()]

    def _array(self, name: str, dtype: type[Any]) -> NDArray[Any]:
        column = self._batch.column(name)
        values = column.flatten().to_numpy(zero_copy_only=True)
        return np.asarray(values, dtype).reshape(len(self), column.type.list_size)


def _lists(values: NDArray[Any], kind: Any) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _hash(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=_HASH).digest()


def _check_space(path: Path, said: Mapping[str, Any], space: Mapping[str, object]) -> None:
    """Refuse features that another network, processor or version computed."""
    if said["format"] != FORMAT:
        raise CheckError(f"'{path}' was written by another version of Headstart. Take another folder: --store")
    found, wanted = said["space"], json.loads(json.dumps(dict(space)))
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise CheckError(
                f"'{path}' has features of another kind ({name}: {_told(found.get(name))}; this run: "
                f"{_told(wanted.get(name))}), which cannot be mixed with these. Take another folder: --store"
            )


def _told(value: object) -> str:
    return "none" if value is None else str(value)[:80]
