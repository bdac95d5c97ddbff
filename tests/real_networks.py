"""A network with real weights, and real photos for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.catalogue import load_pretrained
from headstart.data.load import decode
from headstart.engines.fast import FastNetwork


def real_network(shared: Path, precision: str) -> tuple[FastNetwork, NDArray[np.uint8]]:
    """The default trunk, and photos of everything."""
    found = load_pretrained("efficientnet_lite0", head=False)
    files = sorted((shared / "data" / "imagenet_sample").glob("*.jpg"))[::60]
    images = np.stack([decode(file.read_bytes(), found.spec) for file in files])
    return FastNetwork(found.blueprint, found.weights, found.spec, precision), images
