"""Fine-tuning: more of the network is trained than its head, and the result is never worse than the model given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.core.progress import Progress
from headstart.core.timing import StageTimer
from headstart.data.inputs import Images
from headstart.data.sources import PathLike
from headstart.data.split import Split
from headstart.learn.evaluate import accuracy_of, nll_of
from headstart.learn.heads import Head
from headstart.learn.significance import mcnemar
from headstart.model.assemble import TrainedNetwork, assemble
from headstart.model.classifier import Classifier
from headstart.model.records import FinetuneRecord, ImageCounts, Side
from headstart.train.callbacks import Progress as StepProgress
from headstart.train.overfitting_watch import GONE_WRONG, watch
from headstart.train.protocol import Callback, Trained
from headstart.train.recipe import Recipe, open_recipe
from headstart.train.training_run import TrainingRun
from headstart.workflows.finetune_data import (
    FinetuneData,
    FinetuneStart,
    TrainingInputs,
    Weights,
    head_settings,
    takes_roots,
    upper_part,
    whole_network,
)

REFIT = "refit"  # where its checkpoints are, in the folder of the others

Probabilities = NDArray[np.float64]


def finetune(
    classifier: Classifier,
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    recipe: str | PathLike | Recipe = "careful",
    trainer: str | TrainingRun = "pytorch",
    refit: bool | None = None,
    holdout: float | None = None,
    seed: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Classifier:
    """Train more of a classifier's network on labelled photos; what comes back is not worse than what was given.

    The head is fitted anew, in closed form, on the part that is trained on; from there the recipe goes on. The
    calibrated loss on the validation set chooses among the epochs and that head alone: where the head wins, the
    classifier comes back as it was. Else, with ``refit``, it is trained once more from the given classifier on, on the
    validation set too: for as many epochs as the first time where that went well to its end, else for as many as
    were best. The part of the network below all that is trained runs once for each view of each photo.
    ``record.finetune`` tells how it went.

    Args:
        data, labels: as `fit` takes them; the same photos are split as they were, so the test set stays unseen.
        recipe: "careful", "fast", "full", a JSON file, or a `Recipe`.
        trainer: "pytorch", "lightning", "tensorflow", "keras", or a `TrainingRun` with device, checkpoints and more.
        refit: whether the validation set is trained on in the end; default: where the frozen part makes it cheap.
        holdout, seed: of the split; default: those of the fit.
        cache: whether features and views are kept for the next time.
        progress: called with (stage, done, of how many).

    Raises:
        UsageError: a classifier that was not fitted, or a setting that is not there or out of range.
        DataError: the photos are not of the classifier's classes, or too few of one.
    """
    followed, run, timer = open_recipe(recipe), TrainingRun.of(trainer), StageTimer()
    with timer("features"):
        photos = FinetuneData.of(classifier, data, labels, holdout=holdout, seed=seed, cache=cache, progress=progress)
    with timer("head"):
        start = FinetuneStart.of(classifier, photos.with_closed_form_head(classifier), followed)
    with timer("views"):
        if start.whole:
            inputs = whole_network(photos, start)
        else:
            inputs = upper_part(photos, start, cache=cache, say=run.say, progress=progress)
    classes = len(photos.split.classes)
    with timer("training"):
        trained, followed = run.train(
            inputs.task, inputs.train, inputs.validation, followed, photos.identity(), classes
        )
    training = run.record(trained, followed, inputs.task, inputs.validation.images, classes)
    again = trained.history.best >= 0 and (not start.whole if refit is None else refit)
    went_well = not training.stopped and training.verdict.kind not in GONE_WRONG
    kept = _kept(trained, to_the_end=again and went_well)
    with timer("refit"):
        refitted = _refit(photos, start, inputs, run, kept.epochs, followed, progress) if again else None
    with timer("measuring"):
        found, after = _assemble(classifier, photos, kept, refitted, progress)
    test = np.flatnonzero(photos.split.test)
    truth, before = photos.split.labels[test], _probabilities(classifier, photos, test)
    after = before if after is None else after
    record = FinetuneRecord(
        **vars(training),
        chosen=f"fine-tuned, epoch {kept.epochs}" if kept.epochs else "the head alone",
        kept=kept.epochs,
        before=_side(before, photos.split, kept.start),
        after=_side(after, photos.split, kept.loss),
        p=_p_of_difference(before, after, truth),
        images=ImageCounts(len(photos.train_rows), len(photos.validation_rows), len(test)),
        refit=refitted is not None,
        cut="" if start.whole else start.cut,
        views=inputs.views,
        seconds=timer.seconds,
    )
    return replace(found, record=replace(found.record, finetune=record))


@dataclass(frozen=True)
class _Kept:
    """What of the first training counts."""

    epochs: int  # how many; 0: the head alone was better
    weights: Mapping[str, NDArray[np.float32]]  # after as many
    loss: float  # theirs, calibrated, on the validation set
    start: float  # that of the head alone


def _kept(trained: Trained, *, to_the_end: bool) -> _Kept:
    """The best epoch. Where it only says how long to train once more, the last, if that too is better than the head.

    For with more photos the best epoch comes later, if anything, and which of the last ones it is few validation photos
    cannot tell; the small steps at the schedule's end average out what those before left to chance.
    """
    history, epochs = trained.history, trained.history.epochs
    if to_the_end and trained.last is not None and epochs[-1].val_calibrated < history.start:
        return _Kept(len(epochs), trained.last, epochs[-1].val_calibrated, history.start)
    loss = epochs[history.best].val_calibrated if history.best >= 0 else history.start
    return _Kept(history.best + 1, trained.weights, loss, history.start)


def _refit(
    photos: FinetuneData,
    start: FinetuneStart,
    inputs: TrainingInputs,
    run: TrainingRun,
    epochs: int,
    recipe: Recipe,
    progress: Progress | None,
) -> Weights | None:
    """So many epochs from the given classifier's own weights on, on the validation set too; None if that diverged.

    The schedule is laid over as many, so that its small steps come at their end.
    """
    least = 2 if recipe.averaging == "snapshots" else 1  # the fewest that such a recipe may have
    recipe = replace(recipe, epochs=max(epochs, least))
    given = {name: np.asarray(start.classifier.weights[name], np.float32) for name in inputs.task.weights}
    callbacks: list[Callback] = []
    if progress:
        callbacks.append(StepProgress(lambda _, done, of: progress("refit", done, of)))
    folder = None if run.folder is None else Path(run.folder) / REFIT
    again = replace(run, callbacks=callbacks, folder=folder, find_rate=False, quiet=True)
    task, classes = replace(inputs.task, weights=given), len(photos.split.classes)
    trained = again.train(task, inputs.everything, None, recipe, photos.identity(), classes)[0]
    if trained.last is None or watch(trained.history.epochs).kind == "diverging":
        why = trained.history.stopped or "The training loss rose."
        run.say(f"Training once more on the validation set too went wrong; the first training counts. {why}")
        return None
    return trained.weights


def _assemble(
    classifier: Classifier, photos: FinetuneData, kept: _Kept, refitted: Weights | None, progress: Progress | None
) -> tuple[Classifier, Probabilities | None]:
    """The fine-tuned classifier and its probabilities for the test set; the given one where no epoch was better.

    Of weights that have seen the validation set too, those ``kept`` tell how sure the classifier may be.
    """
    if not kept.epochs:
        return classifier, None
    own = {**classifier.weights, **kept.weights}
    found, probabilities, _ = assemble(
        TrainedNetwork(
            blueprint=classifier.blueprint,
            weights=own if refitted is None else {**classifier.weights, **refitted},
            spec=classifier.spec,
            engine=classifier.engine,
            precision=classifier.precision,
            module=classifier.module,
            before_refit=None if refitted is None else own,
        ),
        photos.photos,
        replace(classifier.record, **vars(photos.split.record()), holdout=photos.holdout, seed=photos.seed),
        seed=photos.seed,
        progress=progress,
    )
    head = found.record.head and replace(found.record.head, settled=head_settings(classifier))
    fitted_on = found.fitted_on | classifier.fitted_on
    thumbnails = np.unique(np.concatenate([found.thumbnails, classifier.thumbnails]), axis=0)
    record = replace(found.record, head=head)
    kind = classifier.label_kind
    found = replace(found, fitted_on=fitted_on, thumbnails=thumbnails, record=record, label_kind=kind)
    return found, probabilities


def _probabilities(classifier: Classifier, photos: FinetuneData, rows: NDArray[np.int_]) -> Probabilities:
    """What the given classifier says of some rows, by their features; (N, K)."""
    weight, bias = (np.asarray(classifier.weights[f"{LOGITS}.{part}"]) for part in ("weight", "bias"))
    return Head(weight, bias, sqrt=takes_roots(classifier.blueprint)).probabilities(photos.features.values, rows)


def _side(probabilities: Probabilities, split: Split, val_calibrated: float) -> Side:
    if not split.test.any():
        return Side(None, None, None, val_calibrated)
    labels = split.labels[split.test]
    accuracy = accuracy_of(probabilities.argmax(axis=1) == labels, split.groups[split.test])
    return Side(accuracy.value, (accuracy.low, accuracy.high), nll_of(probabilities, labels), val_calibrated)


def _p_of_difference(before: Probabilities, after: Probabilities, labels: NDArray[np.int_]) -> float | None:
    """McNemar's mid-p of the two, None without a test set."""
    if not len(labels):
        return None
    was, now = (each.argmax(axis=1) == labels for each in (before, after))
    return mcnemar(int((was & ~now).sum()), int((now & ~was).sum()))
