"""Photos changed so that the network in training errs more, to be trained on in place of the photos themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import UsageError
from headstart.train.batches import draw
from headstart.train.protocol import Array, Batch, Task
from headstart.train.recipe import Recipe

ATTACK = 4  # purpose of `batches.draw`
BEYOND = 1.25  # length of the step from a random place, in budgets

PixelGradient = Callable[[Array, NDArray[np.int64]], Array]  # photos (N, H, W, 3) in [0, 1] and labels -> ∂loss/∂photo


def check_pixels(task: Task, recipe: Recipe) -> None:
    """Refuse a training on attacked photos that is given no photos.

    Raises:
        UsageError: the recipe attacks, and the batches are activations or rows of numbers.
    """
    if recipe.adversarial and task.spec is None:
        raise UsageError(
            "Recipe, adversarial: it changes the pixels of photos, and this training is given none. Expected unfreeze "
            "'all' and a network of photos, or adversarial 0."
        )


def attacked(batch: Batch, gradient: PixelGradient, recipe: Recipe, step: int | None = None) -> Batch:
    """The photos of a batch, changed by the recipe's ``adversarial`` at most, where the loss rises; float32 in [0, 1].

    In a ``step`` of the training: one step of the gradient's sign from a random place within the budget, and a little
    beyond, so that later steps do not undo it (Wong, Rice & Kolter 2020, "Fast is better than free"). Without: one
    step from the photo itself (Goodfellow et al. 2015), so that validation is the same each time.
    """
    budget = np.float32(recipe.adversarial / 255)
    photos = batch.x.astype(np.float32) / np.float32(255) if batch.x.dtype == np.uint8 else batch.x
    lowest, highest = np.maximum(photos - budget, 0), np.minimum(photos + budget, 1)
    if step is None:
        changed, length = photos, budget
    else:
        rng = draw(ATTACK, recipe.seed, step)
        changed = photos + rng.uniform(-budget, budget, photos.shape).astype(np.float32)
        changed, length = np.clip(changed, lowest, highest), BEYOND * budget
    signs = np.sign(gradient(changed, batch.y))
    return Batch(np.clip(changed + length * signs, lowest, highest), batch.y)
