"""Plots, drawn without a window system and without shared state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.core.counts import counted
from headstart.plots.files import write_files
from headstart.plots.style import INK, QUIET, STYLE
from headstart.workflows.ranking import Candidate

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

FAINT, FRONT, CHOSEN = "#9a9a9a", "#1f6fb4", "#c8481f"
FILES = ("compare.png", "compare.svg")
NEAR, FAR, STEP = 9, 60, 7  # points between a mark and its label, where it must give way up to FAR


def plot_comparison(rows: Sequence[Candidate], chosen: Candidate | None, folder: str | os.PathLike[str]) -> list[Path]:
    """Accuracy against images a second, as ``compare.png`` and ``compare.svg`` in ``folder``.

    Raises:
        UsageError: the folder cannot be written to.
    """
    with STYLE:
        save = draw_comparison(rows, chosen).savefig
        return write_files({FILES[0]: save, FILES[1]: partial(save, metadata={"Date": None})}, folder)


def draw_comparison(rows: Sequence[Candidate], chosen: Candidate | None) -> Figure:
    """Accuracy against images a second, with intervals, the Pareto front as a line, and a name beside each mark."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _prepare(axes, rows)
    _mark(axes, rows, chosen)
    figure.draw_without_rendering()  # the positions are known only after that
    _label(axes, rows, chosen, canvas.get_renderer())  # type: ignore[no-untyped-call]  # it has no hints
    return figure


def _prepare(axes: Axes, rows: Sequence[Candidate]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.set_xlabel("images a second, decoding included")
    axes.set_ylabel(f"accuracy on {counted(rows[0].accuracy.images, 'photo')}, 95 % intervals")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    speeds, _ = _places(rows)
    narrow = max(speeds) < 10 * min(speeds)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8) if narrow else (1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _limits(axes, rows)


def _mark(axes: Axes, rows: Sequence[Candidate], chosen: Candidate | None) -> None:
    front = _front(rows)
    if len(front) > 1:
        axes.plot(*_places(front), color=FRONT, linewidth=1.2, zorder=2, label="none is both faster and more accurate")
    for row in rows:
        colour = CHOSEN if row is chosen else FRONT if row.pareto else FAINT
        (x,), (y,) = _places([row])
        low, high = y - row.accuracy.low, row.accuracy.high - y
        axes.errorbar(x, y, [[low], [high]], color=colour, elinewidth=0.9, capsize=2.5, alpha=0.55, zorder=1)
        axes.plot(x, y, "o", color=colour, markersize=9 if row is chosen else 6, zorder=4,
                  label="chosen" if row is chosen else None)  # fmt: skip
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.09), ncols=2, frameon=False)


def _limits(axes: Axes, rows: Sequence[Candidate]) -> None:
    speeds, _ = _places(rows)
    span = max(speeds) / min(speeds)
    wide = max(span**0.15, 2 / span**0.5)  # room for the labels of the outermost, and never less than from 1 to 4
    axes.set_xlim(min(speeds) / wide, max(speeds) * wide)
    low, high = min(row.accuracy.low for row in rows), max(row.accuracy.high for row in rows)
    margin = 0.06 * max(high - low, 0.01)
    axes.set_ylim(low - margin, high + margin)


def _places(rows: Sequence[Candidate]) -> tuple[list[float], list[float]]:
    return [row.images_per_second for row in rows], [row.accuracy.value for row in rows]


def _label(axes: Axes, rows: Sequence[Candidate], chosen: Candidate | None, renderer: RendererAgg) -> None:
    """Put the names beside the marks, so that they overlap nothing, or at least no other name or mark."""
    taken = [_mark_box(axes, row) for row in rows]
    lines = [*_front_line(axes, rows), *(_bar_box(axes, row) for row in rows)]
    for row in sorted(rows, key=lambda row: (row is not chosen, not row.pareto)):
        for dx, dy, clear in [(*offset, clear) for clear in (True, False) for offset in _offsets()]:
            note = _note(axes, row, row is chosen, dx, dy)
            box = _extent(note, renderer)
            if _inside(box, axes.bbox) and not any(box.overlaps(other) for other in taken + lines * clear):
                taken.append(box)
                break
            note.remove()


def _note(axes: Axes, row: Candidate, chosen: bool, dx: float, dy: float) -> Annotation:
    """A name beside its mark, with a line between them where they are far apart."""
    (x,), (y,) = _places([row])
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
    note = axes.annotate(
        f"{row.backbone} {row.pixels}",
        (x, y),
        (dx, dy),
        textcoords="offset points",
        ha="left" if dx > 0 else "right" if dx < 0 else "center",
        va="bottom" if dy > 0 else "top" if dy < 0 else "center",
        color=CHOSEN if chosen else INK if row.pareto else QUIET,
        weight="bold" if chosen else "normal",
        fontsize=8.5,
        zorder=5,
        parse_math=False,
        arrowprops=line if max(abs(dx), abs(dy)) > NEAR + STEP else None,
    )
    note.set_in_layout(False)
    return note


def _offsets() -> Iterator[tuple[float, float]]:
    """Places of a label relative to its mark, in points: near before far, beside before above."""
    for far in range(NEAR, FAR, STEP):
        yield from ((far, 0), (-far, 0), (0.8 * far, 0.6 * far), (0.8 * far, -0.6 * far))
        yield from ((-0.8 * far, 0.6 * far), (-0.8 * far, -0.6 * far), (0, far), (0, -far))


def _mark_box(axes: Axes, row: Candidate) -> Bbox:
    """What a mark covers, in pixels."""
    (x,), (y,) = _places([row])
    centre = axes.transData.transform((x, y))
    return _bbox(centre, centre, 4 * axes.figure.dpi / 72)


def _bar_box(axes: Axes, row: Candidate) -> Bbox:
    """What its error bar covers, in pixels."""
    x = row.images_per_second
    low, high = axes.transData.transform([(x, row.accuracy.low), (x, row.accuracy.high)])
    return _bbox(low, high, 2)


def _bbox(low: NDArray[np.float64], high: NDArray[np.float64], margin: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox([low - margin, high + margin])


def _front(rows: Sequence[Candidate]) -> list[Candidate]:
    return sorted((row for row in rows if row.pareto), key=lambda row: row.images_per_second)


def _front_line(axes: Axes, rows: Sequence[Candidate]) -> Iterator[Bbox]:
    """What the line of the Pareto front covers, in pixels, as many small boxes."""
    corners = axes.transData.transform(list(zip(*_places(_front(rows)), strict=True)))
    for start, end in pairwise(corners):
        steps = int(abs(end - start).max() / 8) + 1
        for step in range(steps + 1):
            centre = start + (end - start) * step / steps
            yield _bbox(centre, centre, 3)


def _extent(note: Annotation, renderer: RendererAgg) -> Bbox:
    """What the words cover, in pixels, without the line to the mark."""
    from matplotlib.text import Text

    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer)


def _inside(box: Bbox, room: Bbox) -> bool:
    return bool(box.x0 >= room.x0 and box.x1 <= room.x1 and box.y0 >= room.y0 and box.y1 <= room.y1)
