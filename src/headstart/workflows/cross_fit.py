"""Trainings that hold photos out in turn: how many epochs are good, and whether fine-tuning is better than the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headstart.core.progress import Progress
from headstart.learn.calibrate import fit_inverse_temperature, softmax
from headstart.learn.evaluate import nll_of
from headstart.model.assemble import GoldenPhotos, HeldOut, TrainedNetwork
from headstart.model.classifier import Classifier
from headstart.train.callbacks import Progress as StepProgress
from headstart.train.overfitting_watch import selection_losses
from headstart.train.protocol import Callback, Epoch, History, Trained
from headstart.train.recipe import Recipe
from headstart.train.training_run import TrainingRun
from headstart.workflows.finetune_data import BIAS, FinetuneData, TrainingInputs, Weights, expects_all_alike

MEANS = ("train_loss", "train_error", "val_loss", "val_error", "val_calibrated", "learning_rate")  # of `Epoch`
FOLD, FOLDS = "fold", "folds"  # a training's subfolder, and the stage of those after the first


@dataclass(frozen=True)
class FinetuneJob:
    """A classifier to fine-tune, with all that its trainings need."""

    given: Classifier
    photos: FinetuneData
    inputs: TrainingInputs
    run: TrainingRun
    progress: Progress | None = None

    def another(self, name: str, stage: str, place: int = 0, count: int = 1) -> TrainingRun:
        """The run of a further training, which has its checkpoints in a subfolder, and shows a bar alone.

        Args:
            place, count: of trainings that share the bar.
        """
        callbacks: list[Callback] = []
        if report := self.progress:
            callbacks.append(StepProgress(lambda _, done, of: report(stage, place * of + done, count * of)))
        folder = None if self.run.folder is None else Path(self.run.folder) / name
        return replace(self.run, callbacks=callbacks, folder=folder, find_rate=False, quiet=True)

    def network(self, weights: Weights) -> TrainedNetwork:
        """The network of the classifier with trained weights, as far as they are named; its prior stays."""
        given = self.given
        if BIAS in weights and expects_all_alike(given):
            weights = {**weights, BIAS: weights[BIAS] - self.photos.log_shares}
        return TrainedNetwork(
            blueprint=given.blueprint,
            weights={**given.weights, **weights},
            spec=given.spec,
            engine=given.engine,
            precision=given.precision,
            device=given.device,
            module=given.module,
        )


@dataclass(frozen=True)
class CrossFit:
    """One training for each fold of the photos, and the mean of their histories."""

    trained: tuple[Trained, ...]
    history: History
    recipe: Recipe  # with the learning rate that was found

    @property
    def several(self) -> bool:
        """Whether there is more than one fold."""
        return len(self.trained) > 1

    @property
    def diverged(self) -> bool:
        """Whether a training ended in no numbers."""
        return any(each.last is None for each in self.trained)

    def weights_after(self, epochs: int) -> list[Weights] | None:
        """Those of each training after so many epochs, where all of them were kept."""
        found = [_weights_after(each, epochs) for each in self.trained]
        kept = [each for each in found if each is not None]
        return kept if len(kept) == len(found) else None


def _weights_after(trained: Trained, epochs: int) -> Weights | None:
    if trained.last is not None and epochs == len(trained.history.epochs):
        return trained.last
    return trained.weights if epochs == trained.history.best + 1 else None


def cross_fit(job: FinetuneJob, recipe: Recipe, *, name: str = FOLD) -> CrossFit:
    """Train once for each fold, from a head of all other photos on.

    The first training is the job's run, with its callbacks, unless another ``name`` is given, which the subfolders of
    all have then. Where a training ends early, those after it are made as short.
    """
    photos, inputs, found = job.photos, job.inputs, list[Trained]()
    count, logged = len(photos.folds), name == FOLD
    if count > 1 and logged:
        job.run.say(
            f"{len(photos.held_out)} photos are held out in turn, by {count} trainings: a single validation set would "
            "be too small. The epochs are those of the first training."
        )
    for k, held_out in enumerate(photos.folds):
        if k == 0 and logged:
            run = replace(job.run, quiet=count > 1)
        else:
            run = job.another(f"{name}-{k + 1}", FOLDS, k - logged, count - logged)
        trained, recipe = run.train(
            inputs.task_from(photos.with_closed_form_head(job.given, held_out)),
            inputs.batches(photos.beside(held_out), True),
            inputs.batches(held_out, False),
            recipe,
            photos.identity(held_out),
            len(photos.split.classes),
        )
        found.append(trained)
        if trained.history.stopped and trained.history.epochs:
            recipe = replace(recipe, epochs=at_least(len(trained.history.epochs), recipe))
    return CrossFit(tuple(found), mean_history(found, [len(fold) for fold in photos.folds]), recipe)


def at_least(epochs: int, recipe: Recipe) -> int:
    """So many epochs, or as many as the recipe must have."""
    return max(epochs, 2 if recipe.averaging == "snapshots" else 1)


def mean_history(trained: Sequence[Trained], photos: Sequence[int]) -> History:
    """The mean of several histories, as far as all of them went, weighted by the photos that each held out."""
    histories = [each.history for each in trained]
    if len(histories) == 1:
        return histories[0]
    epochs = []
    for number, same in enumerate(zip(*(history.epochs for history in histories), strict=False)):
        means = {name: float(np.average([getattr(one, name) for one in same], weights=photos)) for name in MEANS}
        epochs.append(Epoch(number, seconds=sum(one.seconds for one in same), **means))
    start = float(np.average([history.start for history in histories], weights=photos))
    losses = [start, *selection_losses(epochs)]
    stopped = next((history.stopped for history in histories if history.stopped), "")
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf))) - 1
    return replace(histories[0], epochs=tuple(epochs), best=best, stopped=stopped, start=start)


@dataclass(frozen=True)
class Judgement:
    """How the given classifier and the fine-tuned one do on photos that neither was trained on: NLL in nats."""

    given: float  # with its head fitted anew without each photo in turn
    tuned: float
    held_out: HeldOut  # what the fine-tuned networks say

    @property
    def better(self) -> bool:
        """Whether fine-tuning is better."""
        return self.tuned < self.given


def judge(job: FinetuneJob, weights: Sequence[Weights], start: float, attacked: float | None = None) -> Judgement:
    """Hold the fine-tuned networks, one for each fold, against the given classifier.

    Args:
        start: loss of heads that were fitted without each fold, for photos of which the given head cannot be asked.
        attacked: loss of the fine-tuned networks, where it and ``start`` are of attacked photos, on which they were
            trained: then those two decide.
    """
    photos, network = job.photos, job.network(weights[0])
    labelled, labels, train = photos.photos, photos.split.labels, np.flatnonzero(photos.split.train)
    running = network.open()
    running.check_precision(GoldenPhotos.of(photos.dataset, running.spec, train).images, network.below)
    parts = []
    for rows, own in zip(photos.folds, weights, strict=True):
        running.load(job.network(own).weights)
        parts.append(HeldOut.of(running, network.below, labelled, rows, photos.seed, job.progress))
    running.release()
    held_out = HeldOut.together(parts)
    if attacked is not None:
        return Judgement(start, attacked, held_out)
    inverse_temperature, tuned = fit_inverse_temperature(held_out.logits, labels[held_out.rows])
    head = photos.closed_form(job.given, train)
    both, ours, theirs = np.intersect1d(held_out.rows, train[head.rows], return_indices=True)
    if not len(both):
        return Judgement(start, tuned, held_out)
    tuned = nll_of(softmax(held_out.logits[ours] * np.float32(inverse_temperature)), labels[both])
    return Judgement(nll_of(softmax(head.logits[theirs]), labels[both]), tuned, held_out)
