"""From trained weights to a classifier: calibrated, with "unknown", measured, and with golden images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.core.errors import UnreadableImageError
from headstart.core.progress import Progress
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data.load import became_unreadable, decode, decode_whole
from headstart.data.split import Split
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine
from headstart.learn.calibrate import fit_inverse_temperature, softmax, with_scaled_logits
from headstart.learn.evaluate import evaluate
from headstart.learn.features import run_network, to_half
from headstart.learn.heads import Head
from headstart.learn.regularisation_path import Design, transform
from headstart.learn.unknown import Unknown, choose, to_compare_with, with_typical
from headstart.model.classifier import Classifier
from headstart.model.golden import Golden
from headstart.model.records import FitRecord, HeadRecord, ValidationRecord

GOLDEN = 4  # images kept with the model, to hold every engine that opens it against
LARGER = 1.25  # times the longer side of a golden photo is the network's

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network whose weights were trained, and what is to run it."""

    blueprint: Blueprint
    weights: Mapping[str, Matrix]
    spec: ImageSpec
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    module: object | None = None

    @property
    def below(self) -> str:
        """The node whose values are the input of the head."""
        return self.blueprint[LOGITS].inputs[0]

    def open(self) -> Network:
        """The network on its engine."""
        return get_engine(
            self.engine, self.blueprint, self.weights, self.spec, self.precision, self.device, module=self.module
        )


@dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """Photos, and what becomes of each."""

    dataset: ImageDataset
    split: Split
    validation: NDArray[np.bool_]  # (N,) those of the training set that the training was steered by
    keys: list[bytes]  # of the photos' content
    thumbnails: NDArray[np.uint8]  # (N, 16, 16)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a network says of known photos that it was not trained on."""

    rows: NDArray[np.int_]  # (R,) of the data set
    logits: Matrix  # (R, K), not calibrated
    nearness: Matrix  # (R,) mean cosine to the nearest photos that it was trained on

    @classmethod
    def of(
        cls,
        network: Network,
        below: str,
        photos: LabelledPhotos,
        rows: NDArray[np.int_],
        seed: int,
        progress: Progress | None = None,
    ) -> HeldOut:
        """Of a network that was trained on all of the training set but these rows."""
        needed = np.concatenate([rows, _beside(photos, rows, seed)])
        return cls.of_seen(*see(photos.dataset, network, below, needed, progress), photos, rows, seed)

    @classmethod
    def of_seen(
        cls, x: NDArray[np.float16], logits: Matrix, photos: LabelledPhotos, rows: NDArray[np.int_], seed: int
    ) -> HeldOut:
        """The same of what `see` gave."""
        beside = _beside(photos, rows, seed)
        known = to_compare_with(Design(x, beside), photos.split.labels[beside], seed)
        return cls(rows, logits[rows], known.nearness(Design(x, rows)))

    @classmethod
    def together(cls, parts: Sequence[HeldOut]) -> HeldOut:
        """Of several networks, of which each held out others."""
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "logits", "nearness"))
        )


def _beside(photos: LabelledPhotos, rows: NDArray[np.int_], seed: int) -> NDArray[np.int_]:
    """Photos of the training set beside the rows that are held out; of many, some."""
    beside = np.setdiff1d(np.flatnonzero(photos.split.train), rows)
    return beside[choose(photos.split.labels[beside], seed)]


class Assembled(NamedTuple):
    """A classifier, and what it says of the test set."""

    classifier: Classifier
    probabilities: NDArray[np.float64]  # (T, classes)
    margin: NDArray[np.float64]  # (T,) below zero: unknown


