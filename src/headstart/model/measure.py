"""A classifier held against labelled images that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted, verb
from headstart.core.errors import DataError
from headstart.core.types import UNREADABLE, Evaluation, ImageDataset, Problem, Sample
from headstart.data.fingerprints import Fingerprints
from headstart.data.near_copies import join_groups, named_groups
from headstart.data.split import CONFLICT, conflicting_labels
from headstart.learn.evaluate import evaluate, mistakes_of

UNKNOWN_CLASS = "unknown class"  # the kind of a `Problem`


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One image as the network saw it."""

    name: str
    key: bytes  # of its content
    thumbnail: NDArray[np.uint8]  # by which near copies are found
    probabilities: NDArray[np.floating]  # (K,)
    x: NDArray[np.float32]  # (D,) what the head was given
    margin: float = 0.0  # how much more typical of the training photos than the threshold; below zero: unknown


class Judge(Protocol):
    """A classifier, as far as it is needed here."""

    classes: tuple[str, ...]
    fitted_on: frozenset[bytes]  # content keys of the training photos
    thumbnails: NDArray[np.uint8]  # of the training photos

    def judge(self, images: Any) -> Iterator[tuple[Judged | Problem, bool]]:
        """Each image, and whether it is unlike the training photos."""


@dataclass(frozen=True)
class _Judgement:
    """One image that could be read."""

    row: int  # of the data set
    item: Judged


def measure(
    classifier: Judge,
    dataset: ImageDataset,
    *,
    training_set_too: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Count the right answers; see `classifier.Classifier.evaluate`.

    As in a fit, images of one content under several labels are left out, and so are images that the training set has a
    near copy of; the interval counts groups of near copies, and the groups that the data names.
    """
    place = {name: k for k, name in enumerate(classifier.classes)}
    part, left_out = of_known_classes(classifier, dataset)
    judged: list[_Judgement] = []
    for done, (item, _) in enumerate(classifier.judge(part)):
        if progress:
            progress("images", done + 1, len(part))
        if isinstance(item, Problem):
            left_out.append(item)
        else:
            judged.append(_Judgement(done, item))
    conflicts = conflicting_labels((one.item.key, part.samples[one.row]) for one in judged)
    why = [conflicts.get((one.item.key, part.samples[one.row].label)) for one in judged]
    left_out += [
        Problem(part.samples[one.row].name, CONFLICT, reason) for one, reason in zip(judged, why, strict=True) if reason
    ]
    judged = [one for one, reason in zip(judged, why, strict=True) if not reason]
    groups, trained = groups_and_training(
        classifier,
        [part.samples[one.row] for one in judged],
        [one.item.key for one in judged],
        [one.item.thumbnail for one in judged],
    )
    counts = np.flatnonzero(~trained) if not training_set_too else np.arange(len(judged))
    if not len(counts):
        raise none_counted(dataset, left_out, int(trained.sum()))
    probabilities = np.stack([judged[k].item.probabilities for k in counts])
    truth = np.array([place[part.samples[judged[k].row].label] for k in counts])
    margin = np.array([judged[k].item.margin for k in counts])
    result = evaluate(probabilities, truth, classifier.classes, margin, groups[counts])
    return replace(
        result,
        passed_over=len(judged) - len(counts),
        unreadable=sum(problem.kind in UNREADABLE for problem in left_out),
        left_out=tuple(left_out),
        wrong=mistakes_of(probabilities, truth, classifier.classes, [judged[k].item.name for k in counts]),
    )


def of_known_classes(classifier: Judge, dataset: ImageDataset) -> tuple[ImageDataset, list[Problem]]:
    """The images of classes that the classifier has, and what is left out: the source's problems, and all others.

    Raises:
        DataError: it has none of the classes.
    """
    classes = {*classifier.classes}
    known = [row for row, sample in enumerate(dataset.samples) if sample.label in classes]
    if not known:
        labels = sorted({sample.label for sample in dataset.samples})
        raise DataError(
            f"The classifier knows none of the {counted(len(labels), 'class')} of the images, {labels[0]!r} first. "
            "It knows: "
            f"{', '.join(classifier.classes[:10])}{' …' if len(classifier.classes) > 10 else ''}."
        )
    others = [
        Problem(sample.name, UNKNOWN_CLASS, f"class {sample.label!r} is none of the classifier's")
        for sample in dataset.samples if sample.label not in classes
    ]  # fmt: skip
    return dataset.part(known), [*dataset.problems, *others]


def none_counted(dataset: ImageDataset, left_out: Sequence[Problem], trained: int) -> DataError:
    """The error where no image is left to count; ``trained`` are in the training set."""
    unreadable = sum(problem.kind in UNREADABLE for problem in left_out)
    return DataError(
        f"No image in {dataset.place} can be counted: of {len(dataset)}, {unreadable} cannot be read and "
        f"{trained} {verb(trained)} in the training set. Give other photos, or count those too: "
        "--include-training-set"
    )


def groups_and_training(
    classifier: Judge, samples: Sequence[Sample], keys: Sequence[bytes], thumbnails: Sequence[NDArray[np.uint8]]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The group of each image, and whether the training set has it or a near copy of it."""
    count, training = len(samples), len(classifier.thumbnails)
    prints = Fingerprints.of(count + training)
    prints.keys = [*keys, *(b"training image %d" % row for row in range(training))]  # no content has such a key
    prints.thumbnails = np.concatenate([*(one[None] for one in thumbnails), classifier.thumbnails])
    prints.usable[:] = True
    copies = prints.copies()
    trained = np.isin(copies[:count], copies[count:]) | np.array([key in classifier.fitted_on for key in keys], bool)
    return join_groups(copies[:count], named_groups(samples)), trained
