"""One training from its start to its end: the rate, the checkpoints, the logs, the trainer, and what its curves say."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.core.errors import UsageError
from headstart.data.sources import PathLike
from headstart.train.callbacks import CsvLog, TensorBoardLog, Watch
from headstart.train.checkpoint import Checkpoints, Identity, ReadOnlyCheckpoints, unfinished
from headstart.train.learning_rate_finder import find_learning_rate
from headstart.train.memory import kept_memory
from headstart.train.overfitting_watch import Verdict, watch
from headstart.train.protocol import Batches, Callback, Epoch, Task, Trained
from headstart.train.recipe import Recipe
from headstart.train.trainers import check_device, check_trainer, get_stepper, get_trainer

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a training went, as a model keeps it."""

    trainer: str
    recipe: dict[str, Any]
    rate: float  # the recipe's learning rate, or the one that was found
    epochs: tuple[Epoch, ...]
    best: int  # the epoch whose weights were kept; -1: those it began with
    stopped: str
    verdict: Verdict
    moving: int  # weights that were trained


@dataclass(frozen=True)
class TrainingRun:
    """Who trains, where, and who is told.

    Args:
        trainer: "pytorch", "lightning", "tensorflow" or "keras".
        device: "auto", "cpu", "cuda" or "mps".
        devices, nodes, strategy: of Lightning's Trainer.
        find_rate: whether to look for the learning rate first, and train with it.
        folder: where checkpoints and logs go; None: none are kept.
        resume: whether to go on from the folder's latest checkpoint.
        callbacks: told of every step and epoch.
        say: told, in a sentence, what goes otherwise than planned, and what the curves say.
    """

    trainer: str = "pytorch"
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    find_rate: bool = False
    folder: PathLike | None = None
    resume: bool = False
    callbacks: Sequence[Callback] = ()
    say: Say = field(default=lambda sentence: None)
    quiet: bool = False  # whether nothing is said of the curves

    @classmethod
    def of(cls, trainer: str | TrainingRun) -> TrainingRun:
        """A trainer by its name, with all else as usual; or what it is already. Checked, see `check`."""
        run = trainer if isinstance(trainer, TrainingRun) else cls(trainer)
        run.check()
        return run

    def check(self) -> None:
        """Refuse, before any work, what cannot be done.

        Raises:
            UsageError: no such trainer, devices that it does not take, nothing to resume, or something to resume that
                nobody asked for.
            MissingExtraError: the trainer's framework is not installed.
        """
        check_trainer(self.trainer, self.devices, self.nodes, self.strategy)
        if self.resume and self.folder is None:
            raise UsageError("To resume a training, name the folder of its checkpoints.")
        if self.folder is not None and is_main_process():
            there = unfinished(self.folder)
            if there and not self.resume:
                raise UsageError(
                    f"'{os.fspath(self.folder)}' has the checkpoints of a training that did not end. Go on from there: "
                    "--resume. Or remove the folder, to begin again."
                )
        check_device(self.trainer, self.device)

    @kept_memory()
    def train(
        self, task: Task, batches: Batches, validation: Batches | None, recipe: Recipe, data: str, classes: int
    ) -> tuple[Trained, Recipe]:
        """Train; returns also the recipe as it was followed, with the rate that was found.

        Args:
            data: any text that stands for the images, their labels and how they are split.
        """
        if self.find_rate:  # found again where it goes on: the same
            recipe = self._at_found_rate(task, batches, recipe)
        more: dict[str, Any] = {}
        if self.trainer == "lightning":
            more = {"devices": self.devices, "nodes": self.nodes, "strategy": self.strategy}
        with ExitStack() as doors:
            checkpoints: Checkpoints | None = None
            logs: list[Callback] = []
            if self.folder is not None:
                folder = Path(self.folder)
                identity = Identity.of(task, recipe, data)
                kind = Checkpoints if is_main_process() else ReadOnlyCheckpoints
                checkpoints = doors.enter_context(kind(folder, identity, say=self.say))
                checkpoints.latest()  # which refuses those of another training, before anything is written
                logs = self._logs(folder, doors) if is_main_process() else []
            images = validation.images if validation else 0
            listening = () if self.quiet else (Watch(self.say, images=images, classes=classes),)
            trained = get_trainer(self.trainer)(
                task, batches, validation, recipe, (*listening, *logs, *self.callbacks),
                device=self.device, say=self.say, checkpoints=checkpoints, **more,
            )  # fmt: skip
        return trained, recipe

    def record(self, trained: Trained, recipe: Recipe, task: Task, images: int, classes: int) -> TrainingRecord:
        """How it went; ``images`` and ``classes`` are those of the validation set."""
        history, parameters = trained.history, task.blueprint.parameters()
        return TrainingRecord(
            trainer=self.trainer,
            recipe=recipe.to_json(),
            rate=recipe.learning_rate,
            epochs=history.epochs,
            best=history.best,
            stopped=history.stopped,
            verdict=watch(history.epochs, images=images, classes=classes),
            moving=sum(count for node, count in parameters.items() if node in task.rates),
        )

    def one_of_many(self) -> TrainingRun:
        """The same for one of many trainings: it leaves nothing behind and says nothing."""
        return replace(self, folder=None, resume=False, callbacks=(), say=lambda sentence: None)

    def _at_found_rate(self, task: Task, batches: Batches, recipe: Recipe) -> Recipe:
        stepper = get_stepper(self.trainer, task, recipe, recipe.epochs * batches.steps, self.device)
        found = find_learning_rate(stepper, batches)
        self.say(found.sentence)
        if found.suggestion is None:
            return recipe
        return replace(recipe, learning_rate=float(f"{found.suggestion:.2g}"))

    def _logs(self, folder: Path, doors: ExitStack) -> list[Callback]:
        board = TensorBoardLog(folder)
        doors.callback(board.close)
        return [CsvLog(folder, self.say), board]


def is_main_process() -> bool:
    """Whether this process is the one of several that writes and tells; a single one is."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"
