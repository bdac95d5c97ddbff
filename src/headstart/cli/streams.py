"""The standard streams of a command: closed, on a full disk, or read by nobody any more, they end no work."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any

STDERR = 2  # file descriptor


def prepare_streams() -> None:
    """Have streams that take every character, and end no work; before a file gets the number of one that is closed."""
    if sys.stderr is not None:
        _let_fail()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for the whole process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal has no letters for is no reason to stop
            stream.reconfigure(errors="backslashreplace")


def _let_fail() -> None:
    """Let what cannot be written to standard error be lost; not where it is no file, as in a test or a notebook."""
    buffer = getattr(sys.stderr, "buffer", None)
    file = getattr(buffer, "raw", buffer)  # without a buffer under ``python -u``
    if isinstance(file, io.FileIO) and file.fileno() == STDERR:
        unfailing = io.BufferedWriter(_Unfailing(STDERR, "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(unfailing, encoding=sys.stderr.encoding, line_buffering=True)


class _Unfailing(io.FileIO):
    """A file that drops what cannot be written: nobody can be told, and the work is not to suffer."""

    def write(self, content: Any) -> int:
        """Write, or not."""
        try:
            return super().write(content)
        except OSError:
            return len(content)


def is_printed() -> bool:
    """Whether all that was printed has been written."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def mute() -> None:
    """Let nothing that is still in the buffer of standard output complain on the way out."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
