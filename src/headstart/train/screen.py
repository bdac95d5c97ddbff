"""What a person sees of a training while it runs: a bar with the time left, a line an epoch, what was not planned."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from headstart.core.progress import ChangingLine, Shown, in_notebook
from headstart.core.text import one_line, say
from headstart.train.callbacks import BaseCallback
from headstart.train.overfitting_watch import selection_losses
from headstart.train.protocol import Epoch
from headstart.train.training_run import TrainingRun, is_main_process, say_nothing

HEADER = (
    f"{'':>7}{'training':>17}  {'validation':>28}",
    f"{'epoch':>7}{'loss':>9}{'error':>8}  {'loss':>9}{'error':>8}{'calibrated':>11}  {'rate':>8}{'s':>8}",
)
LINES = 40  # of epochs, at most; of more, every so many
SMOOTH = 0.9  # of the loss beside the bar, from step to step
TRAINING = "training"  # the stage of the steps
PAGE = 100  # columns of a notebook's output
F = TypeVar("F", bound=Callable[..., Any])


class TrainingScreen(BaseCallback):
    """A callback for the trainer; for what goes on around it, itself and ``say``. Without a console, quiet.

    Args:
        line: what changes below the epochs where there is no terminal for a bar, in a notebook.
    """

    def __init__(self, out: Console | None, epochs: int = 0, line: ChangingLine | None = None) -> None:
        self._out, self.epochs, self._line = out, epochs, line
        self._shown = 0  # epochs that were told
        self._loss = math.nan
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bar on a terminal, where it is gone afterwards; the lines above it stay."""
        if self._out is None or not self._out.is_terminal:
            try:
                yield
            finally:
                self._clear()
            return
        texts = [TextColumn(f"{{task.{field}}}") for field in ("description", "fields[amount]", "fields[note]")]
        columns = (texts[0], BarColumn(bar_width=24), *texts[1:], TimeRemainingColumn())
        with Progress(*columns, console=self._out, transient=True) as self._bar:
            yield
        self._bar = None
        if self._shown:
            self._out.print()

    def __call__(self, stage: str, done: int, of: int) -> None:
        """So much of a stage is done; the stage before it leaves the screen."""
        self._show(stage, done, of)

    def say(self, sentence: str) -> None:
        """A sentence above the bar; off a terminal, a line on standard error."""
        self._clear()
        if self._out is not None and self._out.is_terminal:
            self._out.print(Text(one_line(sentence), "yellow"))
        elif is_main_process():
            say(sentence)

    def step(self, number: int, of: int, loss: float) -> str | None:
        """One step further."""
        self._loss = loss if math.isnan(self._loss) else SMOOTH * self._loss + (1 - SMOOTH) * loss
        epoch = f"epoch {number * self.epochs // of + 1} of {self.epochs}" if self.epochs else TRAINING
        self._show(TRAINING, number + 1, of, epoch, f"loss {self._loss:.3f}")
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """A line for each epoch that is new: of a training that goes on, also those before."""
        if self._out is None:
            return None
        self._clear()
        if len(history) <= self._shown:  # another training
            self._shown, self._loss = 0, math.nan
        if not self._shown:
            for line in HEADER:
                self._out.print(Text(line, "dim"))
        for count in range(self._shown + 1, len(history) + 1):
            if count % max(1, math.ceil(self.epochs / LINES)) == 0 or count == self.epochs:
                self._out.print(epoch_line(history[:count], self.epochs), soft_wrap=True)
        self._shown = len(history)
        return None

    def _clear(self) -> None:
        if self._line:
            self._line.clear()

    def _show(self, stage: str, done: int, of: int, words: str = "", note: str = "") -> None:
        bar = self._bar
        if self._line:
            self._line(words or stage, done, of)
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
def training_screen(epochs: int = 0, out: Console | None = None, *, quiet: bool = False) -> Iterator[TrainingScreen]:
    """The screen of a training of so many epochs, on standard error.

    Give the trainer ``callbacks=[screen]``, and what goes on around it ``screen`` and ``screen.say``. Off a terminal
    there is no bar, and where it is ``quiet`` too only ``say`` says anything; of several processes that train
    together, only the first.
    """
    if out is None and is_main_process() and (sys.stderr.isatty() or not quiet):
        out = Console(stderr=True, highlight=False)
    screen = TrainingScreen(out, epochs)
    with screen.live():
        yield screen


def shows_training(function: F) -> F:
    """Give a function that trains, with a keyword ``progress``, a screen in place of True where somebody looks."""

    @functools.wraps(function)
    def run(*args: Any, progress: Shown = True, **kwargs: Any) -> Any:
        if progress is not True:
            return function(*args, progress=progress or None, **kwargs)
        if sys.stderr.isatty():
            screen = TrainingScreen(Console(stderr=True, highlight=False))
        elif in_notebook():  # which says that it is a terminal, and shows what moves a cursor as new lines
            page = Console(file=sys.stdout, force_jupyter=False, force_terminal=False, width=PAGE, highlight=False)
            screen = TrainingScreen(page, line=ChangingLine())
        else:
            return function(*args, progress=None, **kwargs)
        with screen.live():
            return function(*args, progress=screen, **kwargs)

    return cast("F", run)


def on_screen(trainer: str | TrainingRun, progress: Shown, epochs: int) -> TrainingRun:
    """The run of a function that `shows_training` decorates, of so many epochs: its screen follows the training."""
    run = trainer if isinstance(trainer, TrainingRun) else TrainingRun(trainer)
    if not isinstance(progress, TrainingScreen) or progress in run.callbacks:  # a command gives it as both
        return run
    progress.epochs = epochs
    return replace(run, callbacks=(*run.callbacks, progress), say=progress.say if run.say is say_nothing else run.say)


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
