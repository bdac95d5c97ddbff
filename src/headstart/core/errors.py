"""All errors of the package, and the sentences that several of them share."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from headstart.core.install import extra_install
from headstart.core.wording import worded

LISTED = 24  # names in one message
_NO_FILES, _NO_FILES_TEXT = (errno.EMFILE, errno.ENFILE), "too many open files"
_NO_MEMORY = (  # what libraries say, in lower case; the last two of a thread that cannot be started
    *(
        "bad_alloc",
        "out of memory",
        "not enough memory",
        "can't alloc",
        "cannot allocate memory",
        "oom when allocating",
    ),
    *("failed to map segment", "resource temporarily unavailable", "can't start new thread"),
)


class HeadstartError(Exception):
    """The base of all errors. The message says what was expected, what was received, and what to do.

    ``exit_code`` is what the command line ends with.
    """

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, vars(self))  # some take other arguments than the message

    def __str__(self) -> str:
        return worded(super().__str__())  # options of the command line, or arguments


def _again(kind: type[HeadstartError], args: tuple[Any, ...], more: dict[str, Any]) -> HeadstartError:
    """An error that comes back from another process."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(more)
    return error


class UsageError(HeadstartError):
    """A request that cannot be met: an unknown name, a missing path, a path that cannot be written to."""

    exit_code = 2


class DataError(HeadstartError):
    """The images or labels do not make a usable data set."""

    exit_code = 3


class CheckError(HeadstartError):
    """A check failed: a bundle was altered, or golden images give other answers."""

    exit_code = 4


class DivergedError(CheckError):
    """The loss of a training is no longer a finite number."""


class MachineError(HeadstartError):
    """The machine has too little of what the work needs: memory, or files that a process may open."""


class VersionError(UsageError):
    """A file that another version of a library made, and the one that is here cannot open."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed. Install it with: {extra_install(extra)}")


class UnreadableImageError(DataError):
    """One image could not be decoded. ``kind`` is the machine-readable reason, one of `types.PROBLEMS`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class DataWarning(UserWarning):
    """Some of the images that were given are left out."""


def warn(message: str) -> None:
    """A `DataWarning` at the line of the caller outside of this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("headstart."):
        frame, level = frame.f_back, level + 1
    warnings.warn(worded(message), DataWarning, stacklevel=level)


@contextmanager
def needs(package: str, extra: str, purpose: str) -> Iterator[None]:
    """Turn a failed import into a `MissingExtraError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(package, extra, purpose) from error


def cannot_read(path: str | os.PathLike[str], error: OSError) -> UsageError:
    """The error to raise where a file or folder cannot be read.

    Raises:
        MachineError: as `check_machine`.
    """
    check_machine(error)
    return UsageError(f"'{os.fspath(path)}' cannot be read: {error.strerror or error}.")


def lack_of(error: BaseException) -> str:
    """What the machine has too little of, with what to do, in a sentence; "" where an error says nothing of it."""
    number, text = getattr(error, "errno", None), str(error)
    said = "" if number else text.lower()  # an error of the system has a number, and needs no look at its words
    if number in _NO_FILES or _NO_FILES_TEXT in said:
        return "Too many files are open. Allow a process more of them: ulimit -n 4096"
    if number != errno.ENOMEM and not isinstance(error, MemoryError) and not any(words in said for words in _NO_MEMORY):
        return ""
    last = "" if number else text.strip().rpartition("\n")[2].rpartition(": ")[2].strip()[:160].rstrip(".")
    return (
        f"There is not enough memory{f': {last}' if last else ''}. Take fewer pixels (--pixels) or a smaller network "
        "(--backbone), or end other programs."
    )


def check_machine(error: BaseException) -> None:
    """Raise an error that is no fault of what was worked on: of a file, a model or a format.

    Raises:
        MachineError: there is too little memory, or too many files are open.
    """
    if isinstance(error, MachineError):
        raise error
    if found := lack_of(error):
        raise MachineError(found) from error


def reason_of(error: Exception | None) -> str:
    """What went wrong, in words: of an error of the system without its number.

    Raises:
        MachineError: as `check_machine`.
    """
    if error is not None:
        check_machine(error)
    words = getattr(error, "strerror", None)
    return str(words).lower() if words else str(error)


def one_line(error: Exception, most: int = 300) -> str:
    """Type and message of another library's error, in one line of at most ``most`` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]


def did_you_mean(name: str, known: Iterable[str], see: str = "") -> str:
    """A sentence with the nearest known names; where none is near, the command to ``see`` them, or the first ones."""
    known = sorted(known)
    by_word = {each.casefold(): each for each in known}
    if name.casefold() in by_word:
        return f"Did you mean {by_word[name.casefold()]}?"
    if near := [by_word[each] for each in difflib.get_close_matches(name.casefold(), by_word, n=3, cutoff=0.5)]:
        return f"Did you mean {' or '.join(near)}?"
    if see:
        return f"See them: {see}"
    return f"Known: {listed(known)}."


def listed(names: Iterable[str]) -> str:
    """The first names, with commas between them, and how many more there are."""
    names = [*names]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"
