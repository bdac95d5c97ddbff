"""Where the training tricks are tried: three small labs on real photos, and one training in one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import shared
from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.backbones.builder import Builder
from headstart.backbones.catalogue import DEFAULT, find_backbone, load_pretrained
from headstart.backbones.families.small import mlp, small_cnn
from headstart.core.types import ImageDataset, ImageSpec, Sample
from headstart.data.augment import augment
from headstart.data.named_sets import NAMED
from headstart.data.sources import open_source
from headstart.engines.fast import FastNetwork
from headstart.engines.registry import torch_engine
from headstart.learn.heads import fit_head
from headstart.train.batches import ArrayBatches, PhotoBatches
from headstart.train.initialisation import STD, initial_weights
from headstart.train.learning_rate_finder import find_learning_rate
from headstart.train.overfitting_watch import watch
from headstart.train.protocol import Batches, History, Task, Trained
from headstart.train.recipe import Recipe
from headstart.train.schedule import rates_by_layer

PARTS = ("train", "val", "test")
SPLIT, WRONG = 0, 1  # what is drawn


@dataclass(frozen=True)
class Lab:
    """A data set, and how many of its photos are used."""

    data: str
    spec: ImageSpec  # of the network's pixels
    each: tuple[int, int, int]  # images of a class to train on, to choose by, and to test on; at most
    reach: float  # training loss, nats: the steps until it is reached are counted


LABS = {
    "digits": Lab("mnist", ImageSpec(28, (0.13,) * 3, (0.31,) * 3, 1.0), (100, 50, 300), 0.2),
    "photos": Lab("cifar10", ImageSpec(32, (0.49, 0.48, 0.45), (0.25,) * 3, 1.0), (100, 50, 200), 1.0),
    "leaves": Lab("apple_leaves", replace(find_backbone(DEFAULT).spec, size=64), (40, 30, 100), 0.1),
    "cells": Lab("elpv", replace(find_backbone(DEFAULT).spec, size=64), (50, 75, 200), 0.1),
}
PRETRAINED = ("leaves", "cells")  # the others start from nothing
QUICK = (8, 4, 8)  # images of a class, to see that it runs


@dataclass(frozen=True)
class Setting:
    """One way to train in a lab."""

    lab: str  # a key of `LABS`
    recipe: Recipe
    network: str = ""  # "deep" or "plain", in place of the lab's own
    pixels: str = "standardised"  # or "0 to 1", "0 to 255": what the network's first layer sees
    spread: float = STD  # of the initialisations "normal" and "uniform"
    each: int = 0  # images of a class to train on; 0: the lab's
    wrong: float = 0.0  # share of the training labels that are wrong
    keep: str = "last"  # which weights: "best" has the lowest validation loss, "start" is before the first step
    cached: bool = False  # the recipe's `views` are made once, instead of a fresh view in each epoch
    quick: bool = False

    def but(self, **changes: Any) -> Setting:
        """Another setting: fields of the recipe, or of this."""
        own = {field.name for field in fields(Setting)}
        recipe = replace(self.recipe, **{name: value for name, value in changes.items() if name not in own})
        return replace(self, recipe=recipe, **{name: value for name, value in changes.items() if name in own})


@dataclass(frozen=True)
class Outcome:
    """What came of one training. Errors are shares, losses nats; all in evaluation mode, of the weights kept."""

    train_error: float
    train_loss: float
    val_error: float
    val_loss: float
    test_error: float
    test_loss: float
    epochs: int  # that were trained
    reached: int  # steps until the training loss, as a mean of as many as an epoch has, was the lab's `reach`; 0: never
    stopped: str
    curve: list[dict[str, float]]  # its epochs, where it was validated on the way
    verdict: str  # of the watch, likewise


def train(setting: Setting, seed: int) -> Outcome:
    """One training, and what it came to."""
    torch_engine()  # first, which imports PyTorch in the order that does no harm
    import torch

    from headstart.train.torch.plain_loop import train_pytorch
    from headstart.train.torch.stepper import TorchStepper

    torch.set_num_threads(1)
    recipe = replace(setting.recipe, seed=seed)
    task, table, rows = _prepared(setting, seed)
    measured = _measured(setting)
    batches = _batches(setting, recipe, table, rows)
    validation = measured["val"] if setting.keep == "best" else None
    if setting.keep == "start":
        trained = Trained(dict(task.weights), History("", (), (), -1, ""))
    else:
        trained = train_pytorch(task, batches, validation, recipe, device="cpu")
    history = trained.history
    last = TorchStepper(replace(task, weights=trained.weights), replace(recipe, averaging="none"), 1, "cpu")
    seen = PhotoBatches(table, rows, LABS[setting.lab].spec, replace(recipe, batch_size=100), train=False)
    parts = {"train": seen, **measured}
    found = {part: last.evaluate(parts[part].epoch(0)) for part in PARTS}
    below = np.flatnonzero(_means(history.losses, batches.steps) <= LABS[setting.lab].reach)
    return Outcome(
        **{f"{part}_error": found[part][1] for part in PARTS},
        **{f"{part}_loss": found[part][0] for part in PARTS},
        epochs=len(history.epochs),
        reached=int(below[0]) + batches.steps if len(below) else 0,
        stopped=history.stopped,
        curve=[asdict(epoch) for epoch in history.epochs] if validation else [],
        verdict=_verdict(history, validation.images, len(table.classes)) if validation else "",
    )


def _means(losses: Sequence[float], steps: int) -> NDArray[np.float64]:
    """Of so many steps each."""
    return np.convolve(losses, np.ones(steps) / steps, "valid") if len(losses) >= steps else np.zeros(0)


def _verdict(history: History, images: int, classes: int) -> str:
    return watch(history.epochs, images=images, classes=classes).sentence


def proposed_rate(setting: Setting, seed: int) -> float | None:
    """What the learning-rate finder says."""
    torch_engine()
    from headstart.train.torch.stepper import TorchStepper

    task, table, rows = _prepared(setting, seed)
    batches = _batches(setting, setting.recipe, table, rows)
    stepper = TorchStepper(task, setting.recipe, setting.recipe.epochs * batches.steps, "cpu")
    return find_learning_rate(stepper, batches).suggestion


def _prepared(setting: Setting, seed: int) -> tuple[Task, ImageDataset, list[int]]:
    """The task, and the photos to train on."""
    table, parts = _photos(setting.lab, setting.quick)
    rows = _first_of_each(table, parts["train"], setting.each)
    if setting.wrong:
        table = _mislabelled(table, rows, setting.wrong)
    lab, classes = LABS[setting.lab], len(table.classes)
    if setting.lab in PRETRAINED:
        blueprint, weights = _with_closed_head(lab.spec, table, rows)
    else:
        blueprint = _network(setting.lab, setting.network, classes)
        weights = initial_weights(blueprint, setting.recipe.initialisation, seed, std=setting.spread)
    spec = {
        "standardised": lab.spec,
        "0 to 1": replace(lab.spec, mean=(0.0,) * 3, std=(1.0,) * 3),
        "0 to 255": replace(lab.spec, mean=(0.0,) * 3, std=(1 / 255,) * 3),
    }[setting.pixels]
    return Task(blueprint, weights, rates_by_layer(blueprint, setting.recipe), spec), table, rows


def _batches(setting: Setting, recipe: Recipe, table: ImageDataset, rows: Sequence[int]) -> Batches:
    spec = LABS[setting.lab].spec
    fresh = PhotoBatches(table, rows, spec, recipe)
    if not setting.cached:
        return fresh
    plain = PhotoBatches(table, rows, spec, replace(recipe, augmentation="none", batch_size=len(rows)), train=False)
    (batch,) = plain.epoch(0)
    rng = np.random.default_rng(recipe.seed)
    views = [[augment(image, rng, recipe.augmentation) for image in batch.x] for _ in range(recipe.views)]
    return ArrayBatches(np.array(views), batch.y, recipe.batch_size, recipe.seed, views=True)


def _measured(setting: Setting) -> dict[str, PhotoBatches]:
    """The photos to choose by and those to test on, as they are."""
    table, parts = _photos(setting.lab, setting.quick)
    recipe = replace(setting.recipe, batch_size=100)
    return {
        part: PhotoBatches(table, parts[part], LABS[setting.lab].spec, recipe, train=False) for part in ("val", "test")
    }


@cache
def _photos(lab: str, quick: bool) -> tuple[ImageDataset, dict[str, list[int]]]:
    """The table of a lab's photos in memory, and which of them are for what: the same in every training."""
    data, each = LABS[lab].data, QUICK if quick else LABS[lab].each
    source = open_source(data if data in NAMED else shared("data", data))
    labels = np.array([sample.label for sample in source.samples])
    rng = np.random.default_rng(SPLIT)
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    chosen: list[int] = []
    for name in source.classes:
        some = iter(rng.permutation(np.flatnonzero(labels == name)).tolist())
        for part, count in zip(PARTS, each, strict=True):
            for row in (row for row, _ in zip(some, range(count), strict=False)):
                parts[part].append(len(chosen))
                chosen.append(row)
    raw = [source.read(row) for row in chosen]
    return ImageDataset(lab, [source.samples[row] for row in chosen], raw.__getitem__), parts


