"""Batches of images in a random order that depends on (seed, epoch, step) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError, UnreadableImageError, UsageError, did_you_mean
from headstart.core.types import ImageDataset, ImageSpec, Sample
from headstart.data.augment import augment, margin_of
from headstart.data.load import became_unreadable, decode, in_chunks
from headstart.train.protocol import Batch
from headstart.train.recipe import Recipe

KEEP = 1 << 30  # bytes of decoded photos that stay in memory
ORDER, VIEW, PIXELS = 1, 2, 3  # purposes of `draw`, so that no two share their random numbers


def draw(purpose: int, *place: int) -> np.random.Generator:
    """A random generator for one purpose at one place of a training."""
    return np.random.default_rng((purpose, len(place), *place))  # the length: numpy takes (1,) and (1, 0) for the same


def ends_of(images: int, at_a_time: int, least: int = 1) -> list[int]:
    """Where each of the parts ends that so many images are taken in; too few for a part join the one before."""
    return [*range(at_a_time, images - least + 1, at_a_time), images]


class _Ordered:
    """Images in a new random order in each epoch.

    The last batch may be smaller, but is never a single image, of which batch norm has no statistics: that one joins
    the batch before it.
    """

    def __init__(self, images: int, batch_size: int, seed: int, shuffle: bool) -> None:
        if images < 1:
            raise DataError("There are no images to train on or to measure with. Expected at least one.")
        if batch_size < 1:
            raise UsageError(f"batch_size: expected at least 1. Received: {batch_size}.")
        self._ends = ends_of(images, batch_size, least=min(batch_size, 2))
        self.images, self.steps = images, len(self._ends)  # of one epoch
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the images in an epoch."""
        if not self.shuffle:
            return np.arange(self.images)
        return draw(ORDER, self.seed, epoch).permutation(self.images)

    def _parts(self, epoch: int, start: int) -> Iterator[NDArray[np.int64]]:
        order = self.order(epoch)
        for step in range(start, self.steps):
            yield order[step * self.batch_size : self._ends[step]]


class ArrayBatches(_Ordered):
    """Batches of arrays or memory maps: pixels, rows of a table, or activations of a frozen part.

    Args:
        x: (N, …), or with ``views`` (V, N, …): several views of each image, a different one in each epoch. uint8
            stays as it is, all else becomes float32.
        y: classes as whole numbers, (N,).
        shuffle: a new random order in each epoch; else the given order and view 0, as for validation.
        rows: which images, ``y`` being those of theirs; None for all.

    Raises:
        DataError: no images, another number of labels, or labels that are no classes.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        batch_size: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        views: bool = False,
        rows: NDArray[np.int_] | None = None,
    ) -> None:
        y = np.asarray(y)
        given = x if views else x[None]
        fitting = given.ndim >= 3 and len(y) == (given.shape[1] if rows is None else len(rows))
        if not fitting or y.ndim != 1 or not len(given):
            raise DataError(
                f"Expected {'views of ' if views else ''}images or rows and a label for each. "
                f"Received: shapes {x.shape} and {y.shape}."
            )
        if y.dtype.kind not in "iu" or (len(y) and y.min() < 0):
            raise DataError(f"Labels are the numbers of classes, from 0. Received: {y.dtype} from {y.min():g}.")
        super().__init__(len(y), batch_size, seed, shuffle)
        self._x, self._y, self._rows = given, y.astype(np.int64), np.arange(len(y)) if rows is None else rows
        self._first = draw(VIEW, seed).integers(
            len(given), size=len(y)
        )  # or all images would have the same view in an epoch

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the step ``start`` on: the same in each call."""
        for rows in self._parts(number, start):
            views = (self._first[rows] + number) % len(self._x) if self.shuffle else 0
            x = np.asarray(self._x[views, self._rows[rows]])
            yield Batch(x if x.dtype == np.uint8 else x.astype(np.float32, copy=False), self._y[rows])


class PhotoBatches(_Ordered):
    """Batches of photos, decoded on threads ahead of the training and augmented, uint8 (N, size, size, 3).

    A photo is decoded once, a little larger than the network's input, and stays in memory as far as ``keep`` allows;
    each epoch's view of it is drawn from (seed, epoch, row). Without ``train`` the order is the given one,
    and nothing is augmented.

    Args:
        rows: which photos of the data set.
        classes: that labels are numbers of; default: those of the data set.
        keep: bytes of decoded photos that may stay in memory; see `memory`.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        rows: Sequence[int] | NDArray[np.integer[Any]],
        spec: ImageSpec,
        recipe: Recipe,
        *,
        train: bool = True,
        classes: Sequence[str] | None = None,
        keep: int = KEEP,
    ) -> None:
        super().__init__(len(rows), recipe.batch_size, recipe.seed, train)
        self._dataset, self._rows, self._size = dataset, [int(row) for row in rows], spec.size
        numbers = {name: number for number, name in enumerate(dataset.classes if classes is None else classes)}
        self._y = np.array([_class_of(dataset.samples[row], numbers) for row in self._rows])
        self._strength = recipe.augmentation if train else "none"
        wide = min(spec.crop * margin_of(self._strength), 1.0)
        self._source = replace(spec, size=round(spec.size * margin_of(self._strength)), crop=wide)
        self._view = spec.crop / wide
        self._kept: dict[int, NDArray[np.uint8]] = {}  # position in ``rows`` -> pixels
        self._places = min(keep // (3 * self._source.size**2), self.images)

    @property
    def memory(self) -> int:
        """Bytes of decoded photos that stay in memory after one epoch."""
        return int(3 * self._source.size**2 * self._places)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the step ``start`` on: the same in each call.

        Raises:
            DataError: a photo can no longer be read.
        """
        order = self.order(number)[start * self.batch_size :].tolist()
        ahead = in_chunks(lambda places: [self._image(place, number) for place in places], order)
        try:
            for rows in self._parts(number, start):
                yield Batch(np.stack([next(ahead) for _ in rows]), self._y[rows])
        finally:
            ahead.close()  # type: ignore[attr-defined]  # a generator: this ends its threads

    def _image(self, place: int, epoch: int) -> NDArray[np.uint8]:
        pixels = self._kept.get(place)
        if pixels is None:
            pixels = self._decode(place)
            if place < self._places:  # the same ones each epoch: else they would replace each other
                self._kept[place] = pixels
        if self._strength == "none":
            return pixels
        rng = draw(PIXELS, self.seed, epoch, self._rows[place])
        return augment(pixels, rng, self._strength, self._size, self._view)

    def _decode(self, place: int) -> NDArray[np.uint8]:
        row = self._rows[place]
        try:
            return decode(self._dataset.read(row), self._source)
        except (OSError, UnreadableImageError) as error:
            raise became_unreadable(self._dataset, row, error) from error


def _class_of(sample: Sample, numbers: dict[str, int]) -> int:
    if sample.label not in numbers:
        raise DataError(
            f"'{sample.name}' is labelled '{sample.label}', which is no class of the model. "
            f"{did_you_mean(sample.label, numbers)}"
        )
    return numbers[sample.label]
