"""From trained weights to a classifier: calibrated, with "unknown", measured, and with golden images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.core.progress import Progress
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data.load import became_unreadable, load_image
from headstart.data.split import Split
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine
from headstart.learn.calibrate import fit_inverse_temperature, softmax, with_scaled_logits
from headstart.learn.evaluate import evaluate
from headstart.learn.features import run_network, to_half
from headstart.learn.heads import Head, HeadFit
from headstart.learn.regularisation_path import Design
from headstart.learn.unknown import fit_unknown
from headstart.model.classifier import Classifier, Golden
from headstart.model.records import FitRecord, HeadRecord, ValidationRecord

GOLDEN = 4  # images kept with the model, to hold every engine that opens it against

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedNetwork:
    """A network whose weights were trained, and what is to run it."""

    blueprint: Blueprint
    weights: Mapping[str, Matrix]
    spec: ImageSpec
    engine: str = "auto"
    precision: str = "auto"
    module: object | None = None
    before_refit: Mapping[str, Matrix] | None = None  # weights that have not seen the validation set, if these have

    @property
    def below(self) -> str:
        """The node whose values are the input of the head."""
        return self.blueprint[LOGITS].inputs[0]

    def open(self) -> Network:
        """The network on its engine."""
        return get_engine(self.engine, self.blueprint, self.weights, self.spec, self.precision, module=self.module)


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos, and what becomes of each."""

    dataset: ImageDataset
    split: Split
    validation: NDArray[np.bool_]  # (N,) those of the training set that the training was steered by
    keys: list[bytes]  # of the photos' content
    thumbnails: NDArray[np.uint8]  # (N, 16, 16)


class Assembled(NamedTuple):
    """A classifier, and what it says of the test set."""

    classifier: Classifier
    probabilities: NDArray[np.float64]  # (T, classes)
    is_unknown: NDArray[np.bool_]  # (T,)


def assemble(
    trained: TrainedNetwork,
    photos: LabelledPhotos,
    record: FitRecord,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Assembled:
    """A classifier of trained weights, measured on the test set.

    The temperature is that of the validation set; what is typical of known photos comes from the training set, as the
    validation set sees it; the figures are those of the test set.

    Args:
        record: what else there is to say; figures are added.
        progress: called with ("measuring", done, of how many).
    """
    split, network = photos.split, trained.open()
    train, test = np.flatnonzero(split.train), np.flatnonzero(split.test)
    images = golden_images(photos.dataset, network.spec, train)
    network.check_precision(images, trained.below)
    seen = _calibrate(network, trained, photos, progress)
    unknown = fit_unknown(Design(seen.x, train), split.labels[train], split.groups[train], seen.head, seed)
    probabilities = np.asarray(softmax(seen.logits[test]), np.float64)
    is_unknown, result = np.zeros(0, bool), None
    if len(test):
        is_unknown = unknown.is_unknown(Design(seen.x, test), probabilities)
        result = evaluate(probabilities, split.labels[test], split.classes, is_unknown, split.groups[test])
    head = seen.head
    classifier = Classifier(
        blueprint=trained.blueprint,
        weights=seen.weights,
        spec=trained.spec,
        classes=split.classes,
        unknown=unknown,
        neighbours=tuple(photos.dataset.samples[train[row]].name for row in unknown.rows),
        record=replace(
            record,
            result=result,
            validation=seen.validation,
            left_one_out=None,
            precision=network.precision,
            head=HeadRecord(head.kind, head.prior, head.strength, head.temperature),
        ),
        golden=Golden(images, in_fp32(network, images, LOGITS)),
        fitted_on=frozenset(photos.keys[row] for row in train.tolist()),
        thumbnails=photos.thumbnails[train],
        engine=network.engine,
        precision=network.precision,
        module=trained.module,
        label_kind=photos.dataset.label_kind,
    )
    return Assembled(classifier, probabilities, is_unknown)


class _Calibrated(NamedTuple):
    """The network with its temperature inside, and what it says of the photos."""

    weights: dict[str, Matrix]
    x: NDArray[np.float16]  # (N, D) the input of the head
    logits: Matrix  # (N, K) calibrated
    head: HeadFit
    validation: ValidationRecord


def _calibrate(
    network: Network, trained: TrainedNetwork, photos: LabelledPhotos, progress: Progress | None
) -> _Calibrated:
    """Fit the temperature on the validation set; the network has the calibrated weights afterwards."""
    split, known = photos.split, np.flatnonzero(photos.validation)
    train = np.flatnonzero(split.train)
    x, logits = _see(photos.dataset, network, trained.below, np.flatnonzero(split.train | split.test), progress)
    unseen = logits[known]
    if trained.before_refit is not None:
        network.load(trained.before_refit)
        unseen = _see(photos.dataset, network, trained.below, known, None)[1][known]
    inverse_temperature, nll = fit_inverse_temperature(unseen, split.labels[known])
    weights = with_scaled_logits(trained.weights, inverse_temperature)
    network.load(weights)
    head = HeadFit(
        head=Head(weights[f"{LOGITS}.weight"], weights[f"{LOGITS}.bias"], sqrt=False),
        kind="trained",
        prior="empirical",
        strength=0.0,
        temperature=1 / inverse_temperature,
        path=(),
        rows=np.searchsorted(train, known),
        logits=unseen * np.float32(inverse_temperature),
    )
    right = float((unseen.argmax(axis=1) == split.labels[known]).mean())
    validation = ValidationRecord(right, float(nll), len(known))
    return _Calibrated(weights, x, logits * np.float32(inverse_temperature), head, validation)


def golden_images(dataset: ImageDataset, spec: ImageSpec, rows: NDArray[np.int_]) -> NDArray[np.uint8]:
    """A few images of some rows of a data set, as the network sees them."""
    read = [load_image(dataset, row, spec).pixels for row in evenly_spread(rows, GOLDEN)]
    return np.stack([pixels for pixels in read if pixels is not None])


def in_fp32(network: Network, images: NDArray[np.uint8], at: str) -> Matrix:
    """The values of a node in fp32, which every engine must give again."""
    exact = network if network.precision == "fp32" else network.at_precision("fp32")
    values = exact.forward(images, at)
    exact.release()  # whoever comes next wants the memory
    return values


def _see(
    dataset: ImageDataset, network: Network, below: str, rows: NDArray[np.int_], progress: Progress | None
) -> tuple[NDArray[np.float16], Matrix]:
    """The input of the head and its logits, of every row that counts; (N, …), zero elsewhere."""
    x = np.zeros((len(dataset), network.shape(below)[0]), np.float16)
    logits = np.zeros((len(dataset), network.shape(LOGITS)[0]), np.float32)
    for done, (item, values) in enumerate(run_network(dataset, network, (below, LOGITS), rows.tolist()), 1):
        if values is None:
            raise became_unreadable(dataset, item.index, item.error)
        x[item.index], logits[item.index] = to_half(values[0]), values[1]
        if progress:
            progress("measuring", done, len(rows))
    return x, logits
