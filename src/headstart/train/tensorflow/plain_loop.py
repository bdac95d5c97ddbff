"""The trainer ``tensorflow``: a plain loop with a gradient tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headstart.engines.registry import keras_engine

keras_engine()  # which brings TensorFlow in, in the order that does no harm, or says what is missing

from headstart.train.checkpoint import Checkpoints  # noqa: E402
from headstart.train.loop import TrainingLoop, run  # noqa: E402
from headstart.train.protocol import Batches, Callback, Task, Trained  # noqa: E402
from headstart.train.recipe import Recipe  # noqa: E402
from headstart.train.tensorflow.stepper import TensorFlowStepper  # noqa: E402

__all__ = ["TensorFlowStepper", "train_tensorflow"]


def train_tensorflow(
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
    """Train with steps of TensorFlow's in a plain loop; see `loop.Trainer`. ``device`` is auto, cpu, cuda or mps."""
    stepper = TensorFlowStepper(task, recipe, recipe.epochs * batches.steps, device, say=say)
    return run(TrainingLoop("tensorflow", stepper, batches, validation, recipe, callbacks, checkpoints))
