"""Fine-tuning: the head settled, the part above a cut unfrozen, and never a worse model than the one that was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from headstart.staging import Begin, Ground, Progress, Scene, head_settings, takes_roots, upper_part, whole_network
from headstart.train.base import Callback, Trained
from headstart.train.callbacks import Progress as StepProgress
from headstart.train.callbacks import Until
from headstart.train.cut import cut_at
from headstart.train.recipe import Recipe, open_recipe
from headstart.train.schedule import rates_by_layer
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

    The head is fitted anew, in closed form, on the part that is trained on; from there the recipe goes on. A validation
    part chooses among the epochs and that head alone: where the head wins, the classifier comes back as it was. Else,
    with ``refit``, as many epochs are trained once more from the given classifier on, on the validation photos too.
    The part of the network below all that moves runs once for each view of each photo. ``record["finetune"]`` tells how
    it went.

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
    best = trained.history.best
    again = best >= 0 and (not whole if refit is None else refit)
    with clock("refit"):
        last = _refit(ground, begin, scene, conduct, best, followed, progress) if again else trained
    with clock("measuring"):
        found, comparison = _choose(classifier, ground, trained, last, progress)
    story = conduct.record(trained, followed, scene.task, scene.validation.images, len(ground.plan.classes))
    story |= comparison
    story |= {"refit": again, "cut": "" if whole else cut, "views": scene.views, "seconds": clock.seconds}
    if found is not classifier:
        found.record["head"]["settled"] = head_settings(classifier)
    return replace(found, record={**found.record, "finetune": story})


def _refit(
    ground: Ground, begin: Begin, scene: Scene, conduct: Conduct, best: int, recipe: Recipe, progress: Progress | None
) -> Trained:
    """As many epochs as were best, from the given classifier's own weights on, on the validation photos too."""
    given = {name: np.asarray(begin.classifier.weights[name], np.float32) for name in scene.task.weights}
    of = (best + 1) * scene.everything.steps
    listening: list[Callback] = [Until(best + 1)]
    if progress:
        listening.append(StepProgress(lambda _, done, __: progress("refit", done, of)))
    folder = None if conduct.folder is None else Path(conduct.folder) / REFIT
    conduct = replace(conduct, callbacks=listening, folder=folder, find_rate=False, quiet=True)
    task, classes = replace(scene.task, weights=given), len(ground.plan.classes)
    return conduct.train(task, scene.everything, None, recipe, ground.identity(), classes)[0]


def _choose(
    classifier: Classifier, ground: Ground, trained: Trained, last: Trained, progress: Progress | None
) -> tuple[Classifier, dict[str, Any]]:
    """The fine-tuned classifier, or the given one where no epoch was better than its head; and how both did.

    ``trained`` has not seen the validation photos, so it tells how sure the classifier may be; ``last`` is the one.
    """
    history, plan = trained.history, ground.plan
    test = np.flatnonzero(plan.test)
    given = _probabilities(classifier, ground.features, test)
    if history.best < 0:
        found, after, chosen = classifier, given, "the head alone"
    else:
        record = classifier.record | plan.record(ground.table) | {"holdout": ground.holdout, "seed": ground.seed}
        found, after = finish(
            classifier.blueprint,
            {**classifier.weights, **last.weights},
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
            steering=None if last is trained else {**classifier.weights, **trained.weights},
            progress=progress,
        )
        found = replace(found, fitted_on=found.fitted_on | classifier.fitted_on)
        chosen = f"fine-tuned, epoch {history.best + 1}"
    val_loss = history.epochs[history.best].val_loss if history.best >= 0 else history.start
    return found, {
        "chosen": chosen,
        "before": _figures(given, plan.labels[test]) | {"val_loss": history.start},
        "after": _figures(after, plan.labels[test]) | {"val_loss": val_loss},
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
