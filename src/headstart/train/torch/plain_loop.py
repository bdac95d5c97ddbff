"""The trainer ``pytorch``: a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headstart.train.checkpoint import Checkpoints
from headstart.train.loop import TrainingLoop, run
from headstart.train.protocol import Batches, Callback, Task, Trained
from headstart.train.recipe import Recipe
from headstart.train.torch.stepper import TorchStepper


def train_pytorch(
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
    """Train with steps of PyTorch's in a loop of ours; see `loop.Trainer`. ``device`` is auto, cpu, cuda or mps."""
    stepper = TorchStepper(task, recipe, recipe.epochs * batches.steps, device, say=say)
    return run(TrainingLoop("pytorch", stepper, batches, validation, recipe, callbacks, checkpoints))
