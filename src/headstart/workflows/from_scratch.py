"""What trainings from random weights have in common, on images and on tables: checks, and cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.core.arguments import PROGRESS, SEED, Rule, several, share, whole
from headstart.core.errors import UsageError
from headstart.core.progress import Progress
from headstart.core.types import Accuracy, Evaluation, ImageSpec
from headstart.data.split import HELD_OUT, HOLDOUT, VALIDATION
from headstart.engines.protocol import Weights, fitting
from headstart.learn.evaluate import accuracy_of, evaluate
from headstart.model.classifier import Classifier
from headstart.model.tabular_classifier import TabularClassifier
from headstart.train.initialisation import initial_weights
from headstart.train.protocol import Task
from headstart.train.recipe import RECIPE, Recipe
from headstart.train.schedule import rates_by_layer
from headstart.train.training_run import TRAINER, TrainingRun

Mask = NDArray[np.bool_]
CrossValidated = tuple[tuple[Accuracy, ...], Evaluation]
# of the rows left out: probabilities (T, K), and how much more typical than the threshold each is (T,)
Judged = tuple[NDArray[np.float64], NDArray[np.float64]]
MOST_UNITS = 65_536  # of a hidden layer


def _folds(value: object) -> int:
    return 0 if value == 0 else int(whole(2, 1000).take(value))


RULES = {  # of the arguments that `train_photos` and `train_rows` share
    "hidden": several(whole(1, MOST_UNITS), f"units of each hidden layer, 1 to {MOST_UNITS}, as in [64, 32] or []"),
    "recipe": RECIPE,
    "trainer": TRAINER,
    "holdout": HELD_OUT,
    "validation": share(0, 0.5, above=True),
    "folds": Rule("2 to 1000, or 0 for none", _folds),
    "seed": SEED,
    "progress": PROGRESS,
}


@dataclass(frozen=True)
class ScratchSettings:
    """How the data is divided: see `train_photos`."""

    holdout: float = HOLDOUT
    validation: float = VALIDATION
    folds: int = 0
    seed: int = 0

    @classmethod
    def of(
        cls,
        holdout: float | None,
        validation: float,
        folds: int,
        seed: int | None,
        start: Classifier | TabularClassifier | None,
    ) -> ScratchSettings:
        """What was said, else as in the training before, else the default."""
        share, number = (HOLDOUT, 0) if start is None else (start.record.holdout, start.record.seed)
        return cls(share if holdout is None else holdout, validation, folds, number if seed is None else seed)

    def check(self, run: TrainingRun) -> None:
        """Refuse what can be known to be wrong before any data is looked at."""
        if self.folds and run.devices * run.nodes > 1:
            raise UsageError("--folds trains on one device, for the folds are many. Leave --devices and --nodes out.")


def check_recipe(recipe: Recipe, *, norms: bool) -> None:
    """Refuse a recipe that would leave a part of the network as chance made it."""
    begin = 'Recipes of your own are best begun with: {"preset": "scratch"}'
    if recipe.unfreeze != "all":
        raise UsageError(
            f"Recipe, unfreeze: a training from random weights trains all of the network. Expected 'all'. "
            f"Received: {recipe.unfreeze!r}. {begin}"
        )
    if norms and recipe.batch_norm != "train":
        raise UsageError(
            f"Recipe, batch_norm: a network with random weights has no statistics to keep. Expected 'train'. "
            f"Received: {recipe.batch_norm!r}. {begin}"
        )


def whole_task(
    blueprint: Blueprint, recipe: Recipe, spec: ImageSpec | None = None, start: Weights | None = None
) -> Task:
    """All of a network, to be trained from random weights, or from those it has from a training before."""
    if start is None:
        weights = initial_weights(blueprint, recipe.initialisation, recipe.seed)
    else:
        weights = fitting(start, blueprint)
    return Task(blueprint, weights, rates_by_layer(blueprint, recipe), spec)


def cross_validate(
    fold: NDArray[np.int_],
    labels: NDArray[np.int_],
    groups: NDArray[np.int_],
    classes: tuple[str, ...],
    train: Callable[[Mask, Mask], Judged],
    progress: Progress | None,
) -> CrossValidated:
    """The accuracy of each fold, by a model that was trained on the others, and how all of them did together.

    Args:
        fold: (N,) from 0; -1 for what is in none.
        groups: (N,) of what is alike, as for `accuracy_of`.
        train: given the rows to train on and those to measure on.
    """
    rows = fold >= 0
    probabilities, margin = np.zeros((len(fold), len(classes))), np.zeros(len(fold))
    each = []
    count = int(fold.max()) + 1
    for number in range(count):
        test = fold == number
        probabilities[test], margin[test] = train(rows & ~test, test)
        right = probabilities[test].argmax(axis=1) == labels[test]
        each.append(accuracy_of(right, groups[test]))
        if progress:
            progress("folds", number + 1, count)
    return tuple(each), evaluate(probabilities[rows], labels[rows], classes, margin[rows], groups[rows])
