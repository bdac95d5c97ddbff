"""Files that end: a pipe or a device, which may have no end or nobody that writes, is not read."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

NO_FILE = "a pipe or a device, not a file"


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read its bytes, without waiting for anybody.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, NO_FILE, os.fspath(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a file.

    Args:
        most: bytes that it may have; None: as many as it has.

    Raises:
        OSError: it cannot be opened or read, has more, or is a folder, a pipe or a device.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes, and up to {most:,} are read", os.fspath(path))
        return file.read() if most is None else file.read(most)
