"""Suppresses the output of frameworks in the thread that runs them; what other threads print and log goes on."""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

from headstart.core.shared_change import SharedChange, ignoring

STDOUT, STDERR = 1, 2  # file descriptors
SETTLE = 0.01  # seconds after which a thread that was about to write to a file descriptor has done so
_here = threading.local()  # ``depth``: how many times this thread has entered `quiet`


@contextmanager
def quiet(*, native: bool = True) -> Iterator[None]:
    """Suppress this thread's prints, logs and warnings, and what C++ writes. Errors are raised as usual.

    Args:
        native: also what C++ writes. It may come from any thread, so it is suppressed for the whole process, with the
            output of child processes that are started meanwhile.
    """
    with _entered(), _WARNINGS, _PRINTS, _LOGS, ExitStack() as stack:
        for descriptor in (STDOUT, STDERR) if native else ():
            stack.enter_context(muted(descriptor))
        yield


@contextmanager
def _entered() -> Iterator[None]:
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1


def _is_quiet() -> bool:
    """Whether the calling thread is."""
    return getattr(_here, "depth", 0) > 0


# --- Python -----------------------------------------------------------------------------------------------------------


class _PassingOn:
    """In place of ``sys.stdout`` or ``sys.stderr``: discards what a quiet thread writes, and passes on the rest.

    A library that is imported meanwhile may keep it, and log to it from then on.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write or discard."""
        return len(text) if _is_quiet() else self.stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write or discard."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _WhereQuiet:
    """In place of a regular expression in a filter of warnings: matches whatever a quiet thread warns of."""

    def match(self, _: str) -> bool:
        """Whether to ignore it."""
        return _is_quiet()


@contextmanager
def _filtered_prints() -> Iterator[None]:
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            if stream := getattr(sys, name):  # None in a process without a console
                # Kept afterwards: up to Python 3.13 `print` holds no reference to the stream that it writes to, and
                # crashes where another thread replaces it in ``sys`` and it is freed.
                if name not in _PASSING_ON or _PASSING_ON[name].stream is not stream:
                    _PASSING_ON[name] = _PassingOn(stream)
                stack.enter_context(_replaced(sys, name, _PASSING_ON[name]))
        yield


@contextmanager
def _filtered_logs() -> Iterator[None]:
    """`logging.disable` would be for all threads."""
    before = logging.Logger.callHandlers

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        if not _is_quiet():
            before(self, record)

    with _replaced(logging.Logger, "callHandlers", call_handlers):
        yield


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if getattr(owner, name) is value:  # else somebody has replaced it meanwhile
            setattr(owner, name, before)


_PASSING_ON: dict[str, _PassingOn] = {}
_PRINTS, _LOGS = SharedChange(_filtered_prints), SharedChange(_filtered_logs)
_WARNINGS = SharedChange(lambda: ignoring(message=_WhereQuiet()))


# --- C++ --------------------------------------------------------------------------------------------------------------


def muted(descriptor: int = STDERR) -> SharedChange:
    """Discard what C++ writes to a file descriptor, 1 or 2, for a while. What Python writes there arrives."""
    return _MUTED[descriptor]


@contextmanager
def _discarded(descriptor: int) -> Iterator[None]:
    try:
        kept = os.dup(descriptor)
    except OSError:  # closed already
        yield
        return
    files = _files_of_python(descriptor)
    try:
        _move(files, kept)
        time.sleep(SETTLE if files else 0)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
        yield
    finally:
        with suppress(OSError):
            os.dup2(kept, descriptor)
        _move(files, descriptor)
        time.sleep(SETTLE if files else 0)
        os.close(kept)


def _files_of_python(descriptor: int) -> list[io.FileIO]:
    """The files by which Python writes to a descriptor; handlers of logs and others may have kept them."""
    files = []
    for stream in (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr):
        buffer = getattr(stream, "buffer", None)
        file = getattr(buffer, "raw", buffer)  # without a buffer under ``python -u``
        if isinstance(file, io.FileIO) and not file.closed and file.fileno() == descriptor and not file.closefd:
            files.append(file)
    return list({id(file): file for file in files}.values())


def _move(files: Iterable[io.FileIO], descriptor: int) -> None:
    """Let files write to another descriptor from now on. What holds them, buffers and streams, notices nothing."""
    for file in files:
        name = file.name
        io.FileIO.__init__(file, descriptor, "wb", closefd=False)
        file.name = name


_MUTED = {each: SharedChange(functools.partial(_discarded, each)) for each in (STDOUT, STDERR)}
