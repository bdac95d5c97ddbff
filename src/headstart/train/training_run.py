"""One training from start to end: learning rate, checkpoints, logs, trainer, and the verdict on its curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from headstart.core.arguments import DEVICE, FUNCTION, PATH, TEXT, YES_NO, Rule, check_fields, instance, text, whole
from headstart.core.errors import UsageError
from headstart.data.sources import PathLike
from headstart.train.callbacks import CsvLog, TensorBoardLog, Watch
from headstart.train.checkpoint import Checkpoints, ReadOnlyCheckpoints, unfinished
from headstart.train.gap import gap_of, with_gap
from headstart.train.identity import DataIdentity, Identity, named
from headstart.train.learning_rate_finder import find_learning_rate
from headstart.train.loop import Trainer
from headstart.train.memory import kept_memory
from headstart.train.overfitting_watch import watch
from headstart.train.protocol import Batches, Callback, Task, Trained
from headstart.train.recipe import Recipe
from headstart.train.trainers import check_device, check_trainer, get_stepper, get_trainer, resolve_trainer
from headstart.train.training_record import TrainingRecord

Say = Callable[[str], None]


def say_nothing(sentence: str) -> None:
    """Keep a sentence from whoever does not want to hear it."""


def _callbacks(value: object) -> tuple[Callback, ...]:
    found = tuple(cast("Sequence[Callback]", value))
    if not all(callable(getattr(each, name, None)) for each in found for name in ("step", "epoch")):
        raise TypeError
    return found


class Runner(Trainer, Protocol):
    """Trains elsewhere than in this process, such as on a cluster; called as a `Trainer`."""

    trainer: str  # whose steps it takes


def _runner(value: object) -> Runner | None:
    if value is not None and not (callable(value) and isinstance(getattr(value, "trainer", None), str)):
        raise TypeError
    return cast("Runner | None", value)


_RULES = {
    "trainer": text("the name of a trainer"),
    "device": DEVICE,
    "devices": whole(),
    "nodes": whole(),
    "strategy": TEXT,
    "runner": Rule("an object that trains, with the name of a trainer; or None", _runner),
    "find_rate": YES_NO,
    "folder": PATH,
    "resume": YES_NO,
    "callbacks": Rule("a list of objects with the methods step and epoch", _callbacks),
    "say": FUNCTION,
    "quiet": YES_NO,
}


@dataclass(frozen=True)
class TrainingRun:
    """Which trainer, on which devices, with which logs and callbacks.

    Args:
        trainer: "pytorch", "lightning", "tensorflow" or "keras"; "auto": see `trainers.resolve_trainer`.
        device: "auto", "cpu", "cuda" or "mps".
        devices, nodes, strategy: of Lightning's Trainer.
        runner: trains in the place of the trainer, with the same steps; None: the trainer does, in this process.
        find_rate: whether to search for the learning rate first, and train with it.
        folder: of checkpoints and logs; None: none are kept.
        resume: whether to go on from the folder's latest checkpoint.
        callbacks: called after every step and epoch.
        say: called with a sentence when something unexpected happens, and with the verdict on the curves.
    """

    trainer: str = "auto"
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    runner: Runner | None = None
    find_rate: bool = False
    folder: PathLike | None = None
    resume: bool = False
    callbacks: Sequence[Callback] = ()
    say: Say = say_nothing
    quiet: bool = False  # whether verdicts on the curves are left out

    def __post_init__(self) -> None:
        check_fields(self, _RULES, "TrainingRun")

    @classmethod
    def of(cls, trainer: str | TrainingRun, source: str = "") -> TrainingRun:
        """A run with a trainer of that name and default settings, or the run given; checked, see `check`.

        ``source`` is that of the network's blueprint, for which "auto" chooses a trainer.
        """
        given = trainer if isinstance(trainer, TrainingRun) else cls(trainer)
        run = replace(given, trainer=given._resolved(source))
        run.check()
        if given.trainer != run.trainer == "tensorflow":
            run.say(f"'{source}' is a Keras model, so the trainer is {run.trainer}.")
        return run

    def check(self) -> None:
        """Refuse, before any work, what cannot be run.

        Raises:
            UsageError: no such trainer, devices that it does not take, nothing to resume, or unfinished checkpoints
                without ``resume``.
            MissingExtraError: the trainer's framework is not installed.
        """
        trainer = self._resolved()
        check_trainer(trainer, self.devices, self.nodes, self.strategy)
        if self.resume and self.folder is None:
            raise UsageError("To resume a training, name the folder of its checkpoints.")
        if self.folder is not None and is_main_process():
            there = unfinished(self.folder)
            if there and not self.resume:
                raise UsageError(
                    f"'{os.fspath(self.folder)}' has the checkpoints of an unfinished training. Continue it: --resume. "
                    "Or remove the folder, to start again."
                )
        if self.runner is None:
            check_device(trainer, self.device)
        elif (trainer, self.devices, self.nodes, self.strategy) != (self.runner.trainer, 1, 1, "auto"):
            raise UsageError(
                f"--runner trains with {self.runner.trainer}, on as many devices as there are --workers. Received: "
                f"--trainer {trainer}, --devices {self.devices}, --nodes {self.nodes}, --strategy {self.strategy}."
            )
        else:
            get_trainer(trainer)

    def _resolved(self, source: str = "") -> str:
        """The trainer, "auto" resolved."""
        return self.runner.trainer if self.runner and self.trainer == "auto" else resolve_trainer(self.trainer, source)

    @kept_memory()
    def train(
        self, task: Task, batches: Batches, validation: Batches | None, recipe: Recipe, data: DataIdentity, classes: int
    ) -> tuple[Trained, Recipe]:
        """Train; also returns the recipe, with the learning rate that was found.

        Args:
            data: what identifies the images, their labels and their split; see `checkpoint.Identity`.
        """
        if self.find_rate:  # a resumed training finds the same
            recipe = self._at_found_rate(task, batches, recipe)
        more: dict[str, Any] = {}
        if self.runner is None and self.trainer == "lightning":
            more = {"devices": self.devices, "nodes": self.nodes, "strategy": self.strategy}
        with ExitStack() as contexts:
            checkpoints: Checkpoints | None = None
            logs: list[Callback] = []
            if self.folder is not None:
                folder = Path(self.folder)
                identity = Identity.of(task, recipe, {**named(data), "trainer": self.trainer})
                kind = Checkpoints if is_main_process() else ReadOnlyCheckpoints
                checkpoints = contexts.enter_context(kind(folder, identity, say=self.say))
                checkpoints.latest()  # refuses those of another training, before anything is written
                logs = self._logs(folder, contexts) if is_main_process() else []
            images = validation.images if validation else 0
            listening = () if self.quiet else (Watch(self.say, images=images, classes=classes),)
            trained = (self.runner or get_trainer(self.trainer))(
                task, batches, validation, recipe, (*listening, *logs, *self.callbacks),
                device=self.device, say=self.say, checkpoints=checkpoints, **more,
            )  # fmt: skip
        return trained, recipe

    def record(self, trained: Trained, recipe: Recipe, task: Task, images: int, classes: int) -> TrainingRecord:
        """The record; ``images`` and ``classes`` are those of the validation set."""
        history, parameters = trained.history, task.blueprint.parameters()
        gap = gap_of(history.epochs, history.best, images)
        return TrainingRecord(
            trainer=self.trainer,
            recipe=recipe.to_json(),
            rate=recipe.learning_rate,
            epochs=history.epochs,
            best=history.best,
            stopped=history.stopped,
            verdict=with_gap(watch(history.epochs, images=images, classes=classes), gap),
            gap=gap,
            moving=sum(count for node, count in parameters.items() if node in task.rates),
        )

    def one_of_many(self) -> TrainingRun:
        """The same for one of many trainings: without files and messages."""
        return replace(self, folder=None, resume=False, callbacks=(), say=say_nothing)

    def _at_found_rate(self, task: Task, batches: Batches, recipe: Recipe) -> Recipe:
        stepper = get_stepper(self.trainer, task, recipe, recipe.epochs * batches.steps, self.device)
        found = find_learning_rate(stepper, batches)
        self.say(found.sentence)
        if found.suggestion is None:
            return recipe
        return replace(recipe, learning_rate=float(f"{found.suggestion:.2g}"))

    def _logs(self, folder: Path, contexts: ExitStack) -> list[Callback]:
        board = TensorBoardLog(folder)
        contexts.callback(board.close)
        return [CsvLog(folder, self.say), board]


TRAINER = instance("the name of a trainer, or a TrainingRun", str, TrainingRun)


def is_main_process() -> bool:
    """Whether this is the only process, or the one of several that writes files and messages."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"
