"""Photos to a classifier whose network starts from random weights: for comparison, and for digits and the like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.small import mlp, sees_luma, small_cnn
from headstart.backbones.weights import weights_digest
from headstart.core.arguments import PIXELS, TEXT, YES_NO, checks
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.progress import Progress, Shown, function_of, stage
from headstart.core.timing import StageTimer
from headstart.core.types import Accuracy, Evaluation, ImageDataset, ImageSpec
from headstart.data.depth import common_levels
from headstart.data.fingerprints import Fingerprints, take_fingerprints
from headstart.data.folds import folds_of
from headstart.data.inputs import Images, labelled_dataset, name_of
from headstart.data.sources import PathLike
from headstart.data.split import VALIDATION, Split, validation_part
from headstart.diagnose.training import diagnosis_of_training
from headstart.model.assemble import Assembled, LabelledPhotos, TrainedNetwork, assemble, knowing_too
from headstart.model.classifier import Classifier
from headstart.model.given import photo_model
from headstart.model.records import FitRecord, ImageCounts, ScratchRecord
from headstart.train.batches import PhotoBatches
from headstart.train.identity import digest_of_all, fingerprint
from headstart.train.protocol import Task
from headstart.train.recipe import PRESETS, Recipe, open_recipe
from headstart.train.screen import on_screen, shows_training
from headstart.train.training_run import TrainingRun
from headstart.workflows.earlier_training import (
    check_nothing_else,
    epochs_of,
    known_to_validate,
    scratch_record,
    split_for,
)
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
from headstart.workflows.picture_statistics import SMALL, are_grey, normalised, own_size

NETWORKS = ("small_cnn", "mlp")
HIDDEN = (512, 256)
SCRATCH = "scratch"  # the preset for photos
LEAST, MOST = 5, 512  # pixels: three halvings need so many; more are for pretrained networks
GREY = "The pictures have no colours: the network sees one channel, the luma."
SMALL_AND_GREY = f"{GREY} Small ones are trained on as they are: a mirrored or turned digit is another, or none."
CROP = 0.875  # share of the shorter side that is seen of photos; of small pictures all


@checks(network=TEXT, pixels=PIXELS, grey=YES_NO, **RULES)
@shows_training
def train_photos(
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    network: str | None = None,
    hidden: Sequence[int] | None = None,
    pixels: int | None = None,
    grey: bool | None = None,
    start: Classifier | PathLike | None = None,
    recipe: str | PathLike | Mapping[str, Any] | Recipe = SCRATCH,
    trainer: str | TrainingRun = "pytorch",
    holdout: float | None = None,
    validation: float = VALIDATION,
    folds: int = 0,
    seed: int | None = None,
    progress: Shown = True,
) -> Classifier:
    """Train a small network from random weights, and measure it on the test set that `fit` with this seed has.

    Or go on with one that was trained so, from its weights.

    Args:
        data, labels: as `fit` takes them.
        network: "small_cnn", which is the default, or "mlp".
        hidden: units of the perceptron's hidden layers, the lowest first; none make it one layer. Default: `HIDDEN`.
        pixels: default: the size of the images where they are all alike and small, else 64.
        grey: whether the network sees one channel, the luma, in place of three; default: where the images, or 256 of
            them, have no colours.
        start: a classifier that this function gave, or the path of one. Its network goes on from the weights that it
            has, with the same pixels; what it was trained on before is never in the test set.
        recipe: a preset, a JSON file or a `Recipe`. The preset "scratch" mirrors, turns and crops photos; small grey
            pictures it leaves as they are, for a mirrored digit is none.
        trainer: "pytorch", "lightning", "tensorflow", "keras", or a `TrainingRun` with device, checkpoints and more.
        holdout: share of every class held out as the test set, where the data brings none; default: that of the
            ``start``, else 0.2.
        validation: share of every class of the rest for the validation set: the epoch with the lowest loss on it is
            the one that is kept.
        folds: measure by cross-validation instead, with as many trainings; one more, on all photos, gives the model.
        seed: of the split; that of the weights and the order is the recipe's. Default: that of the ``start``, else 0.
        progress: as for `fit`; with bars, a line for each epoch.

    Raises:
        UsageError: a name or setting that is not there or out of range.
        DataError: a class with too few photos to train, validate and measure.
        MissingExtraError: the trainer's framework is not installed.
    """
    chosen, report = open_recipe(recipe), function_of(progress)
    start = None if start is None else photo_model(start, "--from")
    run = TrainingRun.of(on_screen(trainer, progress, chosen.epochs))
    check_nothing_else(start, folds, network=network, hidden=hidden, pixels=pixels, grey=grey)
    settings = ScratchSettings.of(holdout, validation, folds, seed, start)
    settings.check(run)
    wanted = _Wanted.of(network, hidden, pixels, grey) if start is None else _Wanted.as_in(start)
    check_recipe(chosen, norms=wanted.network == "small_cnn")

    timer = StageTimer()
    with timer("split"):
        dataset = labelled_dataset(data, labels)
        if folds and dataset.own_test:
            raise UsageError(f"--folds: the data brings its own test set ({dataset.own_test}/). Leave --folds out.")
        seen = take_fingerprints(dataset, stage(report, "images"))
        split = split_for(start, dataset, seen, 0.0 if folds else settings.holdout, settings.seed)
    spec, blueprint, found = wanted.look_at(dataset, split, chosen.dropout)
    if found == SMALL_AND_GREY and recipe == SCRATCH:
        chosen = replace(chosen, augmentation="none")
    if found and wanted.grey is None:
        run.say(found)
    job = _Job(dataset, seen, spec, blueprint, chosen, settings, start)

    each: tuple[Accuracy, ...] = ()
    pooled: Evaluation | None = None
    if folds:
        with timer("folds"):
            each, pooled = job.cross_validate(split, run.one_of_many(), report)
    model = job.train(split, run, timer, report).classifier
    record = model.record
    if pooled is not None:
        record = replace(record, result=pooled, test=int(split.train.sum()), test_part="cross-validation")
    scratch = record.scratch and replace(
        record.scratch,
        network=wanted.network,
        hidden=wanted.hidden if wanted.network == "mlp" else (),
        folds=each,
        epochs_before=0 if start is None else epochs_of(scratch_record(start)),
    )
    record = replace(
        record, data=name_of(data, dataset), holdout=settings.holdout, seconds=timer.seconds, scratch=scratch
    )
    return replace(model, record=_diagnosed(record))


def _diagnosed(record: FitRecord) -> FitRecord:
    """With what the curves of the training say."""
    return record if record.scratch is None else replace(record, diagnosis=diagnosis_of_training(record.scratch))


def small_network(
    network: str,
    classes: int,
    pixels: int = SMALL,
    hidden: Sequence[int] = HIDDEN,
    dropout: float | None = None,
    *,
    grey: bool = False,
) -> Blueprint:
    """The network that `train_photos` trains; ``dropout`` is by default that of its recipe.

    Raises:
        UsageError: a size out of range.
    """
    check_size(pixels)
    dropout = PRESETS[SCRATCH].dropout if dropout is None else dropout
    if network == "mlp":
        return mlp(3, hidden, classes, size=pixels, dropout=dropout, grey=grey)
    return small_cnn(pixels, classes, dropout=dropout, grey=grey)


def check_size(pixels: int | None) -> None:
    """Refuse a size of images that no small network is for."""
    if pixels is not None and not LEAST <= pixels <= MOST:
        raise UsageError(f"--pixels: from scratch, expected {LEAST} to {MOST}. Received: {pixels}.")


@dataclass(frozen=True)
class _Wanted:
    """The network to train, as far as that was said; the images tell the rest."""

    network: str
    hidden: tuple[int, ...]
    pixels: int | None
    grey: bool | None
    spec: ImageSpec | None = None  # of the model that the training goes on from

    @classmethod
    def of(cls, network: str | None, hidden: Sequence[int] | None, pixels: int | None, grey: bool | None) -> _Wanted:
        """What was asked for, or the default."""
        name = network or NETWORKS[0]
        if name not in NETWORKS:
            raise UsageError(f"There is no network '{name}' to train from scratch. {did_you_mean(name, NETWORKS)}")
        if hidden is not None and name != "mlp":
            raise UsageError(f"--hidden is for the mlp. Received: --network {name}. Add: --network mlp")
        check_size(pixels)
        return cls(name, HIDDEN if hidden is None else tuple(hidden), pixels, grey)

    @classmethod
    def as_in(cls, start: Classifier) -> _Wanted:
        """The network of a classifier that was trained so."""
        record = scratch_record(start)
        return cls(record.network, record.hidden, start.spec.size, sees_luma(start.blueprint), start.spec)

    def look_at(self, dataset: ImageDataset, split: Split, dropout: float) -> tuple[ImageSpec, Blueprint, str]:
        """The images as the network takes them, the network, and a sentence where those have no colours."""
        rows = np.flatnonzero(split.train)
        size = own_size(dataset, rows)
        pixels = self.pixels or (size if size >= LEAST else SMALL)
        spec = self.spec or ImageSpec(pixels, crop=1.0 if pixels == size else CROP, levels=common_levels(dataset))
        colourless = are_grey(dataset, rows, spec)
        grey, classes = colourless if self.grey is None else self.grey, len(split.classes)
        blueprint = small_network(self.network, classes, spec.size, self.hidden, dropout, grey=grey)
        return spec, blueprint, "" if not colourless else SMALL_AND_GREY if size else GREY


@dataclass(frozen=True)
class _Job:
    """What all trainings of one call have in common."""

    dataset: ImageDataset
    seen: Fingerprints
    spec: ImageSpec  # but for its mean and deviation, which are those of the part that is trained on
    blueprint: Blueprint
    recipe: Recipe
    settings: ScratchSettings
    start: Classifier | None

    def train(self, split: Split, run: TrainingRun, timer: StageTimer, progress: Progress | None) -> Assembled:
        """A classifier, trained and measured as the split says."""
        keys, seed, classes = self.seen.keys, self.settings.seed, split.classes
        validation = validation_part(split, keys, seed, self.settings.validation)
        parts = {"train": np.flatnonzero(split.train & ~validation), "validation": np.flatnonzero(validation)}
        task = self._task(parts["train"])
        if self.start is not None:
            own = {part: [keys[row] for row in rows.tolist()] for part, rows in parts.items()}
            train = {*own["train"], *own["validation"]}
            if sentence := known_to_validate(own["validation"], train, self.start.fitted_on):
                run.say(sentence)
        spec = task.spec or self.spec
        batches, steering = (
            PhotoBatches(self.dataset, rows, spec, self.recipe, train=part == "train", classes=classes)
            for part, rows in parts.items()
        )
        data = {
            "photos": digest_of_all(keys, split.labels.tolist()),
            "split": fingerprint(*(b"".join(keys[row] for row in rows.tolist()) for rows in parts.values())),
            "network": self.blueprint.name,
            "start": "" if self.start is None else weights_digest(self.start.weights),
            "pixels": spec.size,
            **asdict(self.settings),
        }
        with timer("training"):
            trained, recipe = run.train(task, batches, steering, self.recipe, data, len(classes))
        images = ImageCounts(len(parts["train"]), len(parts["validation"]), int(split.test.sum()))
        training = run.record(trained, recipe, task, images.validation, len(classes))
        record = FitRecord(
            **vars(split.record()),
            backbone=self.blueprint.name,
            licence="your own",
            pixels=spec.size,
            seed=seed,
            scratch=ScratchRecord(**vars(training), images=images),
        )
        network = TrainedNetwork(self.blueprint, trained.weights, spec)
        with timer("finish"):
            photos = LabelledPhotos(self.dataset, split, validation, keys, self.seen.thumbnails)
            found = assemble(network, photos, record, seed=seed, progress=progress)
        if self.start is None:
            return found
        return found._replace(classifier=knowing_too(found.classifier, self.start))

    def _task(self, rows: NDArray[np.int_]) -> Task:
        """All of the network, from random weights, or from those that it has; normalised by what it was trained on."""
        if self.start is not None:
            return whole_task(self.blueprint, self.recipe, self.spec, self.start.weights)
        spec = normalised(self.dataset, rows, self.spec, grey=sees_luma(self.blueprint))
        return whole_task(self.blueprint, self.recipe, spec)

    def cross_validate(self, split: Split, run: TrainingRun, progress: Progress | None) -> CrossValidated:
        """See `from_scratch.cross_validate`."""
        rows, count = np.flatnonzero(split.train), self.settings.folds
        keys = [self.seen.keys[row] for row in rows.tolist()]
        fold = np.full(len(split.labels), -1)
        fold[rows] = folds_of(split.labels[rows], keys, split.groups[rows], count, self.settings.seed, split.classes)

        def train(train: Mask, test: Mask) -> Judged:
            done = self.train(replace(split, train=train, test=test), run, StageTimer(), None)
            return done.probabilities, done.margin

        return cross_validate(fold, split.labels, split.groups, split.classes, train, progress)
