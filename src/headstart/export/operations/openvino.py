"""The operations as nodes of an OpenVINO model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.export.operations.protocol import FLOAT


class OpenvinoOperations:
    """`protocol.Operations` of opset 13. Its processor plugin computes in float32 where a model has float64."""

    kind: type = np.float32

    def __init__(self) -> None:
        from openvino import opset13

        self.op: Any = opset13

    def number(self, value: float) -> Any:
        return self.op.constant(np.asarray(value, FLOAT))

    def wide(self, value: float) -> Any:
        return self.number(value)

    def constant(self, array: NDArray[Any]) -> Any:
        return self.op.constant(array)

    def length(self, value: Any, axis: int) -> Any:
        shape = self.op.shape_of(value, "i64")
        return self.floats(self.op.gather(shape, np.array(axis, np.int64), np.array(0, np.int64)))

    def line(self, value: Any, axis: int, start: Any, stop: Any) -> tuple[Any, Any]:
        first, last = (self.op.reshape(self.op.convert(each, "i64"), np.array([1]), False) for each in (start, stop))
        part = self.op.slice(value, first, last, np.array([1]), np.array([axis]))
        return part, self.op.range(start, stop, self.number(1), "f32")

    def floats(self, value: Any) -> Any:
        return self.op.convert(value, "f32")

    def single(self, value: Any) -> Any:
        return value

    def as_bytes(self, value: Any) -> Any:
        return self.op.convert(value, "u8")

    def turned(self, value: Any, axes: tuple[int, ...]) -> Any:
        return self.op.transpose(value, np.array(axes))

    def ratio(self, value: Any, other: Any) -> Any:
        found = value / other
        return found + (value - found * other) / other  # a constant is divided by as a product, which is not exact

    def floor(self, value: Any) -> Any:
        return self.op.floor(value)

    def absolute(self, value: Any) -> Any:
        return self.op.abs(value)

    def root(self, value: Any) -> Any:
        return self.op.sqrt(value)

    def log(self, value: Any) -> Any:
        return self.op.log(value)

    def lower(self, value: Any, other: Any) -> Any:
        return self.op.minimum(value, other)

    def higher(self, value: Any, other: Any) -> Any:
        return self.op.maximum(value, other)

    def below(self, value: Any, other: Any) -> Any:
        return self.op.less(value, other)

    def where(self, condition: Any, value: Any, other: Any) -> Any:
        return self.op.select(condition, value, other)

    def product(self, value: Any, other: Any) -> Any:
        return self.op.matmul(value, other, False, False)

    def total(self, value: Any) -> Any:
        return self.op.reduce_sum(value, np.array([-1]), True)

    def largest(self, value: Any, count: int) -> Any:
        return self.op.topk(value, np.array(count), -1, "max", "none").output(0)

    def place_of_largest(self, value: Any) -> Any:
        places = self.op.topk(value, np.array(1), -1, "max", "none", "i64").output(1)
        return self.op.reshape(places, np.array([-1]), False)

    def flat(self, value: Any) -> Any:
        return self.op.reshape(value, np.array([-1]), False)
