"""Splits a data set into training set and test set, with no near copy in both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import share
from headstart.core.counts import counted, each_kind
from headstart.core.errors import DataError
from headstart.core.types import UNREADABLE, ImageDataset, Problem, Sample
from headstart.data.fingerprints import Fingerprints
from headstart.data.hold_out import FEWEST, hold_out
from headstart.data.left_out import warn_of
from headstart.data.near_copies import join_groups, named_groups
from headstart.data.tables import NO_LABEL

HOLDOUT, LARGEST_HOLDOUT = 0.2, 0.9
HELD_OUT = share(0, LARGEST_HOLDOUT)  # what people may ask for
VALIDATION = 0.15  # share of the training set
CONFLICT = "conflicting labels"  # the kind of a `Problem`


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """A summary of a split, as a model keeps it."""

    images: int
    train: int
    test: int
    test_part: str = "held out"  # or the part of the source: "test", "val"; or "cross-validation"
    per_class: dict[str, int] = field(default_factory=dict)  # of the training set
    left_out: tuple[Problem, ...] = ()
    near_duplicates: int = 0  # images that have a near copy, or are frames of one video or burst
    not_measured: tuple[str, ...] = ()  # classes without an image in the test set


@dataclass(eq=False)
class Split:
    """Which images are in the training set, in the test set, or left out."""

    classes: tuple[str, ...]
    labels: NDArray[np.int_]  # (N,) in 0 … classes − 1; -1 for images of no class that is kept
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    groups: NDArray[np.int_]  # (N,) near copies, and samples of one group in the source, share a number
    own_test: str  # the test set that the source brings, or ""
    left_out: list[Problem]
    near_duplicates: int  # images that have a near copy
    copies: NDArray[np.intp]  # (N,) near copies share a number, also those that were left out for it

    def record(self) -> SplitRecord:
        """The summary that a model keeps."""
        tested, count = self.labels[self.test], len(self.classes)
        return SplitRecord(
            images=len(self.labels),
            train=int(self.train.sum()),
            test=int(self.test.sum()),
            test_part=self.own_test or "held out",
            per_class={name: int((self.labels[self.train] == k).sum()) for k, name in enumerate(self.classes)},
            left_out=tuple(self.left_out),
            near_duplicates=self.near_duplicates,
            not_measured=tuple(self.classes[k] for k in np.flatnonzero(np.bincount(tested, minlength=count) == 0)),
        )

    def check(self, dataset: ImageDataset, fingerprints: Fingerprints) -> None:
        """Check that a later pass over the images could read all images of the split.

        Raises:
            DataError: it could not read one of them.
        """
        lost = np.flatnonzero((self.train | self.test) & ~fingerprints.usable)
        if len(lost):
            name = dataset.samples[lost[0]].name
            raise DataError(f"'{name}' could be read at first and then could not. Were the photos changed? Try again.")


def make_split(
    dataset: ImageDataset,
    fingerprints: Fingerprints,
    holdout: float,
    seed: int,
    pinned: NDArray[np.bool_] | None = None,
) -> Split:
    """Split a data set; see `Split`.

    Args:
        holdout: share of every class to hold out, where the source has no test set of its own.
        pinned: (N,) images that a choice was made on already: they and their near copies stay in the training set.

    Raises:
        DataError: fewer than two classes with two usable images each.
    """
    samples = dataset.samples
    left_out = [*dataset.problems, *fingerprints.problems]
    usable = fingerprints.usable.copy()
    if not usable.any():
        raise DataError(_too_few(dataset, left_out))

    def drop(rows: Iterable[Any], kind: str, why: Callable[[int], str]) -> None:
        for row in rows:
            usable[row] = False
            left_out.append(Problem(samples[row].name, kind, why(row)))

    own_test = dataset.own_test
    held = np.array([bool(own_test) and sample.split == own_test for sample in samples])
    _drop_repeats(samples, fingerprints.keys, usable, held, drop)

    copies = fingerprints.copies()
    groups = copies.copy()
    groups[~usable] = len(groups) + np.flatnonzero(~usable)  # an unreadable image is alone in its group
    near_duplicates = _in_company(groups)
    groups = join_groups(groups, named_groups(samples))
    if own_test:
        tested = {groups[row]: samples[row] for row in np.flatnonzero(held & usable)[::-1]}  # the first of each group
        again = [row for row in np.flatnonzero(usable & ~held) if groups[row] in tested]
        drop(again, "copy of a test image", lambda row: _why_together(samples[row], tested[groups[row]]))

    text = np.array([sample.label for sample in samples])
    counts = dict(zip(*np.unique(text[usable & ~held], return_counts=True), strict=True))
    kept = tuple(name for name in dataset.classes if counts.get(name, 0) >= FEWEST)
    few = [row for row in np.flatnonzero(usable) if counts.get(text[row], 0) < FEWEST]
    drop(
        few,
        "class too small",
        lambda row: f"class '{text[row]}' has {counted(counts.get(text[row], 0), 'image')} to fit on, 2 are needed",
    )
    if len(kept) < 2:
        raise DataError(_too_few(dataset, left_out))

    place = {name: k for k, name in enumerate(kept)}
    labels = np.array([place.get(name, -1) for name in text])
    rows = np.flatnonzero(usable)
    if not own_test:
        if pinned is not None:
            looked_at = {fingerprints.keys[row] for row in np.flatnonzero(pinned)}  # byte-identical copies are dropped
            pinned = np.array([key in looked_at for key in fingerprints.keys])
            free = rows[~np.isin(groups[rows], groups[pinned])]
            holdout = min(holdout * len(rows) / max(len(free), 1), LARGEST_HOLDOUT)  # as many images as without
            rows = free
        held[rows] = hold_out(
            labels[rows], [fingerprints.keys[row] for row in rows.tolist()], groups[rows], holdout, seed
        )
    _tell(dataset, left_out)
    return Split(kept, labels, usable & ~held, usable & held, groups, own_test, left_out, near_duplicates, copies)


def split_beside(
    dataset: ImageDataset, fingerprints: Fingerprints, holdout: float, seed: int, fitted_on: Collection[bytes]
) -> tuple[Split, int]:
    """As `make_split`, with no image in the test set that a model was fitted on; and how many left it for that.

    Args:
        fitted_on: the keys of those images.
    """
    split = make_split(dataset, fingerprints, holdout, seed)
    known = np.array([key in fitted_on for key in fingerprints.keys])
    if (split.test & known).any() and not split.own_test:  # other settings, or more images than there were
        split = make_split(dataset, fingerprints, holdout, seed, known)
    count = int((split.test & known).sum())
    split.test &= ~known
    return split, count


def validation_part(plan: Split, keys: Sequence[bytes], seed: int, share: float = VALIDATION) -> NDArray[np.bool_]:
    """A validation set out of the training set: mask (N,), a share of every class, whole groups.

    Raises:
        DataError: a class has too few images.
    """
    rows = np.flatnonzero(plan.train)
    own = [keys[row] for row in rows.tolist()]
    validation = np.zeros(len(plan.labels), bool)
    validation[rows] = hold_out(plan.labels[rows], own, plan.groups[rows], share, seed, least=1)
    counts = np.bincount(plan.labels[validation], minlength=len(plan.classes))
    if not counts.all():
        names = [name for name, count in zip(plan.classes, counts, strict=True) if not count]
        k = plan.classes.index(names[0])
        raise DataError(
            f"Class '{names[0]}'{f' and {len(names) - 1} more have' if len(names) > 1 else ' has'} no photo to "
            f"validate with: two are needed to train on, and there are {int((plan.labels[rows] == k).sum())} beside "
            "the test photos (near copies, and photos of one group, stay together). Add photos of it, or leave it out."
        )
    return validation


def _why_together(sample: Sample, test: Sample) -> str:
    """Why an image may not be in the training set beside one in the test set."""
    same_group = sample.group and sample.group == test.group
    return f"{'of one group with' if same_group else 'nearly the same as'} '{test.name}'"


def _in_company(groups: NDArray[np.int_]) -> int:
    """How many are not alone in their group."""
    sizes = np.unique(groups, return_counts=True)[1]
    return int(sizes[sizes > 1].sum())


def _drop_repeats(
    samples: Sequence[Sample],
    keys: Sequence[bytes],
    usable: NDArray[np.bool_],
    held: NDArray[np.bool_],
    drop: Callable[[Iterable[Any], str, Callable[[int], str]], None],
) -> None:
    """Of identical files keep one, preferably in the test set; none where their labels differ, as one is wrong."""
    first: dict[bytes, int] = {}
    for row in [*np.flatnonzero(usable & held).tolist(), *np.flatnonzero(usable & ~held).tolist()]:
        first.setdefault(keys[row], row)
    rows = np.flatnonzero(usable).tolist()
    conflicts = conflicting_labels((keys[row], samples[row]) for row in rows)
    contradicting = [row for row in rows if (keys[row], samples[row].label) in conflicts]
    again = sorted({*rows} - {*first.values(), *contradicting})
    drop(again, "duplicate", lambda row: _why_again(samples[row].name, samples[first[keys[row]]].name))
    drop(contradicting, CONFLICT, lambda row: conflicts[keys[row], samples[row].label])


def _why_again(name: str, first: str) -> str:
    """Why an image is a duplicate."""
    return "given twice" if name == first else f"the same file as '{first}'"


def conflicting_labels(images: Iterable[tuple[bytes, Sample]]) -> dict[tuple[bytes, str], str]:
    """Contents, by their keys, that stand under several labels, of which one is wrong.

    Returns:
        for each such content and label what to say of it: which other file is labelled otherwise.
    """
    first: dict[bytes, dict[str, str]] = {}
    for key, sample in images:
        first.setdefault(key, {}).setdefault(sample.label, sample.name)
    return {
        (key, label): "the same file as "
        + " and ".join(f"'{name}', labelled {other}" for other, name in of.items() if other != label)
        for key, of in first.items() if len(of) > 1 for label in of
    }  # fmt: skip


def _too_few(dataset: ImageDataset, left_out: Sequence[Problem]) -> str:
    counts = Counter(sample.label for sample in dataset.samples)
    sentence = (
        f"Expected two classes or more with two readable images each in {dataset.place}. "
        f"Received: {counted(len(dataset), 'image')} in {counted(len(counts), 'class')}"
    )
    if left_out:
        first = left_out[0]
        sentence += f"; left out: {each_kind(problem.kind for problem in left_out)}"
        sentence += f", first '{first.name}': {first.detail}"
    return f"{sentence}. {_how_to_label(dataset, counts)}"


def _how_to_label(dataset: ImageDataset, counts: Mapping[str, int]) -> str:
    """What to do about labels that do not make two classes: in folders, in a table, or in memory."""
    if os.path.isdir(dataset.root):
        return "Put each class's photos into a folder of its own."
    if len(counts) == 1:
        return f"All labels are '{next(iter(counts))}': give photos of another class too."
    if counts and max(counts.values()) < FEWEST:
        return "Nearly every photo has a label of its own: labels are names of classes, each of several photos."
    return "Give two photos or more of each class, with the class as their label."


def _tell(dataset: ImageDataset, left_out: Iterable[Problem]) -> None:
    """Warn a caller in Python of images that were given one by one and are left out, as they cannot be read or have no
    label; of folders and files on a disk the record has them."""
    lost = [problem for problem in left_out if problem.kind in UNREADABLE or problem.kind == NO_LABEL]
    if not dataset.root:
        warn_of(lost)
