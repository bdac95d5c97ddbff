"""What a person sees of `headstart compare`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.choosing import NOISE, Candidate
from headstart.terminal import Rows, console, one_line, quoted

if TYPE_CHECKING:
    from headstart.comparing import Comparison

Report = Callable[[str, int, int], None]
RIGHT = ("px", "accuracy", "95 %", "points", "p", "img/s", "params", "MB", "s")


@contextmanager
def progress() -> Iterator[Report]:
    """One bar on standard error for all networks, and which of them it is at; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield lambda doing, done, count: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda doing, done, count: bar.update(task, description=doing, completed=done, total=count)


def show(found: Comparison, files: Sequence[str], data: str, weights: Mapping[str, str]) -> None:
    """The table, what its signs mean, the choice and how to go on from it."""
    out, rows = console(), Rows()
    judged = {"held out": "held out", "left out in turn": "left out in turn"}.get(
        found.judged_on, f"of the {found.judged_on} part"
    )
    rows.add("data", f"{found.train} images fitted on, {found.images} {judged}, {len(found.classes)} classes")
    for problem in found.skipped:
        rows.add("passed over", Text(f"{problem.name}: {one_line(problem.detail)}", "yellow"))
    rows.show(out)
    out.print()
    out.print(_table(found))
    out.print()

    rows = Rows()
    if any(row.difference and row.p >= NOISE for row in found.rows):
        rows.add("≈", "as good as the best for all that is known: the difference may be noise (McNemar, mid-p)")
    if len(found.rows) > 1:
        rows.add("•", "no other is both faster and more accurate")
    if found.chosen is not None:
        rows.add("choice", Text(found.sentence, "bold"))
    if files:
        rows.add("plot", Text("  ".join(one_line(file) for file in files)), whole=True)
    if found.chosen is not None:
        rows.add("next", Text(_next(found.chosen, data, weights), "cyan"), whole=True)
    rows.show(out)


def _table(found: Comparison) -> Table:
    table = Table("", "network", box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for title in RIGHT:
        table.add_column(title, justify="right", no_wrap=True)
    for row in found.rows:
        chosen = row is found.chosen
        low, high = f"{100 * row.accuracy.low:.1f}", f"{100 * row.accuracy.high:.1f}"
        table.add_row(
            "→" if chosen else "",
            row.backbone,
            str(row.pixels),
            f"{row.accuracy.value:.1%}",
            f"{low}–{high}",
            *_beside(row, found.rows[0]),
            f"{_short(row.images_per_second)}{'•' if row.pareto and len(found.rows) > 1 else ' '}",
            f"{_short(row.parameters / 1e6)}M",
            _short(row.megabytes),
            _short(row.seconds),
            style="bold green" if chosen else "",
        )
    return table


def _beside(row: Candidate, best: Candidate) -> tuple[str, str]:
    """How many points below the best, and how sure that is."""
    if row is best:
        return "best", ""
    noise = "≈" if row.p >= NOISE else ""
    return f"{noise}{100 * row.difference:.1f}".replace("-", "−"), "<.001" if row.p < 0.001 else f"{row.p:.2g}"


def _short(value: float) -> str:
    """Three digits, about."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _next(chosen: Candidate, data: str, weights: Mapping[str, str]) -> str:
    file = f" --weights {quoted(weights[chosen.backbone])}" if chosen.backbone in weights else ""
    return f"headstart fit {quoted(data)} --backbone {chosen.backbone} --pixels {chosen.pixels}{file}"
