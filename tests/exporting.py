"""What the tests of export formats share: small packages, and what their networks say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.data.load import decode
from headstart.engines.fast import FastNetwork
from headstart.export.package import Package
from headstart.model.classifier import Golden
from referee import EVERY_OP, SPEC, photos, slow_forward, weights_for

BATCHES = (1, 3, 17)
AWKWARD = ("bar", "a b", "naïve ☃", "two\nlines", '"quoted"')  # names of classes


def every_op() -> Package:
    """A network of every operation, with awkwardly named classes; its golden logits are the referee's."""
    weights, images = weights_for(EVERY_OP), photos(4)
    logits = slow_forward(EVERY_OP, weights, SPEC, images)["logits"].astype(np.float32)
    return Package(EVERY_OP, weights, SPEC, AWKWARD, Golden(images, logits))


def of_bundle(bundle: Path) -> Package:
    return Package.of(hs.load(bundle, engine="fast", precision="fp32"))


def pictures(folder: Path, package: Package, count: int) -> NDArray[np.uint8]:
    """The first photos of each class, as the network sees them."""
    files = [file for place in sorted(folder.iterdir()) for file in sorted(place.iterdir())[: -(-count // 3)]]
    return np.stack([decode(file.read_bytes(), package.spec) for file in files[:count]])


def fp32(package: Package, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits that every format is held against."""
    network = FastNetwork(package.blueprint, package.weights, package.spec, "fp32")
    return np.asarray(network.forward(images), np.float32)


def difference(logits: NDArray[Any], expected: NDArray[Any]) -> float:
    """The greatest, relative to the largest logit."""
    assert logits.shape == expected.shape
    assert logits.dtype == np.float32
    return float(np.abs(logits - expected).max() / np.abs(expected).max())
