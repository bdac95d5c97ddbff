"""The photos that a classifier is measured on: those that `evaluate` counts, or a few of them, drawn by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.progress import StageProgress
from headstart.core.types import ImageDataset, Problem
from headstart.data.fingerprints import take_fingerprints
from headstart.data.hold_out import shuffled
from headstart.data.load import in_chunks, load_images
from headstart.data.split import CONFLICT, conflicting_labels
from headstart.model.classifier import Classifier
from headstart.model.measure import groups_and_training, none_counted, of_known_classes


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Photos of known classes that are not in the training set."""

    photos: ImageDataset
    images: NDArray[np.uint8]  # (N, size, size, 3) the same, as the network sees them
    labels: NDArray[np.intp]  # (N,) in the order of the classifier's classes
    groups: NDArray[np.intp]  # (N,) of images that are alike
    of: int  # photos that they were drawn from
    passed_over: int  # photos not counted, because they, or near copies, are in the training set
    left_out: tuple[Problem, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the photos are called."""
        return tuple(sample.name for sample in self.photos.samples)


def held_out(
    classifier: Classifier,
    dataset: ImageDataset,
    count: int,
    seed: int,
    *,
    training_set_too: bool = False,
    progress: StageProgress | None = None,
) -> HeldOut:
    """At most ``count`` photos; the draw depends on ``seed`` and their content, and each class keeps its share.

    As in `Classifier.evaluate`, a source's own test part counts alone, and images of the training set, or with a near
    copy there, are passed over.

    Raises:
        DataError: there is no image to count.
    """
    if dataset.own_test and not training_set_too:
        dataset = dataset.part([k for k, sample in enumerate(dataset.samples) if sample.split == dataset.own_test])
    part, left_out = of_known_classes(classifier, dataset)
    prints = take_fingerprints(part, progress, classifier.network.spec)
    left_out += prints.problems
    readable = np.flatnonzero(prints.usable).tolist()
    conflicts = conflicting_labels((prints.keys[row], part.samples[row]) for row in readable)
    why = {row: conflicts.get((prints.keys[row], part.samples[row].label)) for row in readable}
    left_out += [Problem(part.samples[row].name, CONFLICT, reason) for row, reason in why.items() if reason]
    rows = np.array([row for row, reason in why.items() if not reason], np.intp)
    samples, keys = [part.samples[row] for row in rows], [prints.keys[row] for row in rows]
    groups, trained = groups_and_training(classifier, samples, keys, [prints.thumbnails[row] for row in rows])
    free = np.flatnonzero(~trained) if not training_set_too else np.arange(len(rows))
    if not len(free):
        raise none_counted(dataset, left_out, int(trained.sum()))
    place = {name: k for k, name in enumerate(classifier.classes)}
    labels = np.array([place[sample.label] for sample in samples], np.intp)
    chosen = free[drawn(labels[free], [keys[row] for row in free], count, seed)]
    photos = part.part(rows[chosen].tolist())
    return HeldOut(
        photos=photos,
        images=pixels_of(classifier, photos),
        labels=labels[chosen],
        groups=groups[chosen],
        of=len(free),
        passed_over=len(rows) - len(free),
        left_out=tuple(left_out),
    )


def drawn(labels: NDArray[np.intp], keys: list[bytes], count: int, seed: int) -> NDArray[np.intp]:
    """At most ``count`` rows (N,), in their order: of each class its share, by a hash of ``seed`` and content."""
    order = np.array([group[0] for group in shuffled(keys, np.arange(len(keys)), seed)], np.intp)
    places = np.zeros(len(labels))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        places[own] = (np.arange(len(own)) + 0.5) / len(own)  # so that every class is spread over the same range
    first = order[np.argsort(places[order], kind="stable")][:count]
    return np.sort(first)


def pixels_of(classifier: Classifier, dataset: ImageDataset, *, crop: bool = True) -> NDArray[np.uint8]:
    """The images of a data set as the network sees them, (N, size, size, 3).

    Raises:
        DataError: one cannot be read.
    """
    spec = (classifier.network if crop else classifier.network.seeing_all()).spec
    pixels = np.zeros((len(dataset), spec.size, spec.size, 3), np.uint8)
    for item in in_chunks(lambda chunk: load_images(dataset, chunk, spec), range(len(dataset))):
        if item.error is not None or item.pixels is None:
            raise DataError(f"'{dataset.samples[item.index].name}' cannot be read: {item.error}.")
        pixels[item.index] = item.pixels
    return pixels
