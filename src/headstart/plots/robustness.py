"""A robustness curve as a picture and as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.attack.checks import NOISE
from headstart.attack.robustness import Robustness
from headstart.core.types import Accuracy
from headstart.plots.files import write_files, write_rows
from headstart.plots.style import INK, QUIET, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("robustness.png", "robustness.csv")
WORST, COLOURS = "#c8481f", ("#1f6fb4", "#4f9d4f", "#8a63b8", "#c79a1e", "#3fa7a7", "#b05c86")


def write_robustness(result: Robustness, folder: str | os.PathLike[str]) -> list[Path]:
    """Write `FILES` into a folder: the curve, drawn and in numbers.

    Raises:
        UsageError: the folder cannot be written to.
    """
    rows: list[Sequence[object]] = [["norm", "epsilon", "attack", "accuracy", "low", "high", "images"], *_rows(result)]
    with STYLE:
        return write_files({FILES[0]: draw_robustness(result).savefig, FILES[1]: partial(write_rows, rows)}, folder)


def draw_robustness(result: Robustness) -> Figure:
    """Accuracy against the budget; the worst of all attacks with its 95 % interval, and the photos as they are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    figure = Figure(figsize=(7, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    levels = result.norm == "linf"
    places = [(255 if levels else 1) * point.epsilon for point in result.curve]
    axes.axhline(100 * result.accuracy.value, color=QUIET, linewidth=1, linestyle=":", label="the photos as they are")
    colours = iter(COLOURS)
    for name in result.curve[0].attacks:
        colour = QUIET if name == NOISE else next(colours, INK)
        values = [100 * point.attacks[name].value for point in result.curve]
        label = "random noise" if name == NOISE else name
        axes.plot(places, values, color=colour, linestyle="--" if name == NOISE else "-", marker="o", markersize=3,
                  linewidth=1.4, label=label)  # fmt: skip
    low, high = zip(*((100 * point.accuracy.low, 100 * point.accuracy.high) for point in result.curve), strict=True)
    axes.fill_between(places, low, high, color=WORST, alpha=0.15, linewidth=0)
    axes.plot(places, [100 * point.accuracy.value for point in result.curve], color=WORST, linewidth=5, alpha=0.45,
              zorder=1, label="the worst of all")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:.3g}" for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("largest change of a pixel, levels of 255 (L∞)" if levels else f"largest change, {result.norm}")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(-2, 102)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _rows(result: Robustness) -> Iterator[list[object]]:
    yield [result.norm, 0.0, "none", *_values(result.accuracy)]
    for point in result.curve:
        for name, accuracy in (*point.attacks.items(), ("worst", point.accuracy)):
            yield [result.norm, point.epsilon, name, *_values(accuracy)]


def _values(accuracy: Accuracy) -> list[object]:
    return [accuracy.value, accuracy.low, accuracy.high, accuracy.images]
