"""Contents of images in a temporary file, for a source that can only be read from its beginning."""

from __future__ import annotations

import mmap
import tempfile
from array import array
from collections.abc import Iterable
from typing import Any

from headstart.core.cache_folder import cache_dir


class Unpacked:
    """Items in any order, each read on its own and by any thread; the file is deleted with this object.

    Args:
        items: of each row its bytes, or anything else, which stays in memory.

    Raises:
        OSError: they cannot be written.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._ends, self._others = array("q"), dict[int, Any]()
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for row, item in enumerate(items):
                if isinstance(item, bytes):
                    file.write(item)
                else:
                    self._others[row] = item
                self._ends.append(file.tell())
            file.flush()
            size = self._ends[-1] if self._ends else 0
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __getitem__(self, row: int) -> Any:
        if row in self._others:
            return self._others[row]
        return bytes(self._bytes[self._ends[row - 1] if row else 0 : self._ends[row]])
