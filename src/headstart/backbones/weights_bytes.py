"""What the readers of weights files share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


class UnfitError(Exception):
    """What is wrong with a file; becomes a `UsageError` that names the file."""


def read_array(file: IO[bytes], dtype: str, shape: Sequence[int], truncated: str) -> NDArray[Any]:
    """An array, read from the current position of a file.

    Raises:
        UnfitError: the file ends too early; with the message ``truncated``.
    """
    array: NDArray[Any] = np.empty(shape, dtype)
    if array.nbytes and file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:  # type: ignore[attr-defined]  # every binary file has it
        raise UnfitError(truncated)
    return array


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 values, given as the upper halves of float32 values, as float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)
