"""Callbacks of a training: early stopping, the best weights, the overfitting watch, progress and logs."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, fields
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.text import is_text
from headstart.train.overfitting_watch import GONE_WRONG, selection_losses, watch
from headstart.train.protocol import Epoch

LOG = "training"  # name of the files, before their number

Say = Callable[[str], None]
Weights = Mapping[str, NDArray[Any]]


class BaseCallback:
    """Does nothing; a base for callbacks that need only one of the two methods."""

    def step(self, number: int, of: int, loss: float) -> str | None:
        """After a step, counted through the epochs."""
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """After an epoch."""
        return None


class EarlyStopping(BaseCallback):
    """Ends a training after ``patience`` epochs without a lower calibrated validation loss; 0 for never.

    It reads all from the history, so a resumed training stops where an uninterrupted one does. ``start`` is the loss
    before the first step, where known.
    """

    def __init__(self, patience: int, start: float = math.inf) -> None:
        self.patience, self.start = patience, start

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """The reason to stop, when it is time."""
        losses = [self.start, *selection_losses(history)]
        if not self.patience or math.isnan(losses[-1]):
            return None
        best = min(range(len(losses)), key=lambda place: (math.isnan(losses[place]), losses[place]))
        if len(history) - best < self.patience:
            return None
        when = f"in epoch {history[best - 1].number + 1}" if best else "before the first epoch"
        return (
            f"{counted(len(history) - best, 'epoch')} without a lower calibrated validation loss than "
            f"{losses[best]:.3g} {when} (patience {self.patience})."
        )


class BestSnapshot:
    """The weights with the lowest calibrated validation loss, those before the first step included.

    Without validation (losses are NaN) the last weights are kept.
    """

    def __init__(self, weights: Weights, loss: float, epoch: int = -1) -> None:
        self.weights = {name: np.array(array) for name, array in weights.items()}
        self.loss, self.epoch = loss, epoch  # their epoch; -1: before the first

    def offer(self, epoch: int, loss: float, weights: Callable[[], Weights]) -> bool:
        """Take the weights after an epoch if they are better; returns whether. ``weights`` is called only then."""
        if not (loss < self.loss or math.isnan(self.loss)):
            return False
        found = {name: np.array(array) for name, array in weights().items()}
        if not all(np.isfinite(array).all() for array in found.values() if array.dtype.kind == "f"):
            return False
        self.weights, self.loss, self.epoch = found, loss, epoch
        return True


class Watch(BaseCallback):
    """Reports what is wrong with the curves, each kind once; with ``stop`` it ends a training that overfits.

    Args:
        say: called with a sentence.
        images, classes: of the validation set, see `overfitting_watch.watch`.
    """

    def __init__(self, say: Say, *, images: int = 0, classes: int = 2, stop: bool = False) -> None:
        self._say, self._images, self._classes, self._stop = say, images, classes, stop
        self._said = {"too early to say", "healthy"}

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """Evaluate the curves again."""
        verdict = watch(history, images=self._images, classes=self._classes)
        if verdict.kind not in self._said:
            self._said.add(verdict.kind)
            self._say(verdict.sentence)
        return verdict.sentence if self._stop and verdict.kind in GONE_WRONG else None


class Progress(BaseCallback):
    """Passes every step on to ``report``: called with ("training", steps done, of how many)."""

    def __init__(self, report: Callable[[str, int, int], None]) -> None:
        self._report = report

    def step(self, number: int, of: int, loss: float) -> str | None:
        """One step further."""
        self._report("training", number + 1, of)
        return None


class CsvLog(BaseCallback):
    """Every epoch as a line of ``training-1.csv``, or the next free number: one file for each run.

    A disk that cannot be written is reported; the training goes on.

    Raises:
        UsageError: no file can be created in ``folder``.
    """

    def __init__(self, folder: str | os.PathLike[str], say: Say = lambda _: None) -> None:
        self._say, self._written = say, 0
        self.problem: str | None = None
        try:
            self.path = _new_file(Path(folder))
        except OSError as error:
            raise UsageError(f"No log can be written to '{os.fspath(folder)}': {error.strerror or error}.") from error
        self._write([[field.name for field in fields(Epoch)]])

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """Write the new epochs; of a resumed training all epochs so far."""
        self._write([astuple(epoch) for epoch in history[self._written :]])
        self._written = len(history)
        return None

    def _write(self, rows: Sequence[Sequence[object]]) -> None:
        if self.problem is not None:
            return
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            self.problem = f"The log '{self.path}' cannot be continued: {error.strerror or error}."
            self._say(self.problem)


class TensorBoardLog(BaseCallback):
    """Losses and errors for TensorBoard; nothing without it or PyTorch, or in a folder that it cannot write to."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._writer = _summary_writer(folder)

    def step(self, number: int, of: int, loss: float) -> str | None:
        """The loss of a step."""
        if self._writer is not None:
            self._writer.add_scalar("loss/step", loss, number)
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """Losses and errors of training and validation."""
        if self._writer is not None:
            last = history[-1]
            for kind in ("loss", "error"):
                sides = {side: getattr(last, f"{side}_{kind}") for side in ("train", "val")}
                self._writer.add_scalars(kind, sides, last.number)
            self._writer.add_scalar("loss/calibrated", last.val_calibrated, last.number)
            self._writer.add_scalar("learning_rate", last.learning_rate, last.number)
            self._writer.flush()
        return None

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()


def _new_file(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / f"{LOG}-{number}.csv"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
    raise AssertionError("unreachable")


def _summary_writer(folder: str | os.PathLike[str]) -> Any:
    if find_spec("tensorboard") is None or find_spec("torch") is None or not is_text(os.path.abspath(folder)):
        return None
    from headstart.engines.registry import torch_engine

    torch_engine()  # which imports PyTorch in the safe order
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(os.fspath(folder))
