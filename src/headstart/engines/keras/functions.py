"""The layers of a Keras network, and functions compiled from them.

Functions are compiled once for each set of nodes, for any number of images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.backbones.ops import Node, Shape
from headstart.core.shared_change import SharedChange
from headstart.core.types import ImageSpec
from headstart.engines.keras.graph import Graph, Taps, assemble
from headstart.engines.protocol import Array, Weights, foldable, not_before
from headstart.engines.wrapped import needed

POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp64": "float64"}


class CompiledNetwork:
    """Weights, layers and compiled functions, shared by a network and its copies in other precisions."""

    def __init__(
        self, blueprint: Blueprint, weights: Weights, spec: ImageSpec, module: object | None, device: str
    ) -> None:
        self.blueprint, self.weights, self.spec, self.module = blueprint, weights, spec, module
        self.device = device
        self._folds = foldable(blueprint)
        self._graphs: dict[tuple[str, bool], Graph] = {}  # by precision, and whether batch norms are folded
        self._functions: dict[tuple[Any, ...], Callable[..., list[Array]]] = {}
        self._lock = threading.RLock()

    def shapes(self, precision: str) -> dict[str, Shape]:
        """The shape of every node, and of the layers inside a module before it."""
        shapes = self.blueprint.shapes(self.spec.size)
        if not self.blueprint.source:
            return shapes
        with self._lock:
            inner = self._graph(precision, ()).inner
        around = {name: _layout(tensor.shape[1:]) for name, tensor in inner.items() if name not in shapes}
        return {INPUT: shapes[INPUT]} | around | shapes

    def forward(self, precision: str, at: tuple[str, ...], *, uint8: bool) -> Callable[[Array], list[Array]]:
        """The compiled function from pixels to the nodes ``at``."""

        def run(images: Any) -> list[Any]:
            values = self._run(precision, images, at, {})
            return [_outward(values[name], exact) for name in at]

        exact = tf.float64 if precision == "fp64" else tf.float32
        pixels = tf.TensorSpec((None, self.spec.size, self.spec.size, 3), tf.uint8 if uint8 else exact)
        return self._compiled((precision, at), run, [pixels])

    def backward(self, precision: str, at: str, wrt: str) -> Callable[[Array, Array], list[Array]]:
        """The compiled function from float pixels and a cotangent of node ``at`` to the gradient of node ``wrt``."""

        def run(pixels: Any, cotangent: Any) -> list[Any]:
            leaves = []

            def leaf(value: Any) -> Any:
                leaves.append(tf.identity(value))
                tape.watch(leaves[0])
                return leaves[0]

            with tf.GradientTape(watch_accessed_variables=False) as tape:
                if wrt == INPUT:
                    pixels = leaf(pixels)
                value = self._run(precision, pixels, (at,), {} if wrt == INPUT else {wrt: leaf})[at]
            weight = tf.transpose(cotangent, (0, 2, 3, 1)) if len(cotangent.shape) == 4 else cotangent
            gradient = tape.gradient(value, leaves[0], weight) if leaves else None
            if gradient is None:
                layers = [*self.shapes(precision)]
                raise not_before(self.blueprint.name, at, wrt, layers, layers[: layers.index(at)])
            return [gradient if wrt == INPUT else _outward(gradient, exact)]

        exact = tf.float64 if precision == "fp64" else tf.float32
        size, shape = self.spec.size, self.shapes(precision)[at]
        signature = [tf.TensorSpec((None, size, size, 3), exact), tf.TensorSpec((None, *shape), exact)]
        return self._compiled((precision, (at, wrt)), run, signature)

    def with_weights(self, weights: Weights) -> CompiledNetwork:
        """The same network with other weights, which shares nothing with this one and compiles anew."""
        return CompiledNetwork(self.blueprint, weights, self.spec, self.module, self.device)

    def load(self, weights: Weights) -> None:
        """Take other weights."""
        with self._lock:
            self.weights = weights
            for (_, folding), graph in self._graphs.items():
                graph.take(self._folded()[1] if folding else weights)

    def release(self, precision: str) -> None:
        """Forget what was compiled in this precision."""
        with self._lock:
            self._functions = {key: each for key, each in self._functions.items() if key[0] != precision}
            self._graphs = {key: each for key, each in self._graphs.items() if key[0] != precision}

    def _compiled(
        self, what: tuple[str, tuple[str, ...]], run: Callable[..., list[Any]], signature: Sequence[Any]
    ) -> Callable[..., list[Array]]:
        key = (*what, *(str(each) for each in signature))
        with self._lock:
            if key not in self._functions:
                graph = self._graph(*what)  # variables created while a function is traced would have it traced twice
                with placed(self.device):
                    concrete = tf.function(run, input_signature=signature, autograph=False).get_concrete_function()
                concrete.layers = (
                    graph  # it does not keep its own variables alive, and a pullback may outlive the network
                )

                def call(*arrays: Array) -> list[Array]:
                    with self._lock, placed(self.device):
                        return [value.numpy() for value in concrete(*(tf.constant(array) for array in arrays))]

                self._functions[key] = call
            return self._functions[key]

    def _run(self, precision: str, pixels: Any, at: tuple[str, ...], taps: Taps) -> dict[str, Any]:
        """The values of nodes, channels last; ``taps`` replace the values that later nodes get."""
        graph = self._graph(precision, (*at, *taps))
        values = {INPUT: self._normalised(pixels, precision)}
        if INPUT in taps:
            values[INPUT] = taps[INPUT](values[INPUT])
        for node in needed(graph.blueprint, at, graph.inner):
            inputs = [values[name] for name in node.inputs]
            if node.op == "module":
                values |= graph.inside(node, inputs[0], at, taps)
            else:
                values[node.name] = graph.steps[node.name](*inputs)
            if node.name in taps:
                values[node.name] = taps[node.name](values[node.name])
        return values

    def _normalised(self, pixels: Any, precision: str) -> Any:
        exact = tf.float64 if precision == "fp64" else tf.float32
        whole = 255 if pixels.dtype == tf.uint8 else 1
        mean, std = (whole * np.array(each) for each in (self.spec.mean, self.spec.std))
        return (tf.cast(pixels, exact) - tf.constant(mean, exact)) * tf.constant(1 / std, exact)

    def _graph(self, precision: str, named: Sequence[str]) -> Graph:
        """The layers with their weights; folded, unless the output of a folded convolution is ``named``."""
        folding = bool(self._folds) and self._folds.isdisjoint(named)
        key = (precision, folding)
        if key not in self._graphs:
            blueprint, weights = self._folded() if folding else (self.blueprint, self.weights)
            graph = assemble(blueprint, self.spec.size, self.module, POLICIES[precision])
            size = self.spec.size
            with placed(self.device):
                graph.connect(keras.Input((size, size, 3), dtype="float64" if precision == "fp64" else "float32"))
                graph.take(weights)
            self._graphs[key] = graph
        return self._graphs[key]

    def _folded(self) -> tuple[Blueprint, dict[str, Array]]:
        """The network with batch norms folded into the convolutions before them, where possible."""
        nodes: list[Node] = []
        weights: dict[str, Array] = dict(self.weights)
        for node in self.blueprint.nodes:
            if node.op == "norm" and node.inputs[0] in self._folds:
                conv = self.blueprint[node.inputs[0]]
                gain, bias, mean, var = (
                    weights.pop(f"{node.name}.{part}").astype(np.float64) for part in ("weight", "bias", "mean", "var")
                )
                gain /= np.sqrt(var + node["epsilon"])
                weights[f"{node.name}.bias"] = bias + (weights.pop(f"{conv.name}.bias", 0) - mean) * gain
                weights[f"{node.name}.weight"] = weights.pop(f"{conv.name}.weight") * gain[:, None, None, None]
                nodes.append(Node(node.name, "conv", conv.inputs, {**conv.attrs, "bias": True}))
            elif node.name not in self._folds:
                nodes.append(node)
        return Blueprint(self.blueprint.name, tuple(nodes), self.blueprint.size), weights


@contextmanager
def placed(device: str, *, coarse: bool = False) -> Iterator[None]:
    """On a device by our name for it; unless ``coarse``, without TF32, which TensorFlow takes for fp32 by default."""
    there = "/CPU:0" if device == "cpu" else "/GPU:0"  # its name for any accelerator
    with _EXACT if device != "cpu" and not coarse else nullcontext(), tf.device(there):
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


_EXACT = SharedChange(_without_tf32)


def _outward(value: Any, dtype: Any) -> Any:
    """A value with channels first, float32 or float64."""
    value = tf.cast(value, dtype)
    return tf.transpose(value, (0, 3, 1, 2)) if len(value.shape) == 4 else value


def _layout(shape: Sequence[int]) -> Shape:
    """A shape with channels first."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else tuple(shape)
