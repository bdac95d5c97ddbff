"""Photos to a classifier whose network starts from random weights: for comparison, and for digits and the like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.small import mlp, small_cnn
from headstart.core.errors import UnreadableImageError, UsageError, did_you_mean
from headstart.core.progress import Progress, Shown, function_of, stage
from headstart.core.spread import evenly_spread
from headstart.core.timing import StageTimer
from headstart.core.types import Accuracy, Evaluation, ImageDataset, ImageSpec
from headstart.data.depth import common_levels
from headstart.data.fingerprints import Fingerprints, take_fingerprints
from headstart.data.folds import folds_of
from headstart.data.inputs import Images, labelled_dataset, name_of
from headstart.data.load import decode, open_image
from headstart.data.split import HOLDOUT, VALIDATION, Split, make_split, validation_part
from headstart.model.assemble import Assembled, LabelledPhotos, TrainedNetwork, assemble
from headstart.model.classifier import Classifier
from headstart.model.records import FitRecord, ImageCounts, ScratchRecord
from headstart.train.batches import PhotoBatches
from headstart.train.identity import digest_of_all, fingerprint
from headstart.train.recipe import PRESETS, Recipe, open_recipe
from headstart.train.screen import on_screen, shows_training
from headstart.train.training_run import TrainingRun
from headstart.workflows.from_scratch import (
    CrossValidated,
    Judged,
    Mask,
    ScratchSettings,
    check_recipe,
    cross_validate,
    random_start,
)

NETWORKS = ("small_cnn", "mlp")
HIDDEN = (512, 256)
SCRATCH = "scratch"  # the preset for photos
SMALL = 64  # pixels: what is no larger is trained on at its own size, what is larger at this one
LEAST, MOST = 5, 512  # pixels: three halvings need so many; more are for pretrained networks
CROP = 0.875  # share of the shorter side that is seen of photos; of small pictures all
LOOKED_AT, WEIGHED = 32, 256  # images that tell whether all are alike, and what their colours are
FLAT = 0.02  # least deviation of a colour that pixels are divided by


@shows_training
def train_photos(
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    network: str = NETWORKS[0],
    hidden: Sequence[int] = HIDDEN,
    pixels: int | None = None,
    recipe: str | Recipe = SCRATCH,
    trainer: str | TrainingRun = "pytorch",
    holdout: float = HOLDOUT,
    validation: float = VALIDATION,
    folds: int = 0,
    seed: int = 0,
    progress: Shown = True,
) -> Classifier:
    """Train a small network from random weights, and measure it on the test set that `fit` with this seed has.

    Args:
        data, labels: as `fit` takes them.
        network: "small_cnn" or "mlp".
        hidden: units of the perceptron's hidden layers, the lowest first; none make it one layer.
        pixels: default: the size of the images where they are all alike and small, else 64.
        recipe: a preset, a JSON file or a `Recipe`. The preset "scratch" mirrors, turns and crops photos; small grey
            pictures it leaves as they are, for a mirrored digit is none.
        trainer: "pytorch", "lightning", "tensorflow", "keras", or a `TrainingRun` with device, checkpoints and more.
        holdout: share of every class held out as the test set, where the data brings none.
        validation: share of every class of the rest for the validation set: the epoch with the lowest loss on it is
            the one that is kept.
        folds: measure by cross-validation instead, with as many trainings; one more, on all photos, gives the model.
        seed: of the split; that of the weights and the order is the recipe's.
        progress: as for `fit`; with bars, a line for each epoch.

    Raises:
        UsageError: a name or setting that is not there or out of range.
        DataError: a class with too few photos to train, validate and measure.
        MissingExtraError: the trainer's framework is not installed.
    """
    chosen, report = open_recipe(recipe), function_of(progress)
    run = TrainingRun.of(on_screen(trainer, progress, chosen.epochs))
    settings = ScratchSettings(holdout, validation, folds, seed)
    settings.check(run)
    if network not in NETWORKS:
        raise UsageError(f"There is no network '{network}' to train from scratch. {did_you_mean(network, NETWORKS)}")
    check_size(pixels)
    check_recipe(chosen, norms=network == "small_cnn")

    timer = StageTimer()
    with timer("split"):
        dataset = labelled_dataset(data, labels)
        if folds and dataset.own_test:
            raise UsageError(f"--folds: the data brings its own test set ({dataset.own_test}/). Leave --folds out.")
        seen = take_fingerprints(dataset, stage(report, "images"))
        split = make_split(dataset, seen, 0.0 if folds else holdout, seed)
    size, grey = size_and_grey(dataset, np.flatnonzero(split.train))
    if grey and recipe == SCRATCH:
        chosen = replace(chosen, augmentation="none")
        run.say("Small grey pictures are trained on as they are: a mirrored or turned digit is another, or none.")
    pixels = pixels or (size if size >= LEAST else SMALL)
    blueprint = small_network(network, len(split.classes), pixels, hidden, chosen.dropout)
    spec = ImageSpec(pixels, crop=1.0 if pixels == size else CROP, levels=common_levels(dataset))
    job = _Job(dataset, seen, spec, blueprint, chosen, settings)

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
        record.scratch, network=network, hidden=tuple(hidden) if network == "mlp" else (), folds=each
    )
    record = replace(record, data=name_of(data, dataset), holdout=holdout, seconds=timer.seconds, scratch=scratch)
    return replace(model, record=record)


def small_network(
    network: str, classes: int, pixels: int = SMALL, hidden: Sequence[int] = HIDDEN, dropout: float | None = None
) -> Blueprint:
    """The network that `train_photos` trains; ``dropout`` is by default that of its recipe.

    Raises:
        UsageError: a size out of range.
    """
    check_size(pixels)
    dropout = PRESETS[SCRATCH].dropout if dropout is None else dropout
    if network == "mlp":
        return mlp(3, hidden, classes, size=pixels, dropout=dropout)
    return small_cnn(pixels, classes, dropout=dropout)


def check_size(pixels: int | None) -> None:
    """Refuse a size of images that no small network is for."""
    if pixels is not None and not LEAST <= pixels <= MOST:
        raise UsageError(f"--pixels: from scratch, expected {LEAST} to {MOST}. Received: {pixels}.")


def size_and_grey(dataset: ImageDataset, rows: NDArray[np.int_]) -> tuple[int, bool]:
    """The images' own size where they are small squares, all alike, else 0; and whether those have no colours."""
    sizes, grey = set(), True
    for row in evenly_spread(rows, LOOKED_AT):
        try:
            raw = dataset.read(row)
            width, height = open_image(raw).size
            sizes.add((width, height))
            if len(sizes) > 1 or width != height or width > SMALL:
                return 0, False
            pixels = decode(raw, ImageSpec(width, crop=1.0))
        except (OSError, UnreadableImageError):  # it could be read before; the training will say so
            continue
        grey = grey and bool((pixels == pixels[..., :1]).all())
    return (sizes.pop()[0], grey) if sizes else (0, False)


