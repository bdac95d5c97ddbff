"""What a person sees of a training while it runs: a bar with the time left, a line an epoch, what was not planned."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from headstart.cli.options import say
from headstart.core.errors import HeadstartError
from headstart.core.text import one_line
from headstart.train.callbacks import BaseCallback
from headstart.train.checkpoint import Terminated, unfinished
from headstart.train.overfitting_watch import selection_losses
from headstart.train.protocol import Epoch
from headstart.train.training_run import is_main_process

INTERRUPTED, TERMINATED = 130, 143  # exit codes
HEADER = (
    f"{'':>7}{'training':>17}  {'validation':>28}",
    f"{'epoch':>7}{'loss':>9}{'error':>8}  {'loss':>9}{'error':>8}{'calibrated':>11}  {'rate':>8}{'s':>8}",
)
LINES = 40  # of epochs, at most; of more, every so many
SMOOTH = 0.9  # of the loss beside the bar, from step to step
TRAINING = "training"  # the stage of the steps


class EndedEarlyError(HeadstartError):
    """Somebody ended a training; the sentence says how to go on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TrainingScreen(BaseCallback):
    """A callback for the trainer; ``progress`` and ``say`` for what goes on around it. Without a console, quiet."""

    def __init__(self, out: Console | None, epochs: int) -> None:
        self._out, self._epochs = out, epochs
        self._shown = 0  # epochs that were told
        self._loss = math.nan
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bar, which is gone afterwards; the lines above it stay."""
        if self._out is None:
            yield
            return
        texts = [TextColumn(f"{{task.{field}}}") for field in ("description", "fields[amount]", "fields[note]")]
        columns = (texts[0], BarColumn(bar_width=24), *texts[1:], TimeRemainingColumn())
        with Progress(*columns, console=self._out, transient=True) as self._bar:
            yield
        self._bar = None
        if self._shown:
            self._out.print()

    def progress(self, stage: str, done: int, of: int) -> None:
        """So much of a stage is done; the stage before it leaves the screen."""
        self._show(stage, done, of)

    def say(self, sentence: str) -> None:
        """A sentence above the bar; off a terminal, a line on standard error."""
        if self._out is not None:
            self._out.print(Text(one_line(sentence), "yellow"))
        elif is_main_process():
            say(sentence)

    def step(self, number: int, of: int, loss: float) -> str | None:
        """One step further."""
        self._loss = loss if math.isnan(self._loss) else SMOOTH * self._loss + (1 - SMOOTH) * loss
        epoch = f"epoch {number * self._epochs // of + 1} of {self._epochs}" if self._epochs else TRAINING
        self._show(TRAINING, number + 1, of, epoch, f"loss {self._loss:.3f}")
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """A line for each epoch that is new: of a training that goes on, also those before."""
        if self._out is None:
            return None
        if len(history) <= self._shown:  # another training
            self._shown, self._loss = 0, math.nan
        if not self._shown:
            for line in HEADER:
                self._out.print(Text(line, "dim"))
        for count in range(self._shown + 1, len(history) + 1):
            if count % max(1, math.ceil(self._epochs / LINES)) == 0 or count == self._epochs:
                self._out.print(epoch_line(history[:count], self._epochs), soft_wrap=True)
        self._shown = len(history)
        return None

    def _show(self, stage: str, done: int, of: int, words: str = "", note: str = "") -> None:
        bar = self._bar
        if bar is None:
            return
        if stage not in self._tasks:
            for other in bar.task_ids:
                bar.update(other, visible=False)
            self._tasks[stage] = bar.add_task(stage, visible=False, amount="", note="")
        task = self._tasks[stage]
        speed = bar.tasks[bar.task_ids.index(task)].speed
        bar.update(
            task, visible=True, description=words or stage, total=of or None, completed=done,
            amount=f"{done}/{of}" if of else str(done), note=note or (f"{speed:.0f}/s" if speed else ""),
        )  # fmt: skip


@contextmanager
def training_screen(epochs: int = 0, out: Console | None = None) -> Iterator[TrainingScreen]:
    """The screen of a training of so many epochs, on standard error.

    Give the trainer ``callbacks=[screen]``, and what goes on around it ``screen.progress`` and ``screen.say``. Off a
    terminal only ``say`` says anything; of several processes that train together, only the first.
    """
    if out is None and is_main_process() and sys.stderr.isatty():
        out = Console(stderr=True, highlight=False)
    screen = TrainingScreen(out, epochs)
    with screen.live():
        yield screen


@contextmanager
def ended_early(folder: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM as an error that says how to go on; ``folder`` has the checkpoints.

    Raises:
        EndedEarlyError: with exit code 130 or 143.
    """
    try:
        yield
    except Terminated as error:
        raise EndedEarlyError(str(error), TERMINATED) from error
    except KeyboardInterrupt as error:
        kept = "--resume goes on after the last whole epoch" if unfinished(folder) else "no epoch was whole"
        raise EndedEarlyError(f"interrupted; {kept}.", INTERRUPTED) from error


def folder_beside(model: str) -> str:
    """Where the checkpoints and logs of a training go that makes ``model``."""
    return f"{os.path.abspath(model)}.training"


def epoch_line(history: Sequence[Epoch], epochs: int = 0) -> Text:
    """The last epoch in at most 80 columns, training beside validation."""
    last = history[-1]
    number = f"{last.number + 1}/{epochs}" if 0 < epochs < 1000 else str(last.number + 1)
    line = Text(f"{number:>7}{_side(last.train_loss, last.train_error)}  {_side(last.val_loss, last.val_error)}")
    line.append(f"{'–' if math.isnan(last.val_calibrated) else f'{last.val_calibrated:.4f}':>11}")
    line.append(f"  {last.learning_rate:8.1e}{last.seconds:8.1f}", "dim")
    *before, now = selection_losses(history)
    if all(now < each for each in before) and math.isfinite(now):
        line.append("  ← best", "bold green")
    return line


def _side(loss: float, error: float) -> str:
    return f"{'–':>9}{'–':>8}" if math.isnan(loss) else f"{loss:9.4f}{error:8.1%}"
