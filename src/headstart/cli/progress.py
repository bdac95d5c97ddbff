"""Progress bars on standard error; nothing off a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from headstart.core.progress import Progress

BYTES = {"weights"}  # stages whose progress is counted in them


@contextmanager
def progress(*, one_bar: bool = False) -> Iterator[Progress]:
    """A bar on standard error for each stage, with rate and time left; with ``one_bar`` one for all of them."""
    if not sys.stderr.isatty():
        yield lambda stage, done, count: None
        return
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    texts = [TextColumn(f"{{task.{field}}}") for field in ("description", "fields[amount]", "fields[rate]")]
    columns = (texts[0], BarColumn(), texts[1], texts[2], TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(stage: str, done: int, count: int) -> None:
            name = "" if one_bar else stage
            if name not in tasks:
                tasks[name] = bar.add_task(stage, total=count or None, completed=done, amount="", rate="")
            times, digits, unit = (1e6, ".1f", " MB") if stage in BYTES else (1, ".0f", "")
            speed, whole = bar.tasks[tasks[name]].speed, f"/{count / times:{digits}}" if count else ""
            rate = f"{speed / times:{digits}}{unit}/s" if speed else ""
            amount = f"{done / times:{digits}}{whole}{unit}"
            bar.update(tasks[name], description=stage, completed=done, amount=amount, rate=rate)

        yield report
