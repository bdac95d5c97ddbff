"""Labels that are one class in several spellings, or several classes in one label."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.columns import drop_lone_split

SPELLING = "spelling"  # the kind of a Problem: a label that may be another one


def one_spelling(samples: Sequence[Sample]) -> tuple[list[Sample], list[Problem]]:
    """Samples with one spelling of each label, and what is doubtful about labels.

    Unicode's composed and decomposed forms are one label. Labels that differ in capitals alone ("cats", "Cats") are
    one where no part of the data has both; else they stay two, with a word, for "a" and "A" may be letters.
    """
    samples = [
        sample if sample.label.isascii() else replace(sample, label=unicodedata.normalize("NFC", sample.label))
        for sample in samples
    ]
    counts = Counter(sample.label for sample in samples)
    trained = Counter(sample.label for sample in samples if sample.split == "train")
    forms: defaultdict[str, set[str]] = defaultdict(set)
    for label in counts:
        forms[" ".join(label.casefold().split())].add(label)
    problems: list[Problem] = []
    chosen: dict[str, str] = {}
    for spelt in forms.values():
        if len(spelt) < 2:
            continue
        usual, *others = sorted(spelt, key=lambda label: (-trained[label], -counts[label], label))
        parts = [{sample.split for sample in samples if sample.label == label} for label in spelt]
        apart = sum(map(len, parts)) == len(set().union(*parts))
        for other in others:
            what = "taken for the same class" if apart else "they stay two classes; rename one if they are the same"
            problems.append(Problem(other, SPELLING, f"differs from {usual!r} in capitals or blanks alone: {what}"))
            if apart:
                chosen[other] = usual
    problems += _compounds(sorted(counts))
    if chosen:
        samples = [replace(sample, label=chosen.get(sample.label, sample.label)) for sample in samples]
    return samples, problems


def _compounds(labels: Sequence[str]) -> list[Problem]:
    """A word about labels that look like several in one: "cats indoor" and "dogs indoor" beside "cats" and "dogs"."""
    known = set(labels)
    compound = [
        label for label in labels
        if len(words := [word for word in re.split(r"[\s,;|]+", label) if word]) > 1 and known & {*words}
    ]  # fmt: skip
    if len(compound) < 2:
        return []
    detail = (
        f"may be several labels in one, as {len(compound)} are; each image has one class here, so they are classes of "
        "their own"
    )
    return [Problem(compound[0], SPELLING, detail)]


def as_whole(dataset: ImageDataset) -> ImageDataset:
    """The same with one spelling of each label, and with parts where there are several."""
    samples, doubts = one_spelling(dataset.samples)
    return replace(dataset, samples=drop_lone_split(samples), problems=(*dataset.problems, *doubts))
