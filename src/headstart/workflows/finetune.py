"""Fine-tuning: more of the network is trained than its head; where that is not better, it stays as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, LOGITS
from headstart.core.arguments import PROGRESS, SEED, YES_NO, checks
from headstart.core.counts import counted
from headstart.core.progress import Shown, function_of
from headstart.core.timing import StageTimer
from headstart.data.inputs import Images
from headstart.data.sources import PathLike
from headstart.data.split import HELD_OUT, Split
from headstart.diagnose.training import diagnosis_of_training
from headstart.learn.evaluate import accuracy_of, nll_of
from headstart.learn.heads import Head
from headstart.learn.significance import mcnemar
from headstart.model.assemble import HeldOut, assemble, knowing_too
from headstart.model.classifier import Classifier
from headstart.model.given import photo_model
from headstart.model.records import FinetuneRecord, ImageCounts, Side
from headstart.train.overfitting_watch import watch
from headstart.train.protocol import FRAMEWORKS, check_framework
from headstart.train.recipe import RECIPE, Recipe, open_recipe
from headstart.train.screen import on_screen, shows_training
from headstart.train.training_record import TrainingRecord
from headstart.train.training_run import TRAINER, TrainingRun
from headstart.workflows.cross_fit import CrossFit, FinetuneJob, at_least, cross_fit, judge
from headstart.workflows.finetune_data import (
    FinetuneData,
    FinetuneStart,
    Weights,
    expects_all_alike,
    head_settings,
    takes_roots,
    upper_part,
    whole_network,
)

REFIT = "refit"  # where its checkpoints are, in the folder of the others
GIVEN = "the given model"

Probabilities = NDArray[np.float64]


@checks(
    recipe=RECIPE,
    trainer=TRAINER,
    refit=YES_NO,
    holdout=HELD_OUT,
    seed=SEED,
    cache=YES_NO,
    progress=PROGRESS,
)
@shows_training
def finetune(
    classifier: Classifier | PathLike,
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    recipe: str | PathLike | Mapping[str, Any] | Recipe = "careful",
    trainer: str | TrainingRun = "auto",
    refit: bool | None = None,
    holdout: float | None = None,
    seed: int | None = None,
    cache: bool = True,
    progress: Shown = True,
) -> Classifier:
    """Train more of a classifier's network on labelled photos; where that is not better, it comes back as it was.

    The head is fitted anew, in closed form, on the part that is trained on; from there the recipe goes on. Whether that
    was of use is judged on held-out photos, by the calibrated loss: of the fine-tuned network, and of the given one
    with its head fitted without each photo in turn. Held out is a validation set; where that would have fewer than
    `ENOUGH` photos, folds of the training set in turn, with a training for each. Temperature and "unknown" come from
    the same photos.

    With ``refit`` the given classifier is trained once more, on all photos: for as many epochs as before where that
    went well to its end, else for as many as were best. The part of the network below all that is trained runs once
    for each view of each photo. ``record.finetune`` tells how it went.

    Args:
        classifier: a fitted one, or the path of its folder.
        data, labels: as `fit` takes them; the same photos are split as they were, so the test set stays unseen.
        recipe: "careful", "fast", "full", a JSON file, or a `Recipe`.
        trainer: "pytorch", "lightning", "tensorflow", "keras", or a `TrainingRun` with device, checkpoints and more;
            "auto" is tensorflow for a Keras model, else pytorch.
        refit: whether held-out photos are trained on in the end; default: where the frozen part makes it cheap, and
            where photos are held out in turn.
        holdout, seed: of the split; default: those of the fit.
        cache: whether features and views are kept for the next time.
        progress: as for `fit`; with bars, a line for each epoch.

    Raises:
        UsageError: a classifier that was not fitted, or a setting that is not there or out of range.
        DataError: the photos are not of the classifier's classes, or too few of one.
    """
    classifier, chosen, report = photo_model(classifier, "classifier"), open_recipe(recipe), function_of(progress)
    start, run, timer = *_begin(classifier, chosen, on_screen(trainer, progress, chosen.epochs)), StageTimer()
    with timer("features"):
        photos = FinetuneData.of(classifier, data, labels, holdout=holdout, seed=seed, cache=cache, progress=report)
    with timer("views"):
        if start.whole:
            inputs = whole_network(photos, start)
        else:
            inputs = upper_part(photos, start, cache=cache, say=run.say, progress=report)
    job = FinetuneJob(classifier, photos, inputs, run, report)
    _warn_of_known_photos(job)
    with timer("training"):
        fits = cross_fit(job, start.recipe)
        training = _record(job, fits)
        again = refit if refit is not None else fits.several or not start.whole
        epochs = _epochs_to_take(fits, training, again=again)
        weights = _weights_after(job, epochs, fits)
    with timer("judging"):
        attacked = fits.history.epochs[epochs - 1].val_calibrated if fits.recipe.adversarial and epochs else None
        judgement = judge(job, weights, fits.history.start, attacked) if weights else None
    better = judgement is not None and judgement.better
    with timer("refit"):
        refitted = _refit(job, epochs, fits.recipe) if better and again else None
    with timer("measuring"):
        found, after = classifier, None
        if judgement and better and weights:
            found, after = _assemble(job, refitted or weights[0], judgement.held_out)
    test = np.flatnonzero(photos.split.test)
    before = _probabilities(classifier, photos, test)
    after = before if after is None else after
    given_loss = judgement.given if judgement else fits.history.start
    record = FinetuneRecord(
        **vars(training),
        chosen=f"fine-tuned, epoch {epochs}" if better else GIVEN,
        kept=epochs if better else 0,
        before=_side(before, photos.split, given_loss),
        after=_side(after, photos.split, judgement.tuned if judgement and better else given_loss),
        tuned_loss=judgement.tuned if judgement else None,
        p=_p_of_difference(before, after, photos.split.labels[test]),
        images=_counts(photos),
        folds=len(photos.folds),
        refit=refitted is not None,
        cut="" if start.whole else start.cut,
        views=inputs.views,
        seconds=timer.seconds,
    )
    return _recorded(classifier, found, record)


def _recorded(given: Classifier, found: Classifier, record: FinetuneRecord) -> Classifier:
    """With the record, and a diagnosis: of the training, beside what is known of the photos if they are those of the
    fit; or that of the given model, if it was kept."""
    diagnosis = given.record.diagnosis
    if record.kept:
        diagnosis = diagnosis_of_training(record, diagnosis if found.fitted_on == given.fitted_on else None)
    return replace(found, record=replace(found.record, finetune=record, diagnosis=diagnosis))


def _begin(classifier: Classifier, recipe: Recipe, trainer: str | TrainingRun) -> tuple[FinetuneStart, TrainingRun]:
    """What is trained, and how; refuses what cannot be trained so, before any photo is looked at."""
    start, run = FinetuneStart.of(classifier, recipe), TrainingRun.of(trainer, classifier.blueprint.source)
    if start.whole:
        check_framework(classifier.blueprint, FRAMEWORKS[run.trainer])
    elif start.cut == FEATURES and recipe.unfreeze == "top":
        run.say(
            f"'{classifier.blueprint.source}' is one block here, for the order of its layers is not known: only the "
            "head is trained. To train all of it: the recipe full."
        )
    return start, run


def _warn_of_known_photos(job: FinetuneJob) -> None:
    """A network that was trained on held-out photos before has nothing to be judged by, and none of its own to test."""
    if job.photos.known and not job.photos.split.test.any():
        job.run.say(
            "All photos that would be the test set were fitted on before, so there is none. With the seed and share of "
            "the fit its own test set is kept."
        )
    record, keys, held_out = job.given.record, job.photos.features.keys, job.photos.held_out.tolist()
    known = sum(keys[row] in job.given.fitted_on for row in held_out)
    if known and record.finetune is not None and record.finetune.kept:
        job.run.say(
            f"The network was trained before on {known} of the {counted(len(held_out), 'photo')} that it is judged by, "
            "so its probabilities will be too sure. To train longer, begin with the model that fit made, and more "
            "epochs."
        )


def _record(job: FinetuneJob, fits: CrossFit) -> TrainingRecord:
    """What the mean of the trainings was like; a verdict on several is said here, of one it was said already."""
    mean = replace(fits.trained[0], history=fits.history)
    held_out, classes = len(job.photos.held_out), len(job.photos.split.classes)
    found = job.run.record(mean, fits.recipe, job.inputs.task, held_out, classes)
    if fits.several and found.verdict.gone_wrong:
        job.run.say(found.verdict.sentence)
    return found


def _epochs_to_take(fits: CrossFit, training: TrainingRecord, *, again: bool) -> int:
    """All, where the training went well and only says how long to train once more; else as many as were best.

    For with more photos the best epoch comes later, if anything, and which of the last ones it is few photos cannot
    tell; the small steps at the schedule's end average out what those before left to chance. 0: none was better.
    """
    history = fits.history
    well = bool(history.epochs) and not (training.stopped or fits.diverged or training.verdict.gone_wrong)
    if well and (fits.several or (again and history.epochs[-1].val_calibrated < history.start)):
        return len(history.epochs)
    return history.best + 1


def _weights_after(job: FinetuneJob, epochs: int, fits: CrossFit) -> list[Weights] | None:
    """Those of each training after so many epochs; trained anew for as many where they were not kept.

    None where no epoch was good.
    """
    if not epochs:
        return None
    if found := fits.weights_after(epochs):
        return found
    shorter = replace(fits.recipe, epochs=at_least(epochs, fits.recipe))
    fits = cross_fit(job, shorter, name="shorter")
    return fits.weights_after(len(fits.history.epochs))


def _refit(job: FinetuneJob, epochs: int, recipe: Recipe) -> Weights | None:
    """So many epochs from the given classifier's own weights on, on all photos; None if that diverged.

    The schedule is laid over as many, so that its small steps come at their end.
    """
    recipe, photos = replace(recipe, epochs=at_least(epochs, recipe)), job.photos
    batches, identity = job.inputs.batches(photos.all_rows, True), photos.identity(photos.folds[0])
    again = job.another(REFIT, REFIT)
    trained = again.train(job.inputs.task, batches, None, recipe, identity, len(photos.split.classes))[0]
    if trained.last is None or watch(trained.history.epochs).kind == "diverging":
        why = trained.history.stopped or "The training loss rose."
        job.run.say(f"Training once more on all photos went wrong; the first training counts. {why}")
        return None
    return trained.weights


def _assemble(job: FinetuneJob, weights: Weights, held_out: HeldOut) -> tuple[Classifier, Probabilities]:
    """The fine-tuned classifier, and its probabilities for the test set."""
    classifier, photos = job.given, job.photos
    found, probabilities, _ = assemble(
        job.network(weights),
        photos.photos,
        replace(classifier.record, **vars(photos.split.record()), holdout=photos.holdout, seed=photos.seed),
        held_out,
        seed=photos.seed,
        progress=job.progress,
    )
    prior = "flat" if expects_all_alike(classifier) else "empirical"
    head = found.record.head and replace(found.record.head, prior=prior, settled=head_settings(classifier))
    record = replace(found.record, head=head)
    return replace(knowing_too(found, classifier), record=record, label_kind=classifier.label_kind), probabilities


def _probabilities(classifier: Classifier, photos: FinetuneData, rows: NDArray[np.int_]) -> Probabilities:
    """What the given classifier says of some rows, by their features; (N, K)."""
    weight, bias = (np.asarray(classifier.weights[f"{LOGITS}.{part}"]) for part in ("weight", "bias"))
    return Head(weight, bias, sqrt=takes_roots(classifier.blueprint)).probabilities(photos.features.values, rows)


def _counts(photos: FinetuneData) -> ImageCounts:
    """How many are trained on, held out from a training, and in the test set; of folds all are trained on by others."""
    several, held_out = len(photos.folds) > 1, len(photos.held_out)
    return ImageCounts(len(photos.all_rows) - (0 if several else held_out), held_out, int(photos.split.test.sum()))


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
