"""Files and folders that are complete or absent: written to a temporary folder beside their path, then put there.

A folder that is replaced is exchanged in one step where the system can. Where it cannot, there is a moment at which the
older one lies beside its place, and `standing` finds it there. Temporary folders of processes that were killed are
removed by the next one that writes beside them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".headstart-"  # of temporary folders
OLD = ".replaced-by-headstart-"  # of what is replaced, where that takes two steps
_MADE = re.compile(rf"{re.escape(PREFIX)}[a-z0-9_]{{8}}")  # by mkdtemp
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def folder_above(target: Path) -> Path:
    """The nearest folder above ``target`` that exists."""
    return next(folder for folder in (*target.parents, target) if folder.exists())


def probe(target: Path) -> None:
    """Raise `OSError` if ``target`` cannot be written; permission bits are no proof on read-only disks or for root."""
    made = tempfile.mkdtemp(prefix=PREFIX, dir=folder_above(target))
    with suppress(FileNotFoundError):  # another process took it for one that was left
        os.rmdir(made)


def check_room(folder: Path, size: int) -> None:
    """Raise `OSError` if a file of so many bytes cannot be written into a folder: not every library says so."""
    block = os.urandom(1 << 20)  # no disk makes less of it
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A temporary folder on the disk of ``target``; removed afterwards with all that is still in it."""
    place = folder_above(target)
    _remove_left(place)
    folder, held = _made_and_held(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _made_and_held(place: Path) -> tuple[Path, int | None]:
    """A new temporary folder, and a number by which this process holds it, which ends with the process."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        held = _hold(folder)
        if held is None or folder.exists():  # else another process took it for one that was left
            return folder, held
        os.close(held)


def _hold(folder: Path) -> int | None:
    """A number that holds a folder; None where another process does, or the system or the disk has no such thing."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    number = None
    try:
        number = os.open(folder, os.O_RDONLY)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return number
    except OSError:
        if number is not None:
            os.close(number)
        return None


def _remove_left(place: Path) -> None:
    """Remove temporary folders that nobody holds: their process was killed."""
    try:
        names = [name for name in os.listdir(place) if _MADE.fullmatch(name)]
    except OSError:  # a folder may be writable and not readable
        return
    for name in names:
        held = _hold(place / name)
        if held is not None:
            shutil.rmtree(place / name, ignore_errors=True)
            os.close(held)


def put(made: Path, target: Path) -> None:
    """Put ``made`` in the place of ``target``. What was there is removed after that; on an error it stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        made.replace(target)
        _remove(_old_of(target))
    elif _exchanged(made, target):
        shutil.rmtree(made, ignore_errors=True)
    else:
        _put_in_two_steps(made, target)


def _put_in_two_steps(made: Path, target: Path) -> None:
    old = _old_of(target)
    _remove(old)
    target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        old.rename(target)
        raise
    _remove(old)


def _exchanged(made: Path, target: Path) -> bool:
    """Let two folders change places in one step; False where the system or the disk cannot."""
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if exchange is None:
        return False
    if exchange(_HERE, os.fsencode(made), _HERE, os.fsencode(target), _EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), os.fspath(target))


def standing(target: Path) -> Path:
    """Where a folder is: at its place, or beside it, where it was being replaced in two steps when a process ended."""
    old = _old_of(target)
    return old if not target.exists() and old.is_dir() else target


def _old_of(target: Path) -> Path:
    return target.with_name(OLD + target.name) if target.name else target


def _remove(old: Path) -> None:
    if old.name.startswith(OLD) and old.is_dir():
        shutil.rmtree(old, ignore_errors=True)


def put_new(made: Path, target: Path) -> None:
    """Move ``made``, a file or a folder that is not empty, to ``target``, where nothing may be.

    Raises:
        FileExistsError: something is there, though it came into being a moment ago.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if made.is_dir():
            made.rename(target)  # it replaces nothing but an empty folder
        else:
            _link(made, target)  # a rename would replace a file
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def _link(made: Path, target: Path) -> None:
    try:
        os.link(made, target)  # a second name of it; the first goes with its folder
    except FileExistsError:
        raise
    except OSError:  # a disk that knows no links: take the name first
        target.open("xb").close()
        try:
            made.replace(target)
        except BaseException:
            target.unlink()
            raise
