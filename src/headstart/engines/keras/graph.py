"""Blueprint → an ordinary `keras.Model` with the same node names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, Blueprint
from headstart.backbones.ops import Node, Shape
from headstart.core.types import ImageSpec
from headstart.engines.keras.layers import LayerMaker, Step, free_name
from headstart.engines.keras.models import inner_tensors, variables
from headstart.engines.protocol import Weights, check_module, fitting

Taps = Mapping[str, Callable[[Any], Any]]  # node -> a function that replaces its value for later nodes
# after these a padding with zeros never has the largest value of a window
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
        scale.tolist(), offset.tolist(), name=free_name("normalise", graph.names.values()), dtype=_exact(dtype)
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
        zeros = _is_never_negative(blueprint[node.inputs[0]])
        maker = LayerMaker(node, names[node.name], [shapes[name] for name in node.inputs], policy, taken, zeros=zeros)
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
        names[name] = free_name(_legal(name), names.values())
    return names


def rename_without_dots(model: Any) -> None:
    """Give every layer, also of the models within a model, a name that all of Keras' frameworks take."""
    names: list[str] = []
    for each in model.operations:
        each.name = free_name(_legal(each.name), names)
        names.append(each.name)
        if isinstance(each, keras.Model):
            rename_without_dots(each)


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


def _exact(dtype: str) -> str:
    return "float32" if dtype.startswith("mixed") else dtype


def _legal(name: str) -> str:
    """A name that Keras allows on each of its frameworks: PyTorch's modules have no dots in their names."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return name if name[:1].isalnum() else f"layer{name}"
