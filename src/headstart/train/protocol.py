"""What the four trainers share: a task, its batches, and the history of the training.

All random numbers are drawn from (seed, epoch, step), never from a generator with a state: so a resumed training
continues exactly where it was, and all trainers get the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.backbones.ops import Shape
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines.names import framework_of
from headstart.engines.protocol import check_images

Array = NDArray[Any]
Weights = Mapping[str, NDArray[Any]]
FRAMEWORKS = {"pytorch": "torch", "lightning": "torch", "tensorflow": "keras", "keras": "keras"}  # trainer -> its own
TRAINERS = (*FRAMEWORKS,)


@dataclass(frozen=True, eq=False)
class Task:
    """A network, its weights at the start, and what of it is trained."""

    blueprint: Blueprint  # its last node gives logits, (N, classes)
    weights: Weights  # at the start
    rates: Mapping[str, float]  # node -> its share of the learning rate; nodes that are not named stay as they are
    spec: ImageSpec | None = None  # of pixels that the network normalises itself; None: batches are what `input` takes
    module: object | None = None  # the live module that the blueprint refers to, if it does

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every node for one image."""
        return self.blueprint.shapes(self.spec.size if self.spec else None)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.shapes[self.blueprint.layers[-1]][0]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images with their labels."""

    x: Array  # NHWC pixels, uint8 or floats in [0, 1], where the task has a spec; else float32 of the input's shape
    y: NDArray[np.int64]  # (N,)


class Batches(Protocol):
    """Batches of images, in the order of the training."""

    images: int  # in one epoch
    steps: int  # batches in one epoch

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the step ``start`` on: the same in each call."""
        ...


class ValidationResult(NamedTuple):
    """How well a network does on images that it is not trained on."""

    loss: float  # mean cross-entropy in nats, without label smoothing
    error: float  # share of wrong predictions
    calibrated: float  # the loss at the temperature that `fit_inverse_temperature` gives these images (Guo et al. 2017)


@dataclass(frozen=True)
class Epoch:
    """How one epoch went. Losses are means of the cross-entropy in nats, without label smoothing; errors are shares."""

    number: int  # from 0
    train_loss: float  # mean over the batches of the epoch, before each step
    train_error: float
    val_loss: float  # after the epoch, in evaluation mode, of the weights that would be kept
    val_error: float
    learning_rate: float  # at its end
    seconds: float
    val_calibrated: float = math.nan  # the validation loss as `ValidationResult` has it


@dataclass(frozen=True)
class History:
    """How a training went."""

    trainer: str
    epochs: tuple[Epoch, ...]
    losses: tuple[float, ...]  # before every step; with label smoothing
    best: int  # the epoch whose weights were kept; -1: the starting weights
    stopped: str  # why it ended before its last epoch, in words, or ""
    start: float = math.nan  # the calibrated validation loss before the first step


@dataclass(frozen=True, eq=False)
class Trained:
    """The weights that were kept, and how it went."""

    weights: dict[str, NDArray[np.float32]]
    history: History
    last: dict[str, NDArray[np.float32]] | None = None  # those after the last epoch; None if it diverged


class Callback(Protocol):
    """Called after every step and epoch; a sentence that it returns ends the training, as the reason."""

    def step(self, number: int, of: int, loss: float) -> str | None:
        """After a step, counted through the epochs."""
        ...

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """After an epoch."""
        ...


def check_task(task: Task) -> None:
    """Refuse a task in which nothing can be trained, or that names a node that is not there."""
    for name, share in task.rates.items():
        if not 0 < share < math.inf:
            raise UsageError(f"Rate of node '{name}': expected a share above 0. Received: {share!r}.")
        task.blueprint[name]  # which refuses an unknown one, with the nearest
    if not task.rates.keys() & task.blueprint.parameters().keys():
        raise UsageError(
            f"Nothing of '{task.blueprint.name}' would be trained: expected a rate for a node with weights, such as "
            f"'{task.blueprint.layers[-1]}'. Received: {', '.join(task.rates) or 'none'}."
        )


def check_framework(blueprint: Blueprint, framework: str) -> None:
    """Refuse a network that another framework alone can run, and so train."""
    if (needed := framework_of(blueprint.source)) in ("", framework):
        return
    kind = {"torch": "PyTorch module", "keras": "Keras model"}[needed]
    named = {each: [name for name, of in FRAMEWORKS.items() if of == each] for each in (needed, framework)}
    raise UsageError(
        f"'{blueprint.source}' is a {kind}: expected the trainer {' or '.join(named[needed])}. "
        f"Received: {' or '.join(named[framework])}. With any other trainer only the head can be trained: a recipe "
        'with "unfreeze": "head"'
    )


def check_batch(task: Task, batch: Batch) -> None:
    """Refuse images that the network does not take, and labels that are not its classes."""
    shapes = task.shapes
    shape, classes = shapes[INPUT], shapes[task.blueprint.layers[-1]][0]
    if task.spec:
        check_images(batch.x, task.spec.size)
    elif batch.x.shape[1:] != shape or batch.x.dtype.kind != "f":
        raise UsageError(
            f"'{task.blueprint.name}' takes floats of shape (N, {', '.join(map(str, shape))}). "
            f"Received: {batch.x.dtype} {batch.x.shape}."
        )
    if batch.y.shape != batch.x.shape[:1] or batch.y.dtype.kind not in "iu" or not len(batch.y):
        raise UsageError(
            f"Expected a whole number as the label of each of {counted(len(batch.x), 'image')}, and at least one "
            f"image. Received: {batch.y.dtype} {batch.y.shape}."
        )
    if not 0 <= batch.y.min() <= batch.y.max() < classes:
        raise UsageError(
            f"'{task.blueprint.name}' has {counted(classes, 'class')}, so labels are from 0 to {classes - 1}. "
            f"Received: {batch.y.min()} to {batch.y.max()}."
        )
