"""Checks a data set: unreadable images, duplicates and near copies, small classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from headstart.core.arguments import PROGRESS, checks
from headstart.core.counts import counted
from headstart.core.display import Described, names_in_short
from headstart.core.progress import Shown, function_of, one_step, shows_progress, stage
from headstart.core.text import shortened
from headstart.core.types import UNREADABLE, ImageDataset, Problem, Sample
from headstart.data.depth import common_levels
from headstart.data.fingerprints import take_fingerprints
from headstart.data.formats import HEIF, READ
from headstart.data.inputs import Images, labelled_dataset

SHORT = 28  # characters of a name in one line on all findings
TINY = 10  # images; of a class with fewer, too few can be held out
IMBALANCE = 10.0  # times as many images in the largest class as in the smallest

_SUFFIXES = {form.name: form.suffixes for form in (*READ, HEIF)}
_NAMED = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}


@dataclass(frozen=True, slots=True)
class Repeat:
    """Images that show the same: their names, classes and splits."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def relation(self) -> str:
        """The worst that applies: "across classes" (a label is wrong), "across splits" (a leak), or "same class"."""
        if len(self.classes) > 1:
            return "across classes"
        return "across splits" if len(self.splits) > 1 else "same class"

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "images": list(self.names),
            "relation": self.relation,
            "classes": list(self.classes),
            "splits": list(self.splits),
        }


@dataclass(frozen=True, repr=False)
class Health(Described):
    """The result of `check`. Counts are of readable images."""

    root: str
    images: int  # all of them, readable or not
    classes: Mapping[str, int]
    splits: Mapping[str, Mapping[str, int]]  # split -> class -> count; "" where the source names none
    unreadable: tuple[Problem, ...]
    wrong_names: tuple[Problem, ...]  # readable all the same
    passed_over: tuple[Problem, ...]  # left out by the source for other reasons
    duplicates: tuple[Repeat, ...]  # the same content, byte for byte or pixel for pixel
    levels: tuple[float, float] | None  # black and white of images of more than 8 bits; None without any
    near_duplicates: tuple[Repeat, ...]  # re-encoded, resized, mirrored, slightly cropped or brightened copies

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook: of each kind of finding how many, and the first."""
        found = {
            kinds: [each.name for each in problems]
            for kinds, problems in (
                (("unreadable", "unreadable"), self.unreadable),
                (("wrongly named", "wrongly named"), self.wrong_names),
                (("left out", "left out"), self.passed_over),
            )
        }
        for kinds, repeats in (
            (("image repeated", "images repeated"), self.duplicates),
            (("group of near copies", "groups of near copies"), self.near_duplicates),
        ):
            found[kinds] = [" = ".join(shortened(name, SHORT) for name in each.names[:2]) for each in repeats]
        some = {
            one: f"{counted(len(each), one, more)} ({shortened(each[0], 2 * SHORT + 3)}{', …' if each[1:] else ''})"
            for (one, more), each in found.items() if each
        }  # fmt: skip
        return {
            "images": counted(self.images, "image"),
            "classes": names_in_short(tuple(self.classes)),
            **some,
        }

    @property
    def tiny_classes(self) -> tuple[str, ...]:
        """Classes with fewer than `TINY` readable images."""
        return tuple(label for label, count in self.classes.items() if count < TINY)

    @property
    def imbalance(self) -> float:
        """Readable images in the largest class, divided by those in the smallest that has any."""
        counts = [count for count in self.classes.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    @property
    def imbalanced(self) -> bool:
        """Whether the classes differ in size by more than `IMBALANCE` times."""
        return self.imbalance > IMBALANCE

    def as_json(self) -> dict[str, object]:
        """Plain values, for ``--json``."""
        return asdict(self) | {
            "duplicates": [repeat.as_json() for repeat in self.duplicates],
            "near_duplicates": [repeat.as_json() for repeat in self.near_duplicates],
            "tiny_classes": self.tiny_classes,
            "imbalance": round(self.imbalance, 3),
            "imbalanced": self.imbalanced,
        }


@checks(progress=PROGRESS)
@shows_progress
def check(data: Images, labels: Iterable[object] | None = None, *, progress: Shown = True) -> Health:
    """Read every image once; ``data``, ``labels`` and ``progress`` are as `fit` takes them.

    Takes about 300 bytes of memory for each image. An unreadable image is listed in the result; it raises no error.
    """
    dataset = labelled_dataset(data, labels)
    count = len(dataset)
    report = function_of(progress)
    prints = take_fingerprints(dataset, stage(report, "images"))
    wrong_names = [problem for problem in dataset.problems if problem.kind == "wrong name"]
    unreadable = [problem for problem in dataset.problems if problem.kind in UNREADABLE]
    listed = {*unreadable, *wrong_names}

    for sample, format_ in zip(dataset.samples, prints.formats, strict=True):
        if problem := _wrong_name(sample.name, format_):
            wrong_names.append(problem)
    keys = prints.keys
    parts = sorted({sample.split for sample in dataset.samples})
    exact = [group for group in grouped((keys[row], row) for row in range(count) if keys[row]) if len(group) > 1]
    with one_step(report, "near copies"):
        copies = prints.copies()
    near = [
        group
        for group in grouped((int(number), row) for row, number in enumerate(copies) if keys[row])
        if len({keys[row] for row in group}) > 1
    ]
    return Health(
        root=dataset.root,
        images=count,
        classes=_counts(dataset, keys, dataset.classes),
        splits={part: _counts(dataset, keys, dataset.classes, part) for part in parts},
        unreadable=(*unreadable, *prints.problems),
        wrong_names=tuple(wrong_names),
        passed_over=tuple(problem for problem in dataset.problems if problem not in listed),
        duplicates=repeats_of(dataset.samples, exact),
        levels=common_levels(dataset),
        near_duplicates=repeats_of(dataset.samples, near),
    )


def _wrong_name(name: str, format_: str) -> Problem | None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _NAMED or not format_ or suffix in _SUFFIXES[format_]:
        return None
    return Problem(name, "wrong name", f"a {format_} file named {suffix}")


def grouped(pairs: Iterable[tuple[Hashable, int]]) -> list[list[int]]:
    """Indices grouped by their key, in the order of the first of each group."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for key, index in pairs:
        groups[key].append(index)
    return list(groups.values())


def repeats_of(samples: Sequence[Sample], groups: Iterable[list[int]]) -> tuple[Repeat, ...]:
    """Groups of images that show the same, those that matter most first."""
    worst = {"across classes": 0, "across splits": 1, "same class": 2}
    repeats = []
    for group in groups:
        members = [samples[index] for index in group]
        repeats.append(
            Repeat(
                tuple(sample.name for sample in members),
                tuple(sorted({sample.label for sample in members})),
                tuple(sorted({sample.split for sample in members})),
            )
        )
    return tuple(sorted(repeats, key=lambda repeat: (worst[repeat.relation], repeat.names)))


def _counts(
    dataset: ImageDataset, keys: Sequence[bytes], classes: Iterable[str], split: str | None = None
) -> dict[str, int]:
    counted = Counter(
        sample.label
        for sample, key in zip(dataset.samples, keys, strict=True)
        if key and (split is None or sample.split == split)
    )
    return {label: counted[label] for label in classes}
