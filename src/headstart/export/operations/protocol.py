"""The operations that are needed around a network, as each format offers them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Operations(Protocol):
    """What a format can compute. Values take ``+ - * /`` with others of their type."""

    kind: type  # np.float64 where the format computes with it, else np.float32

    def number(self, value: float) -> Any:
        """A float32 constant without axes."""

    def wide(self, value: float) -> Any:
        """A constant without axes, of the type ``kind``."""

    def constant(self, array: NDArray[Any]) -> Any:
        """An array that is part of the file."""

    def length(self, value: Any, axis: int) -> Any:
        """Of an axis, known when it runs, of the type ``kind``, without axes."""

    def line(self, value: Any, axis: int, start: Any, stop: Any) -> tuple[Any, Any]:
        """At least the part of an axis from start to before stop, and the places in it, all of the type ``kind``."""

    def floats(self, value: Any) -> Any:
        """The same in float32."""

    def single(self, value: Any) -> Any:
        """Rounded to float32, of the type ``kind``."""

    def as_bytes(self, value: Any) -> Any:
        """The same in uint8; it is whole, and from 0 to 255."""

    def turned(self, value: Any, axes: tuple[int, ...]) -> Any:
        """With its axes in this order."""

    def ratio(self, value: Any, other: Any) -> Any:
        """One divided by the other, as exactly as the format can."""

    def floor(self, value: Any) -> Any:
        """Rounded down."""

    def absolute(self, value: Any) -> Any:
        """Without its sign."""

    def root(self, value: Any) -> Any:
        """The square root."""

    def log(self, value: Any) -> Any:
        """The natural logarithm."""

    def lower(self, value: Any, other: Any) -> Any:
        """The lower of each two."""

    def higher(self, value: Any, other: Any) -> Any:
        """The higher of each two."""

    def below(self, value: Any, other: Any) -> Any:
        """Whether each is below the other."""

    def where(self, condition: Any, value: Any, other: Any) -> Any:
        """One or the other."""

    def product(self, value: Any, other: Any) -> Any:
        """Of matrices, the last two axes."""

    def total(self, value: Any) -> Any:
        """The sum of the last axis, which stays with length 1."""

    def largest(self, value: Any, count: int) -> Any:
        """The largest of the last axis (N, count)."""

    def place_of_largest(self, value: Any) -> Any:
        """Where the largest of the last axis is, int64, without that axis."""

    def flat(self, value: Any) -> Any:
        """(N, 1) as (N,)."""


FLOAT = np.float32
