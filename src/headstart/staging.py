"""What a fine-tuning begins with: the photos, what becomes of each, a settled head, and what reaches what moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, LOGITS, Blueprint
from headstart.backbones.weights import weights_digest
from headstart.classifier import Classifier, Images, labelled_table
from headstart.engines.base import Network, get_engine
from headstart.errors import DataError, UsageError
from headstart.learn.features import Features, extract
from headstart.learn.heads import fit_head
from headstart.planning import HOLDOUT, Plan, check_settings, plan_split, plan_validation
from headstart.train.base import Batches, Task
from headstart.train.batches import ArrayBatches, PhotoBatches
from headstart.train.cut import above
from headstart.train.recipe import Recipe
from headstart.train.views import DISTINCT, PLAIN, Viewing, compute_views, plan_views
from headstart.types import Table

Progress = Callable[[str, int, int], None]  # stage, done, of how many
Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Ground:
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
    ) -> Ground:
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
            trunk_of(classifier),
            classifier.spec,
            classifier.precision,
            classifier.module,
        )
        features = extract(table, network, weights_digest(trunk_of(classifier)), keep=cache, progress=report)
        network.release()
        plan = plan_split(table, features, holdout, seed)
        fitted_on = np.array([key in classifier.fitted_on for key in features.keys])
        if (plan.test & fitted_on).any() and not plan.own_test:  # other settings, or more photos than there were
            plan = plan_split(table, features, holdout, seed, fitted_on)
        plan.test &= ~fitted_on
        if plan.classes != classifier.classes_:
            raise DataError(other_classes(plan.classes, classifier.classes_))
        return cls(table, plan, plan_validation(plan, features.keys, seed), features, network, holdout, seed)

    @property
    def rows(self) -> NDArray[np.int_]:
        """Those that are trained on."""
        return np.flatnonzero(self.plan.train & ~self.validation)

    @property
    def known(self) -> NDArray[np.int_]:
        """Those that are validated with."""
        return np.flatnonzero(self.validation)

    @property
    def all_rows(self) -> NDArray[np.int_]:
        """The former and then the latter."""
        return np.concatenate([self.rows, self.known])

    def identity(self) -> str:
        """Of the photos that are trained on and validated with, their labels and order."""
        parts = {
            name: np.frombuffer(b"".join(self.features.keys[row] for row in rows.tolist()), np.uint8)
            for name, rows in (("train", self.rows), ("validation", self.known))
        }
        return weights_digest(parts | {"labels": self.plan.labels.astype(np.int64)})

    def settled_head(self, classifier: Classifier) -> Weights:
        """The classifier's network with a closed-form head of the photos that are trained on alone."""
        settings = head_settings(classifier)
        rows, plan = self.rows, self.plan
        fitted = fit_head(
            self.features.values,
            plan.labels[rows],
            len(plan.classes),
            rows=rows,
            sqrt=takes_roots(classifier.blueprint),
            kind=settings["kind"],
            prior=settings["prior"],
            groups=plan.groups[rows],
            seed=self.seed,
        )
        head = {f"{LOGITS}.weight": fitted.head.weight, f"{LOGITS}.bias": fitted.head.bias}
        return {name: np.asarray(array, np.float32) for name, array in {**classifier.weights, **head}.items()}


@dataclass(frozen=True)
class Begin:
    """What is trained, and where it begins."""

    classifier: Classifier
    weights: Weights
    rates: dict[str, float]
    recipe: Recipe
    cut: str  # the node below all that moves


@dataclass(frozen=True)
class Scene:
    """What a trainer is given."""

    task: Task
    batches: Batches
    validation: Batches
    everything: Batches  # both
    views: dict[str, Any]


