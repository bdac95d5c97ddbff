"""Progress of long work: a function that is called with the stage, the steps done, and their number; and its bars.

On a terminal there is a bar for each stage, on standard error; in a notebook a line that changes; elsewhere nothing.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

Progress = Callable[[str, int, int], None]  # stage, steps done, number of steps
StageProgress = Callable[[int, int], None]  # steps done, number of steps
Shown = Progress | bool | None  # what people give: True for bars where somebody looks, or a function of their own

BYTES = {"weights", "runtime"}  # stages whose progress is counted in them
SOON = 1.0  # seconds until a bar tells a speed
OFTEN = 0.2  # seconds between two lines in a notebook
WIDEST = 78  # characters of such a line
F = TypeVar("F", bound=Callable[..., Any])


def stage(progress: Progress | None, name: str) -> StageProgress | None:
    """``progress`` for one stage; None where ``progress`` is None."""
    return None if progress is None else lambda done, count: progress(name, done, count)


def function_of(progress: Shown) -> Progress | None:
    """What a function that `shows_progress` decorates was given."""
    return progress if callable(progress) else None


@contextmanager
def one_step(progress: Progress | None, name: str) -> Iterator[None]:
    """A stage whose steps cannot be counted."""
    report = stage(progress, name) or (lambda done, count: None)
    report(0, 1)
    yield
    report(1, 1)


def shows_progress(function: F) -> F:
    """Give a function with a keyword ``progress`` bars in place of True; it gets a `Progress` or None."""

    @functools.wraps(function)
    def run(*args: Any, progress: Shown = True, **kwargs: Any) -> Any:
        with shown(progress) as report:
            return function(*args, progress=report, **kwargs)

    return cast("F", run)


@contextmanager
def shown(progress: Shown = True) -> Iterator[Progress | None]:
    """The function to report to; for True bars where somebody looks, with rate and time left, else None."""
    if progress is not True:
        yield progress or None
    elif sys.stderr.isatty():
        yield from _bars()
    elif in_notebook():
        yield from _line()
    else:
        yield None


def in_notebook() -> bool:
    """Whether this process is the kernel of one."""
    return "ipykernel" in sys.modules


def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    texts = [TextColumn(f"{{task.{field}}}") for field in ("description", "fields[amount]", "fields[rate]")]
    columns = (texts[0], BarColumn(), texts[1], texts[2], TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(stage: str, done: int, count: int) -> None:
            if stage not in tasks:
                for other in bar.task_ids:  # a bar that stays would stand at 100 % while something else is done
                    bar.update(other, visible=False)
                total = count if count > 1 else None
                tasks[stage] = bar.add_task(stage, total=total, completed=done, amount="", rate="")
            task = bar.tasks[bar.task_ids.index(tasks[stage])]
            speed = task.speed if (task.elapsed or 0) >= SOON else None  # several may be ready at once in the beginning
            times, digits, unit = _unit(stage)
            rate = f"{speed / times:{digits}}{unit}/s" if speed else ""
            bar.update(tasks[stage], completed=done, amount=amount(stage, done, count), rate=rate)

        yield report


class ChangingLine:
    """One line that changes, and is gone in the end: every notebook shows that, with whatever is installed."""

    def __init__(self) -> None:
        self._last = 0.0  # when it changed; 0: it is not there

    def __call__(self, stage: str, done: int, count: int) -> None:
        """So much of a stage is done."""
        now = time.monotonic()
        if now - self._last >= OFTEN or done == count:
            self._last = now
            sys.stdout.write(f"\r{f'{stage} {amount(stage, done, count)}':<{WIDEST}.{WIDEST}}")
            sys.stdout.flush()

    def clear(self) -> None:
        """Make room for what is printed next."""
        if self._last:
            self._last = 0.0
            sys.stdout.write(f"\r{'':{WIDEST}}\r")
            sys.stdout.flush()


def _line() -> Iterator[Progress]:
    line = ChangingLine()
    try:
        yield line
    finally:
        line.clear()


def _unit(stage: str) -> tuple[float, str, str]:
    return (1e6, ".1f", " MB") if stage in BYTES else (1, ".0f", "")


def amount(stage: str, done: int, count: int) -> str:
    """How much of a stage is done, in words; "" where its steps cannot be counted."""
    if count == 1:
        return ""
    times, digits, unit = _unit(stage)
    return f"{done / times:{digits}}{f'/{count / times:{digits}}' if count else ''}{unit}"
