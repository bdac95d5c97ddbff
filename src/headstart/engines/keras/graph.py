"""Blueprint → an ordinary `keras.Model` with the same node names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, Blueprint
from headstart.backbones.ops import SQRT_EPSILON, Node, Shape, padding_of, same_padding
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines.keras.models import build_model, inner_tensors, variables
from headstart.engines.protocol import Weights, check_module, fitting

Taps = Mapping[str, Callable[[Any], Any]]  # node -> a function that replaces its value for later nodes
Step = Callable[..., Any]  # values of a node's inputs, NHWC -> its own: Keras' symbolic tensors, or TensorFlow's
LAST = {"data_format": "channels_last"}  # whatever the setting of the user's Keras
LOWEST = float(np.finfo(np.float32).min)  # padding in place of -inf, which JSON does not have
# after these 0 is as low, for which int8 has a scale
NEVER_NEGATIVE = frozenset(("relu", "relu6", "sigmoid", "hard_sigmoid", "sqrt"))
PARTS = {
    "conv": {"weight": "kernel", "bias": "bias"},
    "dense": {"weight": "kernel", "bias": "bias"},
    "norm": {"weight": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"},
}


@dataclass(frozen=True)
class Graph:
    """The layers of a network, not yet connected."""

    blueprint: Blueprint
    names: Mapping[str, str]  # node -> the name of its layer
    steps: Mapping[str, Step]
    layers: Mapping[str, Any]  # node -> its layer; of a module the model inside
    inner: Mapping[str, Any]  # layer inside a module -> its symbolic tensor

    def connect(self, x: Any) -> Any:
        """The last node's value for a normalised ``x``."""
        values = {INPUT: x}
        for node in self.blueprint.nodes[1:]:
            values[node.name] = self.steps[node.name](*(values[name] for name in node.inputs))
        return values[self.blueprint.layers[-1]]

    def inside(self, node: Node, x: Any, at: Iterable[str], taps: Taps) -> dict[str, Any]:
        """The value of a module, and of those layers ``at`` that are inside it."""
        step: Any = self.steps[node.name]
        model = step.model
        wanted = [name for name in at if name in self.inner and name not in self.names]
        cut = [name for name in taps if name in self.inner and name not in self.names]
        given, x = [*model.inputs], [x]
        values = {}
        for name in cut:  # the rest also gets the input: another branch may bypass the cut
            values[name] = taps[name](keras.Model(model.inputs, self.inner[name])(x, training=False))
            given, x = [*given, self.inner[name]], [*x, values[name]]
        rest = [name for name in wanted if name not in cut]
        several = keras.Model(given, [*(self.inner[name] for name in rest), model.output])
        *found, whole = keras.tree.flatten(several(x, training=False))
        return values | dict(zip(rest, found, strict=True)) | {node.name: step.pool(whole)}

    def take(self, weights: Weights) -> None:
        """Copy weights, by the blueprint's names and of the right shapes, into the connected layers."""
        for name, (node, variable) in variables_of(self.blueprint, self.layers).items():
            variable.assign(to_keras(node, weights[name], tuple(variable.shape)))


def to_model(
    blueprint: Blueprint, weights: Weights, spec: ImageSpec, module: object | None = None, dtype: str = "float32"
) -> Any:
    """An ordinary functional `keras.Model` with these weights, trainable, of Keras' own layers only.

    Pixels in, (N, size, size, 3) from 0 to 255, bytes or floats, as `keras.applications` have them where preprocessing
    is inside; the last node out (logits, never probabilities). Every node is a layer of its name; signs that Keras
    does not take are underscores. ``dtype`` is a dtype policy; in a mixed one what follows the features is in float32.
    """
    graph = assemble(blueprint, spec.size, module, dtype)
    images = keras.Input((spec.size, spec.size, 3), name=graph.names[INPUT], dtype=_exact(dtype))
    # three axes, so that the colours are the last one even where the user's Keras has them first
    scale = 1 / (255 * np.array(spec.std)).reshape(1, 1, 3)
    offset = (-np.array(spec.mean) / np.array(spec.std)).reshape(1, 1, 3)
    rescaling = keras.layers.Rescaling(
        scale.tolist(), offset.tolist(), name=_free("normalise", graph.names.values()), dtype=_exact(dtype)
    )
    model = keras.Model(images, graph.connect(rescaling(images)), name=_legal(blueprint.name))
    graph.take(fitting(weights, blueprint, np.float64 if dtype == "float64" else np.float32))
    return model


def assemble(blueprint: Blueprint, size: int, module: object | None = None, dtype: str = "float32") -> Graph:
    """The layers for images of ``size`` pixels."""
    check_module(blueprint, module)
    shapes = blueprint.shapes(size)
    names = layer_names(blueprint)
    steps: dict[str, Step] = {}
    layers: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    policy, taken = dtype, {*names.values()}
    for node in blueprint.nodes[1:]:
        lowest = 0.0 if _is_never_negative(blueprint[node.inputs[0]]) else LOWEST
        maker = _Maker(node, names[node.name], [shapes[name] for name in node.inputs], policy, taken, lowest)
        if node.op == "module":
            steps[node.name], layers[node.name] = maker.module(module)
            inner = inner_tensors(layers[node.name])
        else:
            steps[node.name], layers[node.name] = maker.step()
        if node.name == FEATURES:
            policy = _exact(dtype)  # the head's large weights nearly cancel each other
    return Graph(blueprint, names, steps, layers, inner)


