"""What can go wrong, as one tree. Each error carries the exit code that the command line ends with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 24  # names in one message


class HeadstartError(Exception):
    """Any failure that Headstart foresaw. The message says what was expected, what came, and what to do."""

    exit_code = 1


class UsageError(HeadstartError):
    """The request cannot be met as it was put: an unknown name, a missing path, a place that cannot be written."""

    exit_code = 2


class DataError(HeadstartError):
    """The images or labels do not make a data set that can be worked with."""

    exit_code = 3


class CheckError(HeadstartError):
    """A check failed: a bundle that was altered, golden images that give other answers."""

    exit_code = 4


class DivergedError(CheckError):
    """A training whose loss is no longer a number."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed. Install it with: pip install 'headstart[{extra}]'"
        )


class UnreadableImageError(DataError):
    """One image could not be decoded. ``kind`` is the machine-readable reason, one of `types.PROBLEMS`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence naming the nearest known names, or as many as can be read when none is near."""
    known = sorted(known)
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        return f"Did you mean {' or '.join(near)}?"
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"Known: {', '.join(known[:LISTED])}{more}."
