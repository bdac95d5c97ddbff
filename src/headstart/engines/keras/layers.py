"""The Keras layers of one node of a blueprint, all of Keras' own: a file of them opens in Keras alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.ops.numpy import Sqrt  # the class behind keras.ops.sqrt, which has no public name

from headstart.backbones.ops import LUMA, SQRT_EPSILON, Node, Shape, padding_of, same_padding
from headstart.core.errors import UsageError
from headstart.engines.keras.models import build_model

Step = Callable[..., Any]  # values of a node's inputs, NHWC -> its own: Keras' symbolic tensors, or TensorFlow's
LAST = {"data_format": "channels_last"}  # whatever the setting of the user's Keras


@dataclass(frozen=True)
class _Pooled:
    model: Any
    pool: Any

    def __call__(self, x: Any) -> Any:
        return self.pool(self.model(x))


class LayerMaker:
    """The Keras layers of one node."""

    def __init__(
        self, node: Node, name: str, incoming: Sequence[Shape], policy: str, taken: set[str], *, zeros: bool
    ) -> None:
        self.node, self.name, self.incoming, self.taken = node, name, incoming, taken
        self.zeros = zeros  # whether a largest value of its input is the same with zeros beside it
        self.common = {"name": name, "dtype": policy}

    def step(self) -> tuple[Step, Any]:
        """The function of the node, and the layer of its name."""
        node, common, own = self.node, self.common, keras.layers
        layer: Any
        match node.op:
            case "conv":
                return self._convolution()
            case "max_pool":
                return self._max_pool()
            case "act":
                return self._activation()
            case "norm":  # the momentum is PyTorch's
                layer = own.BatchNormalization(epsilon=node["epsilon"], momentum=0.9, **common)
            case "pool":
                layer = own.GlobalAveragePooling2D(**LAST, **common)
            case "dropout":
                layer = own.Dropout(node["rate"], **common)
            case "dense":  # random numbers that are then replaced take seconds
                layer = own.Dense(node["units"], kernel_initializer="zeros", **common)
            case _:
                return self._arrangement()
        return layer, layer

    def _arrangement(self) -> tuple[Step, Any]:
        """Nodes that combine or rearrange values."""
        node, common, own = self.node, self.common, keras.layers
        layer: Any
        match node.op:
            case "add":
                layer = own.Add(**common)
                return lambda x, y: layer([x, y]), layer
            case "concat":
                layer = own.Concatenate(**common)
                return lambda *xs: layer([*xs]), layer
            case "scale":
                layer, spread = own.Multiply(**common), own.Reshape((1, 1, -1), **self._also("map"))
                return lambda x, gate: layer([x, spread(gate)]), layer
            case "pad_channels":  # as if they were columns
                pad = own.ZeroPadding2D(((0, 0), (node["before"], node["after"])), **LAST, **self._also("pad"))
                turn, layer = own.Permute((1, 3, 2), **self._also("turn")), own.Permute((1, 3, 2), **common)
                return lambda x: layer(pad(turn(x))), layer
            case "luma":  # the mean over the channels as if they were columns
                threefold = np.array([[LUMA]]) * 3  # three axes: see `graph.to_model`
                exact = common["dtype"] == "float64"  # where a list, which every file can keep, would be rounded
                shares = own.Rescaling(threefold if exact else threefold.tolist(), **self._also("shares"))
                turn, layer = own.Permute((1, 3, 2), **self._also("turn")), own.Permute((1, 3, 2), **common)
                mean = own.AveragePooling2D((1, 3), **LAST, **self._also("mean"))
                return lambda x: layer(mean(turn(shares(x)))), layer
            case "flatten":
                first, layer = own.Permute((3, 1, 2), **self._also("turn")), own.Flatten(**LAST, **common)
                return lambda x: layer(first(x)), layer
        raise UsageError(f"The Keras engine does not support the op '{node.op}' of node '{node.name}'.")

    def module(self, live: object | None) -> tuple[Step, Any]:
        """A foreign network, its output averaged to a vector."""
        inner, own = build_model(self.node, live, self.incoming[0][1], self.common["dtype"]), keras.layers
        if inner.name in self.taken:
            inner.name = free_name(inner.name, self.taken)
        self.taken.add(inner.name)
        match len(inner.output.shape):
            case 4:
                pool: Any = own.GlobalAveragePooling2D(**LAST, **self.common)
            case 3:  # tokens
                pool = own.GlobalAveragePooling1D(**LAST, **self.common)
            case _:
                pool = own.Identity(**self.common)
        return _Pooled(inner, pool), inner

    def _convolution(self) -> tuple[Step, Any]:
        node, channels = self.node, self.incoming[0][0]
        before, padding = self._padding()
        shared = {"strides": node["stride"], "padding": padding, "use_bias": node["bias"], **LAST, **self.common}
        if node["groups"] == channels > 1:
            layer = keras.layers.DepthwiseConv2D(
                node["kernel"], depth_multiplier=node["filters"] // channels, depthwise_initializer="zeros", **shared
            )
        else:
            layer = keras.layers.Conv2D(
                node["filters"], node["kernel"], groups=node["groups"], kernel_initializer="zeros", **shared
            )
        if not before:
            return layer, layer
        pad = keras.layers.ZeroPadding2D(before, **LAST, **self._also("pad"))
        return lambda x: layer(pad(x)), layer

    def _max_pool(self) -> tuple[Step, Any]:
        before, padding = self._padding()
        layer = keras.layers.MaxPooling2D(
            self.node["kernel"], self.node["stride"], padding=padding, **LAST, **self.common
        )
        if not before:
            return layer, layer
        if self.zeros:
            pad: Step = keras.layers.ZeroPadding2D(before, **LAST, **self._also("pad"))
        else:
            pad = self._edges(before)
        return lambda x: layer(pad(x)), layer

    def _edges(self, before: Sequence[tuple[int, int]]) -> Step:
        """Repeat the rows and columns at the edge: a window that begins or ends beyond it has them inside anyway.

        To put -inf there would take one of `keras.ops`, of which Keras cannot open a legacy file.
        """
        steps = [self._edges_of(axis, *counts) for axis, counts in enumerate(before, 1) if any(counts)]
        return lambda x: functools.reduce(lambda value, step: step(value), steps, x)

    def _edges_of(self, axis: int, first: int, last: int) -> Step:
        """Repeat the first and last row (``axis`` 1) or column (2) so many times."""
        rest, side = self.incoming[0][axis] - 1, "row" if axis == 1 else "column"

        def only(cut: tuple[int, int], name: str) -> Any:
            cuts = (cut, (0, 0)) if axis == 1 else ((0, 0), cut)
            return keras.layers.Cropping2D(cuts, **LAST, **self._also(f"{name}_{side}"))

        start, end = only((0, rest), "first"), only((rest, 0), "last")
        join = keras.layers.Concatenate(axis, **self._also(f"{side}s"))
        return lambda x: join([*(start(x) for _ in range(first)), x, *(end(x) for _ in range(last))])

    def _activation(self) -> tuple[Step, Any]:
        own, kind = keras.layers, self.node["kind"]
        layer: Any
        match kind:
            case "relu":
                layer = own.ReLU(**self.common)
            case "relu6":
                layer = own.ReLU(6.0, **self.common)
            case "hard_sigmoid" | "hard_swish":
                layer = own.Activation(kind, **self.common)
            case "sqrt":
                positive = own.ReLU(**self._also("positive"))
                lift = own.Rescaling(1.0, np.float64(SQRT_EPSILON), **self._also("lift"))
                root = Sqrt()  # inside a layer: of keras.ops.sqrt itself Keras cannot open a legacy file
                root.name = "sqrt"  # without Keras' counter
                layer = own.Activation(root, **self.common)
                return lambda x: layer(lift(positive(x))), layer
            case _:
                raise UsageError(
                    f"The Keras engine does not support the activation '{kind}' of node '{self.node.name}'."
                )
        return layer, layer

    def _padding(self) -> tuple[tuple[tuple[int, int], tuple[int, int]] | None, str]:
        """The padding ((top, bottom), (left, right)) by a layer before, if any; and the layer's own padding."""
        node, (_, height, width) = self.node, self.incoming[0]
        top, bottom, left, right = padding_of(node, height, width)
        if not (top or bottom or left or right):
            return None, "valid"
        sides = (top, bottom), (left, right)
        sizes = zip((height, width), node["kernel"], strict=True)
        same = tuple(same_padding(size, kernel, node["stride"]) for size, kernel in sizes)
        return (None, "same") if sides == same else (sides, "valid")

    def _also(self, what: str) -> dict[str, Any]:
        """Name and policy of a further layer of the node."""
        name = free_name(f"{self.name}_{what}", self.taken)
        self.taken.add(name)
        return self.common | {"name": name}


def free_name(name: str, taken: Any) -> str:
    """The name, with underscores until it is not ``taken``."""
    while name in taken:
        name += "_"
    return name
