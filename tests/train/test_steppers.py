"""What the steppers of both frameworks, and the plain loops around them, have to do alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import CheckError, DivergedError, HeadstartError, UsageError
from headstart.train.checkpoint import Checkpoints, Terminated
from headstart.train.identity import Identity
from headstart.train.protocol import Batch, Task
from headstart.train.recipe import OPTIMISERS, Recipe
from headstart.train.trainers import get_stepper, get_trainer
from trainers import (
    EVERYTHING,
    SGD,
    STEPS,
    Ending,
    Listener,
    Short,
    a_batch,
    assert_equal,
    batches_of,
    crash,
    one_thread,  # noqa: F401
    pictures,
    poisoned,
    sigterm,
    small_task,
    table_task,
    timeless,
)

pytestmark = pytest.mark.parametrize("trainer", ["pytorch", "tensorflow"])


def stepper_of(trainer: str, recipe: Recipe, task: Task | None = None, steps: int = STEPS) -> Any:
    return get_stepper(trainer, task or small_task(recipe), recipe, steps, "cpu")


def train(trainer: str, recipe: Recipe, **more: Any) -> Any:
    task = small_task(recipe)
    validation = batches_of(task, 24, shuffle=False)
    return get_trainer(trainer)(task, batches_of(task, 36), validation, recipe, device="cpu", **more)


def test_a_table_of_numbers_is_trained_alike(trainer: str) -> None:
    recipe = replace(SGD, epochs=20, optimiser="adam", learning_rate=0.02)
    task, batches = table_task(recipe)
    history = get_trainer(trainer)(task, batches, batches, recipe, device="cpu").history
    assert history.epochs[-1].val_error < 0.05
    assert history.epochs[0].val_error > 0.2


# --- exactly the same after an interruption ---------------------------------------------------------------------------


@pytest.mark.parametrize("averaging", ["none", "ema"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_state_goes_on_bit_by_bit(trainer: str, optimiser: str, averaging: str) -> None:
    recipe = replace(EVERYTHING, optimiser=optimiser, averaging=averaging, batch_norm="train")
    task = small_task(recipe)
    batches = list(batches_of(task, 80).epoch(0))
    whole = stepper_of(trainer, recipe, task)
    for batch in batches[:5]:
        whole.step(batch)
    state = {name: array.copy() for name, array in whole.state().items()}
    losses = [whole.step(batch) for batch in batches[5:]]
    second = stepper_of(trainer, recipe, task)
    second.step(batches[7])  # which it forgets
    second.load_state(state)
    assert [second.step(batch) for batch in batches[5:]] == losses
    assert_equal(second.weights(), whole.weights())
    assert_equal(second.state(), whole.state())
    assert second.seen() == whole.seen()
    memory = {"sgd": 0, "momentum": 1, "adam": 3, "adamw": 3}[optimiser]
    assert sum(name.startswith("optimiser/") for name in state) == memory * len(whole.network.parameters)


def test_a_state_of_another_network_is_refused(trainer: str) -> None:
    state = stepper_of(trainer, SGD).state()
    other = stepper_of(trainer, SGD, replace(small_task(), rates={"logits": 1.0}))
    with pytest.raises(UsageError, match=r"expected 2 trained weights, the first 'logits.weight'\. Received: 8"):
        other.load_state(state)


@pytest.mark.parametrize(
    ("deed", "error", "after", "start"),
    [
        (crash, RuntimeError, 13, 10),  # in the middle of an epoch of 5 steps
        (sigterm, Terminated, 13, 13),
        (sigterm, Terminated, 10, 10),  # in the last step of one, before its losses are measured
    ],
)
def test_a_resumed_training_is_the_uninterrupted_one(
    tmp_path: Path, trainer: str, deed: Any, error: type[BaseException], after: int, start: int
) -> None:
    recipe = replace(EVERYTHING, optimiser="adamw", batch_norm="train")
    identity = Identity.of(small_task(recipe), recipe, "these")
    whole = train(trainer, recipe)
    with Checkpoints(tmp_path, identity) as checkpoints, pytest.raises(error):
        train(trainer, recipe, checkpoints=checkpoints, callbacks=[Ending(after, deed)])
    told = Listener()
    with Checkpoints(tmp_path, identity) as checkpoints:
        resumed = train(trainer, recipe, checkpoints=checkpoints, callbacks=[told])
    assert told.steps[0][0] == start
    assert_equal(resumed.weights, whole.weights)
    assert timeless(resumed.history) == timeless(whole.history)
    with Checkpoints(tmp_path, identity) as checkpoints:  # one that has ended takes no more steps
        again = train(trainer, recipe, checkpoints=checkpoints, callbacks=[Ending(1, crash)])
    assert_equal(again.weights, whole.weights)
    assert again.history == resumed.history


# --- when it goes wrong -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_changes_nothing_and_names_the_batch(trainer: str) -> None:
    task, batches = poisoned(at=2)
    stepper = stepper_of(trainer, replace(EVERYTHING, optimiser="adam"), task, 4 * batches.steps)
    first, second, batch, *_ = batches.epoch(0)
    stepper.step(first)
    stepper.step(second)
    before = stepper.state()
    with pytest.raises(DivergedError, match="Step 3, batch 3 of epoch 1: 6 values of its images are not numbers") as e:
        stepper.step(batch)
    assert isinstance(e.value, CheckError)
    assert_equal(stepper.state(), before)
    assert np.isfinite(stepper.step(Batch(batch.x[1:], batch.y[1:])))  # and it can go on


def test_statistics_are_those_before_a_loss_that_is_no_number(trainer: str) -> None:
    recipe = replace(SGD, batch_norm="train", learning_rate=10.0)
    task = small_task(recipe)
    weights = dict(task.weights) | {"logits.weight": np.full_like(task.weights["logits.weight"], 3e38)}
    stepper = stepper_of(trainer, recipe, replace(task, weights=weights))
    before = stepper.weights()
    with pytest.raises(DivergedError, match=r"Step 1, batch 1 of epoch 1: the loss is (nan|inf)\."):
        stepper.step(a_batch(task))
    assert_equal(stepper.weights(), before)


def test_a_training_that_diverges_gives_back_the_best_before_it(trainer: str) -> None:
    task, batches = poisoned(at=1)
    trained = get_trainer(trainer)(task, batches, None, SGD, device="cpu")
    assert trained.history.stopped.startswith("Step 2, batch 2 of epoch 1")
    assert (trained.history.best, trained.history.epochs, len(trained.history.losses)) == (-1, (), 1)
    assert_equal(trained.weights, dict(task.weights))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_task_that_cannot_be_is_refused(trainer: str) -> None:
    task = small_task()
    for rates, said in (
        ({"conv9": 1.0}, "no layer 'conv9'. Did you mean conv"),
        ({"logits": 0.0}, "Rate of node 'logits': expected a share above 0"),
        ({"logits": math.nan}, "expected a share above 0. Received: nan"),
        ({"act1": 1.0}, "Nothing of 'small_cnn' would be trained.*'logits'. Received: act1"),
        ({}, "Received: none"),
    ):
        with pytest.raises(UsageError, match=said):
            stepper_of(trainer, SGD, replace(task, rates=rates))
    with pytest.raises(UsageError, match="at least one step"):
        stepper_of(trainer, SGD, task, 0)
    with pytest.raises(UsageError, match=r"weights for small_cnn"):
        stepper_of(trainer, SGD, replace(task, weights={}))
    with pytest.raises(UsageError, match="no device 'gpu'"):
        get_stepper(trainer, task, SGD, 1, "gpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x[:, :10], y), r"\(N, 12, 12, 3\).*Received: uint8 \(8, 10, 12, 3\)"),
        (lambda x, y: (x, y[:7]), r"label of each of 8 images.*Received: int64 \(7,\)"),
        (lambda x, y: (x, y.astype(np.float32)), "Received: float32"),
        (lambda x, y: (x[:0], y[:0]), "at least one image"),
        (lambda x, y: (x, y + 1), "4 classes, so labels are from 0 to 3. Received: [01] to 4"),
        (lambda x, y: (x, y - 1), "Received: -1 to"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(trainer: str, change: Callable[..., Any], said: str) -> None:
    stepper = stepper_of(trainer, SGD)
    batch = a_batch(stepper.task)
    y = batch.y.copy()
    y[:2] = (0, 3)
    for deed in (stepper.step, lambda wrong: stepper.evaluate(iter([wrong]))):
        with pytest.raises(HeadstartError, match=said):
            deed(Batch(*change(batch.x, y)))


def test_rows_of_another_length_are_refused(trainer: str) -> None:
    task, batches = table_task()
    batch = next(batches.epoch(0))
    with pytest.raises(UsageError, match=r"floats of shape \(N, 6, 1, 1\). Received: float32 \(8, 5, 1, 1\)"):
        stepper_of(trainer, SGD, task).step(Batch(batch.x[:, :5], batch.y))


def test_batches_that_are_fewer_than_they_said_are_refused(trainer: str) -> None:
    x, y = pictures(12, 40)
    with pytest.raises(UsageError, match=r"Epoch 1 should have had 5 batches\. Received: 4"):
        get_trainer(trainer)(small_task(), Short(x, y, 8), None, SGD, device="cpu")
