"""A few rows, evenly spread, in place of many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def evenly_spread(rows: Sequence[int] | NDArray[np.int_], count: int) -> list[int]:
    """At most ``count`` of the rows, evenly spread; the first and the last are among them."""
    if not len(rows):
        return []
    places = np.unique(np.linspace(0, len(rows) - 1, count).astype(int))
    found: list[int] = np.asarray(rows)[places].tolist()
    return found
