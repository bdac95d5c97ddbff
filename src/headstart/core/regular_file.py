"""Files that end: a pipe or a device, which may have no end or nobody that writes, is not read."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

NO_FILE = "a pipe or a device, not a file"
NO_NAME = "no file can have this name"


def open_regular(path: str | os.PathLike[str], most: int | None = None) -> BufferedReader:
    """Open a file to read its bytes, without waiting for anybody.

    Args:
        most: bytes that it may have; None: as many as it has.

    Raises:
        OSError: it cannot be opened, has more bytes, or is a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # there is a NUL in it
        raise FileNotFoundError(errno.ENOENT, NO_NAME, os.fspath(path)) from error
    _check_kind(path, mode)  # before it is opened: a socket cannot be, and a device may do something then
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(number)
        _check_kind(path, found.st_mode)
        if most is not None and found.st_size > most:
            raise _too_large(path, f"{found.st_size:,}", most)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what another library, which takes the path, would wait for.

    Raises:
        OSError: as `open_regular`.
    """
    open_regular(path).close()


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a file; ``most`` is as for `open_regular`.

    Raises:
        OSError: it cannot be opened or read, has more, or is a folder, a pipe or a device.
    """
    with open_regular(path, most) as file:
        return rest_of(file, path, most)


def rest_of(file: BufferedReader, path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a file that `open_regular` has opened.

    Raises:
        OSError: it has more than ``most``, which its size may not say: it grows, or the system makes it up.
    """
    if most is None:
        return file.read()
    size = min(os.fstat(file.fileno()).st_size, most)
    content = file.read(size + 1)
    if len(content) > size:
        content += file.read(most + 1 - len(content))
    if len(content) > most:
        raise _too_large(path, f"more than {most:,}", most)
    return content


def _check_kind(path: str | os.PathLike[str], mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, NO_FILE, os.fspath(path))


def _too_large(path: str | os.PathLike[str], size: str, most: int) -> OSError:
    return OSError(errno.EFBIG, f"{size} bytes, and up to {most:,} are read", os.fspath(path))
