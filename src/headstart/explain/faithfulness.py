"""How much of the answer lies where a map says: insertion and deletion, average drop, ROAD.

All take images (N, size, size, 3) in 8 bits, maps (N, size, size) and the class of each image, and are compared with
the same for `centre_blob`, which knows nothing of the photo: whatever does not beat it has not been shown to explain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import ImageSpec
from headstart.explain.gradients import Pixels
from headstart.explain.imputation import NOISE, TOLERANCE, Normal, imputed
from headstart.learn.calibrate import softmax

Bytes = NDArray[np.uint8]  # (N, size, size, 3)
Maps = NDArray[np.floating]  # (N, size, size)
Classes = NDArray[np.intp]  # (N,)

STEPS = 12  # of insertion and deletion
BLOB = 0.25  # standard deviation of the blob, relative to the size
PERCENTAGES = (20, 40, 60, 80)  # of the pixels that ROAD takes away
TOGETHER = 64  # images handed to the network at a time


class Seeing(Protocol):
    """A network, as far as these tests need it."""

    spec: ImageSpec

    def forward(self, images: Pixels) -> NDArray[np.floating]:
        """The logits (N, K) of images of 8 bits, or in [0, 1]."""


@dataclass(frozen=True, eq=False)
class InsertionDeletion:
    """The probability of the class while pixels come and go, the strongest of the map first."""

    inserted: NDArray[np.float64]  # (N, steps + 1)
    deleted: NDArray[np.float64]  # (N, steps + 1)

    @property
    def insertion(self) -> NDArray[np.float64]:
        """The area under the first curve (N,), from 0 to 1; more is better."""
        return _area(self.inserted)

    @property
    def deletion(self) -> NDArray[np.float64]:
        """The area under the second curve (N,), from 0 to 1; less is better."""
        return _area(self.deleted)


@dataclass(frozen=True, eq=False)
class Road:
    """What is left of the answer without the strongest pixels of the map."""

    probability: NDArray[np.float64]  # (N, percentages)
    kept: NDArray[np.bool_]  # (N, percentages) whether the class is still the most probable one


def centre_blob(size: int) -> NDArray[np.float32]:
    """A map (size, size) that is a round blob in the middle of any photo."""
    along = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    line = np.exp(-(along**2) / (2 * BLOB**2))
    return np.asarray(np.outer(line, line), np.float32)


def insertion_deletion(
    network: Seeing, images: Bytes, maps: Maps, classes: Classes, *, steps: int = STEPS
) -> InsertionDeletion:
    """Deletion replaces the strongest pixels by the mean colour, insertion begins with it (Petsiuk et al. 2018)."""
    ranks = np.argsort(_ordered(maps), axis=1).reshape(maps.shape)  # 0: the strongest
    grey = np.asarray(network.spec.mean, np.float32)
    curves = []
    for turned in (False, True):
        changed = (
            np.where((ranks[row] < count)[..., None] ^ turned, images[row] / np.float32(255), grey)
            for row in range(len(images))
            for count in np.linspace(0, ranks[0].size, steps + 1).round()
        )
        chosen = np.repeat(classes, steps + 1)
        curves.append(_chances(network, changed, chosen)[0].reshape(len(images), steps + 1))
    return InsertionDeletion(*curves)


def average_drop(
    network: Seeing, images: Bytes, maps: Maps, classes: Classes
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The share of the probability (N,) that is lost where each pixel is faded to the mean colour as the map is weak
    there, at least 0; and whether it rose instead (Chattopadhay et al. 2018). Of a map what is above 0 counts.
    """
    weight = np.maximum(maps, 0)
    weight = weight / np.maximum(weight.max((1, 2), keepdims=True), 1e-12)
    grey = np.asarray(network.spec.mean, np.float32)
    before = _chances(network, images, classes)[0]
    faded = (
        (grey + share[..., None] * (image / np.float32(255) - grey)).astype(np.float32)
        for image, share in zip(images, weight, strict=True)
    )
    after = _chances(network, faded, classes)[0]
    return np.maximum(before - after, 0) / np.maximum(before, 1e-12), after > before


def road(
    network: Seeing,
    images: Bytes,
    maps: Maps,
    classes: Classes,
    *,
    percentages: Sequence[float] = PERCENTAGES,
    random: Normal | None = None,
    noise: float = NOISE,
    tolerance: float = TOLERANCE,
) -> Road:
    """Remove the strongest pixels of each map by noisy linear imputation, and debias so (ROAD, Rong et al. 2022).

    ``random`` draws the noise, for one percentage after the other and one image after the other; by default from the
    seed 0. The mean of ``kept`` over images is ROAD's accuracy; less is better.
    """
    source = random or np.random.default_rng(0)
    order, floats = _ordered(maps), images / 255.0
    columns = []
    for percentage in percentages:
        count = int(order.shape[1] * percentage / 100)
        without = (
            imputed(image, row[:count], source, noise=noise, tolerance=tolerance).astype(np.float32)
            for image, row in zip(floats, order, strict=True)
        )
        columns.append(_chances(network, without, classes))
    chances, kept = zip(*columns, strict=True)
    return Road(np.stack(chances, 1), np.stack(kept, 1))


def _ordered(maps: Maps) -> NDArray[np.intp]:
    """The pixels of each map (N, pixels), the strongest first."""
    return np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")


def _area(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.trapezoid(curves, axis=1) / (curves.shape[1] - 1))


def _chances(
    network: Seeing, images: Iterable[Pixels], classes: Classes
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The probability of the class of each image (N,), and whether it is the most probable; a few images at a time."""
    waiting, logits = iter(images), []
    while batch := list(islice(waiting, TOGETHER)):
        stacked: Any = np.stack(batch)
        logits.append(network.forward(stacked))
    found = softmax(np.concatenate(logits)) if logits else np.zeros((0, 1))
    return found[np.arange(len(classes)), classes].astype(np.float64), found.argmax(1) == classes
