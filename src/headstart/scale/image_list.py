"""The list of a folder's images, written once, and cut into units where the name of an image says so.

One image more changes one unit, not all that follow. A line is JSON: name, label, part, group, file, bytes, time, and
for what cannot be read the kind and the detail of its problem.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from headstart.core.errors import UnreadableImageError
from headstart.core.regular_file import read_regular
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.formats import MOST_BYTES
from headstart.scale.shards import UNFINISHED
from headstart.scale.unit import MOST, PART, Unit, hashed, size_and_time

FEWEST = 64  # images before a name may end a unit,
ENDS, ENDS_OF_MANY = 128, 1024  # which one in so many does; the second where there are
MANY = 1 << 16  # images


def write_list(
    samples: Sequence[Sample], files: Sequence[str], folder: Path, problems: Mapping[int, Problem]
) -> tuple[Unit, ...]:
    """Write the list into a folder; its units. ``problems`` are those of rows that cannot be read."""
    folder.mkdir(parents=True, exist_ok=True)
    made, digest, start = folder / f"{UNFINISHED}{secrets.token_hex(8)}", hashlib.blake2b(digest_size=16), 0
    found: list[tuple[str, str, int, int]] = []
    with made.open("xb") as out:
        for name, lines in _cut(samples, files, problems):
            content = b"".join(lines)
            digest.update(content)
            out.write(content)
            found.append((hashed(name.encode("utf-8", "surrogateescape")), hashed(content), len(lines), start))
            start += len(content)
    file = folder / f"{digest.hexdigest()}.jsonl"
    made.replace(file)
    return tuple(Unit(os.fspath(file), *each, listed=True) for each in found)


def _cut(
    samples: Sequence[Sample], files: Sequence[str], problems: Mapping[int, Problem]
) -> Iterator[tuple[str, list[bytes]]]:
    """The lines of each unit, with the name of its first image."""
    one_in = ENDS if len(samples) < MANY else ENDS_OF_MANY
    first, lines, size = "", list[bytes](), 0
    for row, (sample, path) in enumerate(zip(samples, files, strict=True)):
        length, changed = size_and_time(path)
        first, size = (first, size + length) if lines else (sample.name, length)
        problem = [problems[row].kind, problems[row].detail] if row in problems else []
        lines.append(json.dumps([*astuple(sample), path, length, changed, *problem]).encode() + b"\n")
        if len(lines) == MOST or size >= 2 * PART or (len(lines) >= FEWEST and _may_end(sample, one_in)):
            yield first, lines
            lines = []
    if lines:
        yield first, lines


def _may_end(sample: Sample, one_in: int) -> bool:
    """Whether a unit may end with this image."""
    return int(hashed(sample.name.encode("utf-8", "surrogateescape"))[:8], 16) % one_in == 0


def read_list(root: str, unit: Unit) -> ImageDataset:
    """The images of a unit."""
    with open(unit.file, "rb") as file:
        file.seek(unit.start)
        rows = [json.loads(file.readline()) for _ in range(unit.images)]
    files = [row[4] for row in rows]

    def read(row: int) -> bytes:
        if problem := rows[row][7:]:
            raise UnreadableImageError(*problem)
        return read_regular(files[row], MOST_BYTES)

    return ImageDataset(root, [Sample(*row[:4]) for row in rows], read, files=files)
