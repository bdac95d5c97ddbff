"""The list of all images, written once, and cut into units where the name of an image says so.

One image more changes one unit, not all that follow. A line is JSON: name, label, part, group, file, where the image
begins in it (-1: it is the whole file), bytes, time, and for what cannot be read the kind and detail of its problem.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from functools import lru_cache
from pathlib import Path

from headstart.core.errors import UnreadableImageError
from headstart.core.regular_file import read_regular
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data import remote
from headstart.data.formats import MOST_BYTES
from headstart.data.open_files import OpenFiles
from headstart.scale.shards import UNFINISHED
from headstart.scale.unit import MOST, PART, Unit, hashed, size_and_time

FEWEST = 64  # images before a name may end a unit,
ENDS, ENDS_OF_MANY = 128, 1024  # which one in so many does; the second where there are
MANY = 1 << 16  # images
WHOLE = -1


def write_list(
    dataset: ImageDataset,
    folder: Path,
    problems: Mapping[int, Problem] | None = None,
    known: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[Unit, ...]:
    """Write the list of a data set whose images lie in files; its units.

    Args:
        problems: those of rows that cannot be read.
        known: bytes and time of files that are at an address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, digest, start = folder / f"{UNFINISHED}{secrets.token_hex(8)}", hashlib.blake2b(digest_size=16), 0
    found: list[tuple[str, str, int, int]] = []
    with made.open("xb") as out:
        for name, lines in _cut(dataset, problems or {}, known or {}):
            content = b"".join(lines)
            digest.update(content)
            out.write(content)
            found.append((hashed(name.encode("utf-8", "surrogateescape")), hashed(content), len(lines), start))
            start += len(content)
    file = folder / f"{digest.hexdigest()}.jsonl"
    made.replace(file)
    return tuple(Unit(os.fspath(file), *each, listed=True) for each in found)


def _cut(
    dataset: ImageDataset, problems: Mapping[int, Problem], known: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, list[bytes]]]:
    """The lines of each unit, with the name of its first image."""
    one_in = ENDS if len(dataset) < MANY else ENDS_OF_MANY
    first, lines, size = "", list[bytes](), 0
    for row, (path, begins, length, changed) in enumerate(_places(dataset, known)):
        sample = dataset.samples[row]
        first, size = (first, size + length) if lines else (sample.name, length)
        problem = [problems[row].kind, problems[row].detail] if row in problems else []
        lines.append(json.dumps([*astuple(sample), path, begins, length, changed, *problem]).encode() + b"\n")
        if len(lines) == MOST or size >= 2 * PART or (len(lines) >= FEWEST and _may_end(sample, one_in)):
            yield first, lines
            lines = []
    if lines:
        yield first, lines


def _places(dataset: ImageDataset, known: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, int, int, int]]:
    """Of each image its file, where it begins there, its bytes, and when the file was changed."""
    changed = lru_cache(1024)(lambda path: size_and_time(path)[1])
    for row, path in enumerate(dataset.files or ()):
        if dataset.spans:
            yield path, dataset.spans[0][row], dataset.spans[1][row], changed(path)
        else:
            size, when = known.get(path) or size_and_time(path)
            yield path, WHOLE, size, when


def _may_end(sample: Sample, one_in: int) -> bool:
    """Whether a unit may end with this image."""
    return int(hashed(sample.name.encode("utf-8", "surrogateescape"))[:8], 16) % one_in == 0


def read_list(root: str, unit: Unit) -> ImageDataset:
    """The images of a unit."""
    with open(unit.file, "rb") as file:
        file.seek(unit.start)
        rows = [json.loads(file.readline()) for _ in range(unit.images)]
    cache = OpenFiles()

    def read(row: int) -> bytes:
        path, begins, length, _, *problem = rows[row][4:]
        if problem:
            raise UnreadableImageError(*problem)
        if begins != WHOLE:
            return cache.read_image(path, begins, length)
        return remote.read(path) if remote.is_remote(path) else read_regular(path, MOST_BYTES)

    return ImageDataset(root, [Sample(*row[:4]) for row in rows], read, files=[row[4] for row in rows])
