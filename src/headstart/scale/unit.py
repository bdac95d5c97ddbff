"""A unit of work: a part of a data set that is small enough for one task, and that a rerun finds again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

PART = 64 << 20  # bytes of a file that holds many images, in a unit
MOST = 4096  # images of a unit


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
    listed: bool = False

    @property
    def name(self) -> str:
        """That of its shard."""
        return f"{self.place}-{self.stamp}"


def hashed(content: bytes) -> str:
    """A hash, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def size_and_time(path: str) -> tuple[int, int]:
    """Bytes, and nanoseconds; zeros for a file that is not there, of which its reader tells."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns
