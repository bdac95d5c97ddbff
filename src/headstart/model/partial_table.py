"""The rows of a table that is being made, on disk as they come: whatever ends the work, the same request goes on.

A file beside the table: a line that tells what was asked for, then a line a row, each with its checksum. What comes
after a line that is half written is not read.
"""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from array import array
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.one_process import one_process
from headstart.core.regular_file import check_regular

SYNCED = 5.0  # seconds between two times that the disk is told to keep all: a power cut loses no more
LONGEST = 1 << 26  # bytes of a line
_SUM, _STAMP = 8, 16  # hexadecimal digits at the beginning of a line
_ABOUT = 0  # the stamp of the first line


class PartialTable:
    """Rows of a table, each by a stamp: 64 bits that stand for what it was computed from; 0 where that is not known."""

    def __init__(self, file: Path, about: Mapping[str, Any], packed: int) -> None:
        """Read what is there, if it is ``about`` the same; else begin anew.

        Args:
            packed: so many numbers at the end of each row are kept as bytes, which are shorter and sooner read.
        """
        self.file, self._packed = file, packed
        self.stamps, self.places = array("Q"), array("q")  # of the rows that were there: where their lines begin
        self.other = False  # whether what was there was of another request
        self._synced, self._end = time.monotonic(), 0
        if os.path.lexists(file):
            check_regular(file)
        self._opened = open(file, "ab", buffering=0)  # noqa: SIM115  # closed by `close`
        first = json.dumps(about)
        with open(file, "rb") as there:
            self._take(there, json.loads(first))
        self._opened.truncate(self._end)
        if not self._end:
            self._append(_ABOUT, first)
        self._read = open(file, "rb")  # noqa: SIM115  # opened once nothing in the file changes any more

    def _take(self, there: BufferedReader, about: object) -> None:
        """Take the sound lines of the same request, up to the first that is not."""
        first = there.readline(LONGEST)
        said = self._sound(first)
        if said is None or json.loads(said[_STAMP + 1 :]) != about:
            self.other = bool(first)
            return
        self._end = len(first)
        for line in iter(lambda: there.readline(LONGEST), b""):
            if (sound := self._sound(line)) is None:
                return
            self.stamps.append(int(sound[:_STAMP], 16))
            self.places.append(self._end)
            self._end += len(line)

    @staticmethod
    def _sound(line: bytes) -> bytes | None:
        """A line without its checksum; None where it is not whole."""
        content = line[_SUM + 1 : -1]
        whole = line.endswith(b"\n") and line[:_SUM] == b"%08x" % zlib.crc32(content)
        return content if whole and len(content) > _STAMP else None

    def find(self, stamps: Sequence[int]) -> NDArray[np.int64]:
        """The places of the latest rows with these stamps (N,), -1 where there is none."""
        known, wanted = np.array(self.stamps, np.uint64), np.array(stamps, np.uint64)
        order = np.argsort(known, kind="stable")
        last = np.searchsorted(known[order], wanted, side="right") - 1
        if not len(known):
            return np.full(len(wanted), -1, np.int64)
        rows = order[np.maximum(last, 0)]
        same = (last >= 0) & (known[rows] == wanted) & (wanted != 0)
        return np.where(same, np.array(self.places, np.int64)[rows], -1)

    def keep(self, stamp: int, row: Sequence[Any]) -> int:
        """Write a row; returns its place.

        Raises:
            OSError: the disk is full, or gone.
        """
        values = list(row)
        if self._packed:
            tail = np.array(values[-self._packed :], "<f8")  # None becomes NaN
            values[-self._packed :] = [base64.b64encode(tail.tobytes()).decode()]
        return self._append(stamp, json.dumps(values, ensure_ascii=False, separators=(",", ":")))

    def _append(self, stamp: int, text: str) -> int:
        content = b"%016x %s" % (stamp, text.encode("utf-8", "surrogatepass"))
        left = memoryview(b"%08x %s\n" % (zlib.crc32(content), content))
        place = self._end
        while left:  # without a buffer: it is kept if the process is killed
            written = self._opened.write(left)
            self._end += written
            left = left[written:]
        if time.monotonic() - self._synced > SYNCED:
            self.sync()
        return place

    def sync(self) -> None:
        """Have the disk keep all rows, whatever happens to the machine."""
        os.fsync(self._opened.fileno())
        self._synced = time.monotonic()

    def row_at(self, place: int) -> list[Any]:
        """The row at a place. Quick where places are asked for in their order."""
        self._read.seek(place)
        content = self._read.readline()[_SUM + 1 + _STAMP + 1 :]
        values: list[Any] = json.loads(content.decode("utf-8", "surrogatepass"))
        if self._packed:
            tail = np.frombuffer(base64.b64decode(values.pop()), "<f8").tolist()
            values += [None if number != number else number for number in tail]  # noqa: PLR0124
        return values

    def close(self) -> None:
        """Close the file; it stays."""
        self._read.close()
        self._opened.close()

    def remove(self) -> None:
        """Close the file and remove it: the table is there."""
        self.close()
        self.file.unlink()


def partial_name(target: Path) -> Path:
    """Where the rows of a table are while it is made."""
    return target.with_name(f".{target.name}.partial")


def alone_at(target: Path) -> AbstractContextManager[None]:
    """Keep other processes from a table.

    Raises:
        UsageError: another process is making it, or its folder cannot be written to.
    """
    return one_process(
        Path(f"{partial_name(target)}.lock"),
        f"Another process is making '{target}'. Wait until it has ended, or choose another file: --out",
        f"'{target}' cannot be written",
        remove=True,
    )
