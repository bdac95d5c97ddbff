"""Changes of the whole process for a while, which several threads may want at the same time."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any


class SharedChange:
    """A change of the process as a context: the first thread to enter makes it, the last to leave undoes it.

    If each thread saved and restored for itself, the last one to leave would restore what the first one had changed.
    The same thread may enter it several times.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        """``change`` gives a context that makes the change and undoes it."""
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0
        self._made = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._made.enter_context(self._change())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._made.close()


def ignored_warnings(module: str = "") -> SharedChange:
    """Ignore all warnings, or those of the modules that the regular expression ``module`` matches."""
    return _IGNORED.setdefault(module, SharedChange(lambda: ignoring(module=re.compile(module) if module else None)))


@contextmanager
def ignoring(message: Any = None, module: Any = None) -> Iterator[None]:
    """Add one filter and remove that one; `warnings.catch_warnings` would restore all filters as they were.

    Args:
        message, module: what has ``match`` for the text of a warning and for the name of the module that warns.
    """
    added = ("ignore", message, Warning, module, 0)
    at_first: Any = warnings.filters
    at_first.insert(0, added)
    try:
        yield
    finally:
        now: Any = warnings.filters
        for filters in (at_first, now):  # another thread's `catch_warnings` may have made a copy
            filters[:] = [each for each in filters if each is not added]


_IGNORED: dict[str, SharedChange] = {}
