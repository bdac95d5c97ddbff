"""Parts of large files, read by several threads through few open files."""

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock

from headstart.core.errors import UnreadableImageError
from headstart.core.regular_file import open_regular
from headstart.data.formats import MOST_BYTES

MOST_OPEN = 16


class OpenFiles:
    """Reads parts of files; those that were read last stay open."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: OrderedDict[str, _File] = OrderedDict()

    def read_image(self, path: str, offset: int, size: int) -> bytes:
        """An image that lies in a file, unless it is too large for one; as `read`."""
        if size > MOST_BYTES:
            raise UnreadableImageError("unreadable", f"{size:,} bytes, and up to {MOST_BYTES:,} are read")
        return self.read(path, offset, size)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """So many bytes of a file from an offset on.

        Raises:
            UnreadableImageError: the file ends before.
            OSError: it cannot be read.
        """
        with self._lock:
            file = self._open.pop(path, None) or _File(path)
            self._open[path] = file
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)  # closed when the last thread that reads it is done
        content = file.read(offset, size)
        if len(content) < size:
            raise UnreadableImageError("truncated", f"{size - len(content):,} of its {size:,} bytes are not there")
        return content


class _File:
    """An open file, closed with this object."""

    def __init__(self, path: str) -> None:
        self._lock = Lock()
        self._number = -1
        with open_regular(path) as file:
            self._number = os.dup(file.fileno())

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)

    def read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # it has no place of its own, which processes and threads would share
            pieces = list[bytes]()
            while size > 0 and (piece := os.pread(self._number, size, offset)):
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        with self._lock:  # Windows
            os.lseek(self._number, offset, os.SEEK_SET)
            return os.read(self._number, size)