def whole_network(ground: Ground, begin: Begin) -> Scene:
    """Something moves at the very bottom: every pass goes through the whole network."""
    given = begin.classifier

    def photos(rows: NDArray[np.int_], *, train: bool = True) -> PhotoBatches:
        classes = ground.plan.classes
        return PhotoBatches(ground.table, rows, given.spec, begin.recipe, train=train, classes=classes)

    task = Task(given.blueprint, begin.weights, begin.rates, given.spec, given.module)
    parts = photos(ground.rows), photos(ground.known, train=False), photos(ground.all_rows)
    return Scene(task, *parts, views={"count": 0, "mb": 0.0})


def upper_part(
    ground: Ground, begin: Begin, cache: bool, say: Callable[[str], None], progress: Progress | None
) -> Scene:
    """All that is frozen runs once for each view of a photo; what lies above the cut is trained on what comes out."""
    whole, cut, recipe, size = begin.classifier.blueprint, begin.cut, begin.recipe, begin.classifier.spec.size
    upper, shape = above(whole, cut, size), whole.shapes(size)[cut]
    weights = {name: array for name, array in begin.weights.items() if name in upper.weight_shapes()}
    origin = weights_digest({name: begin.weights[name] for name in whole.upto(cut).weight_shapes()})
    rows, count = ground.all_rows, len(ground.rows)
    views, sentence = plan_views(rows.tolist(), shape, recipe.augmentation, recipe.views, recipe.seed, keep=cache)
    plain, _ = plan_views(ground.known.tolist(), shape, PLAIN, 1, recipe.seed, keep=cache)
    say(sentence)

    def see(viewing: Viewing, before: int, of: int) -> NDArray[np.float16]:
        report = None if progress is None else (lambda done, _: progress("views", before + done, of))
        x = compute_views(ground.table, ground.network, cut, origin, viewing, progress=report, say=say)
        return x.reshape(*x.shape[:2], *shape, *(1,) * (3 - len(shape)))  # a vector is an image of one pixel

    shared = recipe.augmentation in DISTINCT  # whose first view is the photo as it is
    x = see(views, 0, views.photos + (0 if shared else plain.photos))
    known = x[:1, count:] if shared else see(plain, views.photos, views.photos + plain.photos)
    ground.network.release()

    def batches(x: NDArray[np.float16], rows: NDArray[np.int_], *, train: bool = True) -> ArrayBatches:
        y = ground.plan.labels[rows]
        return ArrayBatches(x, y, recipe.batch_size, recipe.seed, shuffle=train, views=True)

    parts = batches(x[:, :count], ground.rows), batches(known, ground.known, train=False), batches(x, rows)
    told = {"count": views.count, "mb": round(views.bytes / 1e6, 1)}
    return Scene(Task(upper, weights, begin.rates, None, begin.classifier.module), *parts, views=told)


def trunk_of(classifier: Classifier) -> Weights:
    wanted = classifier.blueprint.upto(FEATURES).weight_shapes()
    return {name: array for name, array in classifier.weights.items() if name in wanted}


def head_settings(classifier: Classifier) -> dict[str, str]:
    """What the classifier's head was fitted with in closed form, before whatever was trained since."""
    head = classifier.record.get("head", {})
    settled = head.get("settled", {} if head.get("kind") == "trained" else head)
    return {"kind": settled.get("kind", "lda"), "prior": settled.get("prior", "flat")}


def takes_roots(blueprint: Blueprint) -> bool:
    """Whether the head is given square roots of the features."""
    return blueprint[blueprint[LOGITS].inputs[0]].op == "act"


def other_classes(found: Sequence[str], known: Sequence[str]) -> str:
    strangers = sorted(set(found) - set(known))
    missing = sorted(set(known) - set(found))
    what = f"'{strangers[0]}', which it does not know" if strangers else f"too few of '{missing[0]}'"
    return (
        f"Fine-tuning wants photos of the classifier's {len(known)} classes, three of each at least. Received: "
        f"{len(found)} classes, {what}. For other classes, fit anew: headstart fit PHOTOS"
    )
