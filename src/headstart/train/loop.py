"""The training loop around the steps of any trainer: history, best weights, callbacks, reasons to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import numpy as np

from headstart.core.counts import counted
from headstart.core.errors import DataError, DivergedError, UsageError
from headstart.train.callbacks import BestSnapshot, EarlyStopping
from headstart.train.checkpoint import Checkpoints
from headstart.train.overfitting_watch import selection_losses
from headstart.train.protocol import Array, Batches, Callback, Epoch, History, Task, Trained, ValidationResult
from headstart.train.recipe import Recipe
from headstart.train.schedule import rate, snapshot_after
from headstart.train.stepper import Stepper

AnyStepper = TypeVar("AnyStepper", bound=Stepper)
_OWN, _BEST = "course/", "course/best/"  # prefixes of the loop's own arrays in a checkpoint


class Trainer(Protocol):
    """A whole training: ``pytorch``, ``lightning``, ``tensorflow`` or ``keras``.

    With ``validation`` the best weights by its calibrated loss are kept, those at the start included. With
    ``checkpoints``, whose context was entered, it goes on from the latest, and writes one after each epoch. ``device``
    is auto, cpu, cuda or mps. ``say`` is called with a sentence when something unexpected happens.

    Raises:
        UsageError: a task, batches or a device that do not go together.
    """

    def __call__(
        self,
        task: Task,
        batches: Batches,
        validation: Batches | None,
        recipe: Recipe,
        callbacks: Sequence[Callback] = (),
        *,
        device: str = "auto",
        say: Callable[[str], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Trained: ...


class TrainingLoop:
    """All around the steps: call `after_step` and `after_epoch` while it is `running`."""

    def __init__(
        self,
        trainer: str,
        stepper: Stepper,
        batches: Batches,
        validation: Batches | None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
    ) -> None:
        if batches.images < stepper.network.least:
            raise DataError(
                "The training set is a single image, of which batch norm whose statistics are trained has no variance. "
                "Expected two images or more. Add some, or take the recipe's batch_norm 'frozen'."
            )
        self.trainer, self.stepper, self.batches = trainer, stepper, batches
        self.stopped = ""  # why it ended before its last epoch
        self.agree: Callable[[str], str] = lambda reason: reason  # the reason that all processes agree on
        self._has_diverged = False
        self._validation, self._checkpoints = validation, checkpoints
        self._epochs: list[Epoch] = []
        self._losses: list[float] = []
        found = checkpoints.latest() if checkpoints else None
        weights = stepper.weights()
        if found:
            stepper.load_state({name: array for name, array in found.state.items() if not name.startswith(_OWN)})
            weights = {name: found.state.get(f"{_BEST}{name}", array) for name, array in weights.items()}
            self._epochs = [Epoch(**epoch) for epoch in found.about["epochs"]]
            self._losses = found.state[f"{_OWN}losses"].tolist()
            self.stopped = found.about["stopped"]
            start, loss, best = found.about["start"], found.about["loss"], found.about["best"]
        else:
            start, best = self._validate().calibrated, -1
            loss = start
        self._start = start
        self._best = BestSnapshot(weights, loss, best)
        self.callbacks: Sequence[Callback] = (EarlyStopping(stepper.recipe.patience, start), *callbacks)
        self._began = time.perf_counter()

    @property
    def running(self) -> bool:
        """Whether there is a next step."""
        return not self.stopped and self.stepper.steps_done < self.stepper.steps

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next step belongs to."""
        return self.stepper.steps_done // self.batches.steps

    @property
    def start(self) -> int:
        """The place of the next step in its epoch."""
        return self.stepper.steps_done % self.batches.steps

    def after_step(self, loss: float) -> bool:
        """Record a step; returns whether to continue the epoch.

        Raises:
            Terminated: the system asked the process to end; the training is saved.
        """
        self._losses.append(loss)
        done = self.stepper.steps_done
        self._check_reasons(callback.step(done - 1, self.stepper.steps, loss) for callback in self.callbacks)
        if self._checkpoints and done % self.batches.steps:  # after the last of an epoch, the epoch is recorded first
            self._checkpoints.end_if_asked(done, self._state, self._about)
        return not self.stopped

    def diverged(self, error: DivergedError) -> None:
        """End the training; the last whole epoch is its last."""
        self.stopped, self._has_diverged = str(error), True

    def after_epoch(self) -> None:
        """Record an epoch, or the part of it that there was.

        Raises:
            Terminated: as for `after_step`.
            UsageError: the epoch had fewer or more batches than `Batches.steps` said.
        """
        done, steps = self.stepper.steps_done, self.batches.steps
        if self._has_diverged:
            return
        if (done % steps and not self.stopped) or done > self.stepper.steps or len(self._epochs) * steps >= done:
            raise UsageError(
                f"Epoch {len(self._epochs) + 1} should have had {counted(steps, 'batch', 'batches')}. Received: "
                f"{done - len(self._epochs) * steps}. Batches have as many in an epoch as their `steps`."
            )
        recipe, first = self.stepper.recipe, len(self._epochs) * steps
        if any(snapshot_after(recipe, step, self.stepper.steps) for step in range(first, done)):
            self.stepper.measure_statistics(self.batches.epoch(len(self._epochs)))
        train, val = self.stepper.seen(), self._validate()
        now = rate(recipe, done - 1, self.stepper.steps, steps_per_epoch=steps)
        seconds = time.perf_counter() - self._began
        self._epochs.append(Epoch(len(self._epochs), *train, val.loss, val.error, now, seconds, val.calibrated))
        self._best.offer(len(self._epochs) - 1, selection_losses(self._epochs)[-1], self.stepper.weights)
        self._check_reasons(callback.epoch(tuple(self._epochs)) for callback in self.callbacks)
        if self._checkpoints:
            self._checkpoints.end_if_asked(done, self._state, self._about)
            self._checkpoints.save_meanwhile(done, self._state(), self._about())
        self._began = time.perf_counter()

    def trained(self) -> Trained:
        """The kept weights and the history."""
        best = self._best
        history = History(self.trainer, tuple(self._epochs), tuple(self._losses), best.epoch, self.stopped, self._start)
        kept = {name: np.asarray(array, np.float32) for name, array in best.weights.items()}
        return Trained(kept, history, None if self._has_diverged else self.stepper.weights())

    def _check_reasons(self, reasons: Iterable[str | None]) -> None:
        found = [reason for reason in reasons if reason]  # all callbacks are called, also after one has a reason
        self.stopped = self.agree(self.stopped or next(iter(found), ""))

    def _validate(self) -> ValidationResult:
        if self._validation is None:
            return ValidationResult(math.nan, math.nan, math.nan)
        return self.stepper.evaluate(self._validation.epoch(0))

    def _state(self) -> dict[str, Array]:
        best = {f"{_BEST}{name}": array for name, array in self._best.weights.items()}
        return {**self.stepper.state(), **best, f"{_OWN}losses": np.array(self._losses, np.float64)}

    def _about(self) -> dict[str, Any]:
        return {
            "epochs": [asdict(epoch) for epoch in self._epochs],
            "start": self._start,
            "best": self._best.epoch,
            "loss": self._best.loss,
            "stopped": self.stopped,
        }


def make_trainer(
    name: str,
    make_stepper: Callable[..., AnyStepper],
    run: Callable[[TrainingLoop, AnyStepper], Trained] = lambda loop, stepper: run_plain(loop),
) -> Trainer:
    """The trainer of that name, whose steps are taken by ``run``; see `Trainer`."""

    def train(
        task: Task,
        batches: Batches,
        validation: Batches | None,
        recipe: Recipe,
        callbacks: Sequence[Callback] = (),
        *,
        device: str = "auto",
        say: Callable[[str], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Trained:
        stepper = make_stepper(task, recipe, recipe.epochs * batches.steps, device, say=say)
        return run(TrainingLoop(name, stepper, batches, validation, callbacks, checkpoints), stepper)

    train.__name__ = f"train_{name}"
    return train


def run_plain(loop: TrainingLoop) -> Trained:
    """The plain loop: one step after the other."""
    while loop.running:
        try:
            for batch in loop.batches.epoch(loop.epoch, loop.start):
                if not loop.after_step(loop.stepper.step(batch)):
                    break
        except DivergedError as error:
            loop.diverged(error)
        loop.after_epoch()
    return loop.trained()
