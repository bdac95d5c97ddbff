"""All that is said of a head and its training set, from features that are there already."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import ImageDataset
from headstart.data.check import grouped, repeats_of
from headstart.data.split import Split
from headstart.data.threads import HALF_OF_THE_CORES
from headstart.diagnose.bias_variance import bias_and_variance
from headstart.diagnose.complexity import complexity_curve
from headstart.diagnose.learning_curve import HeldOut, learning_curve
from headstart.diagnose.probes import flexible_head, permuted_accuracy
from headstart.diagnose.records import Diagnosis, LearningCurve, Outlier, Shortcut
from headstart.diagnose.refits import Refits
from headstart.diagnose.shortcuts import OF_THE_FILE, shortcuts
from headstart.diagnose.verdict import Facts, verdict_on
from headstart.diagnose.wrong_labels import sure_mistakes, wrong_labels
from headstart.learn.calibrate import softmax
from headstart.learn.heads import HeadFit
from headstart.learn.regularisation_path import Design, Labels, Matrix
from headstart.learn.significance import discordance

OUTLIERS = 12  # training images that are listed


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head with all that it was fitted on and measured on."""

    dataset: ImageDataset
    features: Matrix  # (M, D) of all its images
    thumbnails: NDArray[np.uint8]  # (M, 16, 16)
    split: Split
    fit: HeadFit
    typical: NDArray[np.float64]  # (R,) of the images that the fit held out: `Unknown.score`
    seed: int = 0

    @cached_property
    def train(self) -> Labels:
        """Rows of the training set (N,)."""
        return np.flatnonzero(self.split.train)

    @cached_property
    def test(self) -> Labels:
        """Rows of the test set (T,)."""
        return np.flatnonzero(self.split.test)

    def wrong(self, rows: Labels) -> NDArray[np.float64]:
        """1 for each row that the head gets wrong, else 0."""
        labels = self.fit.head.probabilities(self.features, rows).argmax(axis=1)
        return np.asarray(labels != self.split.labels[rows], np.float64)

    def design(self, rows: Labels) -> Design:
        """The input of the head for some rows."""
        return Design(self.features, rows, sqrt=self.fit.head.sqrt)


def diagnose_head(head: FittedHead) -> Diagnosis:
    """Learning curve, complexity curve, bias and variance, problems of the data, and the verdict."""
    with HALF_OF_THE_CORES:  # hundreds of small systems: threads would wait for each other
        return _diagnosis(head)


def _diagnosis(head: FittedHead) -> Diagnosis:
    begun = time.perf_counter()
    split, fit, train, seed = head.split, head.fit, head.train, head.seed
    labels = split.labels[train]
    with ThreadPoolExecutor(1, thread_name_prefix="headstart") as beside:  # files are read while heads are refitted
        of_files = beside.submit(shortcuts, head.dataset, train, split.labels, split.groups, head.thumbnails)
        refits = Refits(head.design(train), labels, len(split.classes), fit, seed)
        train_error = float(head.wrong(train).mean())
        held_out = _held_out(head, refits)
        curve = learning_curve(refits, held_out, train_error, seed)
        rows, logits = fit.held_out()
        names = [head.dataset.samples[row].name for row in train[rows].tolist()]
        left_out = softmax(logits)
        suspected = wrong_labels(left_out, labels[rows], split.classes, names)
        found = of_files.result()
    test = (held_out.z, held_out.labels) if held_out.is_test_set else None
    facts = replace(
        _facts(head, refits, train_error, held_out, curve),
        wrong_labels=suspected.share,
        sure_mistakes=sure_mistakes(left_out, labels[rows]),
        shortcut=_shortcut(found),
    )
    return Diagnosis(
        verdict=verdict_on(facts),
        learning_curve=curve,
        complexity=complexity_curve(refits, fit, seed),
        bias_variance=bias_and_variance(refits, split.classes, groups=split.groups[train], test=test, seed=seed),
        wrong_labels=suspected,
        look_alikes=repeats_of(head.dataset.samples, _doubtful_copies(head)),
        outliers=_outliers(head),
        shortcuts=found,
        seconds=time.perf_counter() - begun,
    )


