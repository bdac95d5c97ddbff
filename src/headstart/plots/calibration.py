"""Whether probabilities can be trusted, and what "unknown" is good for, as a picture and as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.core.counts import counted
from headstart.core.types import CoveragePoint, Evaluation, ReliabilityBin
from headstart.plots.files import write_files, write_rows
from headstart.plots.style import INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILES = ("calibration.png", "calibration.csv", "coverage.csv")
COLOUR, SAID, THRESHOLD = "#1f6fb4", "#c79a1e", "#c8481f"


def write_calibration(result: Evaluation, folder: str | os.PathLike[str]) -> list[Path]:
    """Write `FILES` into a folder: the reliability diagram and the coverage curve, drawn and in numbers.

    Raises:
        UsageError: the folder cannot be written to.
    """
    bars, points = result.reliability or (), result.coverage or ()
    reliability: list[Sequence[object]] = [["confidence", "accuracy", "low", "high", "images"]]
    reliability += [[bar.confidence, bar.accuracy, bar.low, bar.high, bar.images] for bar in bars]
    coverage: list[Sequence[object]] = [["coverage", "accuracy"]]
    coverage += [[point.coverage, point.accuracy] for point in points]
    with STYLE:
        save = draw_calibration(result).savefig
        writers = (save, partial(write_rows, reliability), partial(write_rows, coverage))
        return write_files(dict(zip(FILES, writers, strict=True)), folder)


def draw_calibration(result: Evaluation) -> Figure:
    """To the left what the probabilities say and what is so, to the right the accuracy if some get no answer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_reliability(left, result.reliability or ())
    left.set_title(f"calibration error (ECE) {result.calibration_in_words()}", fontsize=10, color=INK)
    _draw_coverage(right, result.coverage or (), 1 - result.unknown)
    right.set_title(f"unknown: {result.unknown_in_words('images')}", fontsize=10, color=INK)
    for axes in (left, right):
        axes.set_xlim(-2, 102)
        axes.grid(True, color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_reliability(axes: Axes, bars: Sequence[ReliabilityBin]) -> None:
    """A reliability diagram whose bins are side by side: most are so near 100 % that they would cover each other."""
    sizes = [bar.images for bar in bars]
    ends = [100 * end / sum(sizes) for end in accumulate(sizes, initial=0)]
    for bar, (start, end) in zip(bars, pairwise(ends), strict=True):
        axes.plot([start, end], 2 * [100 * bar.confidence], color=SAID, linewidth=2.5, solid_capstyle="butt")
    axes.plot([], [], color=SAID, linewidth=2.5, label="what the probability says")
    down = [100 * max(bar.accuracy - bar.low, 0) for bar in bars]
    up = [100 * max(bar.high - bar.accuracy, 0) for bar in bars]
    few, many = min(sizes), max(sizes)
    images = counted(many, "image") if few == many else f"{few} to {many} images"
    axes.errorbar(
        [(start + end) / 2 for start, end in pairwise(ends)], [100 * bar.accuracy for bar in bars], [down, up],
        fmt="o", color=COLOUR, markersize=5, elinewidth=0.9, capsize=2.5,
        label=f"accuracy on {images}, 95 % interval",
    )  # fmt: skip
    _room_below(axes, min(100 * min(bar.confidence, bar.low) for bar in bars))
    axes.set_xlabel("images, those with the lowest probability first, %")
    axes.set_ylabel("probability, accuracy, %")
    axes.legend(loc="lower right", frameon=False)


def _draw_coverage(axes: Axes, points: Sequence[CoveragePoint], known: float) -> None:
    axes.axvline(100 * known, color=THRESHOLD, linewidth=1, linestyle="--", label="those that are not called unknown")
    axes.plot([100 * point.coverage for point in points], [100 * point.accuracy for point in points], color=COLOUR,
              marker="o", markersize=4, linewidth=1.4, label="the most typical images")  # fmt: skip
    _room_below(axes, min(100 * point.accuracy for point in points))
    axes.set_xlabel("images that get an answer, %")
    axes.set_ylabel("accuracy on them, %")
    axes.legend(loc="lower left", frameon=False)


def _room_below(axes: Axes, least: float) -> None:
    """From the least value to 100 %, with room for the legend."""
    span = max(100 - least, 2)
    axes.set_ylim(100 - 1.25 * span, 100 + 0.04 * span)
