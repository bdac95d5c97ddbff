"""Small tasks that every trainer is held against, and a plain loop as PyTorch's own guide has it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.inverted import mobilenet_v2
from headstart.backbones.families.small import mlp, small_cnn
from headstart.core.types import ImageSpec
from headstart.engines.torch.network import to_module
from headstart.train.batches import ArrayBatches
from headstart.train.callbacks import BaseCallback
from headstart.train.initialisation import initial_weights
from headstart.train.protocol import Batch, Epoch, History, Task
from headstart.train.recipe import Recipe
from headstart.train.schedule import rates_by_layer
from headstart.train.torch.plain_loop import train_pytorch

CLASSES = 4
# so plain that frameworks have no choice in anything
SGD = Recipe(
    epochs=4,
    batch_size=8,
    optimiser="sgd",
    learning_rate=0.03,
    schedule="constant",
    warm_up=0.0,
    layer_decay=1.0,
    weight_decay=0.0,
    dropout=0.0,
    augmentation="none",
    clip=0.0,
    patience=0,
    averaging="none",
    precision="fp32",
    unfreeze="all",
)
EVERYTHING = replace(
    SGD,
    learning_rate=0.01,
    schedule="cosine",
    warm_up=0.2,
    layer_decay=0.5,
    weight_decay=0.1,
    dropout=0.3,
    label_smoothing=0.1,
    clip=0.5,
    averaging="ema",
)
STEPS = 20  # of four epochs
MEASURED = (
    "number",
    "train_loss",
    "train_error",
    "val_loss",
    "val_error",
    "learning_rate",
    "val_calibrated",
)  # of an epoch


def pictures(size: int, images: int, seed: int = 0, noise: float = 60.0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy pictures of as many patterns as there are classes, with their labels."""
    patterns = np.random.default_rng(17).uniform(40, 215, (CLASSES, size, size, 3))
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES, images)
    x = patterns[y] + noise * generator.standard_normal((images, size, size, 3))
    return np.clip(x, 0, 255).astype(np.uint8), y


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """What is so small takes many times longer on several, where they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batches_of(
    task: Task, images: int = 40, batch_size: int = 8, seed: int = 0, *, shuffle: bool = True
) -> ArrayBatches:
    assert task.spec is not None
    x, y = pictures(task.spec.size, images, seed)
    return ArrayBatches(x, y, batch_size, seed, shuffle=shuffle)


def task_of(blueprint: Blueprint, recipe: Recipe, seed: int = 0) -> Task:
    """From starting weights, with statistics of batch norm that are no mere zeros and ones."""
    generator = np.random.default_rng(seed)
    weights = dict(initial_weights(blueprint, "he", seed))
    for name, array in weights.items():
        if name.endswith((".mean", ".var")):
            weights[name] = (array + generator.uniform(0, 0.2, array.shape)).astype(np.float32)
    spec = ImageSpec(blueprint.size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return Task(blueprint, weights, rates_by_layer(blueprint, recipe), spec)


def small_task(recipe: Recipe = SGD) -> Task:
    """Two convolutions with batch norm, dropout and a dense layer, on pictures of 12 pixels."""
    return task_of(small_cnn(12, CLASSES, widths=(6, 8)), recipe)


def mobilenet_task(recipe: Recipe = SGD) -> Task:
    """All 53 layers of MobileNetV2, on pictures of 32 pixels.

    Its norms give a little less than what comes in: where gradients grow from layer to layer, a value that rounding
    puts on the other side of a ReLU's kink ends as another curve, in fp32 and fp64 alike.
    """
    task = task_of(mobilenet_v2(size=32, classes=CLASSES, width=0.35), recipe, seed=3)
    gains = {f"{node.name}.weight" for node in task.blueprint.nodes if node.op == "norm"}
    weights = {name: array * np.float32(0.85 if name in gains else 1) for name, array in task.weights.items()}
    return replace(task, weights=weights)


def table_task(recipe: Recipe = SGD) -> tuple[Task, ArrayBatches]:
    """A perceptron on rows of 6 numbers, which nothing normalises, with its batches."""
    generator = np.random.default_rng(3)
    blueprint = mlp(6, (16,), CLASSES, dropout=0.1)
    y = generator.integers(0, CLASSES, 60)
    x = (np.eye(CLASSES, 6)[y] * 2 + 0.5 * generator.standard_normal((60, 6))).astype(np.float32)
    task = Task(blueprint, initial_weights(blueprint, "he", 0), rates_by_layer(blueprint, recipe))
    return task, ArrayBatches(x[:, :, None, None], y, recipe.batch_size, 0)


def plain_loop(task: Task, batches: ArrayBatches, recipe: Recipe) -> tuple[list[float], dict[str, NDArray[Any]]]:
    """Losses and final weights of an ordinary loop with plain SGD: no groups, no folding, no channels last."""
    assert task.spec is not None
    module = to_module(task.blueprint, task.weights, task.spec)
    optimiser = torch.optim.SGD(module.parameters(), recipe.learning_rate)
    losses = []
    for epoch in range(recipe.epochs):
        for batch in batches.epoch(epoch):
            loss = torch.nn.functional.cross_entropy(module(torch.tensor(batch.x)), torch.tensor(batch.y))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    state = module.state_dict()
    return losses, {name: state[key].numpy() for name, key in module.keys.items()}


def furthest(weights: dict[str, Any], expected: dict[str, Any]) -> float:
    """The greatest difference between two sets of weights, which have the same names."""
    assert weights.keys() == expected.keys()
    return max(float(np.abs(weights[name] - expected[name]).max()) for name in expected)


def assert_equal(weights: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit by bit."""
    assert weights.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


