"""The trainer ``keras``: the same network, loss, groups and rates in an ordinary `compile` and `fit`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from headstart.engines.registry import keras_engine

keras_engine()  # imports TensorFlow in the safe order, or says what is missing

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from headstart.core.counts import counted  # noqa: E402
from headstart.core.errors import DivergedError, UsageError  # noqa: E402
from headstart.train.loop import TrainingLoop, make_trainer, run_plain  # noqa: E402
from headstart.train.protocol import Array, Batch, Trained  # noqa: E402
from headstart.train.tensorflow.stepper import TensorFlowStepper  # noqa: E402

LABELS = "labels"


def _run(loop: TrainingLoop, stepper: TensorFlowStepper) -> Trained:
    """Train with Keras' `fit`.

    Where memory does not hold a batch, which `fit` cannot take in parts, the loop of ``tensorflow`` goes on.
    """
    model = compile_model(stepper)
    with stepper.network.placed():
        while loop.running and not stepper.at_a_time:
            # after a resumed, shorter epoch Keras would expect all later ones to be as short
            _fit(model, loop, stepper, 1 if loop.start else stepper.recipe.epochs - loop.epoch)
    return run_plain(loop)


train_keras = make_trainer("keras", TensorFlowStepper, _run)


def compile_model(stepper: TensorFlowStepper) -> Any:
    """The stepper's network as a compiled `keras.Model`, with its optimiser, and the recipe's loss.

    It takes what `network.inputs` gives, and labels as rows of zeros with a one.
    """
    model = stepper.network.model
    smoothing = stepper.recipe.label_smoothing
    model.compile(
        optimizer=stepper.optimiser,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, dtype="float32"),
        metrics=[
            keras.metrics.CategoricalCrossentropy("crossentropy", dtype="float32", from_logits=True),
            keras.metrics.CategoricalAccuracy("accuracy", dtype="float32"),
        ],
        auto_scale_loss=False,
        jit_compile=False,  # XLA takes longer to compile a network than to train the part above a cut
    )
    return model


class _Stream:
    """The batches of the current epoch, from the next step on.

    Not by `Dataset.from_generator`, which changes the memory settings of the whole process, and warns about it.
    """

    def __init__(self, loop: TrainingLoop, stepper: TensorFlowStepper) -> None:
        self._loop, self._stepper = loop, stepper
        self._start = loop.start
        self._coming: Iterator[Batch] = iter(())
        self.drawn = list[Batch]()  # the batch of the step in progress
        self.error: Exception | None = None  # TensorFlow would only keep its message

    def dataset(self) -> Any:
        """As `fit` takes it, for any number of images."""
        network = self._stepper.network
        specs = [
            *network.signature(masked=True).items(),
            (LABELS, tf.TensorSpec((None, *network.shapes[network.task.blueprint.layers[-1]]), tf.float32)),
        ]

        def drawn(place: Any) -> tuple[dict[str, Any], Any]:
            values = tf.numpy_function(self._draw, [place], [spec.dtype for _, spec in specs])
            tensors = {
                name: tf.ensure_shape(value, spec.shape) for (name, spec), value in zip(specs, values, strict=True)
            }
            return tensors, tensors.pop(LABELS)

        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # Keras starts an epoch twice
        return tf.data.Dataset.range(self._start, self._loop.batches.steps).map(drawn).with_options(options)

    def _draw(self, place: np.int64) -> list[Array]:
        """Images, masks and labels of the batch at a place in its epoch."""
        loop, network = self._loop, self._stepper.network
        try:
            if place == self._start:
                self._coming = loop.batches.epoch(loop.epoch, self._start)
            batch, steps = next(self._coming, None), loop.batches.steps
            if batch is None or (place == steps - 1 and next(self._coming, None)):
                raise UsageError(
                    f"Epoch {loop.epoch + 1} should have had {counted(steps, 'batch', 'batches')}. Received: "
                    f"{'more' if batch else place}. Batches have as many in an epoch as their `steps`."
                )
            self._stepper.check(batch)
            self.drawn, step = [batch], loop.epoch * steps + int(place)
            batch = self._stepper.attacked(batch, step)
            masks = network.masks(step, len(batch.y))
            classes = network.shapes[network.task.blueprint.layers[-1]][0]
            return [network.images(batch.x), *masks.values(), np.eye(classes, dtype=np.float32)[batch.y]]
        except Exception as error:
            self.error = self.error or error
            raise


class _Bridge(keras.callbacks.Callback):  # type: ignore[misc]
    """Between `fit` and the loop: rates before a step, its loss after it, validation after an epoch."""

    def __init__(self, loop: TrainingLoop, stepper: TensorFlowStepper, stream: _Stream) -> None:
        super().__init__()
        self.loop, self.stepper, self.stream = loop, stepper, stream
        self.statistics: Mapping[str, Array] = {}

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the rate."""
        self.statistics = self.stepper.network.copies(self.stepper.network.statistics)
        self.stepper.optimiser.learning_rate = self.stepper.rate()

    def on_train_batch_end(self, place: int, logs: Mapping[str, float]) -> None:
        """Record the step."""
        self.model.reset_metrics()  # else the next loss would be a mean over the epoch so far
        batch, loss = self.stream.drawn.pop(), float(logs["loss"])
        images = len(batch.y)
        if math.isfinite(loss) and math.isfinite(self.stepper.optimiser.norm.numpy()):
            self.stepper.finish_step(
                np.array([logs["crossentropy"] * images, round((1 - logs["accuracy"]) * images), images])
            )
            self.model.stop_training = not self.loop.after_step(loss)
        else:
            self.stepper.network.put(self.statistics)
            self.loop.diverged(DivergedError(self.stepper.divergence(batch, loss)))
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate, keep the best weights, call the callbacks."""
        self.loop.after_epoch()
        self.model.stop_training = not self.loop.running


def _fit(model: Any, loop: TrainingLoop, stepper: TensorFlowStepper, epochs: int) -> None:
    stream = _Stream(loop, stepper)
    bridge = _Bridge(loop, stepper, stream)
    try:
        model.fit(stream.dataset(), epochs=epochs, callbacks=[bridge], shuffle=False, verbose=0)
    except tf.errors.ResourceExhaustedError as error:
        if not stream.drawn:  # not in a step
            raise
        stepper.network.put(bridge.statistics)  # the optimiser had not begun: nothing else has changed
        stepper.halve(len(stream.drawn[0].y), error)
    except tf.errors.OpError as error:
        raise (stream.error or error) from None
