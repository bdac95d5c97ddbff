"""What a fine-tuning works on: the photos and their split, a head in closed form, and the input of what is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.weights import weights_digest
from headstart.core.errors import DataError, UsageError
from headstart.core.progress import Progress, stage
from headstart.core.types import ImageDataset
from headstart.data.inputs import Images, labelled_dataset
from headstart.data.split import Split, check_holdout, make_split, validation_part
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine
from headstart.learn.features import Features, extract
from headstart.learn.heads import fit_head
from headstart.model.assemble import LabelledPhotos
from headstart.model.classifier import Classifier
from headstart.model.records import ViewsRecord
from headstart.train.batches import ArrayBatches, PhotoBatches
from headstart.train.cut import above, cut_at
from headstart.train.protocol import Batches, Task
from headstart.train.recipe import Recipe
from headstart.train.schedule import rates_by_layer
from headstart.train.views import DISTINCT, PLAIN, ViewPlan, compute_views, plan_views

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class FinetuneData:
    """The photos, what becomes of each, and their features by the network as it is."""

    dataset: ImageDataset
    split: Split
    validation: NDArray[np.bool_]
    features: Features
    network: Network  # the given one, without its head
    holdout: float
    seed: int

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        data: Images,
        labels: Iterable[object] | None = None,
        *,
        holdout: float | None = None,
        seed: int | None = None,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> FinetuneData:
        """Look at the photos, and split them as the fit did unless told otherwise; see `finetune`."""
        record = classifier.record
        if not classifier.fitted_on or FEATURES not in classifier.blueprint.layers:
            raise UsageError(
                "This classifier has no head of photos of yours to begin with. Fit one first: headstart fit PHOTOS"
            )
        holdout = record.holdout if holdout is None else holdout
        seed = record.seed if seed is None else seed
        check_holdout(holdout, seed)
        dataset = labelled_dataset(data, labels)
        trunk = classifier.blueprint.upto(FEATURES)
        weights = {name: classifier.weights[name] for name in trunk.weight_shapes()}
        network = get_engine(
            classifier.engine, trunk, weights, classifier.spec, classifier.precision, module=classifier.module
        )
        report = stage(progress, "features")
        features = extract(dataset, network, weights_digest(weights), keep=cache, progress=report)
        network.release()
        split = make_split(dataset, features, holdout, seed)
        fitted_on = np.array([key in classifier.fitted_on for key in features.keys])
        if (split.test & fitted_on).any() and not split.own_test:  # other settings, or more photos than there were
            split = make_split(dataset, features, holdout, seed, fitted_on)
        split.test &= ~fitted_on
        if split.classes != classifier.classes:
            raise DataError(other_classes(split.classes, classifier.classes))
        validation = validation_part(split, features.keys, seed)
        return cls(dataset, split, validation, features, network, holdout, seed)

    @property
    def train_rows(self) -> NDArray[np.int_]:
        """Those that are trained on."""
        return np.flatnonzero(self.split.train & ~self.validation)

    @property
    def validation_rows(self) -> NDArray[np.int_]:
        """Those that are validated with."""
        return np.flatnonzero(self.validation)

    @property
    def all_rows(self) -> NDArray[np.int_]:
        """The former and then the latter."""
        return np.concatenate([self.train_rows, self.validation_rows])

    @property
    def photos(self) -> LabelledPhotos:
        """All that a classifier is assembled with."""
        return LabelledPhotos(self.dataset, self.split, self.validation, self.features.keys, self.features.thumbnails)

    def identity(self) -> str:
        """Of the photos that are trained on and validated with, their labels and order."""
        parts = {
            name: np.frombuffer(b"".join(self.features.keys[row] for row in rows.tolist()), np.uint8)
            for name, rows in (("train", self.train_rows), ("validation", self.validation_rows))
        }
        return weights_digest(parts | {"labels": self.split.labels.astype(np.int64)})

    def with_closed_form_head(self, classifier: Classifier) -> Weights:
        """The classifier's network with a closed-form head of the photos that are trained on alone."""
        settings = head_settings(classifier)
        rows, split = self.train_rows, self.split
        fitted = fit_head(
            self.features.values,
            split.labels[rows],
            len(split.classes),
            rows=rows,
            sqrt=takes_roots(classifier.blueprint),
            kind=settings["kind"],
            prior=settings["prior"],
            groups=split.groups[rows],
            seed=self.seed,
        )
        head = {f"{LOGITS}.weight": fitted.head.weight, f"{LOGITS}.bias": fitted.head.bias}
        return {name: np.asarray(array, np.float32) for name, array in {**classifier.weights, **head}.items()}


