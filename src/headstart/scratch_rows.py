"""Rows of numbers to a classifier of rows: the same trainers, a perceptron that starts from nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.small import mlp
from headstart.clock import Clock
from headstart.conducting import Conduct, Say
from headstart.data.folds import folds_of
from headstart.data.rows import PathLike, Rows, open_rows, rows_from_arrays
from headstart.data.split import hold_out
from headstart.errors import DataError
from headstart.learn.calibrate import fit_sharpness, sharpened
from headstart.learn.evaluate import evaluate
from headstart.planning import HOLDOUT, VALIDATION, check_settings
from headstart.row_classifier import RowClassifier, Scale, forward
from headstart.scratch import alone, check_recipe, check_shares, fingerprint
from headstart.train.base import Callback, Task
from headstart.train.batches import ArrayBatches
from headstart.train.initialise import initial_weights
from headstart.train.recipe import Recipe, open_recipe
from headstart.train.schedule import rates_by_layer
from headstart.types import Accuracy, Evaluation

TABLE = "table"  # the preset for rows
HIDDEN = (16,)
FEWEST = 4  # rows of a class, no two alike: two to train on, one to validate with, one to measure on

Progress = Callable[[str, int, int], None]  # stage, done, of how many
Mask = NDArray[np.bool_]


def train_rows(
    data: PathLike | Rows | NDArray[Any],
    labels: Iterable[object] | None = None,
    *,
    label: str | None = None,
    hidden: Sequence[int] = HIDDEN,
    recipe: str | Recipe = TABLE,
    trainer: str = "pytorch",
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
    find_rate: bool = False,
    holdout: float = HOLDOUT,
    validation: float = VALIDATION,
    folds: int = 0,
    seed: int = 0,
    folder: PathLike | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    say: Say | None = None,
) -> RowClassifier:
    """Train a perceptron on rows of numbers, and measure it on rows that it has not seen.

    Args:
        data: a CSV file, a named set ("iris", "wine", "breast_cancer"), or numbers (N, C) with ``labels``.
        label: the column that holds the labels; default: the one with a usual name, or the only one of text.
        hidden: units of the hidden layers, the lowest first; none make it one layer, which is softmax regression.
        others: as `scratch.train_photos` has them; columns are scaled by the mean and deviation of the part trained on.

    Raises:
        UsageError: a name or setting that is not there or out of range.
        DataError: a table that cannot be learned from; see `data.rows`.
        MissingExtraError: the trainer's framework is not installed, or the set's package.
    """
    check_settings("lda", "flat", holdout, seed)
    check_shares(validation, folds, devices * nodes)
    conduct = Conduct(
        trainer, device, devices, nodes, strategy, find_rate, folder, resume, callbacks, say or (lambda sentence: None)
    )
    conduct.check()
    chosen = open_recipe(recipe)
    check_recipe(chosen, norms=False)
    rows = _rows(data, labels, label)
    blueprint = mlp(len(rows.columns), hidden, len(rows.classes), dropout=chosen.dropout)
    job = _Job.of(rows, blueprint, chosen, validation, seed)

    clock = Clock()
    everything = np.ones(len(rows), bool)
    test = ~everything if folds or not holdout else job.held_out(everything, holdout)
    each: list[Accuracy] = []
    result: Evaluation | None = None
    if folds:
        with clock("folds"):
            each, result = _cross_validate(job, folds, conduct, progress)
    with clock("training"):
        model = job.train(everything & ~test, conduct)
    if test.any():
        strange = model.scale.beyond(rows.values[test])
        result = evaluate(model.predict_proba(rows.values[test]), job.y[test], rows.classes, strange)
    model.record.update(
        data=os.path.basename(rows.name),
        images=len(rows),
        result=None if result is None else asdict(result),
        accuracy=None if result is None else asdict(result.accuracy),
        test=0 if result is None else result.accuracy.images,
        folds=[asdict(accuracy) for accuracy in each],
        hidden=list(hidden),
        holdout=holdout,
        seed=seed,
        seconds=clock.seconds,
    )
    return model


@dataclass(frozen=True)
class _Job:
    """What all trainings of one call have in common."""

    rows: Rows
    y: NDArray[np.int_]
    keys: list[bytes]
    groups: NDArray[np.int_]  # rows that are alike stay together
    blueprint: Blueprint
    recipe: Recipe
    validation: float
    seed: int

    @classmethod
    def of(cls, rows: Rows, blueprint: Blueprint, recipe: Recipe, validation: float, seed: int) -> _Job:
        y = np.searchsorted(rows.classes, rows.labels)
        groups = np.unique(rows.values, axis=0, return_inverse=True)[1].ravel()
        for k, name in enumerate(rows.classes):
            if (count := len(np.unique(groups[y == k]))) < FEWEST:
                raise DataError(
                    f"'{rows.name}': class '{name}' has {count} row{'s' * (count != 1)} that are not alike. Expected "
                    f"{FEWEST} at least: to train on, to validate with and to measure on. Add rows, or leave it out."
                )
        keys = [row.tobytes() for row in rows.values]
        return cls(rows, y, keys, groups, blueprint, recipe, validation, seed)

    def held_out(self, among: Mask, share: float) -> Mask:
        """A share of every class among some rows."""
        at = np.flatnonzero(among)
        out = np.zeros(len(self.y), bool)
        out[at] = hold_out(
            self.y[at], [self.keys[row] for row in at.tolist()], self.groups[at], share, self.seed, least=1
        )
        return out

    def train(self, train: Mask, conduct: Conduct) -> RowClassifier:
        """A classifier, trained and calibrated on these rows."""
        steering = self.held_out(train, self.validation)
        moving = train & ~steering
        scale = Scale.of(self.rows.values[moving])
        x = scale(self.rows.values)[:, :, None, None]
        task = Task(
            self.blueprint,
            initial_weights(self.blueprint, self.recipe.initialisation, self.recipe.seed),
            rates_by_layer(self.blueprint, self.recipe),
        )
        size, seed = self.recipe.batch_size, self.recipe.seed
        batches = ArrayBatches(x[moving], self.y[moving], size, seed)
        validation = ArrayBatches(x[steering], self.y[steering], size, seed, shuffle=False)
        data = fingerprint(
            x[moving].tobytes(), x[steering].tobytes(), self.y[moving].tolist(), self.y[steering].tolist()
        )
        classes = self.rows.classes
        trained, recipe = conduct.train(task, batches, validation, self.recipe, data, len(classes))
        logits = forward(self.blueprint, trained.weights, x[steering][:, :, 0, 0])
        sharpness, _ = fit_sharpness(logits, self.y[steering])
        record = conduct.record(trained, recipe, task, int(steering.sum()), len(classes))
        record |= {
            "parts": {"train": int(moving.sum()), "validation": int(steering.sum())},
            "temperature": 1 / sharpness,
        }
        return RowClassifier(
            self.blueprint, sharpened(trained.weights, sharpness), scale, self.rows.columns, classes, record
        )


def _rows(data: PathLike | Rows | NDArray[Any], labels: Iterable[object] | None, label: str | None) -> Rows:
    if isinstance(data, Rows):
        return data
    if isinstance(data, str | os.PathLike):
        return open_rows(data, label)
    return rows_from_arrays(data, labels if labels is not None else ())


def _cross_validate(
    job: _Job, folds: int, conduct: Conduct, progress: Progress | None
) -> tuple[list[Accuracy], Evaluation]:
    """How each fold did, trained on the others, and all of them together."""
    rows = job.rows
    fold = folds_of(job.y, job.keys, job.groups, folds, job.seed, rows.classes)
    quiet = alone(conduct)
    probabilities, strange = np.zeros((len(rows), len(rows.classes))), np.zeros(len(rows), bool)
    each = []
    for number in range(folds):
        test = fold == number
        model = job.train(~test, quiet)
        probabilities[test], strange[test] = (
            model.predict_proba(rows.values[test]),
            model.scale.beyond(rows.values[test]),
        )
        right = probabilities[test].argmax(axis=1) == job.y[test]
        each.append(Accuracy.of(int(right.sum()), int(test.sum())))
        if progress:
            progress("folds", number + 1, folds)
    return each, evaluate(probabilities, job.y, rows.classes, strange)
