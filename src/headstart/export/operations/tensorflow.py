"""The operations in TensorFlow, all of them such as LiteRT has too."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class TensorflowOperations:
    """`protocol.Operations` on tensors; LiteRT has no float64."""

    def __init__(self, kind: type) -> None:
        import tensorflow as tf

        self.tf: Any = tf
        self.kind = kind

    def number(self, value: float) -> Any:
        return self.tf.constant(value, self.tf.float32)

    def wide(self, value: float) -> Any:
        return self.tf.constant(value, self.kind)

    def constant(self, array: NDArray[Any]) -> Any:
        return self.tf.constant(array)

    def length(self, value: Any, axis: int) -> Any:
        return self.tf.cast(self.tf.shape(value)[axis], self.kind)

    def line(self, value: Any, axis: int, start: Any, stop: Any) -> tuple[Any, Any]:
        first, last = self.tf.cast(start, self.tf.int32), self.tf.cast(stop, self.tf.int32)
        before = [slice(None)] * axis
        return value[(*before, slice(first, last))], self.tf.cast(self.tf.range(first, last), self.kind)

    def floats(self, value: Any) -> Any:
        return self.tf.cast(value, self.tf.float32)

    def single(self, value: Any) -> Any:
        return self.tf.cast(self.tf.cast(value, self.tf.float32), self.kind)

    def as_bytes(self, value: Any) -> Any:
        return self.tf.cast(value, self.tf.uint8)

    def turned(self, value: Any, axes: tuple[int, ...]) -> Any:
        return self.tf.transpose(value, axes)

    def ratio(self, value: Any, other: Any) -> Any:
        found = value / other
        if self.kind is np.float64:
            return found
        return found + (value - found * other) / other  # LiteRT divides by a constant as a product

    def floor(self, value: Any) -> Any:
        return self.tf.floor(value)

    def absolute(self, value: Any) -> Any:
        return self.tf.abs(value)

    def root(self, value: Any) -> Any:
        return self.tf.sqrt(value)

    def log(self, value: Any) -> Any:
        return self.tf.math.log(value)

    def lower(self, value: Any, other: Any) -> Any:
        return self.tf.minimum(value, other)

    def higher(self, value: Any, other: Any) -> Any:
        return self.tf.maximum(value, other)

    def below(self, value: Any, other: Any) -> Any:
        return self.tf.less(value, other)

    def where(self, condition: Any, value: Any, other: Any) -> Any:
        return self.tf.where(condition, value, other)

    def product(self, value: Any, other: Any) -> Any:
        return self.tf.matmul(value, other)

    def total(self, value: Any) -> Any:
        return self.tf.reduce_sum(value, -1, keepdims=True)

    def largest(self, value: Any, count: int) -> Any:
        return self.tf.math.top_k(value, count).values

    def place_of_largest(self, value: Any) -> Any:
        return self.tf.argmax(value, -1)

    def flat(self, value: Any) -> Any:
        return self.tf.reshape(value, [-1])
