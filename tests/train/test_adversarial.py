"""Training on attacked photos: what an attack changes, that all trainers do the same, and that it makes robust."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.engines.registry import keras_engine, torch_engine

torch_engine()  # before TensorFlow, as the guard has it
keras_engine()

from headstart.core.errors import UsageError  # noqa: E402
from headstart.train.adversarial import attacked  # noqa: E402
from headstart.train.protocol import TRAINERS, Batch  # noqa: E402
from headstart.train.recipe import Recipe, preset  # noqa: E402
from headstart.train.trainers import get_stepper, get_trainer  # noqa: E402
from trainers import CLASSES, SGD, batches_of, one_thread, pictures, small_task, table_task  # noqa: E402, F401

ATTACKED = replace(SGD, adversarial=4.0)


@given(budget=st.floats(0.1, 64), step=st.none() | st.integers(0, 99), seed=st.integers(0, 9))
def test_no_pixel_moves_further_than_the_budget_or_out_of_range(budget: float, step: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (3, 5, 5, 3), np.uint8), np.zeros(3, np.int64)
    slope = rng.standard_normal(x.shape).astype(np.float32)
    found = attacked(Batch(x, y), lambda x, y: slope, Recipe(unfreeze="all", adversarial=budget), step)
    assert found.x.dtype == np.float32
    assert (found.x.min() >= 0, found.x.max() <= 1) == (True, True)
    assert np.abs(found.x - x / 255).max() <= budget / 255 + 1e-6
    assert ((found.x - x / 255) * slope).sum() > 0  # the loss rises


def test_of_a_linear_network_it_is_the_worst_there_is() -> None:
    """One step of the sign goes to the corner of the budget, from wherever it starts."""
    x, slope = np.full((1, 4, 4, 3), 128, np.uint8), np.ones((1, 4, 4, 3), np.float32)
    slope[..., 1] = -1
    recipe = Recipe(unfreeze="all", adversarial=2.0)
    for step in (None, 7):
        found = attacked(Batch(x, np.zeros(1, np.int64)), lambda x, y: slope, recipe, step)
        reached = np.sign(found.x - x / 255) == slope
        assert reached.mean() > (0.999 if step is None else 0.8)
    plain = attacked(Batch(x, np.zeros(1, np.int64)), lambda x, y: slope, recipe)
    assert plain.x == pytest.approx((x + 2 * slope) / 255, abs=1e-6)


def test_all_trainers_train_on_the_same_attacks() -> None:
    task = small_task(ATTACKED)
    found = {}
    for name in TRAINERS:
        validation = batches_of(task, 24, seed=1, shuffle=False)
        found[name] = get_trainer(name)(task, batches_of(task), validation, ATTACKED, device="cpu")
    losses = np.array([each.history.losses for each in found.values()])
    assert np.ptp(losses, axis=0).max() < 1e-3  # a gradient that is nearly zero may have another sign
    validated = np.array([[epoch.val_loss for epoch in each.history.epochs] for each in found.values()])
    assert np.ptp(validated, axis=0).max() < 1e-3
    plain = get_trainer("pytorch")(task, batches_of(task), None, SGD, device="cpu")
    assert np.abs(np.array(plain.history.losses) - losses[0]).max() > 0.05


@pytest.mark.parametrize("trainer", ["pytorch", "tensorflow"])
def test_the_loss_under_attack_is_that_of_attacked_pictures(trainer: str) -> None:
    """By central differences along the attack: it rises where the attack goes."""
    task = small_task(ATTACKED)
    stepper = get_stepper(trainer, task, ATTACKED, 10, "cpu")
    x, y = pictures(task.blueprint.size, 6)
    plain = get_stepper(trainer, task, SGD, 10, "cpu")
    under_attack, as_they_are = (each.evaluate([Batch(x, y)]).loss for each in (stepper, plain))
    assert under_attack > as_they_are + 0.01
    moved = stepper.attacked(Batch(x, y), None)
    assert plain.evaluate([moved]).loss == pytest.approx(under_attack, abs=1e-5)


def test_it_makes_a_network_robust() -> None:
    """The loss under attack is lower than of the same training without; of pictures as they are it may be higher."""
    recipe = replace(ATTACKED, epochs=12, adversarial=12.0, learning_rate=0.05)
    task = small_task(recipe)
    losses = {}
    for name, trained_with in (("attacked", recipe), ("plain", replace(recipe, adversarial=0.0))):
        trained = get_trainer("pytorch")(task, batches_of(task, 120), None, trained_with, device="cpu")
        judge = get_stepper("pytorch", replace(task, weights=trained.weights), recipe, 1, "cpu")
        x, y = pictures(task.blueprint.size, 60, seed=5)
        losses[name] = judge.evaluate([Batch(x, y)]).loss
    assert losses["attacked"] < losses["plain"] - 0.05


def test_where_there_are_no_pixels_it_is_refused() -> None:
    task, batches = table_task(replace(ATTACKED, batch_norm="frozen"))
    with pytest.raises(UsageError, match=r"Recipe, adversarial: it changes the pixels of photos"):
        get_trainer("pytorch")(task, batches, None, ATTACKED, device="cpu")
    with pytest.raises(UsageError, match=r"adversarial changes pixels, which every layer must see again"):
        Recipe(adversarial=1.0)
    with pytest.raises(UsageError, match=r"Recipe, adversarial: expected a number from 0 to 64"):
        Recipe(unfreeze="all", adversarial=-1.0)
    assert preset("robust").adversarial == 1.0
