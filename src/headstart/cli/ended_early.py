"""How a training ends on the command line: with its result; where that fails, or somebody ended it, how to go on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.core.errors import HeadstartError, UsageError
from headstart.core.text import say
from headstart.train.checkpoint import Terminated, all_below, discard, room_of_checkpoints, unfinished

INTERRUPTED, TERMINATED = 130, 143  # exit codes
FULL = (errno.ENOSPC, errno.EDQUOT)


class EndedEarlyError(HeadstartError):
    """Somebody ended a training; the sentence says how to go on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def ended_early(folder: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM as an error that says how to go on; ``folder`` has the checkpoints.

    Raises:
        EndedEarlyError: with exit code 130 or 143.
    """
    try:
        yield
    except Terminated as error:
        raise EndedEarlyError(str(error), TERMINATED) from error
    except KeyboardInterrupt as error:
        kept = "--resume goes on after the last whole epoch" if unfinished(folder) else "no epoch was whole"
        raise EndedEarlyError(f"interrupted; {kept}.", INTERRUPTED) from error


def write_result(write: Callable[[], Path], folder: str) -> Path:
    """Write the model that a training made, then remove its checkpoints; before, where they take the room for it.

    Args:
        folder: of the checkpoints.

    Raises:
        UsageError: it cannot be written. The latest checkpoints stay, and the sentence says how to go on from them.
    """
    try:
        try:
            where = write()
        except UsageError as error:
            if getattr(error.__cause__, "errno", None) not in FULL or not all_below(folder):
                raise
            say("the disk is full; checkpoints of the training make room for the model.")
            with room_of_checkpoints(folder):
                where = write()
    except UsageError as error:
        kept = "What was trained is kept: once that is mended, the same command with --resume goes on from there."
        raise UsageError(f"{error} {kept}" if unfinished(folder) else str(error)) from error
    discard(folder)
    return where


def folder_beside(model: str) -> str:
    """Where the checkpoints and logs of a training go that makes ``model``."""
    return f"{os.path.abspath(model)}.training"
