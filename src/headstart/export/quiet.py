"""Suppresses the output of frameworks during an export."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from headstart.core.shared_change import SharedChange, ignored_warnings
from headstart.engines.frameworks import muted


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress prints, logs and warnings, also of C++; errors are raised as usual. Several threads may do so at once.

    It is the whole process that is quiet: what another thread prints meanwhile is lost, too.
    """
    with ignored_warnings(), muted(1), muted(2), _PRINTS, _LOGS:
        yield


class _Discarding:
    """In place of ``sys.stdout`` or ``sys.stderr``: nothing is written while ``on``, later it is passed on.

    For who keeps it: a library that is imported meanwhile may log to it from then on.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.on = stream, True

    def write(self, text: str) -> int:
        """Write or discard."""
        return len(text) if self.on else self.stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write or discard."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _discarded_prints() -> Iterator[None]:
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            if stream := getattr(sys, name):  # None in a process without a console
                stack.enter_context(_discarded_print(name, stream))
        yield


@contextmanager
def _discarded_print(name: str, stream: TextIO) -> Iterator[None]:
    discarding = _Discarding(stream)
    setattr(sys, name, discarding)
    try:
        yield
    finally:
        discarding.on = False
        if getattr(sys, name) is discarding:  # else somebody has redirected it meanwhile
            setattr(sys, name, stream)


@contextmanager
def _disabled_logs() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


_PRINTS, _LOGS = SharedChange(_discarded_prints), SharedChange(_disabled_logs)
