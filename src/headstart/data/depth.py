"""Images of more than 8 bits: which values are black and white in all images of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset
from headstart.data.memory import once_more_alone
from headstart.data.opened_image import Raw, opened
from headstart.data.pixels import Levels, Range, is_deep, likely_levels, range_of

FIRST, MOST = 8, 64  # images looked at: by these it is known whether any are deep, and in these the values are


def common_levels(dataset: ImageDataset, rows: Sequence[int] | NDArray[np.int_] | None = None) -> Levels | None:
    """The levels of all images with more than 8 bits, so that equal values are equally bright; None without any.

    By the values of a few images: one guess for each image would make a dark photo as bright as a light one.

    Args:
        rows: those to look at; by default all.
    """
    chosen = evenly_spread(range(len(dataset)) if rows is None else rows, MOST)
    some = [_range_of(dataset, row) for row in evenly_spread(chosen, FIRST)]
    if not any(some):
        return None
    found = [known for row in chosen if (known := _range_of(dataset, row)) is not None]
    found = [known for known in found if np.isfinite(known.high - known.low)]  # others cannot be read
    if not found:
        return None
    return likely_levels(
        min(each.low for each in found), max(each.high for each in found), all(each.whole for each in found)
    )


def _range_of(dataset: ImageDataset, row: int) -> Range | None:
    """That of an image that has more than 8 bits; None for others and for those that cannot be read."""
    try:
        return _range_in(dataset.read(row))
    except Exception:  # a damaged file can raise nearly anything; who decodes it next says what is wrong
        return None


@once_more_alone
def _range_in(raw: Raw) -> Range | None:
    with opened(raw) as image:
        found = image.found
        deep = is_deep(found) if isinstance(found, Image.Image) else found.dtype not in (np.uint8, np.bool_)
        return range_of(found) if deep else None
