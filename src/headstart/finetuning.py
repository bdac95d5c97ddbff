"""Fine-tuning: the head settled, the part above a cut unfrozen, and never a worse model than the one that was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.weights import weights_digest
from headstart.classifier import Classifier, Images, labelled_table
from headstart.clock import Clock
from headstart.conducting import Conduct
from headstart.data.sources import PathLike
from headstart.engines.base import Network, get_engine
from headstart.errors import DataError, UsageError
from headstart.finishing import finish
from headstart.learn.calibrate import softmax
from headstart.learn.features import Features, extract
from headstart.learn.heads import Head, fit_head
from headstart.learn.paired import mcnemar
from headstart.planning import HOLDOUT, Plan, check_settings, plan_split, plan_validation
from headstart.train.base import Batches, Callback, Task, Trained
from headstart.train.batches import ArrayBatches, PhotoBatches
from headstart.train.cut import above, cut_at
from headstart.train.recipe import Recipe, open_recipe
from headstart.train.schedule import rates_by_layer
from headstart.train.views import PLAIN, Viewing, compute_views, plan_views
from headstart.types import Accuracy, Table

Progress = Callable[[str, int, int], None]  # stage, done, of how many
Weights = dict[str, NDArray[np.float32]]


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
    part chooses among the epochs and that head alone: where the head wins, the classifier comes back as it was. The
    part of the network below all that moves runs once for each view of each photo. ``record["finetune"]`` tells how it
    went.

    Args:
        data, labels: as `fit` takes them; the same photos are split as they were, so the test photos stay unseen.
        recipe: "careful", "fast", "full", a JSON file, or a `Recipe`.
        trainer, device, devices, nodes, strategy, find_rate, folder, resume, callbacks, say: see `Conduct`.
        holdout, seed: of the split; default: those of the fit.
        cache: whether features and views are kept for the next time.
        progress: called with (stage, done, of how many).

    Raises:
        UsageError: a classifier that was not fitted, or a setting that is not there or out of range.
        DataError: the photos are not of the classifier's classes, or too few of one.
    """
    followed = recipe if isinstance(recipe, Recipe) else open_recipe(str(recipe))
    conduct = Conduct(
        trainer, device, devices, nodes, strategy, find_rate, folder, resume, callbacks, say or (lambda sentence: None)
    )
    conduct.check()
    clock = Clock()
    with clock("features"):
        ground = _Ground.of(classifier, data, labels, holdout, seed, cache, progress)
    with clock("head"):
        start = ground.settled_head(classifier)
    blueprint = classifier.blueprint
    rates = rates_by_layer(blueprint, followed)
    cut = cut_at(blueprint, rates)
    with clock("views"):
        begin = _Begin(classifier, start, rates, followed, cut)
        scene = _whole(ground, begin) if cut == INPUT else _upper(ground, begin, cache, conduct.say, progress)
    with clock("training"):
        trained, followed = conduct.train(
            scene.task, scene.batches, scene.validation, followed, ground.identity(), len(ground.plan.classes)
        )
    with clock("measuring"):
        found, comparison = _choose(classifier, ground, start, trained, progress)
    story = (
        conduct.record(trained, followed, scene.task, scene.validation.images, len(ground.plan.classes)) | comparison
    )
    story |= {"cut": "" if cut == INPUT else cut, "views": scene.views, "seconds": clock.seconds}
    return replace(found, record={**found.record, "finetune": story})


@dataclass(frozen=True)
class _Ground:
    """The photos, what becomes of each, and what the network as it is sees in them."""

    table: Table
    plan: Plan
    validation: NDArray[np.bool_]
    features: Features
    network: Network
    holdout: float
    seed: int

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        data: Images,
        labels: Sequence[str] | None,
        holdout: float | None,
        seed: int | None,
        cache: bool,
        progress: Progress | None,
    ) -> _Ground:
        record = classifier.record
        if not classifier.fitted_on or FEATURES not in classifier.blueprint.layers:
            raise UsageError(
                "This classifier has no head of photos of yours to begin with. Fit one first: headstart fit PHOTOS"
            )
        holdout = record.get("holdout", HOLDOUT) if holdout is None else holdout
        seed = record.get("seed", 0) if seed is None else seed
        check_settings("lda", "flat", holdout, seed)
        table = labelled_table(data, labels)
        report = None if progress is None else (lambda done, count: progress("features", done, count))
        network = get_engine(
            classifier.engine,
            classifier.blueprint.upto(FEATURES),
            _trunk(classifier),
            classifier.spec,
            classifier.precision,
            classifier.module,
        )
        features = extract(table, network, weights_digest(_trunk(classifier)), keep=cache, progress=report)
        network.release()
        plan = plan_split(table, features, holdout, seed)
        fitted_on = np.array([key in classifier.fitted_on for key in features.keys])
        if (plan.test & fitted_on).any() and not plan.own_test:  # other settings, or more photos than there were
            plan = plan_split(table, features, holdout, seed, fitted_on)
        plan.test &= ~fitted_on
        if plan.classes != classifier.classes_:
            raise DataError(_other_classes(plan.classes, classifier.classes_))
        return cls(table, plan, plan_validation(plan, features.keys, seed), features, network, holdout, seed)

    @property
    def rows(self) -> NDArray[np.int_]:
        """Those that are trained on."""
        return np.flatnonzero(self.plan.train & ~self.validation)

    def identity(self) -> str:
        """Of the photos that are trained on and validated with, their labels and order."""
        parts = {
            name: np.frombuffer(b"".join(self.features.keys[row] for row in rows.tolist()), np.uint8)
            for name, rows in (("train", self.rows), ("validation", np.flatnonzero(self.validation)))
        }
        return weights_digest(parts | {"labels": self.plan.labels.astype(np.int64)})

    def settled_head(self, classifier: Classifier) -> Weights:
        """The classifier's network with a closed-form head of the photos that are trained on alone."""
        settings = classifier.record.get("head", {})
        rows, plan = self.rows, self.plan
        kind = settings.get("kind", "lda")
        fitted = fit_head(
            self.features.values,
            plan.labels[rows],
            len(plan.classes),
            rows=rows,
            sqrt=_takes_roots(classifier.blueprint),
            kind="lda" if kind == "trained" else kind,
            prior=settings.get("prior", "flat"),
            groups=plan.groups[rows],
            seed=self.seed,
        )
        head = {f"{LOGITS}.weight": fitted.head.weight, f"{LOGITS}.bias": fitted.head.bias}
        return {name: np.asarray(array, np.float32) for name, array in {**classifier.weights, **head}.items()}