def _is_never_negative(node: Node) -> bool:
    """Whether all values of a node are zero or more."""
    return node.op == "act" and node["kind"] in NEVER_NEGATIVE


def weights_of(model: Any, blueprint: Blueprint) -> dict[str, NDArray[np.float32]]:
    """The weights of what `to_model` made, trained or not, by their names in the blueprint: a copy."""
    names = layer_names(blueprint)
    layers = {node.name: model.get_layer(names[node.name]) for node in blueprint.nodes if node.op in (*PARTS, "module")}
    for node in blueprint.nodes:
        if node.op == "module":  # the layer of its name is only the pooling
            layers[node.name] = layers[node.name].input._keras_history.operation
    found, shapes = variables_of(blueprint, layers), blueprint.weight_shapes()
    return {name: from_keras(found[name][0], found[name][1].numpy(), shape) for name, shape in shapes.items()}


def variables_of(blueprint: Blueprint, layers: Mapping[str, Any]) -> dict[str, tuple[Node, Any]]:
    """The variable of each weight, and its node."""
    found: dict[str, tuple[Node, Any]] = {}
    for node in blueprint.nodes:
        if node.op == "module":
            inside = variables(layers[node.name])
            found |= {f"{node.name}.{name}": (node, each) for name, each in inside.items()}
        elif node.op in PARTS:
            layer = layers[node.name]
            parts = {part: getattr(layer, attribute) for part, attribute in PARTS[node.op].items()}
            found |= {f"{node.name}.{part}": (node, each) for part, each in parts.items() if each is not None}
    return found


def layer_names(blueprint: Blueprint) -> dict[str, str]:
    """The name of the layer of each node: the node's, as far as Keras allows it."""
    names: dict[str, str] = {}
    for name in blueprint.layers:
        names[name] = _free(_legal(name), names.values())
    return names


def to_keras(node: Node, array: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """A weight as Keras has it: kernels HWIO, of depthwise convolutions (height, width, channels, multiplier)."""
    if node.op == "conv" and array.ndim == 4:
        if shape[2:] == array.shape[1::-1]:
            return array.transpose(2, 3, 1, 0)
        return array.reshape(shape[2], shape[3], *array.shape[2:]).transpose(2, 3, 0, 1)  # depthwise
    return array.T if node.op == "dense" else array


def from_keras(node: Node, array: NDArray[Any], shape: Shape) -> NDArray[np.float32]:
    """The reverse of `to_keras`: a copy in the blueprint's ``shape``."""
    if node.op == "conv" and array.ndim == 4:
        whole = array.shape[2:] == shape[1::-1]
        array = array.transpose(3, 2, 0, 1) if whole else array.transpose(2, 3, 0, 1).reshape(shape)
    elif node.op == "dense":
        array = array.T
    return np.array(array, np.float32, order="C")


@dataclass(frozen=True)
class _Pooled:
    model: Any
    pool: Any

    def __call__(self, x: Any) -> Any:
        return self.pool(self.model(x))


class _Maker:
    """The Keras layers of one node."""

    def __init__(
        self, node: Node, name: str, incoming: Sequence[Shape], policy: str, taken: set[str], lowest: float
    ) -> None:
        self.node, self.name, self.incoming, self.taken = node, name, incoming, taken
        self.lowest = lowest  # that its input may be taken to have: around it, for the largest value of a window
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
            case "flatten":
                first, layer = own.Permute((3, 1, 2), **self._also("turn")), own.Flatten(**LAST, **common)
                return lambda x: layer(first(x)), layer
        raise UsageError(f"The Keras engine does not support the op '{node.op}' of node '{node.name}'.")

    def module(self, live: object | None) -> tuple[Step, Any]:
        """A foreign network, its output averaged to a vector."""
        inner, own = build_model(self.node, live, self.incoming[0][1], self.common["dtype"]), keras.layers
        if inner.name in self.taken:
            inner.name = _free(inner.name, self.taken)
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
        name = self._also("pad")["name"]
        return lambda x: layer(
            _named(keras.ops.pad(x, ((0, 0), *before, (0, 0)), constant_values=self.lowest), name)
        ), layer

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
                positive, layer = own.ReLU(**self._also("positive")), own.Identity(**self.common)
                lift, root = self._also("lift")["name"], self._also("root")["name"]
                return lambda x: layer(
                    _named(keras.ops.sqrt(_named(keras.ops.add(positive(x), SQRT_EPSILON), lift)), root)
                ), layer
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
        name = _free(f"{self.name}_{what}", self.taken)
        self.taken.add(name)
        return self.common | {"name": name}


def _named(value: Any, name: str) -> Any:
    """The result of one of `keras.ops`: a symbolic one is called ``name``, without Keras' counter."""
    if history := getattr(value, "_keras_history", None):
        history.operation.name = name
    return value


def _exact(dtype: str) -> str:
    return "float32" if dtype.startswith("mixed") else dtype


def _legal(name: str) -> str:
    """A name that Keras and TensorFlow's scopes allow."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return name if name[:1].isalnum() else f"layer{name}"


def _free(name: str, taken: Any) -> str:
    while name in taken:
        name += "_"
    return name
