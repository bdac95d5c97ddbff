"""Whether a pretrained network was worth it: beside a small one, trained from random weights on the same photos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import PROGRESS, checks, whole
from headstart.core.errors import DataError, UsageError
from headstart.core.progress import Shown, function_of, shows_progress, stage
from headstart.core.types import ImageDataset
from headstart.data.inputs import Images, labelled_dataset
from headstart.data.load import content_key, in_chunks
from headstart.data.opened_image import Raw
from headstart.diagnose.records import FromScratch
from headstart.engines.protocol import Network
from headstart.learn.evaluate import accuracy_of
from headstart.learn.significance import mcnemar
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER
from headstart.model.held_out import HeldOut, held_out
from headstart.train.callbacks import Progress as StepProgress
from headstart.train.trainers import get_trainer
from headstart.train.training_run import TrainingRun
from headstart.workflows.picture_statistics import own_size
from headstart.workflows.train_images import LEAST, NETWORKS, SCRATCH, train_photos

MOST = 1000  # test photos
VIEWS = 10_000  # of training photos, in all epochs: a minute or less on two cores
EPOCHS = 3, 30  # at least and at most
PIXELS = 32  # of photos; small pictures are taken as they are
SURE = 0.05  # probability of a difference that chance makes
TRAINER = "pytorch"
RECIPE: dict[str, object] = {"preset": SCRATCH, "batch_size": 16, "learning_rate": 2e-3}  # many steps in few epochs


@checks(classifier=CLASSIFIER, epochs=whole(1), progress=PROGRESS)
@shows_progress
def from_scratch(
    classifier: Classifier,
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    epochs: int | None = None,
    progress: Shown = True,
) -> FromScratch:
    """Train a small network from random weights on the photos that the classifier was fitted on, and compare the two.

    Both are measured on the same photos: those that `Classifier.evaluate` counts, at most 1000 of them. McNemar's test
    says whether one is better.

    Args:
        data, labels: the photos that the classifier was fitted on, with its test photos.
        epochs: of the training; None: as many as make 10 000 views of a photo, from 3 to 30.

    Raises:
        UsageError: the classifier has itself no pretrained network.
        DataError: the photos are not those that it was fitted on, or none of them is left to test on.
        MissingExtraError: PyTorch is not installed.
    """
    if classifier.record.scratch is not None:
        raise UsageError(
            "The model was itself trained from random weights. Compare one with a pretrained network: headstart fit "
            "PHOTOS"
        )
    get_trainer(TRAINER)  # before any work is done
    report = function_of(progress)
    dataset = labelled_dataset(data, labels, classifier.label_kind)
    photos = held_out(classifier, dataset, MOST, classifier.record.seed, progress=stage(report, "reading"))
    rows = trained_on(classifier, dataset)
    count = epochs or int(np.clip(VIEWS // len(rows), *EPOCHS))
    small = own_size(dataset, rows) >= LEAST
    trained = train_photos(
        _split_alike(dataset, rows, photos),
        pixels=None if small else PIXELS,
        recipe=RECIPE | {"epochs": count} | ({"augmentation": "none"} if small else {}),  # a mirrored digit is none
        trainer=TrainingRun(trainer=TRAINER, callbacks=[StepProgress(report)] if report else []),
        seed=classifier.record.seed,
        progress=report or False,
    )
    return compared(classifier.network, trained, photos)


def compared(network: Network, trained: Classifier, photos: HeldOut) -> FromScratch:
    """The record of a classifier's network and of a trained one, on the same photos."""
    place = {name: k for k, name in enumerate(trained.classes)}
    frozen = network.forward(photos.images).argmax(axis=1) == photos.labels
    truth = np.array([place.get(sample.label, -1) for sample in photos.photos.samples])
    scratch = trained.predict_proba(photos.photos).argmax(axis=1) == truth
    first, second = accuracy_of(frozen, photos.groups), accuracy_of(scratch, photos.groups)
    p = mcnemar(int((frozen & ~scratch).sum()), int((scratch & ~frozen).sum()))
    return FromScratch(NETWORKS[0], second, first, in_words(first.value, second.value, p))


def in_words(frozen: float, scratch: float, p: float) -> str:
    """Whether the transfer worked, by the accuracies and the p value of their difference."""
    figures = f"{frozen:.1%} against {scratch:.1%} of a small network trained from random weights on the same photos"
    if p >= SURE:
        return f"The transfer makes no clear difference: {figures}."
    if frozen > scratch:
        return f"The transfer worked: {figures}."
    return f"The transfer did not work: {figures}. Train one in its place: headstart train"


def trained_on(classifier: Classifier, dataset: ImageDataset) -> NDArray[np.intp]:
    """The rows of a data set that a classifier was fitted on.

    Raises:
        DataError: they are fewer than it was fitted on.
    """

    keys = [*in_chunks(lambda chunk: [_key(dataset, row) for row in chunk], range(len(dataset)))]
    there, all_of_them = classifier.fitted_on.intersection(keys), len(classifier.fitted_on)
    if len(there) < all_of_them:
        raise DataError(
            f"Expected the photos that the model was fitted on, to train on the same. Received: {len(there)} of those "
            f"{all_of_them} in {dataset.place}. Give the photos that it was fitted on."
        )
    return np.flatnonzero([key in there for key in keys])


def _key(dataset: ImageDataset, row: int) -> bytes:
    try:
        return content_key(dataset.read(row))
    except OSError:
        return b""


def _split_alike(dataset: ImageDataset, rows: NDArray[np.intp], photos: HeldOut) -> ImageDataset:
    """The training and test photos of a classifier, as a data set that brings its own test set."""
    both = dataset.part(rows.tolist())
    train = [replace(sample, split="train") for sample in both.samples]
    test = [replace(sample, split="test") for sample in photos.photos.samples]

    def read(index: int) -> Raw:
        return both.read(index) if index < len(train) else photos.photos.read(index - len(train))

    return replace(dataset, samples=[*train, *test], read=read, files=None, spans=None)
