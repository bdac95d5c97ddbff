"""The curves of a training: loss and error of the training set and the validation set, epoch by epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.plots.files import write_files
from headstart.plots.style import INK, QUIET, STYLE
from headstart.train.training_record import TrainingRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "training.png"  # beside the log
TRAINING, VALIDATION = "#1f6fb4", "#c8481f"


def plot_curves(record: TrainingRecord, folder: str | os.PathLike[str]) -> Path:
    """Draw the curves of a training into `NAME` in a folder; an older picture there is replaced, as the log goes on.

    Raises:
        UsageError: the folder cannot be written to.
    """
    with STYLE:
        return write_files({NAME: draw_curves(record).savefig}, folder)[0]


def draw_curves(record: TrainingRecord) -> Figure:
    """Loss on the left, error on the right; a dotted line is at the epoch whose weights were kept."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    loss, error = figure.subplots(1, 2)
    epochs = record.epochs
    _lines(loss, "loss", [each.train_loss for each in epochs], [each.val_loss for each in epochs])
    calibrated = [each.val_calibrated for each in epochs]
    if any(map(math.isfinite, calibrated)):
        numbers = range(1, len(epochs) + 1)
        loss.plot(numbers, calibrated, color=VALIDATION, linewidth=1, linestyle="--", label="validation, calibrated")
    shares = [[100 * each.train_error for each in epochs], [100 * each.val_error for each in epochs]]
    _lines(error, "error, %", *shares)
    for axes in (loss, error):
        if record.best >= 0:
            axes.axvline(record.best + 1, color=QUIET, linewidth=1, linestyle=":", label="kept")
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(record.verdict.sentence, fontsize=9, color=INK, wrap=True)
    return figure


def _lines(axes: Axes, what: str, training: Sequence[float], validation: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers = range(1, len(training) + 1)
    marker = "o" if len(training) <= 30 else None
    for values, colour, label in ((training, TRAINING, "training"), (validation, VALIDATION, "validation")):
        axes.plot(numbers, values, color=colour, marker=marker, markersize=3, linewidth=1.6, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(what)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
