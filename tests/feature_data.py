"""A small network and numbered pictures for tests of features."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, Blueprint
from headstart.backbones.builder import Builder
from headstart.core.types import ImageDataset, ImageSpec, Sample
from headstart.data.load import decode
from headstart.engines.fast import FastNetwork
from headstart.learn.features import Features

SPEC = ImageSpec(32)


ORIGIN = "ab12"


Pixels = NDArray[np.uint8]


def blueprint() -> Blueprint:
    """A small network: one convolution, 24 features."""
    builder = Builder()
    x = builder.conv(INPUT, "stem", 24, 3, 2)
    x = builder.act(builder.norm(x, "norm", 1e-3), "act", "relu6")
    builder.classifier(x, 5, 0.2)
    return builder.build("tiny", SPEC.size).trunk(("act",))


class Counted(FastNetwork):
    """Counts the images that it computes."""

    computed = 0

    def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
        run, lock = super().runner(at), threading.Lock()

        def counting(images: Pixels) -> list[NDArray[np.float32]]:
            with lock:
                Counted.computed += len(images)
            return run(images)

        return counting


def network(seed: int = 0, kind: type[FastNetwork] = Counted, precision: str = "fp32") -> FastNetwork:
    Counted.computed = 0
    r = np.random.default_rng(seed)
    shapes = blueprint().weight_shapes()
    weights = {name: np.abs(r.normal(0.2, 0.5, shape)).astype(np.float32) for name, shape in shapes.items()}
    return kind(blueprint(), weights, SPEC, precision)


def pixels_of(number: int) -> Pixels:
    """A smooth picture of its own for every number, a little larger than the network wants."""
    r = np.random.default_rng(number)
    coarse = r.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def dataset(numbers: Sequence[int] | range, broken: Sequence[int] = ()) -> ImageDataset:
    """Pictures by number; those that are ``broken`` cannot be read."""
    numbers = list(numbers)

    def read(index: int) -> Pixels | bytes:
        if numbers[index] in broken:
            return b"not an image at all"
        return pixels_of(numbers[index])

    return ImageDataset("", [Sample(f"picture {number}", "a") for number in numbers], read)


def plain(numbers: Sequence[int] | range) -> NDArray[np.float32]:
    """The features straight from the network."""
    images = np.stack([decode(pixels_of(number), SPEC) for number in numbers])
    return network(kind=FastNetwork).forward(images, FEATURES)


def same(found: Features, other: Features) -> None:
    assert np.array_equal(found.values, other.values)
    assert np.array_equal(found.thumbnails, other.thumbnails)
    assert found.keys == other.keys
    assert np.array_equal(found.usable, other.usable)
