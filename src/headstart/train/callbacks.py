"""What listens to a training: stops it, keeps the best of it, tells of it."""

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

from headstart.core.errors import UsageError
from headstart.train.overfitting_watch import GONE_WRONG, selection_losses, watch
from headstart.train.protocol import Epoch

LOG = "training"  # name of the files, before their number

Say = Callable[[str], None]
Weights = Mapping[str, NDArray[Any]]


class BaseCallback:
    """Does nothing; what listens to a part only begins with this."""

    def step(self, number: int, of: int, loss: float) -> str | None:
        """After a step, counted through the epochs."""
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """After an epoch."""
        return None


class EarlyStopping(BaseCallback):
    """Ends a training after ``patience`` epochs without a lower calibrated validation loss; 0 for never.

    All that it knows it reads from the history, so a resumed training stops where an uninterrupted one does.
    ``start`` is that of what the training began with, where known.
    """

    def __init__(self, patience: int, start: float = math.inf) -> None:
        self.patience, self.start = patience, start

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """A sentence when it is time."""
        losses = [self.start, *selection_losses(history)]
        if not self.patience or math.isnan(losses[-1]):
            return None
        best = min(range(len(losses)), key=lambda place: (math.isnan(losses[place]), losses[place]))
        if len(history) - best < self.patience:
            return None
        when = f"in epoch {history[best - 1].number + 1}" if best else "before the first epoch"
        return (
            f"{len(history) - best} epochs without a lower calibrated validation loss than {losses[best]:.3g} {when} "
            f"(patience {self.patience})."
        )


class BestSnapshot:
    """The weights with the lowest calibrated validation loss, those before the first step included: never worse.

    Without validation (losses are NaN) there is nothing to choose by, and the last weights count.
    """

    def __init__(self, weights: Weights, loss: float, epoch: int = -1) -> None:
        self.weights = {name: np.array(array) for name, array in weights.items()}
        self.loss, self.epoch = loss, epoch  # the epoch that they are of; -1: none

    def offer(self, epoch: int, loss: float, weights: Callable[[], Weights]) -> bool:
        """Take the weights after an epoch if they are better, and say whether; ``weights`` is asked only then."""
        if not (loss < self.loss or math.isnan(self.loss)):
            return False
        found = {name: np.array(array) for name, array in weights().items()}
        if not all(np.isfinite(array).all() for array in found.values() if array.dtype.kind == "f"):
            return False
        self.weights, self.loss, self.epoch = found, loss, epoch
        return True


class Watch(BaseCallback):
    """Says what the curves mean as soon as it is clear, once each; with ``stop`` it ends a training that overfits.

    Args:
        say: called with a sentence.
        images, classes: of the validation, see `watch.watch`.
    """

    def __init__(self, say: Say, *, images: int = 0, classes: int = 2, stop: bool = False) -> None:
        self._say, self._images, self._classes, self._stop = say, images, classes, stop
        self._said = "too early to say"

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """Judge anew."""
        verdict = watch(history, images=self._images, classes=self._classes)
        news, self._said = verdict.kind != self._said, verdict.kind
        if news and verdict.kind not in ("healthy", "too early to say"):
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
    """Every epoch as a line of ``training-1.csv``, or the next number that is free: one file a run, whole at any time.

    A disk that cannot be written costs a sentence, never the training.

    Raises:
        UsageError: there can be no file in ``folder`` from the start.
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
        """Write what is new; of a resumed training first what was before."""
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
            self.problem = f"The log '{self.path}' goes no further: {error.strerror or error}."
            self._say(self.problem)


class TensorBoardLog(BaseCallback):
    """Losses and errors for TensorBoard, where it and PyTorch are installed; else nothing."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._writer = _summary_writer(folder)

    def step(self, number: int, of: int, loss: float) -> str | None:
        """The loss of a step."""
        if self._writer is not None:
            self._writer.add_scalar("loss/step", loss, number)
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """Training and validation side by side."""
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
    raise AssertionError("numbers do not end")


def _summary_writer(folder: str | os.PathLike[str]) -> Any:
    if find_spec("tensorboard") is None or find_spec("torch") is None:
        return None
    from headstart.engines.registry import torch_engine

    torch_engine()  # which imports PyTorch in the order that does no harm
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(os.fspath(folder))
