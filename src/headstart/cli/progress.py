"""Progress bars on standard error; nothing off a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

Report = Callable[[str, int, int], None]
BYTES = {"weights"}  # stages whose progress is counted in them


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on standard error with rate and time left; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, count: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    texts = [TextColumn(f"{{task.{field}}}") for field in ("description", "fields[amount]", "fields[rate]")]
    columns = (texts[0], BarColumn(), texts[1], texts[2], TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(stage: str, done: int, count: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=count or None, completed=done, amount="", rate="")
            times, digits, unit = (1e6, ".1f", " MB") if stage in BYTES else (1, ".0f", "")
            speed, whole = bar.tasks[tasks[stage]].speed, f"/{count / times:{digits}}" if count else ""
            rate = f"{speed / times:{digits}}{unit}/s" if speed else ""
            bar.update(tasks[stage], completed=done, amount=f"{done / times:{digits}}{whole}{unit}", rate=rate)

        yield report


@contextmanager
def one_bar() -> Iterator[Report]:
    """One bar on standard error for all networks, and which of them it is at; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield lambda doing, done, count: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda doing, done, count: bar.update(task, description=doing, completed=done, total=count)
