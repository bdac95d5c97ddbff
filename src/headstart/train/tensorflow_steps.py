"""One step of training in TensorFlow: forward, backward, clip, move. For a loop of one's own, and for both trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.errors import DivergedError, UsageError
from headstart.train.base import Array, Batch, Task, check_batch, check_task
from headstart.train.recipe import Recipe
from headstart.train.schedule import rate as rate_of
from headstart.train.tensorflow_moves import Average, RecipeOptimiser
from headstart.train.tensorflow_network import MovingNetwork

Sums = NDArray[np.float64]
Gradients = list[Any]


class TensorFlowStepper:
    """A network in training on TensorFlow, a `Stepper`; its states are those of `TorchStepper`, by name and layout.

    Nodes without a rate stay as they are, in evaluation mode; the statistics of batch norm move only if the recipe says
    so. Weight decay is decoupled with "adamw" (Loshchilov & Hutter 2019), else added to the clipped gradient.

    Args:
        steps: of the whole training, which the schedule is laid over.
        device: auto, cpu, cuda or mps.
        say: told, in a sentence, when memory ran out and batches are taken in parts.
    """

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
        if steps < 1:
            raise UsageError(f"A training has at least one step. Received: {steps}.")
        self.task, self.recipe, self.steps, self.steps_done = task, recipe, steps, 0
        self.network = network = MovingNetwork(task, recipe, device)
        self.at_a_time = 0  # images in one pass; 0: the whole batch
        shares = {name: task.rates[network.nodes[name].name] for name in network.parameters}
        with network.placed():
            self.optimiser = RecipeOptimiser(network.parameters, shares, recipe)
            self.average = Average(recipe, steps, network.moving)
        self._parameters = [variable.value for variable in network.parameters.values()]
        self._say = say or (lambda sentence: None)
        self._seen = np.zeros(3)  # loss, errors, images
        labels, whole = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.float32)
        # compiled once, whatever the number of images
        self._pass = _compiled(self._forward_and_back, network.signature(masked=True), labels, whole)
        self._judge = _compiled(self._judged, network.signature(masked=False), labels)
        self._move = _compiled(
            self.optimiser.apply, [tf.TensorSpec(each.shape, tf.float32) for each in self._parameters]
        )

    def step(self, batch: Batch, rate: float | None = None) -> float:
        """One step of the optimiser at the schedule's rate, or at ``rate``; returns the loss before it.

        Raises:
            DivergedError: the loss is not a number; the weights are those before the step.
            UsageError: a batch that the network does not take, or of which not one image fits into memory.
        """
        check_batch(self.task, batch)
        statistics = self.statistics()
        try:
            with self.network.placed():
                sums, gradients = self._gradients(batch, statistics)
                loss = sums[0] / len(batch.y)
                if math.isfinite(loss):
                    self.optimiser.learning_rate = self.rate() if rate is None else rate
                    self._move(gradients)
                if not (math.isfinite(loss) and math.isfinite(self.optimiser.norm.numpy())):
                    raise DivergedError(self.diverged(batch, loss))
        except BaseException:
            self.network.put(statistics)
            raise
        self.took(sums[1:])
        return float(loss)

    def took(self, sums: Sums) -> None:
        """Take note of a step: sums over its images of the loss, without label smoothing, the errors, and ones."""
        self._seen += sums
        with self.network.placed():
            self.average.update(self.steps_done)
        self.steps_done += 1

    def seen(self) -> tuple[float, float]:
        """Mean loss, without label smoothing, and share of errors of what was trained on since this was asked last."""
        sums, self._seen = self._seen, np.zeros(3)
        return _mean_of(sums)

    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, float]:
        """Mean loss and share of errors in evaluation mode, of the weights that would be kept."""
        sums = np.zeros(3)
        with self.network.placed(), self.network.with_weights(self.average.values):
            for batch in batches:
                check_batch(self.task, batch)
                for part in _parts(len(batch.y), self.at_a_time):
                    inputs = self.network.inputs(batch.x[part])
                    sums += self._judge(inputs, tf.constant(batch.y[part], tf.int64)).numpy()
        return _mean_of(sums)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights that would be kept: the averaged ones, where the recipe averages."""
        return self.network.weights(self.average.values)

    def state(self) -> dict[str, Array]:
        """All that `load_state` needs to go on bit by bit; of the weights, those that move."""
        outward = self.network.outward
        found = {f"weight/{name}": outward(name, each) for name, each in self.network.moving.items()}
        found |= {f"average/{name}": outward(name, each) for name, each in self.average.values.items()}
        for name, variable in self.network.parameters.items():
            memory = self.optimiser.memory(variable)
            found |= {f"optimiser/{name}/{key}": outward(name, each) for key, each in memory.items()}
            if "exp_avg" in memory:
                found[f"optimiser/{name}/step"] = np.array(self.optimiser.iterations.numpy(), np.float32)
        return found | {
            "steps_done": np.array(self.steps_done),
            "at_a_time": np.array(self.at_a_time),
            "mass": np.array(self.average.mass),
            "seen": self._seen.copy(),
        }

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from what `state` gave.

        Raises:
            UsageError: it is the state of another network, or of other rates.
        """
        moving, inward = self.network.moving, self.network.inward
        shapes = {name.removeprefix("weight/"): value.shape for name, value in state.items() if name[:7] == "weight/"}
        wanted = self.task.blueprint.weight_shapes()
        if shapes != {name: wanted[name] for name in moving}:
            raise UsageError(
                f"This is no state of '{self.task.blueprint.name}' with these rates: expected {len(moving)} weights "
                f"that move, {_first(moving)}. Received: {len(shapes)}, {_first(shapes)}."
            )
        self.network.put({name: inward(name, state[f"weight/{name}"]) for name in moving})
        averaged = {name: inward(name, state[f"average/{name}"]) for name in moving if f"average/{name}" in state}
        self.average.load(averaged, float(state["mass"]))
        taken = 0
        for name, variable in self.network.parameters.items():
            taken = max(taken, int(state.get(f"optimiser/{name}/step", 0)))
            for key, memory in self.optimiser.memory(variable).items():  # before its first step PyTorch has none
                memory.assign(inward(name, state.get(f"optimiser/{name}/{key}", np.zeros(wanted[name], np.float32))))
        self.optimiser.iterations.assign(taken)
        self.steps_done, self.at_a_time = int(state["steps_done"]), int(state["at_a_time"])
        self._seen = np.array(state["seen"])

    def rate(self) -> float:
        """The schedule's, of the next step."""
        step, per_epoch = min(self.steps_done, self.steps - 1), max(1, self.steps // self.recipe.epochs)
        return rate_of(self.recipe, step, self.steps, steps_per_epoch=per_epoch)

    def statistics(self) -> dict[str, Array]:
        """A copy of the means and variances that a forward pass changes, to be put back."""
        return {name: variable.numpy() for name, variable in self.network.statistics.items()}

    def halve(self, size: int, error: tf.errors.ResourceExhaustedError) -> None:
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

    def diverged(self, batch: Batch, loss: float) -> str:
        """What to say of a step that does not lead to numbers."""
        step, per_epoch = self.steps_done, max(1, self.steps // self.recipe.epochs)
        where = f"Step {step + 1}, batch {step % per_epoch + 1} of epoch {step // per_epoch + 1}"
        if batch.x.dtype.kind == "f" and not np.isfinite(batch.x).all():
            return f"{where}: {int((~np.isfinite(batch.x)).sum())} values of its images are not numbers."
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not a number"
        return f"{where}: {what}. The weights are those before it. Take a smaller learning rate, or precision fp32."

    def _gradients(self, batch: Batch, statistics: Mapping[str, Array]) -> tuple[Sums, Gradients]:
        """As `_taken`, with fewer images at a time where memory runs out."""
        while True:
            try:
                return self._taken(batch)
            except tf.errors.ResourceExhaustedError as error:
                self.network.put(statistics)
                self.halve(min(self.at_a_time or len(batch.y), len(batch.y)), error)

    def _taken(self, batch: Batch) -> tuple[Sums, Gradients]:
        """Forward and backward; sums over images: loss as minimised, loss, errors, ones. And the mean's gradients."""
        masks = self.network.masks(self.steps_done, len(batch.y))
        sums, gradients = np.zeros(4), Gradients()
        for part in _parts(len(batch.y), self.at_a_time):
            inputs = self.network.inputs(batch.x[part], {name: mask[part] for name, mask in masks.items()})
            labels, whole = tf.constant(batch.y[part], tf.int64), tf.constant(len(batch.y), tf.float32)
            added, more = self._pass(inputs, labels, whole)
            sums += added.numpy()
            gradients = [one + other for one, other in zip(gradients, more, strict=True)] if gradients else more
        return sums, gradients

    def _forward_and_back(self, inputs: Mapping[str, Any], labels: Any, whole: Any) -> tuple[Any, Gradients]:
        smoothing = self.recipe.label_smoothing
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._parameters)
            logits = self.network.model(inputs, training=True)
            wanted = tf.one_hot(labels, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
            losses = tf.nn.softmax_cross_entropy_with_logits(wanted, logits)
            mean = tf.reduce_sum(losses) / whole
        gradients = tape.gradient(mean, self._parameters, unconnected_gradients="zero")
        return tf.concat([[tf.reduce_sum(losses)], _sums(logits, labels)], 0), gradients

    def _judged(self, inputs: Mapping[str, Any], labels: Any) -> Any:
        return _sums(self.network.model(inputs, training=False), labels)


def _compiled(function: Callable[..., Any], *signature: Any) -> Any:
    return tf.function(function, input_signature=signature, autograph=False)


def _sums(logits: Any, labels: Any) -> Any:
    """Over images: cross-entropy, errors, and how many images they are."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    errors = tf.cast(tf.argmax(logits, 1) != labels, tf.float32)
    return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(errors), tf.cast(tf.size(labels), tf.float32)])


def _parts(count: int, at_a_time: int) -> Iterator[slice]:
    """Rows of a batch, so many at a time; 0: all."""
    for start in range(0, count, at_a_time or count):
        yield slice(start, start + (at_a_time or count))


def _mean_of(sums: Sums) -> tuple[float, float]:
    """Mean loss and share of errors; not numbers, where there was no image."""
    loss, errors, images = sums.tolist()
    return (loss / images, errors / images) if images else (math.nan, math.nan)


def _first(names: Iterable[str]) -> str:
    return f"the first '{next(iter(names))}'" if names else "none"