def normalised(dataset: ImageDataset, rows: NDArray[np.int_], spec: ImageSpec) -> ImageSpec:
    """The same with the mean and deviation that colours have in these images."""
    seen = []
    for row in evenly_spread(rows, WEIGHED):
        try:
            seen.append(decode(dataset.read(row), spec).reshape(-1, 3) / 255)
        except (OSError, UnreadableImageError):  # it could be read before; the training will say so
            continue
    if not seen:
        return spec
    pixels = np.concatenate(seen)
    red, green, blue = pixels.mean(axis=0).round(4).tolist()
    r, g, b = np.maximum(pixels.std(axis=0), FLAT).round(4).tolist()
    return replace(spec, mean=(red, green, blue), std=(r, g, b))


@dataclass(frozen=True)
class _Job:
    """What all trainings of one call have in common."""

    dataset: ImageDataset
    seen: Fingerprints
    spec: ImageSpec  # but for its mean and deviation, which are those of the part that is trained on
    blueprint: Blueprint
    recipe: Recipe
    settings: ScratchSettings

    def train(self, split: Split, run: TrainingRun, timer: StageTimer, progress: Progress | None) -> Assembled:
        """A classifier, trained and measured as the split says."""
        keys, seed, classes = self.seen.keys, self.settings.seed, split.classes
        validation = validation_part(split, keys, seed, self.settings.validation)
        parts = {"train": np.flatnonzero(split.train & ~validation), "validation": np.flatnonzero(validation)}
        spec = normalised(self.dataset, parts["train"], self.spec)
        task = random_start(self.blueprint, self.recipe, spec)
        batches, steering = (
            PhotoBatches(self.dataset, rows, spec, self.recipe, train=part == "train", classes=classes)
            for part, rows in parts.items()
        )
        data = {
            "photos": digest_of_all(keys, split.labels.tolist()),
            "split": fingerprint(*(b"".join(keys[row] for row in rows.tolist()) for rows in parts.values())),
            "network": self.blueprint.name,
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
            return assemble(network, photos, record, seed=seed, progress=progress)

    def cross_validate(self, split: Split, run: TrainingRun, progress: Progress | None) -> CrossValidated:
        """See `from_scratch.cross_validate`."""
        rows, count = np.flatnonzero(split.train), self.settings.folds
        keys = [self.seen.keys[row] for row in rows.tolist()]
        fold = np.full(len(split.labels), -1)
        fold[rows] = folds_of(split.labels[rows], keys, split.groups[rows], count, self.settings.seed, split.classes)

        def train(train: Mask, test: Mask) -> Judged:
            done = self.train(replace(split, train=train, test=test), run, StageTimer(), None)
            return done.probabilities, done.is_unknown

        return cross_validate(fold, split.labels, split.groups, split.classes, train, progress)