def _first_of_each(table: ImageDataset, rows: Sequence[int], each: int) -> list[int]:
    """So many rows of each class."""
    labels = np.array([table.samples[row].label for row in rows])
    places = [np.flatnonzero(labels == name)[: each or None] for name in table.classes]
    return [rows[place] for place in np.concatenate(places).tolist()]


def _mislabelled(table: ImageDataset, rows: Sequence[int], share: float) -> ImageDataset:
    """Some of the rows get the label of another class."""
    rng = np.random.default_rng(WRONG)
    samples = list(table.samples)
    for row in rng.permutation(rows)[: round(share * len(rows))].tolist():
        others = [name for name in table.classes if name != samples[row].label]
        samples[row] = Sample(samples[row].name, str(rng.choice(others)))
    return ImageDataset(table.root, samples, table.read)


def _network(lab: str, kind: str, classes: int) -> Blueprint:
    if lab == "digits":
        hidden = (64,) * 10 if kind == "deep" else (256, 128)
        return mlp(3, hidden, classes, size=28, dropout=0.0 if kind == "deep" else 0.5)
    return _without_norms(classes) if kind == "plain" else small_cnn(32, classes, widths=(16, 32, 64))


def _without_norms(classes: int) -> Blueprint:
    """As the small CNN, with biases in place of batch norms."""
    b, x = Builder(), "input"
    for place, width in enumerate((16, 32, 64), 1):
        x = b.act(b.conv(x, f"conv{place}", width, 3, padding=1, bias=True), f"act{place}", "relu")
        x = b.max_pool(x, f"pool{place}", 2, 2)
    b.classifier(x, classes, 0.5)
    return b.build("plain_cnn", 32)


def _with_closed_head(
    spec: ImageSpec, table: ImageDataset, rows: Sequence[int]
) -> tuple[Blueprint, dict[str, NDArray[np.float32]]]:
    """The pretrained trunk with the head that a fit gives it: where fine-tuning begins."""
    trunk = load_pretrained(DEFAULT, pixels=spec.size, head=False)
    batches = PhotoBatches(table, rows, spec, Recipe(batch_size=len(rows)), train=False)
    (batch,) = batches.epoch(0)
    network = FastNetwork(trunk.blueprint, trunk.weights, spec, "fp32")
    head = fit_head(network.forward(batch.x, "features"), batch.y, len(table.classes), sqrt=True).head
    weights = trunk.weights | {f"{LOGITS}.weight": head.weight, f"{LOGITS}.bias": head.bias}
    return trunk.blueprint.with_head(len(table.classes), sqrt=True), weights
