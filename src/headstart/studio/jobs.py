"""Long work of one browser tab: on a thread of its own, told of as it goes on, and ended when somebody asks for it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headstart.core.errors import UsageError
from headstart.core.progress import Progress
from headstart.studio.words import say

LOOK = 0.15  # seconds between two looks at the work
T = TypeVar("T")
_STARTED: weakref.WeakSet[Job[Any]] = weakref.WeakSet()


class CancelledError(BaseException):
    """Somebody cancelled; like Ctrl-C, it is no error that a function should go on after."""


@dataclass(frozen=True)
class State:
    """How far the work is."""

    stage: str = ""
    done: int = 0
    count: int = 0  # 0: not known
    seconds: float = 0.0  # since the stage began

    @property
    def share(self) -> float | None:
        """Of the stage, from 0 to 1; None where its steps cannot be counted."""
        return self.done / self.count if self.count > 1 else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest of the stage needs at this speed."""
        return self.seconds * (self.count - self.done) / self.done if self.share and self.seconds > 1 else None


class Job(Generic[T]):
    """``work`` gets a function to report to, which ends it where `cancel` was called."""

    def __init__(self, work: Callable[[Progress], T]) -> None:
        self._work, self._cancelled = work, threading.Event()
        self._begun, self._stage = time.monotonic(), ""
        self.state = State()
        self.error: BaseException | None = None
        self._result: list[T] = []
        self._thread = threading.Thread(target=self._run, name="headstart-studio-job", daemon=True)

    def start(self) -> Job[T]:
        """Begin."""
        _STARTED.add(self)
        self._thread.start()
        return self

    def cancel(self) -> None:
        """End at the next step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for its end."""
        return self._cancelled.is_set()

    @property
    def runs(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive()

    def tell(self, stage: str, done: int, count: int) -> None:
        """What the work reports to.

        Raises:
            CancelledError: it is to end.
        """
        if self.cancelled:
            raise CancelledError
        if stage != self._stage:
            self._stage, self._begun = stage, time.monotonic()
        self.state = State(stage, done, count, time.monotonic() - self._begun)

    def states(self) -> Iterator[State]:
        """How far it is, now and whenever that changed, until it has ended."""
        seen = None
        while self._thread.is_alive():
            if self.state is not seen:
                seen = self.state
                yield seen
            self._thread.join(LOOK)

    def result(self) -> T:
        """What came of it.

        Raises:
            CancelledError: it was cancelled. Whatever else the work raised.
        """
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work(self.tell))
        except BaseException as error:  # it is raised where the result is asked for
            self.error = error


def end_all() -> None:
    """End the jobs of all tabs at their next step."""
    for job in list(_STARTED):
        job.cancel()


@dataclass
class Running:
    """The one job of a browser tab."""

    job: Job[Any] | None = None
    gives_way: bool = False  # whether it is ended where something else is to begin

    def begin(self, work: Callable[[Progress], T], *, gives_way: bool = False) -> Job[T]:
        """Begin this.

        Args:
            gives_way: whether nobody asked for it, so that whatever else is to begin ends it.

        Raises:
            UsageError: something else runs that somebody asked for.
        """
        self.make_way()
        self.job = job = Job(work)
        self.gives_way = gives_way
        return job.start()

    def make_way(self) -> None:
        """End what nobody asked for.

        Raises:
            UsageError: something runs that somebody asked for.
        """
        if self.job is not None and self.job.runs and not self.gives_way:
            raise UsageError(say("busy"))
        self.cancel()

    def cancel(self) -> None:
        """End what runs, if anything does."""
        if self.job is not None:
            self.job.cancel()