class Listener(BaseCallback):
    """Remembers what it was told, and ends the training after so many steps or epochs."""

    def __init__(self, steps: int = 0, epochs: int = 0) -> None:
        self.steps: list[tuple[int, int, float]] = []
        self.epochs: list[Epoch] = []
        self._end = (steps, epochs)

    def step(self, number: int, of: int, loss: float) -> str | None:
        self.steps.append((number, of, loss))
        return "Enough steps." if len(self.steps) == self._end[0] else None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        self.epochs = list(history)
        return "Enough epochs." if len(history) == self._end[1] else None


# --- what befalls a training ------------------------------------------------------------------------------------------


class Ending(Listener):
    """Does something after so many steps: ends the process, or the training by an error."""

    def __init__(self, after: int, deed: Callable[[], None]) -> None:
        super().__init__()
        self.after, self.deed = after, deed

    def step(self, number: int, of: int, loss: float) -> str | None:
        if number + 1 == self.after:
            self.deed()
        return super().step(number, of, loss)


def crash() -> None:
    raise RuntimeError("out of power")


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Short(ArrayBatches):
    """An epoch is a batch shorter than it says."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        yield from list(super().epoch(number, start))[:-1]


def poisoned(at: int) -> tuple[Task, ArrayBatches]:
    """Rows in batches of eight, one of which is no number."""
    task, batches = table_task()
    x, y = (np.concatenate(parts) for parts in zip(*((each.x, each.y) for each in batches.epoch(0)), strict=True))
    x[8 * at] = np.inf
    return task, ArrayBatches(x, y, 8, shuffle=False)


def learned() -> Task:
    """A network that knows something already."""
    task = small_task()
    trained = train_pytorch(task, batches_of(task), None, replace(SGD, epochs=60, learning_rate=0.1), device="cpu")
    return replace(task, weights=trained.weights)


def a_batch(task: Task, images: int = 8) -> Batch:
    return next(batches_of(task, images, images).epoch(0))


def timeless(history: History) -> dict[str, Any]:
    """All of it but how long it took, and who trained."""
    return asdict(replace(history, trainer="", epochs=tuple(replace(epoch, seconds=0) for epoch in history.epochs)))
