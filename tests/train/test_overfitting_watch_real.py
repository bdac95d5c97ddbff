"""The watch on trainings that really happen: it flags the one that overfits and is quiet on the healthy one."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.backbones.families.small import mlp
from headstart.core.types import ImageSpec
from headstart.train.batches import ArrayBatches
from headstart.train.callbacks import Watch
from headstart.train.initialisation import initial_weights
from headstart.train.overfitting_watch import Verdict, watch
from headstart.train.protocol import Task, Trained
from headstart.train.recipe import Recipe, preset
from headstart.train.schedule import rates_by_layer
from headstart.train.torch.plain_loop import train_pytorch
from trainers import one_thread, pictures

__all__ = ["one_thread"]  # a fixture

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
UNREGULARISED = replace(
    preset("scratch"),
    batch_size=32,
    learning_rate=3e-3,
    schedule="constant",
    weight_decay=0.0,
    dropout=0.0,
    label_smoothing=0.0,
    augmentation="none",
    clip=0.0,
    precision="fp32",
)


def train(some: Images, others: Images, recipe: Recipe, *, stop: bool = False) -> tuple[Trained, Verdict, list[str]]:
    """A perceptron on ``some``, validated on ``others``: what came of it, and what was said on the way."""
    (x, y), (val_x, val_y) = some, others
    size, classes = x.shape[1], int(val_y.max()) + 1
    blueprint = mlp(3, (64, 32), classes, size=size, dropout=0.3)
    task = Task(blueprint, initial_weights(blueprint), rates_by_layer(blueprint, recipe), ImageSpec(size))
    said: list[str] = []
    listener = Watch(said.append, images=len(val_y), classes=classes, stop=stop)
    validation = ArrayBatches(val_x, val_y, 100, shuffle=False)
    trained = train_pytorch(task, ArrayBatches(x, y, recipe.batch_size), validation, recipe, [listener], device="cpu")
    return trained, watch(trained.history.epochs, images=len(val_y), classes=classes), said


def few_and_noisy() -> tuple[Images, Images]:
    """Pictures of which more can be known by heart than understood, and others."""
    return pictures(12, 64, seed=1, noise=600), pictures(12, 300, seed=2, noise=600)


def test_few_pictures_and_no_regularisation_overfit() -> None:
    recipe = replace(UNREGULARISED, epochs=30)
    trained, verdict, said = train(*few_and_noisy(), recipe)
    first, last = trained.history.epochs[0], trained.history.epochs[-1]
    assert last.train_error < first.train_error
    assert verdict.kind == "overfitting"
    assert verdict.since is not None
    assert [sentence.startswith("Overfitting since epoch") for sentence in said] == [True]
    best = trained.history.epochs[trained.history.best]
    lowest = min(epoch.val_loss for epoch in trained.history.epochs)
    assert best.val_loss < 1.02 * lowest < last.val_loss / 1.1  # what was kept is from before


def test_a_recipe_may_let_it_end_the_training() -> None:
    recipe = replace(UNREGULARISED, epochs=30)
    trained, _, said = train(*few_and_noisy(), recipe, stop=True)
    assert len(trained.history.epochs) < 30
    assert [trained.history.stopped] == said


def test_many_pictures_and_some_regularisation_do_not() -> None:
    recipe = replace(preset("scratch"), epochs=12, batch_size=32, augmentation="none", precision="fp32")
    trained, verdict, said = train(pictures(12, 400, seed=1), pictures(12, 200, seed=2), recipe)
    assert trained.history.epochs[-1].val_error < 0.05
    assert (verdict.kind, said) == ("healthy", [])


def photos(shared: Path, rows: range) -> Images:
    """Of CIFAR-10, 32 pixels."""
    table = hs.open_source(str(shared / "data" / "cifar10"))
    pixels = [np.asarray(Image.open(io.BytesIO(bytes(table.read(row)))).convert("RGB")) for row in rows]
    return np.stack(pixels), np.array([table.classes.index(table.samples[row].label) for row in rows])


def test_few_real_photos_and_no_regularisation_overfit(shared: Path) -> None:
    recipe = replace(UNREGULARISED, epochs=16)
    _, verdict, said = train(photos(shared, range(240)), photos(shared, range(1000, 1400)), recipe)
    assert verdict.kind == "overfitting", verdict.sentence
    assert [sentence.startswith("Overfitting since epoch") for sentence in said] == [True]


def test_more_of_them_and_some_regularisation_do_not(shared: Path) -> None:
    recipe = replace(
        UNREGULARISED, epochs=8, learning_rate=5e-4, schedule="cosine", weight_decay=0.1, dropout=0.5, averaging="ema"
    )
    trained, verdict, said = train(photos(shared, range(600)), photos(shared, range(1000, 1400)), recipe)
    assert (verdict.kind, said) == ("healthy", []), verdict.sentence
    assert trained.history.epochs[-1].train_error < trained.history.epochs[0].train_error
