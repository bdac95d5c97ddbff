"""The health of a data set: what cannot be read, what is there twice, which classes are thin."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.copies import GREY, MARGIN, VIEWS, near_copies, phash, small
from headstart.data.load import THUMB, Raw, content_key, in_chunks, open_image, to_rgb, turn_of, why_unreadable
from headstart.data.sources import PathLike, open_source
from headstart.errors import UnreadableImageError
from headstart.types import Problem, Sample, Table

TINY = 10  # images; a class with fewer leaves nothing to hold out
IMBALANCE = 10.0  # times as many images in the largest class as in the smallest

_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jfif"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
}
_NAMED = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes if name != "MPO"}
_UNREADABLE = {"empty", "truncated", "unreadable", "bomb", "missing"}
_DRAFT = 4 * GREY  # a JPEG is decoded no smaller than this, a fraction of the work for a photo


@dataclass(frozen=True, slots=True)
class Repeat:
    """Images that show the same: their names, and the classes and splits they are spread over."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def relation(self) -> str:
        """The worst that is true: "across classes" (a label is wrong), "across splits" (a leak), or "same class"."""
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


@dataclass(frozen=True)
class Health:
    """What `check` found. Counts are of images that can be read."""

    root: str
    images: int  # all of them, readable or not
    classes: Mapping[str, int]
    splits: Mapping[str, Mapping[str, int]]  # split -> class -> count; "" where the source names none
    unreadable: tuple[Problem, ...]
    wrong_names: tuple[Problem, ...]  # readable all the same
    passed_over: tuple[Problem, ...]  # what the source left out for other reasons
    duplicates: tuple[Repeat, ...]  # the same content, byte for byte or pixel for pixel
    near_duplicates: tuple[Repeat, ...]  # re-encoded, resized, slightly cropped or brightened copies

    @property
    def tiny_classes(self) -> tuple[str, ...]:
        """Classes with fewer than `TINY` readable images."""
        return tuple(label for label, count in self.classes.items() if count < TINY)

    @property
    def imbalance(self) -> float:
        """How many times as many readable images the largest class has as the smallest that has any."""
        counts = [count for count in self.classes.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    @property
    def imbalanced(self) -> bool:
        """Whether the classes differ in size by more than `IMBALANCE` times."""
        return self.imbalance > IMBALANCE

    def as_json(self) -> dict[str, object]:
        """Plain values, for ``--json``."""
        return {
            "root": self.root,
            "images": self.images,
            "classes": dict(self.classes),
            "splits": {split: dict(counts) for split, counts in self.splits.items()},
            "unreadable": _plain(self.unreadable),
            "wrong_names": _plain(self.wrong_names),
            "passed_over": _plain(self.passed_over),
            "duplicates": [repeat.as_json() for repeat in self.duplicates],
            "near_duplicates": [repeat.as_json() for repeat in self.near_duplicates],
            "tiny_classes": list(self.tiny_classes),
            "imbalance": round(self.imbalance, 3),
            "imbalanced": self.imbalanced,
        }


def check(data: PathLike | Table, progress: Callable[[int, int], None] | None = None) -> Health:
    """Look at every image of a source once; ``progress(done, total)`` is called after each.

    Keeps 560 bytes an image, whatever its size. A bad image is a line in the result, never an exception.
    """
    table = data if isinstance(data, Table) else open_source(data)
    count = len(table)
    keys: list[bytes] = []
    hashes = np.zeros((count, VIEWS), np.uint64)
    thumbs = np.zeros((count, VIEWS, THUMB, THUMB), np.uint8)
    unreadable = [problem for problem in table.problems if problem.kind in _UNREADABLE]
    wrong_names = [problem for problem in table.problems if problem.kind == "wrong name"]
    listed = {*unreadable, *wrong_names}

    for index, look in enumerate(in_chunks(lambda chunk: [_look(table, i) for i in chunk], range(count))):
        keys.append(look.key)
        if look.problem is not None:
            (wrong_names if look.key else unreadable).append(look.problem)
        if look.key:
            hashes[index], thumbs[index] = look.hashes, look.thumbs
        if progress is not None:
            progress(index + 1, count)

    exact = _alike((keys[index], index) for index in range(count) if keys[index])
    return Health(
        root=table.root,
        images=count,
        classes=_counts(table, keys, table.classes),
        splits={
            split: _counts(table, keys, table.classes, split) for split in sorted({s.split for s in table.samples})
        },
        unreadable=tuple(unreadable),
        wrong_names=tuple(wrong_names),
        passed_over=tuple(problem for problem in table.problems if problem not in listed),
        duplicates=_repeats(table.samples, [group for group in exact if len(group) > 1]),
        near_duplicates=_repeats(table.samples, _near(exact, hashes, thumbs)),
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """One image as seen in passing; ``key`` is empty where it could not be read."""

    key: bytes
    hashes: NDArray[np.uint64]
    thumbs: NDArray[np.uint8]
    problem: Problem | None


_NOTHING = np.empty(0, np.uint64), np.empty(0, np.uint8)


def _look(table: Table, index: int) -> _Look:
    name = table.samples[index].name
    try:
        raw = table.read(index)
        grey, format_ = _grey_views(raw)
        return _Look(content_key(raw), phash(grey), small(grey), _wrong_name(name, format_))
    except UnreadableImageError as error:
        return _Look(b"", *_NOTHING, Problem(name, error.kind, error.detail))
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        return _Look(b"", *_NOTHING, Problem(name, kind, error.strerror or str(error)))


def _grey_views(raw: Raw) -> tuple[NDArray[np.uint8], str]:
    """The whole picture and its inner part, upright (2, 32, 32), and the file's format ("" for pixels)."""
    image = open_image(raw)
    format_ = image.format or ""
    try:
        # Smaller and without colour, yet libjpeg still reads to the end: a truncated file does not slip through.
        image.draft("L", (_DRAFT, _DRAFT))
        image.load()
        turn = turn_of(image)
        image = image if image.mode == "L" and "transparency" not in image.info else to_rgb(image).convert("L")
        width, height = image.size
        views = []
        for margin in (0.0, MARGIN):
            box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
            view = image.resize((GREY, GREY), Image.Resampling.BILINEAR, box=box)
            views.append(np.asarray(view.transpose(turn) if turn is not None else view))
        return np.stack(views), format_
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise why_unreadable(error) from error


def _wrong_name(name: str, format_: str) -> Problem | None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _NAMED or not format_ or suffix in _SUFFIXES[format_]:
        return None
    return Problem(name, "wrong name", f"a {format_} file named {suffix}")


def _alike(pairs: Iterable[tuple[Hashable, int]]) -> list[list[int]]:
    """Indices with the same key together, in order of the first of each."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for key, index in pairs:
        groups[key].append(index)
    return list(groups.values())


def _near(exact: Sequence[list[int]], hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8]) -> list[list[int]]:
    """Groups of more than one content; each with all images of those contents."""
    first = [
        group[0] for group in exact
    ]  # one of each content, so that exact copies do not pass for a typical distance
    group_of = near_copies(hashes[first], thumbs[first])
    groups = _alike((int(group), position) for position, group in enumerate(group_of))
    return [sorted(i for position in group for i in exact[position]) for group in groups if len(group) > 1]


def _repeats(samples: Sequence[Sample], groups: Iterable[list[int]]) -> tuple[Repeat, ...]:
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


def _counts(table: Table, keys: Sequence[bytes], classes: Iterable[str], split: str | None = None) -> dict[str, int]:
    counted = Counter(
        sample.label
        for sample, key in zip(table.samples, keys, strict=True)
        if key and (split is None or sample.split == split)
    )
    return {label: counted[label] for label in classes}


def _plain(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [{"name": problem.name, "kind": problem.kind, "detail": problem.detail} for problem in problems]
