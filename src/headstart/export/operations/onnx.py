"""The operations as nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import needs
from headstart.export.operations.protocol import FLOAT


class Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        with needs("onnx", "onnx", "The format onnx"):
            import onnx
        self.onnx, self.helper = onnx, onnx.helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node with one output, which has the node's name."""
        self.nodes.append(self.helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any, kind: Any = np.float32) -> str:
        """A constant by its name."""
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value, kind), name))
        return name


@dataclass(frozen=True)
class Value:
    """A value of a graph, by its name."""

    ops: OnnxOperations
    name: str

    def __add__(self, other: Value) -> Value:
        return self.ops.node("Add", self, other)

    def __sub__(self, other: Value) -> Value:
        return self.ops.node("Sub", self, other)

    def __mul__(self, other: Value) -> Value:
        return self.ops.node("Mul", self, other)

    def __truediv__(self, other: Value) -> Value:
        return self.ops.node("Div", self, other)


class OnnxOperations:
    """`protocol.Operations` of opset 14; names begin with ``prefix``."""

    kind: type = np.float64

    def __init__(self, graph: Graph, prefix: str) -> None:
        self.graph, self.prefix = graph, prefix
        self._numbers: dict[tuple[float, type], Value] = {}

    def value(self, name: str) -> Value:
        """That of another part of the graph."""
        return Value(self, name)

    def node(self, op: str, *inputs: Value, **attributes: Any) -> Value:
        return Value(self, self.graph.add(op, self._free(op), [each.name for each in inputs], **attributes))

    def _free(self, what: str) -> str:
        return f"{self.prefix}.{what.lower()}_{len(self.graph.nodes) + len(self.graph.constants)}"

    def number(self, value: float) -> Value:
        return self._number(value, FLOAT)

    def wide(self, value: float) -> Value:
        return self._number(value, self.kind)

    def _number(self, value: float, kind: type) -> Value:
        if (value, kind) not in self._numbers:
            self._numbers[value, kind] = self.constant(np.asarray(value, kind))
        return self._numbers[value, kind]

    def _axes(self, *axes: int) -> Value:
        return self.constant(np.array(axes, np.int64))

    def _whole(self, value: Value) -> Value:
        return self.node("Cast", value, to=self.graph.onnx.TensorProto.INT64)

    def constant(self, array: NDArray[Any]) -> Value:
        name = self._free("constant")
        self.graph.constants.append(self.graph.onnx.numpy_helper.from_array(np.asarray(array), name))
        return Value(self, name)

    def length(self, value: Value, axis: int) -> Value:
        place = self.constant(np.asarray(axis, np.int64))
        found = self.node("Gather", self.node("Shape", value), place)
        return self.node("Cast", found, to=self.graph.onnx.TensorProto.DOUBLE)

    def line(self, value: Value, axis: int, start: Value, stop: Value) -> tuple[Value, Value]:
        one = self._axes(1)
        ends = [self.node("Reshape", self._whole(each), one) for each in (start, stop)]
        return self.node("Slice", value, *ends, self._axes(axis)), self.node("Range", start, stop, self.wide(1))

    def floats(self, value: Value) -> Value:
        return self.node("Cast", value, to=self.graph.onnx.TensorProto.FLOAT)

    def single(self, value: Value) -> Value:
        return self.node("Cast", self.floats(value), to=self.graph.onnx.TensorProto.DOUBLE)

    def as_bytes(self, value: Value) -> Value:
        return self.node("Cast", value, to=self.graph.onnx.TensorProto.UINT8)

    def turned(self, value: Value, axes: tuple[int, ...]) -> Value:
        return self.node("Transpose", value, perm=list(axes))

    def ratio(self, value: Value, other: Value) -> Value:
        return value / other

    def floor(self, value: Value) -> Value:
        return self.node("Floor", value)

    def absolute(self, value: Value) -> Value:
        return self.node("Abs", value)

    def root(self, value: Value) -> Value:
        return self.node("Sqrt", value)

    def log(self, value: Value) -> Value:
        return self.node("Log", value)

    def lower(self, value: Value, other: Value) -> Value:
        return self.node("Min", value, other)

    def higher(self, value: Value, other: Value) -> Value:
        return self.node("Max", value, other)

    def below(self, value: Value, other: Value) -> Value:
        return self.node("Less", value, other)

    def where(self, condition: Value, value: Value, other: Value) -> Value:
        return self.node("Where", condition, value, other)

    def product(self, value: Value, other: Value) -> Value:
        return self.node("MatMul", value, other)

    def total(self, value: Value) -> Value:
        return self.node("ReduceSum", value, self._axes(-1), keepdims=1)

    def largest(self, value: Value, count: int) -> Value:
        if count == 1:
            return self.node("ReduceMax", value, axes=[-1], keepdims=1)
        values, places = self._free("largest"), self._free("places")
        inputs = [value.name, self._axes(count).name]
        self.graph.nodes.append(self.graph.helper.make_node("TopK", inputs, [values, places], values, axis=-1))
        return Value(self, values)

    def place_of_largest(self, value: Value) -> Value:
        return self.node("ArgMax", value, axis=-1, keepdims=0)

    def flat(self, value: Value) -> Value:
        return self.node("Reshape", value, self._axes(-1))
