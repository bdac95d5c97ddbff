"""What a fine-tuning works on: the photos and their split, a head in closed form, and the input of what is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.weights import weights_digest
from headstart.core.counts import counted
from headstart.core.errors import DataError, UsageError
from headstart.core.progress import Progress, stage
from headstart.core.types import ImageDataset
from headstart.data.folds import folds_of
from headstart.data.hold_out import FEWEST
from headstart.data.inputs import Images, labelled_dataset
from headstart.data.split import Split, split_beside, validation_part
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine
from headstart.learn.features import Features, extract
from headstart.learn.heads import HeadFit, fit_head
from headstart.model.assemble import LabelledPhotos
from headstart.model.classifier import Classifier
from headstart.model.records import ViewsRecord
from headstart.train.batches import ArrayBatches, PhotoBatches
from headstart.train.cut import above, cut_at
from headstart.train.identity import digest_of_all, fingerprint
from headstart.train.protocol import Batches, Task
from headstart.train.recipe import Recipe
from headstart.train.schedule import rates_by_layer
from headstart.train.views import DISTINCT, PLAIN, ViewPlan, compute_views, plan_views

Rows = NDArray[np.int_]
Weights = dict[str, NDArray[np.float32]]

BIAS = f"{LOGITS}.bias"
ENOUGH = 100  # photos held out, from which temperature and thresholds are taken and the choice is made
FOLDS = 5  # that they are held out in, where one validation set has fewer


@dataclass(frozen=True)
class FinetuneData:
    """The photos, what becomes of each, and their features by the network as it is."""

    dataset: ImageDataset
    split: Split
    folds: tuple[Rows, ...]  # each is held out by one training: a validation set, or several where one has few photos
    features: Features
    network: Network  # the given one, without its head
    holdout: float
    seed: int
    model: str  # digest of the given network's weights and pixels
    known: int = 0  # photos of the test set that were left out, for the classifier was fitted on them

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
        holdout = record.holdout if holdout is None else holdout
        seed = record.seed if seed is None else seed
        dataset = labelled_dataset(data, labels)
        trunk = classifier.blueprint.upto(FEATURES)
        weights = {name: classifier.weights[name] for name in trunk.weight_shapes()}
        network = get_engine(
            classifier.engine,
            trunk,
            weights,
            classifier.spec,
            classifier.precision,
            classifier.device,
            module=classifier.module,
        )
        report, digest = stage(progress, "features"), weights_digest(weights)
        features = extract(dataset, network, digest, keep=cache, progress=report)
        network.release()
        split, known = split_beside(dataset, features, holdout, seed, classifier.fitted_on)
        if split.classes != classifier.classes:
            raise DataError(other_classes(split.classes, classifier.classes))
        folds = held_out_in_turn(split, features.keys, seed)
        model = f"{digest} at {classifier.spec.size}"
        return cls(dataset, split, folds, features, network, holdout, seed, model, known)

    @property
    def held_out(self) -> Rows:
        """All rows that a training holds out."""
        return np.concatenate(self.folds)

    def beside(self, held_out: Rows) -> Rows:
        """What a training is trained on that holds these rows out."""
        return np.setdiff1d(np.flatnonzero(self.split.train), held_out)

    @property
    def all_rows(self) -> Rows:
        """Those of the first training, and then what it holds out."""
        return np.concatenate([self.beside(self.folds[0]), self.folds[0]])

    @property
    def photos(self) -> LabelledPhotos:
        """All that a classifier is assembled with."""
        held_out = np.isin(np.arange(len(self.dataset)), self.held_out)
        return LabelledPhotos(self.dataset, self.split, held_out, self.features.keys, self.features.thumbnails)

    def identity(self, held_out: Rows) -> dict[str, Any]:
        """What a training that holds these rows out is known by, see `train.checkpoint.Identity`."""
        keys, labels = self.features.keys, self.split.labels.tolist()
        parts = [b"".join(keys[row] for row in rows.tolist()) for rows in (self.beside(held_out), held_out)]
        return {
            "photos": digest_of_all(keys, labels),
            "split": fingerprint(*parts),
            "model": self.model,
            "seed": self.seed,
            "holdout": self.holdout,
        }

    @property
    def log_shares(self) -> NDArray[np.float32]:
        """Logarithms of the classes' shares of the training set, (K,).

        A training learns to expect classes as often as they are in it. So the bias gives it these first, and loses
        them in the end where the classifier expects all classes alike (Menon et al. 2021, logit adjustment).
        """
        counts = np.bincount(self.split.labels[self.split.train], minlength=len(self.split.classes))
        return np.asarray(np.log(counts / counts.sum()), np.float32)

    def weights_to_train(self, classifier: Classifier) -> Weights:
        """Those of the classifier, expecting classes as often as they are in the training set."""
        weights = {name: np.asarray(array, np.float32) for name, array in classifier.weights.items()}
        if expects_all_alike(classifier):
            weights[BIAS] = weights[BIAS] + self.log_shares
        return weights

    def closed_form(self, classifier: Classifier, rows: Rows) -> HeadFit:
        """A head in closed form of some photos, with the settings of the classifier's."""
        settings, split = head_settings(classifier), self.split
        return fit_head(
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

    def with_closed_form_head(self, classifier: Classifier, held_out: Rows) -> Weights:
        """The classifier's network with a closed-form head of all photos but those that are held out, to train on."""
        fitted = self.closed_form(classifier, self.beside(held_out))
        flat = fitted.prior == "flat" and fitted.kind == "lda"
        bias = fitted.head.bias + self.log_shares if flat else fitted.head.bias
        parts = {f"{LOGITS}.weight": fitted.head.weight, BIAS: bias}
        return {name: np.asarray(array, np.float32) for name, array in {**classifier.weights, **parts}.items()}


def held_out_in_turn(split: Split, keys: Sequence[bytes], seed: int) -> tuple[Rows, ...]:
    """What each training holds out: one validation set, or so many folds that `ENOUGH` photos are held out in all.

    A threshold that 5 % of the known photos are below, and a temperature, cannot be told from a handful of photos, nor
    whether fine-tuning was of use.

    Raises:
        DataError: a class has too few images.
    """
    single = np.flatnonzero(validation_part(split, keys, seed))
    if len(single) >= ENOUGH:
        return (single,)
    train = np.flatnonzero(split.train)
    labels, groups = split.labels[train], split.groups[train]
    count = min(FOLDS, *(len(np.unique(groups[labels == k])) for k in range(len(split.classes))))
    fold = folds_of(labels, [keys[row] for row in train.tolist()], groups, count, seed, split.classes)
    found: list[Rows] = []
    for k in range(count):
        left = np.bincount(labels[fold != k], minlength=len(split.classes))
        if sum(map(len, found)) < ENOUGH and left.min() >= FEWEST:
            found.append(train[fold == k])
    return tuple(found) if sum(map(len, found)) > len(single) else (single,)


@dataclass(frozen=True)
class FinetuneStart:
    """What is trained, and where it begins."""

    classifier: Classifier
    recipe: Recipe
    rates: dict[str, float]
    cut: str  # the node below all that is trained

    @classmethod
    def of(cls, classifier: Classifier, recipe: Recipe) -> FinetuneStart:
        """What the recipe trains of the classifier's network.

        Raises:
            UsageError: a classifier that was not fitted, or a recipe that names no part of its network.
        """
        if classifier.record.scratch is not None:
            raise UsageError(
                "This model was trained from random weights, all of it. To train it longer: headstart train DATA "
                "--from MODEL"
            )
        if not classifier.fitted_on or FEATURES not in classifier.blueprint.layers:
            raise UsageError(
                "This classifier has no head of photos of yours to begin with. Fit one first: headstart fit PHOTOS"
            )
        rates = rates_by_layer(classifier.blueprint, recipe)
        return cls(classifier, recipe, rates, cut_at(classifier.blueprint, rates))

    @property
    def whole(self) -> bool:
        """Whether something is trained at the very bottom, so that every step goes through the whole network."""
        return self.cut == INPUT


@dataclass(frozen=True)
class TrainingInputs:
    """What a trainer is given."""

    task: Task  # from the weights of the given classifier
    batches: Callable[[Rows, bool], Batches]  # of some photos, to train on or to validate with
    views: ViewsRecord

    def task_from(self, weights: Weights) -> Task:
        """The task from other weights on."""
        return replace(self.task, weights={name: weights[name] for name in self.task.weights})


def whole_network(data: FinetuneData, start: FinetuneStart) -> TrainingInputs:
    """Every step goes through the whole network: it is given photos."""
    given = start.classifier

    def batches(rows: Rows, train: bool) -> Batches:
        classes = data.split.classes
        return PhotoBatches(data.dataset, rows, given.spec, start.recipe, train=train, classes=classes)

    task = Task(given.blueprint, data.weights_to_train(given), start.rates, given.spec, given.module)
    return TrainingInputs(task, batches, ViewsRecord(0, 0.0))


def upper_part(
    data: FinetuneData, start: FinetuneStart, *, cache: bool, say: Callable[[str], None], progress: Progress | None
) -> TrainingInputs:
    """What is frozen runs once for each view of a photo; what lies above the cut is trained on its output."""
    whole, cut, recipe, size = start.classifier.blueprint, start.cut, start.recipe, start.classifier.spec.size
    upper, shape = above(whole, cut, size), whole.shapes(size)[cut]
    given = data.weights_to_train(start.classifier)
    weights = {name: array for name, array in given.items() if name in upper.weight_shapes()}
    origin = weights_digest({name: given[name] for name in whole.upto(cut).weight_shapes()})
    rows = data.all_rows
    views, sentence = plan_views(rows.tolist(), shape, recipe.augmentation, recipe.views, recipe.seed, keep=cache)
    plain, _ = plan_views(data.held_out.tolist(), shape, PLAIN, 1, recipe.seed, keep=cache)
    say(sentence)

    def see(viewing: ViewPlan, before: int, of: int) -> NDArray[np.float16]:
        report = None if progress is None else (lambda done, _: progress("views", before + done, of))
        x = compute_views(data.dataset, data.network, cut, origin, viewing, progress=report, say=say)
        return x.reshape(*x.shape[:2], *shape, *(1,) * (3 - len(shape)))  # a vector is an image of one pixel

    shared = recipe.augmentation in DISTINCT  # whose first view is the photo as it is
    x = see(views, 0, views.photos + (0 if shared else plain.photos))
    known = x[:1] if shared else see(plain, views.photos, views.photos + plain.photos)
    data.network.release()
    place = {row: k for k, row in enumerate(rows.tolist())}
    place_plain = place if shared else {row: k for k, row in enumerate(data.held_out.tolist())}

    def batches(some: Rows, train: bool) -> Batches:
        at = np.array([(place if train else place_plain)[row] for row in some.tolist()])
        y, seen = data.split.labels[some], x if train else known
        return ArrayBatches(seen, y, recipe.batch_size, recipe.seed, shuffle=train, views=True, rows=at)

    task = Task(upper, weights, start.rates, None)  # a module takes images: it is below the cut
    return TrainingInputs(task, batches, ViewsRecord(views.count, round(views.bytes / 1e6, 1)))


def expects_all_alike(classifier: Classifier) -> bool:
    """Whether its head takes all classes for equally probable, however many photos there are of each."""
    head = classifier.record.head
    return head is not None and head.kind != "ridge" and head.prior == "flat"


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
        f"{counted(len(found), 'class')}, {what}. For other classes, fit anew: headstart fit PHOTOS"
    )
