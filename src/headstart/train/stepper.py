"""What the steppers of both frameworks have in common: the pace, the sums, the parts of a batch, the sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import UsageError
from headstart.learn.calibrate import fit_inverse_temperature, log_softmax
from headstart.train.protocol import Array, Batch, Judged, Task, check_task
from headstart.train.recipe import Recipe
from headstart.train.schedule import rate

Sums = NDArray[np.float64]


class BaseStepper:
    """The part of a `Stepper` that no framework has a share in.

    Args:
        steps: of the whole training, which the schedule is laid over.
        say: told, in a sentence, when memory ran out and batches are taken in parts.

    Raises:
        UsageError: a task in which nothing can move, or no step.
    """

    def __init__(self, task: Task, recipe: Recipe, steps: int, say: Callable[[str], None] | None) -> None:
        check_task(task)
        if steps < 1:
            raise UsageError(f"A training has at least one step. Received: {steps}.")
        self.task, self.recipe, self.steps, self.steps_done = task, recipe, steps, 0
        self.at_a_time = 0  # images in one pass; 0: the whole batch
        self._say = say or (lambda sentence: None)
        self._seen = np.zeros(3)  # loss, errors, images

    def seen(self) -> tuple[float, float]:
        """Mean loss, without label smoothing, and share of errors of what was trained on since this was asked last."""
        sums, self._seen = self._seen, np.zeros(3)
        return mean_of(sums)

    def rate(self) -> float:
        """The schedule's, of the next step."""
        step = min(self.steps_done, self.steps - 1)
        return rate(self.recipe, step, self.steps, steps_per_epoch=self._per_epoch)

    def diverged(self, batch: Batch, loss: float) -> str:
        """What to say of a step that does not lead to numbers."""
        epoch, place = divmod(self.steps_done, self._per_epoch)
        where = f"Step {self.steps_done + 1}, batch {place + 1} of epoch {epoch + 1}"
        if batch.x.dtype.kind == "f" and not np.isfinite(batch.x).all():
            return f"{where}: {int((~np.isfinite(batch.x)).sum())} values of its images are not numbers."
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not a number"
        return f"{where}: {what}. The weights are those before it. Take a smaller learning rate, or precision fp32."

    def halve(self, size: int, error: Exception) -> None:
        """From now on take half as many images at a time as the ``size`` that memory does not hold.

        Raises:
            UsageError: that was a single one.
        """
        if size == 1:
            raise UsageError(
                f"Memory does not hold the training of '{self.task.blueprint.name}' on one image at a time "
                f"({str(error).splitlines()[0]}). Unfreeze less of it, take fewer pixels, or another device."
            )
        self.at_a_time = (size + 1) // 2
        self._say(
            f"Memory ran out with {size} images at a time. From step {self.steps_done + 1} on {self.at_a_time} are "
            "taken at a time; a step still sees the whole batch."
        )

    @property
    def _per_epoch(self) -> int:
        """Steps of one epoch."""
        return max(1, self.steps // self.recipe.epochs)

    def _counts(self) -> dict[str, Array]:
        """What a state has beside weights and the optimiser's memory."""
        return {
            "steps_done": np.array(self.steps_done),
            "at_a_time": np.array(self.at_a_time),
            "seen": self._seen.copy(),
        }

    def _load_counts(self, state: Mapping[str, Array]) -> None:
        self.steps_done, self.at_a_time = int(state["steps_done"]), int(state["at_a_time"])
        self._seen = np.array(state["seen"])

    def _check_state(self, state: Mapping[str, Array], moving: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse a state whose weights are not those that move here, by name and shape."""
        shapes = {name.removeprefix("weight/"): value.shape for name, value in state.items() if name[:7] == "weight/"}
        if shapes != moving:
            raise UsageError(
                f"This is no state of '{self.task.blueprint.name}' with these rates: expected {len(moving)} weights "
                f"that move, {_first(moving)}. Received: {len(shapes)}, {_first(shapes)}."
            )


def parts(count: int, at_a_time: int, rank: int = 0, ranks: int = 1) -> Iterator[slice]:
    """Rows of a batch, so many at a time (0: all), of those that one of several processes takes."""
    rows = range(rank, count, ranks)
    for start in range(0, len(rows), at_a_time or count):
        part = rows[start : start + (at_a_time or count)]
        yield slice(part.start, part.stop, part.step)


def mean_of(sums: Sums) -> tuple[float, float]:
    """Mean loss and share of errors; not numbers, where there was no image."""
    loss, errors, images = sums.tolist()
    return (loss / images, errors / images) if images else (math.nan, math.nan)


def judge(logits: Array, labels: Array) -> Judged:
    """How a network did that gave these (N, classes) logits; NaN where they are no numbers, or there was no image."""
    count = len(labels)
    error = float((logits.argmax(axis=1) != labels).mean()) if count else math.nan
    if not count or not np.isfinite(logits).all():
        return Judged(math.nan, error, math.nan)
    loss = -float(log_softmax(logits)[np.arange(count), labels].mean())
    return Judged(loss, error, fit_inverse_temperature(logits, labels)[1])


def _first(names: Iterable[str]) -> str:
    return f"the first '{next(iter(names))}'" if names else "none"
