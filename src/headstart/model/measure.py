"""A classifier held against labelled images that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.types import Evaluation, ImageDataset, Problem
from headstart.data.near_copies import join_groups, near_copies
from headstart.learn.evaluate import evaluate

UNREADABLE = frozenset(("missing", "unreadable", "empty", "truncated", "bomb"))  # kinds of a `Problem`
UNKNOWN_CLASS, CONFLICT, TRAINED = "unknown class", "conflicting labels", "copy of a training image"


@dataclass(frozen=True, slots=True)
class Judged:
    """One image as the network saw it."""

    name: str
    key: bytes  # of its content
    thumbnail: NDArray[np.uint8]  # by which near copies are found
    probabilities: NDArray[np.floating]  # (K,)
    x: NDArray[np.float32]  # (D,) what the head was given


class Judge(Protocol):
    """A classifier, as far as it is needed here."""

    classes_: tuple[str, ...]
    fitted_on: frozenset[bytes]  # content keys of the training photos
    thumbnails: NDArray[np.uint8]  # of the training photos

    def judge(self, images: Any) -> Iterator[tuple[Judged | Problem, bool]]:
        """Each image, and whether it is unlike the training photos."""


@dataclass(frozen=True)
class _Judgement:
    """One image that could be read."""

    row: int  # of the data set
    item: Judged
    is_unknown: bool


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
    left_out = [*dataset.problems]
    known = [row for row, sample in enumerate(dataset.samples) if sample.label in classifier.classes_]
    left_out += [
        Problem(sample.name, UNKNOWN_CLASS, f"class {sample.label!r} is none of the classifier's")
        for sample in dataset.samples if sample.label not in classifier.classes_
    ]  # fmt: skip
    if not known:
        labels = sorted({sample.label for sample in dataset.samples})
        raise DataError(
            f"The classifier knows none of the {len(labels)} classes of the images, {labels[0]!r} first. It knows: "
            f"{', '.join(classifier.classes_[:10])}{' …' if len(classifier.classes_) > 10 else ''}."
        )
    part = dataset.part(known)
    judged: list[_Judgement] = []
    for done, (item, is_unknown) in enumerate(classifier.judge(part)):
        if progress:
            progress("images", done + 1, len(part))
        if isinstance(item, Problem):
            left_out.append(item)
        else:
            judged.append(_Judgement(done, item, is_unknown))
    judged, conflicts = _without_conflicts(part, judged)
    groups, trained = _groups(classifier, part, judged)
    counted = np.flatnonzero(~trained) if not training_set_too else np.arange(len(judged))
    left_out += conflicts
    if not len(counted):
        unreadable = sum(problem.kind in UNREADABLE for problem in left_out)
        raise DataError(
            f"No image of '{dataset.root}' can be counted: of {len(dataset)}, {unreadable} cannot be read and "
            f"{int(trained.sum())} are in the training set. Give other photos, or count those too: "
            "--include-training-set"
        )
    place = {name: k for k, name in enumerate(classifier.classes_)}
    result = evaluate(
        np.stack([judged[k].item.probabilities for k in counted]),
        np.array([place[part.samples[judged[k].row].label] for k in counted]),
        classifier.classes_,
        np.array([judged[k].is_unknown for k in counted]),
        groups[counted],
    )
    return replace(
        result,
        passed_over=len(judged) - len(counted),
        unreadable=sum(problem.kind in UNREADABLE for problem in left_out),
        left_out=tuple(left_out),
    )


def _without_conflicts(dataset: ImageDataset, judged: Sequence[_Judgement]) -> tuple[list[_Judgement], list[Problem]]:
    """Those of one content and one label, and a problem for each of the others: one of their labels is wrong."""
    labels: dict[bytes, set[str]] = {}
    for one in judged:
        labels.setdefault(one.item.key, set()).add(dataset.samples[one.row].label)
    kept = [one for one in judged if len(labels[one.item.key]) == 1]
    conflicts = [
        Problem(dataset.samples[one.row].name, CONFLICT, f"the same file is labelled {' and '.join(sorted(spelt))}")
        for one in judged if len(spelt := labels[one.item.key]) > 1
    ]  # fmt: skip
    return kept, conflicts


def _groups(
    classifier: Judge, dataset: ImageDataset, judged: Sequence[_Judgement]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The group of each image, and whether the training set has it or a near copy of it."""
    count, first = len(judged), dict[bytes, int]()
    contents = np.array([first.setdefault(one.item.key, k) for k, one in enumerate(judged)], np.intp)
    thumbnails = np.stack([one.item.thumbnail for one in judged]) if judged else np.zeros((0, 16, 16), np.uint8)
    single = np.unique(contents)
    copies = near_copies(np.concatenate([thumbnails[single], classifier.thumbnails]))
    exact = np.array([one.item.key in classifier.fitted_on for one in judged], bool)
    near = np.isin(copies[: len(single)], copies[len(single) :])
    place = np.searchsorted(single, contents)
    named = [dataset.samples[one.row].group or f"\0{one.row}" for one in judged]
    groups = join_groups(copies[: len(single)][place], np.unique(named, return_inverse=True)[1])
    return groups, exact | near[place] if count else exact
