"""Rows of numbers to a tabular classifier: the same trainers, a perceptron that starts from random weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.small import mlp
from headstart.backbones.weights import weights_digest
from headstart.core.arguments import TEXT, checks
from headstart.core.counts import counted, verb
from headstart.core.errors import DataError, UsageError
from headstart.core.progress import Progress, Shown, function_of
from headstart.core.timing import StageTimer
from headstart.core.types import Accuracy, Evaluation
from headstart.data.folds import folds_of
from headstart.data.frames import is_frame
from headstart.data.hold_out import hold_out
from headstart.data.mistaken import why_no_rows
from headstart.data.rows import PathLike, Rows, open_rows, rows_with_labels
from headstart.data.split import VALIDATION
from headstart.learn.calibrate import fit_inverse_temperature, with_scaled_logits
from headstart.learn.evaluate import evaluate
from headstart.model.given import rows_model
from headstart.model.records import PartCounts, TabularRecord
from headstart.model.tabular_classifier import Scale, TabularClassifier, forward
from headstart.train.batches import ArrayBatches
from headstart.train.identity import digest_of_all, fingerprint
from headstart.train.recipe import Recipe, open_recipe
from headstart.train.screen import on_screen, shows_training
from headstart.train.training_run import TrainingRun
from headstart.workflows.earlier_training import check_classes, check_nothing_else, epochs_of
from headstart.workflows.from_scratch import (
    RULES,
    CrossValidated,
    Judged,
    Mask,
    ScratchSettings,
    check_recipe,
    cross_validate,
    whole_task,
)

TABLE = "table"  # the preset for rows
HIDDEN = (16,)
FEWEST = 4  # rows of a class, no two alike: two to train on, one to validate with, one to measure on


@checks(label=TEXT, **RULES)
@shows_training
def train_rows(
    data: PathLike | Rows | Any,
    labels: Iterable[object] | None = None,
    *,
    label: str | None = None,
    hidden: Sequence[int] | None = None,
    start: TabularClassifier | PathLike | None = None,
    recipe: str | PathLike | Mapping[str, Any] | Recipe = TABLE,
    trainer: str | TrainingRun = "pytorch",
    holdout: float | None = None,
    validation: float = VALIDATION,
    folds: int = 0,
    seed: int | None = None,
    progress: Shown = True,
) -> TabularClassifier:
    """Train a perceptron on rows of numbers, and measure it on rows that it has not seen.

    Args:
        data: a CSV file, a named set ("iris", "wine", "breast_cancer"), a table (a DataFrame, one of Arrow, a data set
            of Hugging Face) with its column of labels, or numbers (N, C) with ``labels``.
        label: the column that holds the labels; default: the one with a usual name, or the only one of text.
        hidden: units of the hidden layers, the lowest first; none make it one layer, which is softmax regression.
            Default: `HIDDEN`.
        start: a classifier that this function gave, or the path of one, whose network goes on from its weights. It
            does not keep the rows that it was trained on: give the same ones, which are split as they were.
        others: as `train_photos` has them; columns are scaled by the mean and deviation of the part trained on.

    Raises:
        UsageError: a name or setting that is not there or out of range.
        DataError: a table that cannot be learned from; see `data.rows`.
        MissingExtraError: the trainer's framework is not installed, or the set's package.
    """
    chosen = open_recipe(recipe)
    start = None if start is None else rows_model(start, "--from")
    run = TrainingRun.of(on_screen(trainer, progress, chosen.epochs))
    check_nothing_else(start, folds, hidden=hidden)
    settings = ScratchSettings.of(holdout, validation, folds, seed, start)
    settings.check(run)
    check_recipe(chosen, norms=False)
    rows = _rows(data, labels, label)
    for sentence in rows.not_used:
        run.say(f"{sentence[0].upper()}{sentence[1:]}.")
    if start is not None:
        _check_start(start, rows, run)
    hidden = start.record.hidden if start else HIDDEN if hidden is None else tuple(hidden)
    blueprint = mlp(len(rows.columns), hidden, len(rows.classes), dropout=chosen.dropout)
    job = _Job.of(rows, blueprint, chosen, settings, start)

    timer = StageTimer()
    everything = np.ones(len(rows), bool)
    test = ~everything if folds or not settings.holdout else job.held_out(everything, settings.holdout)
    each: tuple[Accuracy, ...] = ()
    result: Evaluation | None = None
    if folds:
        with timer("folds"):
            each, result = job.cross_validate(run.one_of_many(), function_of(progress))
    with timer("training"):
        model = job.train(everything & ~test, run)
    if test.any():
        probabilities, margin = job.judge(model, test)
        result = evaluate(probabilities, job.y[test], rows.classes, margin, job.groups[test])
    record = replace(
        model.record,
        data=os.path.basename(rows.name),
        images=len(rows),
        result=result,
        accuracy=None if result is None else result.accuracy,
        test=0 if result is None else result.accuracy.images,
        folds=each,
        hidden=hidden,
        epochs_before=epochs_of(start.record) if start else 0,
        holdout=settings.holdout,
        seed=settings.seed,
        seconds=timer.seconds,
    )
    return replace(model, record=record)


@dataclass(frozen=True, eq=False)
class _Job:
    """What all trainings of one call have in common."""

    rows: Rows
    y: NDArray[np.int_]
    keys: list[bytes]
    groups: NDArray[np.int_]  # rows that are alike stay together
    blueprint: Blueprint
    recipe: Recipe
    settings: ScratchSettings
    start: TabularClassifier | None = None

    @classmethod
    def of(
        cls,
        rows: Rows,
        blueprint: Blueprint,
        recipe: Recipe,
        settings: ScratchSettings,
        start: TabularClassifier | None = None,
    ) -> _Job:
        place = {name: k for k, name in enumerate(rows.classes)}
        y = np.array([place[label] for label in rows.labels])
        groups = np.unique(rows.values, axis=0, return_inverse=True)[1].ravel()
        for k, name in enumerate(rows.classes):
            if (count := len(np.unique(groups[y == k]))) < FEWEST:
                raise DataError(
                    f"'{rows.name}': class '{name}' has {counted(count, 'row')} that {verb(count)} not alike. Expected "
                    f"{FEWEST} at least: to train on, to validate with and to measure on. Add rows, or leave it out."
                )
        keys = [row.tobytes() for row in rows.values]
        return cls(rows, y, keys, groups, blueprint, recipe, settings, start)

    def held_out(self, among: Mask, share: float) -> Mask:
        """A share of every class among some rows."""
        at, seed = np.flatnonzero(among), self.settings.seed
        out = np.zeros(len(self.y), bool)
        out[at] = hold_out(self.y[at], [self.keys[row] for row in at.tolist()], self.groups[at], share, seed, least=1)
        return out

    def train(self, train: Mask, run: TrainingRun) -> TabularClassifier:
        """A classifier, trained and calibrated on these rows."""
        steering = self.held_out(train, self.settings.validation)
        moving = train & ~steering
        scale = Scale.of(self.rows.values[moving]) if self.start is None else self.start.scale
        x = scale(self.rows.values)[:, :, None, None]
        task = whole_task(self.blueprint, self.recipe, start=self.start.weights if self.start else None)
        size, seed = self.recipe.batch_size, self.recipe.seed
        batches = ArrayBatches(x[moving], self.y[moving], size, seed)
        validation = ArrayBatches(x[steering], self.y[steering], size, seed, shuffle=False)
        data = {
            "rows": digest_of_all(self.keys, self.y.tolist()),
            "split": fingerprint(x[moving].tobytes(), x[steering].tobytes()),
            "start": "" if self.start is None else weights_digest(self.start.weights),
            **asdict(self.settings),
        }
        classes = self.rows.classes
        trained, recipe = run.train(task, batches, validation, self.recipe, data, len(classes))
        logits = forward(self.blueprint, trained.weights, x[steering][:, :, 0, 0])
        inverse_temperature, _ = fit_inverse_temperature(logits, self.y[steering])
        record = TabularRecord(
            **vars(run.record(trained, recipe, task, int(steering.sum()), len(classes))),
            parts=PartCounts(int(moving.sum()), int(steering.sum())),
            temperature=1 / inverse_temperature,
        )
        weights = with_scaled_logits(trained.weights, inverse_temperature)
        return TabularClassifier(
            self.blueprint, weights, scale, self.rows.columns, classes, record, self.rows.label_kind
        )

    def judge(self, model: TabularClassifier, rows: Mask) -> Judged:
        """Probabilities of some rows, and how far each is from unknown."""
        values = self.rows.values[rows]
        return model.predict_proba(values), model.scale.margin(values)

    def cross_validate(self, run: TrainingRun, progress: Progress | None) -> CrossValidated:
        """See `from_scratch.cross_validate`."""
        fold = folds_of(self.y, self.keys, self.groups, self.settings.folds, self.settings.seed, self.rows.classes)
        return cross_validate(
            fold,
            self.y,
            self.groups,
            self.rows.classes,
            lambda train, test: self.judge(self.train(train, run), test),
            progress,
        )


def _check_start(start: TabularClassifier, rows: Rows, run: TrainingRun) -> None:
    """Refuse rows that are not such as a model was trained on; say it where they are not the same ones."""
    check_classes(rows.classes, start.classes)
    if rows.columns != start.columns:
        raise DataError(
            f"To train a model longer, give data with its columns, in their order: {', '.join(start.columns)}. "
            f"Received: {', '.join(rows.columns)}."
        )
    if len(rows) != start.record.images:
        run.say(
            f"The model was trained on {start.record.images} rows, these are {len(rows)}. It does not keep them: some "
            "of the test set may be among them, and the accuracy too high."
        )


def _rows(data: PathLike | Rows | Any, labels: Iterable[object] | None, label: str | None) -> Rows:
    if is_frame(data) and (labels is None or isinstance(labels, str)):
        return open_rows(data, label if labels is None else str(labels))
    if labels is not None and label is not None:
        raise UsageError("label= names a column of a table, and these rows have labels beside them. Give one of both.")
    if isinstance(data, str | os.PathLike):
        data = open_rows(data, label)
    if isinstance(data, Rows):
        if labels is not None:
            raise UsageError("These rows have labels of their own. Expected labels only with an array of numbers.")
        return data
    if labels is None:
        raise UsageError(why_no_rows(data))
    return rows_with_labels(data, labels)
