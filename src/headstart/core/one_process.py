"""A lock by which one process alone works at something; the system lets it go when that ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headstart.core.errors import UsageError


@contextmanager
def one_process(file: Path, busy: str, unwritable: str, *, remove: bool = False) -> Iterator[None]:
    """Hold the lock ``file``, whose folder is made, and do not wait for it.

    Args:
        busy: the sentence where another process has it.
        unwritable: the beginning of the sentence where it cannot be written.
        remove: whether the file is gone in the end.

    Raises:
        UsageError: another process has it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=0)
        lock.acquire()
        while not file.exists():  # its last owner removed it a moment ago
            lock.release()
            lock.acquire()
    except Timeout as error:
        raise UsageError(busy) from error
    except OSError as error:
        raise UsageError(f"{unwritable}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        if remove:
            with suppress(OSError):  # Windows removes no file that is open
                file.unlink()
        lock.release()