@dataclass(frozen=True)
class FinetuneStart:
    """What is trained, and where it begins."""

    classifier: Classifier
    weights: Weights
    recipe: Recipe
    rates: dict[str, float]
    cut: str  # the node below all that is trained

    @classmethod
    def of(cls, classifier: Classifier, weights: Weights, recipe: Recipe) -> FinetuneStart:
        """What the recipe trains of the classifier's network, from these weights."""
        rates = rates_by_layer(classifier.blueprint, recipe)
        return cls(classifier, weights, recipe, rates, cut_at(classifier.blueprint, rates))

    @property
    def whole(self) -> bool:
        """Whether something is trained at the very bottom, so that every step goes through the whole network."""
        return self.cut == INPUT


@dataclass(frozen=True)
class TrainingInputs:
    """What a trainer is given."""

    task: Task
    train: Batches
    validation: Batches
    everything: Batches  # both
    views: ViewsRecord


def whole_network(data: FinetuneData, start: FinetuneStart) -> TrainingInputs:
    """Every step goes through the whole network: it is given photos."""
    given = start.classifier

    def photos(rows: NDArray[np.int_], *, train: bool = True) -> PhotoBatches:
        classes = data.split.classes
        return PhotoBatches(data.dataset, rows, given.spec, start.recipe, train=train, classes=classes)

    return TrainingInputs(
        task=Task(given.blueprint, start.weights, start.rates, given.spec, given.module),
        train=photos(data.train_rows),
        validation=photos(data.validation_rows, train=False),
        everything=photos(data.all_rows),
        views=ViewsRecord(0, 0.0),
    )


def upper_part(
    data: FinetuneData, start: FinetuneStart, *, cache: bool, say: Callable[[str], None], progress: Progress | None
) -> TrainingInputs:
    """What is frozen runs once for each view of a photo; what lies above the cut is trained on its output."""
    whole, cut, recipe, size = start.classifier.blueprint, start.cut, start.recipe, start.classifier.spec.size
    upper, shape = above(whole, cut, size), whole.shapes(size)[cut]
    weights = {name: array for name, array in start.weights.items() if name in upper.weight_shapes()}
    origin = weights_digest({name: start.weights[name] for name in whole.upto(cut).weight_shapes()})
    rows, count = data.all_rows, len(data.train_rows)
    views, sentence = plan_views(rows.tolist(), shape, recipe.augmentation, recipe.views, recipe.seed, keep=cache)
    plain, _ = plan_views(data.validation_rows.tolist(), shape, PLAIN, 1, recipe.seed, keep=cache)
    say(sentence)

    def see(viewing: ViewPlan, before: int, of: int) -> NDArray[np.float16]:
        report = None if progress is None else (lambda done, _: progress("views", before + done, of))
        x = compute_views(data.dataset, data.network, cut, origin, viewing, progress=report, say=say)
        return x.reshape(*x.shape[:2], *shape, *(1,) * (3 - len(shape)))  # a vector is an image of one pixel

    shared = recipe.augmentation in DISTINCT  # whose first view is the photo as it is
    x = see(views, 0, views.photos + (0 if shared else plain.photos))
    known = x[:1, count:] if shared else see(plain, views.photos, views.photos + plain.photos)
    data.network.release()

    def batches(x: NDArray[np.float16], rows: NDArray[np.int_], *, train: bool = True) -> ArrayBatches:
        y = data.split.labels[rows]
        return ArrayBatches(x, y, recipe.batch_size, recipe.seed, shuffle=train, views=True)

    return TrainingInputs(
        task=Task(upper, weights, start.rates, None, start.classifier.module),
        train=batches(x[:, :count], data.train_rows),
        validation=batches(known, data.validation_rows, train=False),
        everything=batches(x, rows),
        views=ViewsRecord(views.count, round(views.bytes / 1e6, 1)),
    )


def head_settings(classifier: Classifier) -> dict[str, str]:
    """What the classifier's head was fitted with in closed form, before whatever was trained since."""
    head = classifier.record.head
    if head is not None and head.settled is not None:
        return head.settled
    if head is None or head.kind == "trained":
        return {"kind": "lda", "prior": "flat"}
    return {"kind": head.kind, "prior": head.prior}


def takes_roots(blueprint: Blueprint) -> bool:
    """Whether the head is given square roots of the features."""
    return blueprint[blueprint[LOGITS].inputs[0]].op == "act"


def other_classes(found: Sequence[str], known: Sequence[str]) -> str:
    """A sentence on photos of other classes than the classifier's."""
    new, missing = sorted(set(found) - set(known)), sorted(set(known) - set(found))
    what = f"'{new[0]}', which it does not know" if new else f"too few of '{missing[0]}'"
    return (
        f"Fine-tuning wants photos of the classifier's {len(known)} classes, three of each at least. Received: "
        f"{len(found)} classes, {what}. For other classes, fit anew: headstart fit PHOTOS"
    )
