"""A training that somebody ended, on the command line: the exit code, and how to go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from headstart.core.errors import HeadstartError
from headstart.train.checkpoint import Terminated, unfinished

INTERRUPTED, TERMINATED = 130, 143  # exit codes


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


def folder_beside(model: str) -> str:
    """Where the checkpoints and logs of a training go that makes ``model``."""
    return f"{os.path.abspath(model)}.training"
