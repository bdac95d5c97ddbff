"""Images of more than 8 bits: which values are black and white in all images of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset
from headstart.data.load import open_unscaled
from headstart.data.pixels import Levels, is_deep, likely_levels, without_alpha

FIRST, MOST = 8, 64  # images looked at: by these it is known whether any are deep, and in these the values are


def common_levels(dataset: ImageDataset, rows: Sequence[int] | NDArray[np.int_] | None = None) -> Levels | None:
    """The levels of all images with more than 8 bits, so that equal values are equally bright; None without any.

    By the values of a few images: one guess for each image would make a dark photo as bright as a light one.

    Args:
        rows: those to look at; by default all.
    """
    chosen = evenly_spread(range(len(dataset)) if rows is None else rows, MOST)
    some = [_deep_pixels(dataset, row) for row in evenly_spread(chosen, FIRST)]
    if not any(pixels is not None for pixels in some):
        return None
    found = [pixels for row in chosen if (pixels := _deep_pixels(dataset, row)) is not None]
    if not found:
        return None
    low, high = (float(value) for value in (min(each.min() for each in found), max(each.max() for each in found)))
    if not np.isfinite(high - low):
        return None
    return likely_levels(low, high, whole=all(each.dtype.kind != "f" for each in found))


def _deep_pixels(dataset: ImageDataset, row: int) -> NDArray[np.generic] | None:
    """The pixels of an image that has more than 8 bits; None for others and for those that cannot be read."""
    try:
        raw = dataset.read(row)
        found = open_unscaled(raw)
        if isinstance(found, Image.Image):
            return np.asarray(found) if is_deep(found) else None
        return without_alpha(found) if found.dtype not in (np.uint8, np.bool_) and found.size else None
    except Exception:  # a damaged file can raise nearly anything; who decodes it next says what is wrong
        return None