def assemble(
    trained: TrainedNetwork,
    photos: LabelledPhotos,
    record: FitRecord,
    held_out: HeldOut | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Assembled:
    """A classifier of trained weights, measured on the test set.

    Temperature, and what is typical of known photos, come from those that were held out; the figures are those of the
    test set.

    Args:
        record: what else there is to say; figures are added.
        held_out: by networks that are trained like this one, where this one has seen all; None: by this one, the
            validation set.
        progress: called with ("measuring", done, of how many).
    """
    split, network = photos.split, trained.open()
    train, test = np.flatnonzero(split.train), np.flatnonzero(split.test)
    golden = GoldenPhotos.of(photos.dataset, network.spec, train)
    network.check_precision(golden.images, trained.below)
    x, logits = see(photos.dataset, network, trained.below, np.flatnonzero(split.train | split.test), progress)
    if held_out is None:
        held_out = HeldOut.of_seen(x, logits, photos, np.flatnonzero(photos.validation), seed)
    truth = split.labels[held_out.rows]
    inverse_temperature, nll = fit_inverse_temperature(held_out.logits, truth)
    weights = with_scaled_logits(trained.weights, inverse_temperature)
    network.load(weights)
    sureness = softmax(held_out.logits * np.float32(inverse_temperature)).max(axis=1)
    unknown = to_compare_with(Design(x, train), split.labels[train], seed)
    unknown = with_typical(unknown, sureness, held_out.nearness)
    probabilities = np.asarray(softmax(logits[test] * np.float32(inverse_temperature)), np.float64)
    margin, result = np.zeros(0), None
    if len(test):
        margin = unknown.margin(Design(x, test), probabilities)
        result = evaluate(probabilities, split.labels[test], split.classes, margin, split.groups[test])
    right = float((held_out.logits.argmax(axis=1) == truth).mean())
    classifier = Classifier(
        blueprint=trained.blueprint,
        weights=weights,
        spec=trained.spec,
        classes=split.classes,
        unknown=unknown,
        neighbours=tuple(photos.dataset.samples[train[row]].name for row in unknown.rows),
        record=replace(
            record,
            result=result,
            validation=ValidationRecord(right, float(nll), len(truth)),
            left_one_out=None,
            precision=network.precision,
            head=HeadRecord("trained", "empirical", 0.0, 1 / inverse_temperature),
        ),
        golden=golden.with_answers(*in_fp32(network, golden.images, (LOGITS, trained.below)), unknown=unknown),
        fitted_on=frozenset(photos.keys[row] for row in train.tolist()),
        thumbnails=photos.thumbnails[train],
        engine=network.engine,
        precision=network.precision,
        device=trained.device,
        module=trained.module,
        label_kind=photos.dataset.label_kind,
    )
    return Assembled(classifier, probabilities, margin)


def knowing_too(found: Classifier, given: Classifier) -> Classifier:
    """A classifier that a ``given`` one was trained further to: it knows the photos that this was fitted on, too."""
    thumbnails = np.unique(np.concatenate([found.thumbnails, given.thumbnails]), axis=0)
    return replace(found, fitted_on=found.fitted_on | given.fitted_on, thumbnails=thumbnails)


@dataclass(frozen=True, eq=False)
class GoldenPhotos:
    """A few photos, of which it is not known yet what the classifier says."""

    photos: tuple[NDArray[np.uint8], ...]  # whole and small, (height, width, 3)
    images: NDArray[np.uint8]  # (N, size, size, 3) as the network sees them

    @classmethod
    def of(cls, dataset: ImageDataset, spec: ImageSpec, rows: NDArray[np.int_]) -> GoldenPhotos:
        """Of some rows of a data set."""
        side, found = round(LARGER * spec.size), []
        for row in evenly_spread(rows, GOLDEN):
            with suppress(UnreadableImageError, OSError):
                found.append(decode_whole(dataset.read(row), side, spec.levels))
        return cls(tuple(found), np.stack([decode(photo, spec) for photo in found]))

    def with_answers(self, logits: Matrix, x: Matrix, *, unknown: Unknown) -> Golden:
        """With ``logits`` (N, K), and how typical they are by the head's input ``x`` (N, D)."""
        return Golden(self.images, logits, self.photos, unknown.score(x, softmax(logits)))

    def with_head(self, head: Head, features: Matrix, unknown: Unknown) -> Golden:
        """The same, by a head and their features (N, D)."""
        return self.with_answers(head.logits(features), transform(features, head.sqrt), unknown=unknown)


def in_fp32(network: Network, images: NDArray[np.uint8], at: Sequence[str]) -> list[Matrix]:
    """The values of some nodes in fp32, which every engine must give again."""
    exact = network if network.precision == "fp32" else network.at_precision("fp32")
    values = exact.forward_many(images, at)
    exact.release()  # whoever comes next wants the memory
    return values


def see(
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
