"""One step of training in TensorFlow: forward, backward, clip, update. For one's own loop, and for both trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.core.errors import DivergedError
from headstart.train.protocol import Array, Batch
from headstart.train.stepper import Stepper, Sums
from headstart.train.tensorflow.network import IMAGES, TrainableNetwork
from headstart.train.tensorflow.optimiser import Average, RecipeOptimiser

Gradients = list[Any]


class TensorFlowStepper(Stepper):
    """A network in training on TensorFlow; see `Stepper`.

    Its states are those of `TorchStepper`, by name and layout.
    """

    framework = "keras"
    network: TrainableNetwork
    average: Average

    def _build(self, device: str) -> None:
        self.network = network = TrainableNetwork(self.task, self.recipe, device)
        shares = {name: self.task.rates[network.nodes[name].name] for name in network.parameters}
        with network.placed():
            self.optimiser = RecipeOptimiser(network.parameters, shares, self.recipe)
            self.average = Average(self.recipe, self.steps, network.trained)
        self._parameters = [variable.value for variable in network.parameters.values()]
        labels, whole = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.float32)
        # compiled once, whatever the number of images
        self._pass = _compiled(self._forward_and_back, network.signature(masked=True), labels, whole)
        self._logits = _compiled(lambda inputs: network.model(inputs, training=False), network.signature(masked=False))
        self._update = _compiled(lambda inputs: network.model(inputs, training=True), network.signature(masked=False))
        self._to_pixels = _compiled(self._back_to_pixels, network.signature(masked=False), labels)
        self._apply = _compiled(
            self.optimiser.apply, [tf.TensorSpec(each.shape, tf.float32) for each in self._parameters]
        )

    def _step(self, batch: Batch, rate: float) -> float:
        self.check(batch)
        batch = self.attacked(batch, self.steps_done)
        statistics = self.network.copies(self.network.statistics)
        try:
            with self.network.placed():
                sums, gradients = self._gradients(batch, statistics)
                loss = sums[0] / len(batch.y)
                if math.isfinite(loss):
                    self.optimiser.learning_rate = rate
                    self._apply(gradients)
                if not (math.isfinite(loss) and math.isfinite(self.optimiser.norm.numpy())):
                    raise DivergedError(self.divergence(batch, loss))
        except BaseException:
            self.network.put(statistics)
            raise
        self.finish_step(sums[1:])
        return float(loss)

    def finish_step(self, sums: Sums) -> None:
        """Take note of a step: sums over its images of the loss, without label smoothing, the errors, and ones."""
        self._seen += sums
        with self.network.placed():
            self.average.update(self.steps_done)
        self.steps_done += 1

    def _evaluation(self) -> AbstractContextManager[None]:
        return self.network.placed()

    def _evaluate(self, x: Array) -> Array:
        return np.asarray(self._logits(self.network.inputs(x)).numpy())

    def _pixel_gradient(self, x: Array, y: NDArray[np.int64]) -> Array:
        with self.network.placed():
            return np.asarray(self._to_pixels(self.network.inputs(x), tf.constant(y, tf.int64)).numpy())

    def _back_to_pixels(self, inputs: Mapping[str, Any], labels: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs[IMAGES])
            logits = self.network.model(inputs, training=False)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return tape.gradient(loss, inputs[IMAGES])

    def _update_statistics(self, x: Array) -> None:
        self._update(self.network.inputs(x))

    def _memory(self, name: str) -> dict[str, Array]:
        memory = self.optimiser.memory(self.network.parameters[name])
        found: dict[str, Array] = {key: self.network.outward(name, each) for key, each in memory.items()}
        if "exp_avg" in memory:
            found["step"] = np.array(self.optimiser.iterations.numpy(), np.float32)
        return found

    def _load_memory(self, memory: Mapping[str, Mapping[str, Array]]) -> None:
        shapes = self.task.blueprint.weight_shapes()
        for name, variable in self.network.parameters.items():
            for key, each in self.optimiser.memory(variable).items():  # PyTorch has none before its first step
                array = memory[name].get(key, np.zeros(shapes[name], np.float32))
                each.assign(self.network.inward(name, array))
        self.optimiser.iterations.assign(max(int(found.get("step", 0)) for found in memory.values()))

    def _gradients(self, batch: Batch, statistics: Mapping[str, Array]) -> tuple[Sums, Gradients]:
        """As `_pass_all`, with fewer images at a time where memory runs out."""
        while True:
            try:
                return self._pass_all(batch)
            except tf.errors.ResourceExhaustedError as error:
                self.network.put(statistics)
                self.halve(min(self.at_a_time or len(batch.y), len(batch.y)), error)

    def _pass_all(self, batch: Batch) -> tuple[Sums, Gradients]:
        """Forward and backward; sums over images: loss as minimised, loss, errors, ones. And the mean's gradients."""
        masks = self.network.masks(self.steps_done, len(batch.y))
        sums, gradients = np.zeros(4), Gradients()
        for part in self.parts(len(batch.y)):
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


def _compiled(function: Callable[..., Any], *signature: Any) -> Any:
    return tf.function(function, input_signature=signature, autograph=False)


def _sums(logits: Any, labels: Any) -> Any:
    """Over images: cross-entropy, errors, and how many images they are."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    errors = tf.cast(tf.argmax(logits, 1) != labels, tf.float32)
    return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(errors), tf.cast(tf.size(labels), tf.float32)])
