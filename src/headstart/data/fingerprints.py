"""Fingerprints of images, by which duplicates and near copies are found: a content key and a grey thumbnail."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.core.progress import StageProgress
from headstart.core.types import ImageDataset, ImageSpec, Problem
from headstart.data.load import THUMBNAIL, Decoded, in_chunks, load_images
from headstart.data.near_copies import Pairs, near_copies

SEEN = ImageSpec(224)  # the pixels to make thumbnails from where there is no network: those of the default network


@dataclass(kw_only=True, eq=False)
class Fingerprints:
    """Keys and thumbnails of a data set's images, row by row; empty and zero for unreadable images."""

    keys: list[bytes]
    thumbnails: NDArray[np.uint8]  # (N, THUMBNAIL, THUMBNAIL)
    usable: NDArray[np.bool_]
    formats: list[str] = field(default_factory=list)  # of the files, each one of `load.FORMATS` or ""
    problems: list[Problem] = field(default_factory=list)
    pairs: Pairs | None = None  # how pairs of near copies are looked for, see `near_copies`

    @classmethod
    def of(cls, count: int) -> Fingerprints:
        """Empty fingerprints for ``count`` images."""
        return cls(
            keys=[b""] * count,
            thumbnails=np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8),
            usable=np.zeros(count, bool),
            formats=[""] * count,
        )

    def take(self, item: Decoded, name: str) -> None:
        """Add the fingerprint of one image, or its problem."""
        self.usable[item.index] = item.error is None
        if item.error is not None:
            self.problems.append(Problem(name, item.error.kind, item.error.detail))
            return
        self.keys[item.index], self.formats[item.index] = item.key, item.format
        if item.thumbnail is not None:
            self.thumbnails[item.index] = item.thumbnail

    def copies(self) -> NDArray[np.intp]:
        """For each image the smallest index of its group (N,): images of the same content, and near copies of them.

        Near copies are searched among one image of each content, so that exact copies do not count as neighbours.
        """
        first: dict[bytes, int] = {}
        groups = np.arange(len(self.keys))
        for row in np.flatnonzero(self.usable).tolist():
            groups[row] = first.setdefault(self.keys[row], row)
        contents = np.array([*first.values()], np.intp)
        groups[contents] = contents[near_copies(self.thumbnails[contents], self.pairs)]
        return groups[groups] if len(groups) else groups


def take_fingerprints(
    dataset: ImageDataset, progress: StageProgress | None = None, spec: ImageSpec = SEEN
) -> Fingerprints:
    """The fingerprints of all images, each read once; ``progress(done, count)`` is called after each."""
    found = Fingerprints.of(len(dataset))
    for item in in_chunks(lambda chunk: load_images(dataset, chunk, spec), range(len(dataset))):
        found.take(item, dataset.samples[item.index].name)
        if progress is not None:
            progress(item.index + 1, len(dataset))
    return found
