"""Fine-tuning: the head settled, the part above a cut unfrozen, and never a worse model than the one that was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT, LOGITS
from headstart.classifier import Classifier, Images
from headstart.clock import Clock
from headstart.conducting import Conduct
from headstart.data.sources import PathLike
from headstart.finishing import finish
from headstart.learn.calibrate import softmax
from headstart.learn.features import Features
from headstart.learn.heads import Head
from headstart.learn.paired import mcnemar
from headstart.staging import (
    Begin,
    Ground,
    Progress,
    Scene,
    Weights,
    head_settings,
    takes_roots,
    upper_part,
    whole_network,
)
from headstart.train.base import Callback, Trained
from headstart.train.callbacks import Progress as StepProgress
from headstart.train.cut import cut_at
from headstart.train.recipe import Recipe, open_recipe
from headstart.train.schedule import rates_by_layer
from headstart.train.watch import GONE_WRONG
from headstart.types import Accuracy

REFIT = "refit"  # where its checkpoints are, in the folder of the others


def finetune(
    classifier: Classifier,
    data: Images,
    labels: Sequence[str] | None = None,
    *,
    recipe: str | PathLike | Recipe = "careful",
    trainer: str = "pytorch",
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
    find_rate: bool = False,
    refit: bool | None = None,
    holdout: float | None = None,
    seed: int | None = None,
    folder: PathLike | None = None,
    resume: bool = False,
    cache: bool = True,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Classifier:
    """Train more of a classifier's network on labelled photos; what comes back is not worse than what was given.

    The head is fitted anew, in closed form, on the part that is trained on; from there the recipe goes on. The
    calibrated loss of a validation part chooses among the epochs and that head alone: where the head wins, the
    classifier comes back as it was. Else, with ``refit``, it is trained once more from the given classifier on, on the
    validation photos too: for as many epochs as the first time where that went well to its end, else for as many as
    were best. The part of the network below all that moves runs once for each view of each photo.
    ``record["finetune"]`` tells how it went.

    Args:
        data, labels: as `fit` takes them; the same photos are split as they were, so the test photos stay unseen.
        recipe: "careful", "fast", "full", a JSON file, or a `Recipe`.
        trainer, device, devices, nodes, strategy, find_rate, folder, resume, callbacks, say: see `Conduct`.
        refit: whether the validation photos are trained on in the end; default: where the frozen part makes it cheap.
        holdout, seed: of the split; default: those of the fit.
        cache: whether features and views are kept for the next time.
        progress: called with (stage, done, of how many).

    Raises:
        UsageError: a classifier that was not fitted, or a setting that is not there or out of range.
        DataError: the photos are not of the classifier's classes, or too few of one.
    """
    followed = open_recipe(recipe)
    conduct = Conduct(
        trainer, device, devices, nodes, strategy, find_rate, folder, resume, callbacks, say or (lambda sentence: None)
    )
    conduct.check()
    clock = Clock()
    with clock("features"):
        ground = Ground.of(classifier, data, labels, holdout, seed, cache, progress)
    with clock("head"):
        start = ground.settled_head(classifier)
    blueprint = classifier.blueprint
    rates = rates_by_layer(blueprint, followed)
    cut = cut_at(blueprint, rates)
    with clock("views"):
        begin, whole = Begin(classifier, start, rates, followed, cut), cut == INPUT
        scene = whole_network(ground, begin) if whole else upper_part(ground, begin, cache, conduct.say, progress)
    with clock("training"):
        trained, followed = conduct.train(
            scene.task, scene.batches, scene.validation, followed, ground.identity(), len(ground.plan.classes)
        )
    story = conduct.record(trained, followed, scene.task, scene.validation.images, len(ground.plan.classes))
    again = trained.history.best >= 0 and (not whole if refit is None else refit)
    well = not story["stopped"] and story["verdict"]["kind"] not in GONE_WRONG
    kept = _kept(trained, to_the_end=again and well)
    with clock("refit"):
        refitted = _refit(ground, begin, scene, conduct, kept.epochs, followed, progress) if again else None
    with clock("measuring"):
        found, comparison = _choose(classifier, ground, kept, refitted, progress)
    story |= comparison | {"refit": again, "cut": "" if whole else cut, "views": scene.views, "seconds": clock.seconds}
    if found is not classifier:
        found.record["head"]["settled"] = head_settings(classifier)
    return replace(found, record={**found.record, "finetune": story})


@dataclass(frozen=True)
class _Kept:
    """What of the first training counts."""

    epochs: int  # how many; 0: the head alone was better
    weights: Mapping[str, NDArray[np.float32]]  # after as many
    loss: float  # theirs, calibrated, of the validation photos
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
    ground: Ground, begin: Begin, scene: Scene, conduct: Conduct, epochs: int, recipe: Recipe, progress: Progress | None
) -> Weights:
    """So many epochs from the given classifier's own weights on, on the validation photos too.

    The schedule is laid over as many, so that its small steps come at their end.
    """
    least = 2 if recipe.averaging == "snapshots" else 1  # the fewest that such a recipe may have
    recipe = replace(recipe, epochs=max(epochs, least))
    given = {name: np.asarray(begin.classifier.weights[name], np.float32) for name in scene.task.weights}
    listening: list[Callback] = []
    if progress:
        listening.append(StepProgress(lambda _, done, of: progress("refit", done, of)))
    folder = None if conduct.folder is None else Path(conduct.folder) / REFIT
    conduct = replace(conduct, callbacks=listening, folder=folder, find_rate=False, quiet=True)
    task, classes = replace(scene.task, weights=given), len(ground.plan.classes)
    return conduct.train(task, scene.everything, None, recipe, ground.identity(), classes)[0].weights


def _choose(
    classifier: Classifier, ground: Ground, kept: _Kept, refitted: Weights | None, progress: Progress | None
) -> tuple[Classifier, dict[str, Any]]:
    """The fine-tuned classifier, or the given one where no epoch was better than its head; and how both did.

    Of weights that have seen the validation photos too, those ``kept`` tell how sure the classifier may be.
    """
    plan = ground.plan
    test = np.flatnonzero(plan.test)
    given = _probabilities(classifier, ground.features, test)
    if not kept.epochs:
        found, after, chosen = classifier, given, "the head alone"
    else:
        record = classifier.record | plan.record(ground.table) | {"holdout": ground.holdout, "seed": ground.seed}
        own = {**classifier.weights, **kept.weights}
        found, after = finish(
            classifier.blueprint,
            own if refitted is None else {**classifier.weights, **refitted},
            classifier.spec,
            ground.table,
            plan,
            ground.validation,
            ground.features.keys,
            record,
            seed=ground.seed,
            engine=classifier.engine,
            precision=classifier.precision,
            module=classifier.module,
            steering=None if refitted is None else own,
            progress=progress,
        )
        found = replace(found, fitted_on=found.fitted_on | classifier.fitted_on)
        chosen = f"fine-tuned, epoch {kept.epochs}"
    return found, {
        "chosen": chosen,
        "kept": kept.epochs,
        "before": _figures(given, plan.labels[test]) | {"val_calibrated": kept.start},
        "after": _figures(after, plan.labels[test]) | {"val_calibrated": kept.loss},
        "p": _chance(given, after, plan.labels[test]),
        "images": {
            "train": len(ground.rows),
            "validation": int(ground.validation.sum()),
            "test": len(test),
        },
    }


def _probabilities(classifier: Classifier, features: Features, rows: NDArray[np.int_]) -> NDArray[np.float64]:
    """What a classifier says of some rows, by their features; (N, K)."""
    weight, bias = (np.asarray(classifier.weights[f"{LOGITS}.{part}"]) for part in ("weight", "bias"))
    head = Head(weight, bias, sqrt=takes_roots(classifier.blueprint))
    return np.asarray(softmax(head.logits(features.values[rows])))


def _figures(probabilities: NDArray[np.float64], labels: NDArray[np.int_]) -> dict[str, Any]:
    if not len(labels):
        return {"accuracy": None, "interval": None, "nll": None}
    right = int((probabilities.argmax(axis=1) == labels).sum())
    accuracy = Accuracy.of(right, len(labels))
    told = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(float).tiny)
    nll = float(-np.log(told).mean())
    return {"accuracy": accuracy.value, "interval": [accuracy.low, accuracy.high], "nll": nll}


def _chance(before: NDArray[np.float64], after: NDArray[np.float64], labels: NDArray[np.int_]) -> float | None:
    """McNemar's mid-p of the two, None without test photos."""
    if not len(labels):
        return None
    was, now = (each.argmax(axis=1) == labels for each in (before, after))
    return mcnemar(int((was & ~now).sum()), int((now & ~was).sum()))