@dataclass(frozen=True)
class _Begin:
    """What is trained, and where it begins."""

    classifier: Classifier
    weights: Weights
    rates: dict[str, float]
    recipe: Recipe
    cut: str  # the node below all that moves


@dataclass(frozen=True)
class _Scene:
    """What a trainer is given."""

    task: Task
    batches: Batches
    validation: Batches
    views: dict[str, Any]


def _whole(ground: _Ground, begin: _Begin) -> _Scene:
    """Something moves at the very bottom: every pass goes through the whole network."""
    given, classes = begin.classifier, ground.plan.classes
    task = Task(given.blueprint, begin.weights, begin.rates, given.spec, given.module)
    known = np.flatnonzero(ground.validation)
    train = PhotoBatches(ground.table, ground.rows, given.spec, begin.recipe, classes=classes)
    validation = PhotoBatches(ground.table, known, given.spec, begin.recipe, train=False, classes=classes)
    return _Scene(task, train, validation, {"count": 0, "mb": 0.0})


def _upper(
    ground: _Ground, begin: _Begin, cache: bool, say: Callable[[str], None], progress: Progress | None
) -> _Scene:
    """All that is frozen runs once for each view of a photo; what lies above the cut is trained on what comes out."""
    whole, cut, recipe, size = begin.classifier.blueprint, begin.cut, begin.recipe, begin.classifier.spec.size
    upper, shape = above(whole, cut, size), whole.shapes(size)[cut]
    weights = {name: array for name, array in begin.weights.items() if name in upper.weight_shapes()}
    origin = weights_digest({name: begin.weights[name] for name in whole.upto(cut).weight_shapes()})
    known = np.flatnonzero(ground.validation)
    views, sentence = plan_views(
        ground.rows.tolist(), shape, recipe.augmentation, recipe.views, recipe.seed, keep=cache
    )
    plain, _ = plan_views(known.tolist(), shape, PLAIN, 1, recipe.seed, keep=cache)
    say(sentence)
    done = 0

    def see(viewing: Viewing, rows: NDArray[np.int_], *, train: bool) -> ArrayBatches:
        nonlocal done
        before, of = done, views.photos + plain.photos
        report = None if progress is None else (lambda count, _: progress("views", before + count, of))
        x = compute_views(ground.table, ground.network, cut, origin, viewing, keep=cache, progress=report, say=say)
        done += viewing.photos
        x = x.reshape(*x.shape[:2], *shape, *(1,) * (3 - len(shape)))  # a vector is an image of one pixel
        labels = ground.plan.labels[rows]
        return ArrayBatches(x, labels, recipe.batch_size, recipe.seed, shuffle=train, views=True)

    train, validation = see(views, ground.rows, train=True), see(plain, known, train=False)
    ground.network.release()
    told = {"count": views.count, "mb": round(views.bytes / 1e6, 1)}
    return _Scene(Task(upper, weights, begin.rates, None, begin.classifier.module), train, validation, told)


def _choose(
    classifier: Classifier, ground: _Ground, start: Weights, trained: Trained, progress: Progress | None
) -> tuple[Classifier, dict[str, Any]]:
    """The fine-tuned classifier, or the given one where no epoch was better than its head; and how both did."""
    history, plan = trained.history, ground.plan
    test = np.flatnonzero(plan.test)
    given = _probabilities(classifier, ground.features, test)
    if history.best < 0:
        found, after, chosen = classifier, given, "the head alone"
    else:
        record = classifier.record | plan.record(ground.table) | {"holdout": ground.holdout, "seed": ground.seed}
        found, after = finish(
            classifier.blueprint,
            {**start, **trained.weights},
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
    head = Head(weight, bias, sqrt=_takes_roots(classifier.blueprint))
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


def _trunk(classifier: Classifier) -> Weights:
    wanted = classifier.blueprint.upto(FEATURES).weight_shapes()
    return {name: array for name, array in classifier.weights.items() if name in wanted}


def _takes_roots(blueprint: Blueprint) -> bool:
    """Whether the head is given square roots of the features."""
    return blueprint[blueprint[LOGITS].inputs[0]].op == "act"


def _other_classes(found: Sequence[str], known: Sequence[str]) -> str:
    strangers = sorted(set(found) - set(known))
    missing = sorted(set(known) - set(found))
    what = f"'{strangers[0]}', which it does not know" if strangers else f"too few of '{missing[0]}'"
    return (
        f"Fine-tuning wants photos of the classifier's {len(known)} classes, three of each at least. Received: "
        f"{len(found)} classes, {what}. For other classes, fit anew: headstart fit PHOTOS"
    )
