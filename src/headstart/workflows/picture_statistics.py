"""What pictures are like before a training begins: their size, whether they have colours, mean and deviation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.ops import LUMA
from headstart.core.errors import UnreadableImageError
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data.file_headers import header_of
from headstart.data.load import decode

SMALL = 64  # pixels: what is no larger is trained on at its own size, what is larger at this one
SIZED, WEIGHED = 32, 256  # images that tell whether all are alike in size, and what their colours are
FLAT = 0.02  # least deviation of a colour that pixels are divided by

Rows = NDArray[np.int_]


def own_size(dataset: ImageDataset, rows: Rows) -> int:
    """The images' own size where they are small squares, all alike, else 0."""
    sizes = set()
    for row in evenly_spread(rows, SIZED):
        try:
            header = header_of(dataset.read(row))
            sizes.add((header.width, header.height))
        except (OSError, UnreadableImageError):  # it could be read before; the training will say so
            continue
    if len(sizes) != 1:
        return 0
    width, height = sizes.pop()
    return width if width == height <= SMALL else 0


def are_grey(dataset: ImageDataset, rows: Rows, spec: ImageSpec) -> bool:
    """Whether none of the images, or of `WEIGHED` of them, has colours."""
    seen = [bool((pixels == pixels[..., :1]).all()) for pixels in _some(dataset, rows, spec)]
    return bool(seen) and all(seen)


def normalised(dataset: ImageDataset, rows: Rows, spec: ImageSpec, *, grey: bool = False) -> ImageSpec:
    """The same with the mean and deviation that colours have in these images; with ``grey`` the luma's, three times."""
    shares = np.array([LUMA]).T if grey else np.eye(3)
    seen = [pixels.reshape(-1, 3) / 255 @ shares for pixels in _some(dataset, rows, spec)]
    if not seen:
        return spec
    pixels = np.concatenate(seen)
    mean = pixels.mean(axis=0).round(4).tolist()
    std = np.maximum(pixels.std(axis=0), FLAT).round(4).tolist()
    red, green, blue = mean * 3 if grey else mean
    r, g, b = std * 3 if grey else std
    return replace(spec, mean=(red, green, blue), std=(r, g, b))


def _some(dataset: ImageDataset, rows: Rows, spec: ImageSpec) -> Iterator[NDArray[np.uint8]]:
    for row in evenly_spread(rows, WEIGHED):
        try:
            yield decode(dataset.read(row), spec)
        except (OSError, UnreadableImageError):  # it could be read before; the training will say so
            continue