def _held_out(head: FittedHead, refits: Refits) -> HeldOut:
    """The test set; without one, the training set, each image left out in turn."""
    labels = head.split.labels
    if len(head.test):
        z, alike = refits.project(head.design(head.test)), head.split.groups[head.test]
        return HeldOut(z, labels[head.test], head.wrong(head.test), alike=alike)
    wrong, (rows, logits) = np.full(len(head.train), np.nan), head.fit.held_out()
    wrong[rows] = logits.argmax(axis=1) != labels[head.train[rows]]
    return HeldOut(refits.z, labels[head.train], wrong, head.split.groups[head.train])


def _facts(
    head: FittedHead, refits: Refits, train_error: float, held_out: HeldOut, curve: LearningCurve | None
) -> Facts:
    """What is known of the head; not yet what is wrong with the data."""
    fit, judged = head.fit, len(head.fit.rows)
    chosen, best = fit.right_left_out, fit.right[int(fit.right.mean(axis=1).argmax())]
    accuracy = float(chosen.mean())
    variance = max(accuracy * (1 - accuracy), 1 / judged) / judged
    tested = 1 - held_out.error
    spread = (variance + max(tested * (1 - tested), 1 / len(held_out.labels)) / len(held_out.labels)) ** 0.5
    pair = flexible_head(refits, fit, head.split.groups[head.train], head.seed)
    copied, within = _copied(head)
    shares = np.bincount(refits.labels) / len(refits.labels)
    return Facts(
        images=len(head.train),
        accuracy=accuracy,
        accuracy_se=variance**0.5,
        train_error=train_error,
        chance=max(permuted_accuracy(refits, head.seed), float((shares**2).sum())),  # or answers as often as labels
        copied=copied,
        copies_within=within,
        test_z=(tested - accuracy) / spread if held_out.is_test_set else 0.0,
        flexible=pair.gain,
        flexible_z=pair.z,
        stiffer=float(best.mean() - chosen.mean()),
        stiffer_z=discordance(chosen, best),
        from_half=curve.from_half if curve else 0.0,
        from_half_z=curve.from_half_z if curve else 0.0,
        more=curve.twice.accuracy - tested if curve else 0.0,
    )


def _shortcut(found: tuple[Shortcut, ...]) -> float:
    """The gain over chance of the best shortcut by the file; brightness and border are in part what an image shows."""
    gains = [each.accuracy - each.chance for each in found if each.is_one and each.what in OF_THE_FILE]
    return max(gains, default=0.0)


def _copied(head: FittedHead) -> tuple[float, float]:
    """The share of test images with a near copy in the source's training part, and of images within that part."""
    if not head.split.own_test:
        return 0.0, 0.0
    held = np.array([sample.split == head.split.own_test for sample in head.dataset.samples])
    copies = head.split.copies
    across = np.isin(copies[head.test], copies[~held])
    sizes = np.bincount(copies[~held], minlength=len(copies))
    return float(across.mean()) if len(across) else 0.0, float((sizes[copies[~held]] > 1).mean())


def _doubtful_copies(head: FittedHead) -> list[list[int]]:
    """Groups of near copies with several labels, or in several parts."""
    groups = [rows for rows in grouped((int(group), row) for row, group in enumerate(head.split.copies)) if rows[1:]]
    return [
        rows for rows in groups
        if len({(head.dataset.samples[row].label, head.dataset.samples[row].split) for row in rows}) > 1
    ]  # fmt: skip


def _outliers(head: FittedHead) -> tuple[Outlier, ...]:
    """The least typical training images."""
    order, count = np.argsort(head.typical, kind="stable"), len(head.typical)
    samples = [head.dataset.samples[row] for row in head.train[head.fit.rows[order[:OUTLIERS]]].tolist()]
    return tuple(Outlier(sample.name, sample.label, place / count) for place, sample in enumerate(samples))
