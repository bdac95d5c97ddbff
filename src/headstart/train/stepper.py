"""One step of training at a time: what is the same in both frameworks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.ops import Shape
from headstart.core.counts import counted, verb
from headstart.core.errors import UsageError
from headstart.learn.calibrate import fit_inverse_temperature, log_softmax
from headstart.train.adversarial import attacked, check_pixels
from headstart.train.batches import ends_of
from headstart.train.protocol import Array, Batch, Task, ValidationResult, check_batch, check_framework, check_task
from headstart.train.recipe import Recipe
from headstart.train.schedule import rate
from headstart.train.trainable_network import BaseTrainableNetwork
from headstart.train.weight_average import RunningAverage

Sums = NDArray[np.float64]


class Stepper(ABC):
    """A network in training, one step at a time; also for a loop of one's own.

    Nodes without a rate stay as they are, in evaluation mode; the statistics of batch norm are updated only if the
    recipe says so. Weight decay is decoupled with "adamw" (Loshchilov & Hutter 2019), else added to the clipped
    gradient.

    Args:
        steps: of the whole training, for the schedule.
        device: auto, cpu, cuda or mps.
        say: called with a sentence when memory ran out and batches are taken in parts.

    Raises:
        UsageError: a task in which nothing can be trained, or no step.
    """

    framework: str  # "torch" or "keras"
    network: BaseTrainableNetwork
    average: RunningAverage

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        steps: int,
        device: str = "auto",
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        check_task(task)
        check_framework(task.blueprint, self.framework)
        check_pixels(task, recipe)
        if steps < 1:
            raise UsageError(f"A training has at least one step. Received: {steps}.")
        self.task, self.recipe, self.steps, self.steps_done = task, recipe, steps, 0
        self.at_a_time = 0  # images in one pass; 0: the whole batch
        self.rank, self.ranks = 0, 1  # of several processes that share every batch
        self.total: Callable[[Sums], Sums] = lambda sums: sums  # adds up the sums of all processes
        self._say = say or (lambda sentence: None)
        self._seen = np.zeros(3)  # loss, errors, images
        self._build(device)

    def step(self, batch: Batch, rate: float | None = None) -> float:
        """One step of the optimiser at the schedule's rate, or at ``rate``; returns the loss before it.

        Raises:
            DivergedError: the loss is not a number; the weights are those before the step.
            UsageError: a batch that the network does not take, or of which not one image fits into memory.
        """
        return self._step(batch, self.rate() if rate is None else rate)

    def check(self, batch: Batch) -> None:
        """Refuse a batch that the network does not take, or cannot be trained on."""
        check_batch(self.task, batch)
        if len(batch.y) < self.network.least:
            raise UsageError(
                "Batch norm whose statistics are trained has no variance of a single image. Expected batches of two "
                "or more. Received: one of one. Take a larger batch_size; or the recipe's batch_norm 'frozen'."
            )

    def evaluate(self, batches: Iterable[Batch]) -> ValidationResult:
        """The loss and errors of the weights that would be kept, in evaluation mode."""
        classes = self.task.classes
        scores, labels = [np.zeros((0, classes))], [np.zeros(0, np.int64)]
        with self._evaluation(), self.network.with_weights(self.average.values):
            for number, batch in enumerate(batches):
                check_batch(self.task, batch)
                scores.append(np.zeros((len(batch.y), classes)))
                labels.append(batch.y)
                for part in self.parts(len(batch.y)) if number % self.ranks == self.rank else ():
                    seen = self.attacked(Batch(batch.x[part], batch.y[part]), None)
                    scores[-1][part] = self._evaluate(seen.x)
        return evaluate_logits(
            self.total(np.concatenate(scores)), np.concatenate(labels)
        )  # rows of other processes are 0

    def attacked(self, batch: Batch, step: int | None) -> Batch:
        """What the network is given of a batch: where the recipe says so, photos changed so that it errs more.

        Args:
            step: of the training; None for validation. See `adversarial.attacked`.
        """
        if not self.recipe.adversarial:
            return batch

        def gradient(x: Array, y: NDArray[np.int64]) -> Array:
            return np.concatenate([self._pixel_gradient(x[part], y[part]) for part in self.parts(len(y))])

        return attacked(batch, gradient, self.recipe, step)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights that would be kept: the averaged ones, where the recipe averages."""
        return self.network.weights(self.average.values)

    def measure_statistics(self, batches: Iterable[Batch]) -> None:
        """Give the averaged weights the statistics of batch norm that these images have in them.

        For the mean of several networks' statistics is right for none. They are the mean over the batches, as of
        `torch.optim.swa_utils.update_bn`, but without dropout. Where no statistics are averaged, nothing happens.
        """
        network, averaged = self.network, self.average.values
        before = network.copies(network.statistics)
        sums = {name: np.zeros(network.outward(name, averaged[name]).shape) for name in before if name in averaged}
        if not sums:
            return
        passes = np.zeros(1)
        with self._evaluation(), network.with_weights(averaged), network.only_last_batch_counts():
            for number, batch in enumerate(batches):
                self.check(batch)
                for part in self.parts(len(batch.y)) if number % self.ranks == self.rank else ():
                    self._update_statistics(batch.x[part])
                    statistics, passes = network.statistics, passes + 1
                    sums = {name: each + network.outward(name, statistics[name]) for name, each in sums.items()}
        network.put(before)  # which include counts of batches, that are not averaged
        passes = self.total(passes)
        means = {name: np.asarray(self.total(each) / passes, np.float32) for name, each in sums.items()}
        measured = {name: network.inward(name, each) for name, each in means.items()}
        self.average.load({**averaged, **measured}, self.average.mass)

    def state(self) -> dict[str, Array]:
        """All that `load_state` needs to continue exactly; of the weights, those that are trained."""
        outward = self.network.outward
        found = {f"weight/{name}": outward(name, each) for name, each in self.network.trained.items()}
        found |= {f"average/{name}": outward(name, each) for name, each in self.average.values.items()}
        for name in self.network.parameters:
            found |= {f"optimiser/{name}/{key}": array for key, array in self._memory(name).items()}
        return found | {
            "mass": np.array(self.average.mass),
            "steps_done": np.array(self.steps_done),
            "at_a_time": np.array(self.at_a_time),
            "seen": self._seen.copy(),
        }

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Continue from what `state` gave.

        Raises:
            UsageError: it is the state of another network, or of other rates.
        """
        shapes, inward = self.task.blueprint.weight_shapes(), self.network.inward
        trained = {name: shapes[name] for name in self.network.trained}
        self._check_state(state, trained)
        self.network.put({name: inward(name, state[f"weight/{name}"]) for name in trained})
        averaged = {name: inward(name, state[f"average/{name}"]) for name in trained if f"average/{name}" in state}
        self.average.load(averaged, float(state["mass"]))
        memory: dict[str, dict[str, Array]] = {name: {} for name in self.network.parameters}
        for path, array in state.items():
            if path.startswith("optimiser/"):
                name, key = path.removeprefix("optimiser/").rsplit("/", 1)
                memory[name][key] = array
        self._load_memory(memory)
        self.steps_done, self.at_a_time = int(state["steps_done"]), int(state["at_a_time"])
        self._seen = np.array(state["seen"])

    @abstractmethod
    def _build(self, device: str) -> None:
        """Build the network, the optimiser and the average."""

    @abstractmethod
    def _step(self, batch: Batch, rate: float) -> float:
        """As `step`, at this rate."""

    @abstractmethod
    def _evaluation(self) -> AbstractContextManager[None]:
        """The context of passes in evaluation mode."""

    @abstractmethod
    def _evaluate(self, x: Array) -> Array:
        """Logits of images, in evaluation mode."""

    @abstractmethod
    def _pixel_gradient(self, x: Array, y: NDArray[np.int64]) -> Array:
        """The gradient of the sum of the losses with respect to photos, but for a factor; in evaluation mode."""

    @abstractmethod
    def _update_statistics(self, x: Array) -> None:
        """A pass of images that changes statistics of batch norm, and nothing else."""

    @abstractmethod
    def _memory(self, name: str) -> dict[str, Array]:
        """What the optimiser remembers of a weight, by PyTorch's names, laid out as in the blueprint."""

    @abstractmethod
    def _load_memory(self, memory: Mapping[str, Mapping[str, Array]]) -> None:
        """Have the optimiser go on from the `_memory` of each weight."""

    def seen(self) -> tuple[float, float]:
        """Mean loss, without label smoothing, and share of errors of the images trained on since the last call."""
        sums, self._seen = self._seen, np.zeros(3)
        return mean_of(sums)

    def rate(self) -> float:
        """The schedule's, of the next step."""
        step = min(self.steps_done, self.steps - 1)
        return rate(self.recipe, step, self.steps, steps_per_epoch=self._per_epoch)

    def divergence(self, batch: Batch, loss: float) -> str:
        """What to say of a step whose loss or gradient is not a number."""
        epoch, place = divmod(self.steps_done, self._per_epoch)
        where = f"Step {self.steps_done + 1}, batch {place + 1} of epoch {epoch + 1}"
        if batch.x.dtype.kind == "f" and not np.isfinite(batch.x).all():
            bad = int((~np.isfinite(batch.x)).sum())
            return f"{where}: {counted(bad, 'value')} of its images {verb(bad, 'is not a number', 'are not numbers')}."
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not a number"
        return f"{where}: {what}. The weights are those before it. Take a smaller learning rate, or precision fp32."

    def halve(self, size: int, error: Exception) -> None:
        """From now on take half as many images at a time as the ``size`` that memory does not hold.

        Raises:
            UsageError: that was a single one, or as few as can be trained on.
        """
        if size <= self.network.least:
            few = "one image" if size == 1 else f"{size} images"
            raise UsageError(
                f"Memory does not hold the training of '{self.task.blueprint.name}' on {few} at a time "
                f"({str(error).splitlines()[0]}). Unfreeze less of it, take fewer pixels, or another device."
            )
        self.at_a_time = max((size + 1) // 2, self.network.least)
        self._say(
            f"Memory ran out with {size} images at a time. From step {self.steps_done + 1} on {self.at_a_time} "
            f"{verb(self.at_a_time)} taken at a time; a step still sees the whole batch."
        )

    def parts(self, count: int, rank: int = 0, ranks: int = 1) -> Iterator[slice]:
        """Rows of a batch, as many at a time as memory holds, of those that one of several processes takes."""
        rows, start = range(rank, count, ranks), 0
        for end in ends_of(len(rows), self.at_a_time or count, self.network.least):
            part = rows[start:end]
            yield slice(part.start, part.stop, part.step)
            start = end

    @property
    def _per_epoch(self) -> int:
        """Steps of one epoch."""
        return max(1, self.steps // self.recipe.epochs)

    def _check_state(self, state: Mapping[str, Array], trained: Mapping[str, Shape]) -> None:
        """Refuse a state whose weights are not the ``trained`` ones, by name and shape."""
        shapes = {name.removeprefix("weight/"): value.shape for name, value in state.items() if name[:7] == "weight/"}
        if shapes != trained:
            raise UsageError(
                f"This is no state of '{self.task.blueprint.name}' with these rates: expected {len(trained)} "
                f"trained weights, {_first(trained)}. Received: {len(shapes)}, {_first(shapes)}."
            )


def mean_of(sums: Sums) -> tuple[float, float]:
    """Mean loss and share of errors; NaN where there is no image."""
    loss, errors, images = sums.tolist()
    return (loss / images, errors / images) if images else (math.nan, math.nan)


def evaluate_logits(logits: Array, labels: Array) -> ValidationResult:
    """The loss and errors of (N, classes) logits; NaN where they are not numbers, or there is no image."""
    count = len(labels)
    error = float((logits.argmax(axis=1) != labels).mean()) if count else math.nan
    if not count or not np.isfinite(logits).all():
        return ValidationResult(math.nan, error, math.nan)
    loss = -float(log_softmax(logits)[np.arange(count), labels].mean())
    return ValidationResult(loss, error, fit_inverse_temperature(logits, labels)[1])


def _first(names: Iterable[str]) -> str:
    return f"the first '{next(iter(names))}'" if names else "none"
