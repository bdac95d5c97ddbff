"""SQLite for the feature cache: opens a file in any state, and tells a damaged file from a full or busy disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

PATIENCE = 30.0  # seconds

# A message about damaged text need not be UTF-8, and sqlite3 then fails on the message.
FAILURES = (sqlite3.Error, UnicodeDecodeError)

_PAGE = 32768  # bytes; with SQLite's 4096 a row of 1280 features fills 70 % of its page
_TABLES = (
    "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY NOT NULL, crc INTEGER, features BLOB, thumb BLOB)",
    "CREATE TABLE IF NOT EXISTS about (id INTEGER PRIMARY KEY, description TEXT)",
)
_OUTSIDE = {  # failures that are not the file's, in words; any other means that the file is damaged
    sqlite3.SQLITE_FULL: "no space left on the disk",
    sqlite3.SQLITE_IOERR: "the disk is full, over its quota or failing",
    sqlite3.SQLITE_CANTOPEN: "the folder cannot be written",
    sqlite3.SQLITE_PROTOCOL: "the file system cannot lock files",
    sqlite3.SQLITE_BUSY: f"another process held the file for over {PATIENCE:.0f} seconds",
}
_NO_SHARED_MEMORY = (  # what is raised where the file system has none
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
)


def connect(path: Path, about: str) -> sqlite3.Connection:
    """Open for writing, with the tables in place. Where the file system has no shared memory, without WAL.

    Raises:
        one of `FAILURES`, also where nothing could be written.
    """
    try:
        return _prepare_patiently(path, about, "WAL")
    except sqlite3.Error as error:
        if _code(error) not in _NO_SHARED_MEMORY:
            raise
        try:
            return _prepare_patiently(path, about, "DELETE")
        except FAILURES as second:
            raise second if damaged(second) else error from None


def open_file(path: Path, mode: str, patience: float = PATIENCE) -> sqlite3.Connection:
    """Open a file as it is. ``mode`` is the query of an SQLite URI. Nothing is read yet, so damage is found later."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=patience,
        isolation_level=None,  # transactions are begun and ended by this module
        check_same_thread=False,  # the lock of the feature cache takes care of that
    )
    connection.text_factory = bytes  # text may be damaged: no decoding
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """One transaction: all of it or nothing, also after an interruption."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(*FAILURES):  # on a full disk SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise


def check_structure(connection: sqlite3.Connection) -> None:
    """Check every page and every key (50 000 rows, 150 MB: 0.05 s, once they are in memory).

    Raises:
        one of `FAILURES`: pages or keys do not fit together. The contents of the rows are not checked.
    """
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != b"ok":
        raise sqlite3.DatabaseError(f"the database is damaged: {verdict!r}")


def in_use(path: Path) -> bool:
    """Whether another connection, of any process, has the file open in WAL mode or is writing to it."""
    try:
        with closing(open_file(path, "mode=rw", patience=0)) as connection:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
    except FAILURES as error:
        return _code(error) == sqlite3.SQLITE_BUSY
    return False


def damaged(error: Exception) -> bool:
    """Whether a failure means that the file is damaged, rather than that the disk or another process is in the way."""
    return _code(error) not in _OUTSIDE


def reason(error: Exception) -> str:
    """A failure in words, to end a sentence with."""
    return _OUTSIDE.get(_code(error)) or getattr(error, "strerror", None) or str(error)


def _prepare_patiently(path: Path, about: str, journal: str) -> sqlite3.Connection:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _prepare(path, about, journal)
        except sqlite3.Error as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # of two that switch to WAL at once, SQLite refuses one without waiting


def _prepare(path: Path, about: str, journal: str) -> sqlite3.Connection:
    connection = open_file(path, "mode=rwc")
    try:
        connection.execute(f"PRAGMA page_size={_PAGE}")
        if journal != "WAL":  # without shared memory, a file in WAL mode opens only for one that has it alone
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA locking_mode=NORMAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        with transaction(connection, "IMMEDIATE"):
            for table in _TABLES:
                connection.execute(table)
            connection.execute("INSERT OR REPLACE INTO about VALUES (1, ?)", (about,))
    except BaseException:
        connection.close()
        raise
    return connection


def _code(error: Exception) -> int:
    """SQLite's primary result code; the extended ones have details in the higher bytes."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
