"""Four trainers, one training: the same start, batches and recipe give the same losses and the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.engines.registry import keras_engine, torch_engine

torch_engine()  # before TensorFlow, as the guard has it
keras_engine()

from headstart.train.protocol import TRAINERS, Trained  # noqa: E402
from headstart.train.recipe import Recipe  # noqa: E402
from headstart.train.trainers import get_trainer  # noqa: E402
from trainers import (  # noqa: E402
    EVERYTHING,
    MEASURED,
    SGD,
    STEPS,
    batches_of,
    furthest,
    one_thread,  # noqa: F401
    plain_loop,
    small_task,
    table_task,
)

TOLERANCE = 1e-5  # of losses in nats, and of weights
ALL = replace(EVERYTHING, optimiser="adamw", batch_norm="train")
OTHERS = replace(EVERYTHING, optimiser="momentum", schedule="one_cycle", averaging="snapshots", batch_norm="train")
WITHOUT: dict[str, Any] = {  # each trick of `ALL` left out, or done in another way
    "optimiser": "adam",
    "schedule": "step",
    "warm_up": 0.0,
    "layer_decay": 1.0,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "clip": 0.0,
    "averaging": "none",
    "unfreeze": "conv2",
    "batch_norm": "frozen",
    "seed": 1,
}


def train(trainer: str, recipe: Recipe) -> Trained:
    task = small_task(recipe)
    validation = batches_of(task, 24, shuffle=False)  # that it learns even in a few steps
    return get_trainer(trainer)(task, batches_of(task, 36), validation, recipe, device="cpu")


def apart(found: Mapping[str, Trained]) -> tuple[float, float]:
    """How far the losses of any two are apart at most, and how far their weights."""
    losses = np.array([each.history.losses for each in found.values()])
    one, *others = (each.weights for each in found.values())
    assert all(other.keys() == one.keys() for other in others)
    spreads = (np.ptp([weights[name] for weights in (one, *others)], axis=0).max() for name in one)
    return float(np.ptp(losses, axis=0).max()), float(max(spreads))


def test_plain_sgd_gives_one_curve() -> None:
    """That of a loop in plain PyTorch too, though `fit` puts a network into training mode, or gives running means.

    `benchmarks/four_trainers.py` does the same with MobileNetV2.
    """
    task = small_task()
    found = {name: get_trainer(name)(task, batches_of(task), None, SGD, device="cpu") for name in TRAINERS}
    assert {name: each.history.trainer for name, each in found.items()} == {name: name for name in TRAINERS}
    losses, weights = plain_loop(task, batches_of(task), SGD)
    assert len(losses) == STEPS
    plain = replace(found["pytorch"].history, trainer="", losses=tuple(losses))
    assert max(apart(found | {"": Trained(weights, plain)})) < TOLERANCE
    lowest = next(name for name in weights if name.endswith(".weight"))
    assert np.abs(weights[lowest] - task.weights[lowest]).max() > 1e-4  # so the gradient went all the way


@pytest.mark.parametrize("recipe", [ALL, OTHERS], ids=["all", "others"])
def test_every_trick_of_the_recipe_works_in_all_four(recipe: Recipe) -> None:
    """Rates by layer and step, decay of kernels, smoothing, clip, dropout, averages, statistics; and what is told."""
    found = {name: train(name, recipe) for name in TRAINERS}
    assert max(apart(found)) < TOLERANCE
    histories = [each.history for each in found.values()]
    assert {(history.best, history.stopped) for history in histories} == {(histories[0].best, "")}
    for epochs in zip(*(history.epochs for history in histories), strict=True):
        for part in MEASURED:
            assert np.ptp([getattr(epoch, part) for epoch in epochs]) < TOLERANCE, part
        assert all(epoch.seconds > 0 for epoch in epochs)


@pytest.mark.parametrize("field", WITHOUT)
def test_a_trick_that_one_of_them_passed_over_would_be_seen(field: str) -> None:
    """It changes the weights by far more than the four may differ in."""
    whole, without = (train("pytorch", recipe) for recipe in (ALL, replace(ALL, **{field: WITHOUT[field]})))
    assert furthest(whole.weights, without.weights) > 20 * TOLERANCE


def test_a_table_of_numbers_is_trained_alike() -> None:
    recipe = replace(SGD, epochs=2, optimiser="adam", learning_rate=0.02)
    task, batches = table_task(recipe)
    found = {name: get_trainer(name)(task, batches, batches, recipe, device="cpu") for name in TRAINERS}
    assert max(apart(found)) < TOLERANCE
    assert furthest(found["keras"].weights, dict(task.weights)) > 0.01
