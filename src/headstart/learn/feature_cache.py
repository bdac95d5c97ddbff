"""The feature cache: the features of a frozen network, computed once for each image and kept by its content.

There is one SQLite database for each *space*: for everything that the features depend on but the image. Each row has a
checksum; a damaged row counts as absent. Where the disk cannot be written, the run goes on and a sentence says so.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.core.cache_folder import cache_dir
from headstart.core.errors import UsageError, cannot_read, reason_of
from headstart.data.load import THUMBNAIL
from headstart.learn.cache_database import (
    FAILURES,
    check_structure,
    connect,
    damaged,
    in_use,
    open_file,
    reason,
    transaction,
)

_LAYOUT = 1  # of the tables; another layout is another space
_TOGETHER = 500  # rows in one transaction: bounds the memory, and how long another process waits

_NAME = re.compile(r"(?P<space>[0-9a-f]{32})\.(?P<generation>[0-9]{1,9})\.sqlite(?P<side>-wal|-shm|-journal)?")


class FeatureCache:
    """The features of one space, by content key. Safe for several processes; threads may share one object.

    ``description`` (JSON values) holds everything that the features depend on but the image: it decides the space, and
    ``headstart cache`` shows it. ``known`` holds the keys that were there at opening. No failure of the disk or of the
    file is raised: ``problem`` is None, or a sentence that says why nothing is kept any more.
    """

    def __init__(self, description: Mapping[str, object], width: int, home: Path | None = None) -> None:
        self.width = width
        self.problem: str | None = None
        self._about = json.dumps(dict(description), sort_keys=True)
        identity = f"{_LAYOUT} {width} {THUMBNAIL} {self._about}".encode()
        self._space = hashlib.blake2b(identity, digest_size=16).hexdigest()
        self._seed = zlib.crc32(identity)  # so that a row of another space is never accepted here
        self._folder = _folder(home)
        self._lock = threading.RLock()
        self._generation = 0
        self._checked = False
        self._connection: sqlite3.Connection | None = None
        self._open()
        self.known: Container[bytes] = self._keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; from then on nothing is found and nothing is kept."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(*FAILURES):
                    connection.close()

    def read(
        self, keys: Sequence[bytes], out_features: NDArray[np.float16], out_thumbnails: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        """Fill the rows that are kept and undamaged; returns which, bool (n,). The other rows stay as they were.

        ``out_features`` is (n, width), ``out_thumbnails`` (n, THUMBNAIL, THUMBNAIL); keys may repeat.
        """
        self._check(keys, out_features, out_thumbnails)
        found = np.zeros(len(keys), dtype=np.bool_)
        for start in range(0, len(keys), _TOGETHER):
            with self._lock:
                try:
                    for row, data, thumbnail in self._sound(keys, range(start, min(start + _TOGETHER, len(keys)))):
                        out_features[row] = np.frombuffer(data, "<f2")
                        out_thumbnails[row] = np.frombuffer(thumbnail, np.uint8).reshape(THUMBNAIL, THUMBNAIL)
                        found[row] = True
                except FAILURES as error:
                    self._recover(error)
        return found

    def write(self, keys: Sequence[bytes], features: NDArray[np.float16], thumbnails: NDArray[np.uint8]) -> None:
        """Keep features (n, width) and thumbnails (n, side, side), in place of what was kept under the same keys."""
        self._check(keys, features, thumbnails)
        for start in range(0, len(keys), _TOGETHER):
            if self.problem is not None:
                return
            rows = []
            for row in range(start, min(start + _TOGETHER, len(keys))):
                data, thumbnail = features[row].astype("<f2").tobytes(), thumbnails[row].astype(np.uint8).tobytes()
                rows.append((keys[row], self._checksum(keys[row], data, thumbnail), data, thumbnail))
            with self._lock:
                self._write_some(rows)

    def _check(self, keys: Sequence[bytes], features: NDArray[Any], thumbnails: NDArray[Any]) -> None:
        expected = (len(keys), self.width), (len(keys), THUMBNAIL, THUMBNAIL)
        if (features.shape, thumbnails.shape) != expected:
            raise ValueError(
                f"expected shapes {expected} for {len(keys)} keys, got {(features.shape, thumbnails.shape)}"
            )

    def _checksum(self, key: bytes, features: bytes, thumbnail: bytes) -> int:
        return zlib.crc32(thumbnail, zlib.crc32(features, zlib.crc32(key, self._seed)))

    def _keys(self) -> frozenset[bytes]:
        if self._connection is None:
            return frozenset()
        try:
            rows = self._connection.execute("SELECT key FROM rows").fetchall()
        except FAILURES as error:
            self._recover(error)
            return frozenset()
        return frozenset(key for (key,) in rows if isinstance(key, bytes))

    def _sound(self, keys: Sequence[bytes], part: range) -> list[tuple[int, bytes, bytes]]:
        sound: list[tuple[int, bytes, bytes]] = []
        if self._connection is None:
            return sound
        with transaction(self._connection, "DEFERRED"):  # one read lock for all of them
            for row in part:
                found = self._connection.execute("SELECT crc, features, thumb FROM rows WHERE key = ?", (keys[row],))
                crc, data, thumbnail = found.fetchone() or (None, b"", b"")
                if not (isinstance(data, bytes) and isinstance(thumbnail, bytes)):
                    continue
                whole = len(data) == 2 * self.width and len(thumbnail) == THUMBNAIL * THUMBNAIL
                if whole and self._checksum(keys[row], data, thumbnail) == crc:
                    sound.append((row, data, thumbnail))
        return sound

    def _write_some(self, rows: Sequence[tuple[bytes, int, bytes, bytes]]) -> None:
        for last in (False, True):  # the second time into the database that took the place of a damaged one
            if self._connection is None or self.problem is not None:
                return
            try:
                if not self._checked:  # writing into a damaged page would spoil its neighbours
                    check_structure(self._connection)
                    self._checked = True
                with transaction(self._connection, "IMMEDIATE"):
                    # Replacing, not ignoring: the row that is there may be a damaged one.
                    self._connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", rows)
                return
            except FAILURES as error:
                if last or not damaged(error):
                    self._give_up(error)
                self._recover(error)

    def _recover(self, error: Exception) -> None:
        """Replace a damaged database by a new one; after any other failure it stays as it is."""
        if damaged(error):
            self.close()
            if self.problem is None:
                self._open(above=self._generation)

    def _give_up(self, error: Exception) -> None:
        if self.problem is None:
            self.problem = f"Features could not be kept in {self._folder}: {reason(error)}."

    def _open(self, above: int = -1) -> None:
        """Open the newest database of this space with a generation ``above`` the damaged ones, or start it.

        A new one never takes the name of a damaged one, which another process may still have open.
        """
        least = above + 1
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for last in (False, False, True):
                self._generation = max([least, *_generations(self._folder, self._space)])
                try:
                    self._connection = connect(self._path(), self._about)
                except FAILURES as error:
                    if last or not damaged(error):
                        raise
                    least = self._generation + 1
                else:
                    self._remove_older()
                    return
        except (OSError, *FAILURES) as error:
            self._give_up(error)
            self._open_for_reading(above)

    def _open_for_reading(self, above: int) -> None:
        """Open a database on a disk that cannot be written: without locks, but with checksums."""
        try:
            self._generation = max(_generations(self._folder, self._space), default=above)
            if self._generation > above:
                self._connection = open_file(self._path(), "mode=ro&immutable=1")
        except (OSError, *FAILURES):
            self._connection = None

    def _path(self) -> Path:
        return self._folder / f"{self._space}.{self._generation}.sqlite"

    def _remove_older(self) -> None:
        for path, name in _files(self._folder):
            if name["space"] == self._space and int(name["generation"]) < self._generation:
                with suppress(OSError):  # another process has it open, where that forbids removing: the next run will
                    path.unlink()


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """One space of the cache. ``rows`` is 0 and ``description`` empty where the database cannot be read."""

    space: str  # hexadecimal
    description: Mapping[str, object]
    rows: int
    size: int  # bytes on the disk
    last_used: float  # seconds since the epoch


def spaces(home: Path | None = None) -> list[SpaceInfo]:
    """Every space that is kept, the one used last first.

    Raises:
        UsageError: the folder cannot be read.
    """
    folder = _folder(home)
    found = []
    for space, paths in _by_space(folder).items():
        size, last_used = _usage(paths)  # before opening, which may touch the files
        newest = folder / f"{space}.{max(_generations(folder, space), default=0)}.sqlite"
        found.append(SpaceInfo(space, *_describe(newest), size, last_used))
    return sorted(found, key=lambda info: (-info.last_used, info.space))


def prune(
    home: Path | None = None,
    *,
    older_than_days: float | None = None,
    max_bytes: int | None = None,
    everything: bool = False,
) -> int:
    """Remove whole spaces: all, those not used for so long, or the longest unused until the rest fits.

    A space that is in use stays, and so does every file that is none of the cache's. Returns the bytes freed.

    Raises:
        UsageError: the folder cannot be read, or a file cannot be removed; the others are.
    """
    used = [(*_usage(paths), paths) for paths in _by_space(_folder(home)).values()]
    total, freed, failed = sum(size for size, _, _ in used), 0, list[OSError]()
    for _, last_used, paths in sorted(used, key=lambda entry: entry[1]):
        old = older_than_days is not None and time.time() - last_used > older_than_days * 86400
        if everything or old or (max_bytes is not None and total - freed > max_bytes):
            freed += _remove(paths, failed)
    if failed:
        raise UsageError(f"'{failed[0].filename}' cannot be removed: {reason_of(failed[0])}.") from failed[0]
    return freed


def _folder(home: Path | None) -> Path:
    return (cache_dir() if home is None else Path(home)) / "features"


def _files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            if name := _NAME.fullmatch(path.name):
                yield path, name


def _generations(folder: Path, space: str) -> list[int]:
    return [int(name["generation"]) for _, name in _files(folder) if name["space"] == space and not name["side"]]


def _by_space(folder: Path) -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {}
    try:
        for path, name in _files(folder):
            paths.setdefault(name["space"], []).append(path)
    except OSError as error:
        raise cannot_read(folder, error) from error
    return paths


def _usage(paths: Sequence[Path]) -> tuple[int, float]:
    """Bytes, and when last changed: every opening writes to the file."""
    size, changed = 0, 0.0
    for path in paths:
        with suppress(OSError):  # the side files come and go
            status = path.stat()
            size, changed = size + status.st_size, max(changed, status.st_mtime)
    return size, changed


def _describe(path: Path) -> tuple[Mapping[str, object], int]:
    for mode in ("mode=rw", "mode=ro&immutable=1"):  # the second where the folder cannot be written
        try:
            with closing(open_file(path, mode)) as connection:
                (text,) = connection.execute("SELECT description FROM about").fetchone()
                (rows,) = connection.execute("SELECT count(*) FROM rows").fetchone()
            description = json.loads(text)
            return (description if isinstance(description, dict) else {}), rows
        except (*FAILURES, ValueError, TypeError):
            continue
    return {}, 0


def _remove(paths: Sequence[Path], failed: list[OSError]) -> int:
    """Remove the files of a space, if it is not in use; returns the bytes freed, and adds what went wrong."""
    for path in paths:
        if path.suffix == ".sqlite" and in_use(path):
            return 0
    freed = 0
    for path in paths:
        try:
            size = path.stat().st_size
            path.unlink()
            freed += size
        except FileNotFoundError:  # the side files come and go
            pass
        except OSError as error:
            failed.append(error)
    return freed
