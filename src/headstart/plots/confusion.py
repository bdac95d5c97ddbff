"""The mistakes of a model: which class was taken for which, as a picture and as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.core.text import all_shortened
from headstart.core.types import Evaluation
from headstart.plots.files import write_files, write_rows
from headstart.plots.style import INK, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("confusion.png", "confusion.csv", "wrong.csv")
NAMED, COUNTED = 60, 40  # classes up to which the picture has their names, and a number in each field
NAME = 20  # characters of a name


def write_confusions(result: Evaluation, classes: Sequence[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Write `FILES` into a folder: the confusion matrix, drawn and in numbers, and the images with a wrong label.

    Raises:
        UsageError: the folder cannot be written to.
    """
    names, matrix = confusion_matrix(result, classes)
    rows = [["truth / label", *names], *([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))]
    wrong = [[each.name, each.truth, each.label, each.probability, each.of_truth] for each in result.wrong or ()]
    wrong.insert(0, ["path", "truth", "label", "probability", "probability_of_truth"])
    with STYLE:
        save = draw_confusions(names, matrix, result).savefig
        writers = (save, partial(write_rows, rows), partial(write_rows, wrong))
        return write_files(dict(zip(FILES, writers, strict=True)), folder)


def confusion_matrix(result: Evaluation, classes: Sequence[str]) -> tuple[list[str], NDArray[np.int_]]:
    """The classes that occur, and how often images of each (rows) got the label of each (columns)."""
    there = {*result.per_class, *(each.label for each in result.confusions)}
    names = [name for name in classes if name in there]
    place = {name: k for k, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), int)
    for name, accuracy in result.per_class.items():
        matrix[place[name], place[name]] = round(accuracy.value * accuracy.images)
    for each in result.confusions:
        matrix[place[each.truth], place[each.label]] = each.images
    return names, matrix


def draw_confusions(names: Sequence[str], matrix: NDArray[np.int_], result: Evaluation) -> Figure:
    """Truth downwards, labels to the right; the colour is the share of the images of a class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(names)
    side = min(max(3.4 + 0.42 * count, 4.6), 15)
    figure = Figure(figsize=(side + 0.8, side), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("label")
    axes.set_ylabel("truth")
    axes.set_title(result.accuracy.in_words("image"), fontsize=10, color=INK)
    short = [*all_shortened(names, NAME).values()] if count <= NAMED else []
    axes.set_xticks(range(len(short)), short, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(short)), short)
    if count <= COUNTED:
        for row, column in np.argwhere(matrix):
            colour = "white" if share[row, column] > 0.5 else INK
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    return figure
