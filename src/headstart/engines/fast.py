"""Blueprint → OpenVINO graph, forward only: fit and predict on a CPU need no deep-learning framework."""

from __future__ import annotations

import copy
import functools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.ops import LUMA, SQRT_EPSILON, Node, Shape, padding_of
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.data.load import CHUNK, cores
from headstart.engines.names import resolve_engine
from headstart.engines.protocol import (
    Array,
    Network,
    Weights,
    check_layers,
    check_memory,
    check_network,
    fitting,
    foldable,
)

if TYPE_CHECKING:
    import openvino as ov

FEW = CHUNK  # images: as many as one core would take by itself
Key = tuple[tuple[str, ...], str, bool]  # of a compiled model: its nodes, its precision, whether pixels are floats


class FastNetwork(Network):
    """A network on OpenVINO.

    One stream for each core, on a batch small enough for its cache: twice as fast as one large batch on all cores. For
    a few images see `for_images`.
    ``precision`` "auto" takes bf16 where the processor has it; `check_precision` compares it with fp32.
    """

    engine, device = "fast", "cpu"

    def __init__(self, blueprint: Blueprint, weights: Weights, spec: ImageSpec, precision: str = "auto") -> None:
        resolve_engine(self.engine, blueprint)
        check_network(blueprint, precision)
        self.blueprint = blueprint
        self.name = blueprint.name
        self.spec = spec
        self.layers = blueprint.layers
        self.precision = choose_precision(precision)
        self._head = _fitted_head(blueprint)
        self.micro_batch = max(1, min(CHUNK, round((448 / spec.size) ** 2)))
        check_memory(blueprint, spec.size, self.micro_batch * cores())
        self._weights: Weights = fitting(weights, blueprint)
        self._one_by_one = False  # whether each image is run alone, on all cores
        self._compiled: dict[Key, ov.CompiledModel] = {}
        self._compiled_alone: dict[Key, ov.CompiledModel] = {}  # for one image at a time
        self._locks = {name: threading.Lock() for name in ("bf16", "fp32")}

    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out. Threads need one each."""
        return self._runner(at, floats=False)

    def for_images(self, count: int) -> Self:
        """The network for so many images: a few are run one by one, each on all cores, by a model compiled for that."""
        if count > FEW:
            return self
        found = copy.copy(self)
        found._one_by_one, found.micro_batch = True, 1
        return found

    def _below(self, at: Sequence[str]) -> tuple[str, ...]:
        """The nodes to compile for those ``at``: the head's are computed from the features."""
        tail = {node.name for node in self._head}
        return tuple(dict.fromkeys(FEATURES if name in tail else name for name in at))

    def _runner(self, at: Sequence[str], *, floats: bool) -> Callable[[Array], list[NDArray[np.float32]]]:
        check_layers(self.name, at, self.layers)
        tail = {node.name: node for node in self._head}
        below = self._below(at)
        request = self._compile(below, self.precision, floats).create_infer_request()
        shape = (self.micro_batch, self.spec.size, self.spec.size, 3)
        buffer = np.zeros(shape, np.float32 if floats else np.uint8)

        def run(images: Array) -> list[NDArray[np.float32]]:
            buffer[: len(images)] = images
            request.infer({0: buffer}, share_inputs=True)
            values = {name: request.get_output_tensor(i).data[: len(images)].copy() for i, name in enumerate(below)}
            for name, node in tail.items() if set(at) & set(tail) else ():
                values[name] = _head_value(node, values[node.inputs[0]], self._weights)
            return [values[name] for name in at]

        return run

    def release(self) -> None:
        """Free what was compiled in this precision; it is compiled again when needed."""
        with self._locks[self.precision]:
            for compiled in (self._compiled, self._compiled_alone):
                for key in [key for key in compiled if key[1] == self.precision]:
                    del compiled[key]

    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""
        return self.blueprint.shapes(self.spec.size)[at]

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""
        return {name: np.array(array, np.float32) for name, array in self._weights.items()}

    def _take(self, weights: Weights) -> None:
        self._weights = weights
        self._compiled, self._compiled_alone = {}, {}  # new ones: networks that share the old ones keep their weights

    def _forward(self, batches: Sequence[Array], at: Sequence[str]) -> list[list[Array]]:
        runners = threading.local()

        def run(batch: Array) -> list[Array]:
            if not hasattr(runners, "run"):
                runners.run = self._runner(at, floats=batch.dtype != np.uint8)
            result: list[Array] = runners.run(batch)
            return result

        with ThreadPoolExecutor(min(cores(), len(batches))) as pool:
            return list(pool.map(run, batches))

    def _in_both_precisions(self, images: Array, at: str) -> tuple[Array, Array]:
        with ThreadPoolExecutor(2) as pool:  # compiling takes one core for as long as computing takes
            exact = pool.submit(self.at_precision("fp32").forward, images, at)
            return self.forward(images, at), exact.result()

    def _compile(self, at: tuple[str, ...], precision: str, floats: bool) -> ov.CompiledModel:
        with self._locks[precision]:
            key, alone = (at, precision, floats), self._one_by_one
            compiled = self._compiled_alone if alone else self._compiled
            if key not in compiled:
                model = build(self.blueprint, self._weights, self.spec, at, floats=floats)
                model.reshape([self.micro_batch, self.spec.size, self.spec.size, 3])
                settings = {
                    "PERFORMANCE_HINT": "LATENCY" if alone else "THROUGHPUT",
                    "NUM_STREAMS": 1 if alone else cores(),
                    "INFERENCE_NUM_THREADS": cores(),
                    "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[precision],
                }
                compiled[key] = _core().compile_model(model, "CPU", settings)
            return compiled[key]


def choose_precision(precision: str) -> str:
    """The precision, "auto" resolved for this processor."""
    if precision != "auto":
        return precision
    return "bf16" if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "fp32"


_starting = threading.Lock()


def _core() -> ov.Core:
    with _starting:
        return _start()


@functools.cache
def _start() -> ov.Core:
    """OpenVINO, imported without its telemetry, which would open a network connection."""
    loaded = "openvino_telemetry" in sys.modules
    if not loaded:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if not installed
    try:
        import openvino as ov
    finally:
        if not loaded:
            del sys.modules["openvino_telemetry"]
    ov.Type.u8.to_dtype()  # builds a table on first use; two threads that build it at once wait for each other for ever
    return ov.Core()


@np.errstate(over="ignore", invalid="ignore")  # whoever takes values that are not finite refuses them
def build(
    blueprint: Blueprint, weights: Weights, spec: ImageSpec, at: Sequence[str], *, floats: bool = False
) -> ov.Model:
    """An OpenVINO model: NHWC images in, the nodes ``at`` out; batch norm folded into convolutions."""
    _core()
    import openvino as ov
    from openvino import opset13 as op

    images = op.parameter([-1, spec.size, spec.size, 3], np.float32 if floats else np.uint8, name="images")
    scale = 1 / ((1 if floats else 255) * np.asarray(spec.std, np.float32))
    shift = -np.asarray(spec.mean, np.float32) / np.asarray(spec.std, np.float32)
    pixels = op.add(op.multiply(op.convert(images, "f32"), scale), shift)
    values: dict[str, Any] = {blueprint.nodes[0].name: op.transpose(pixels, np.array([0, 3, 1, 2]))}

    shapes = blueprint.shapes(spec.size)
    folded = foldable(blueprint) - {*at}
    for node in blueprint.nodes[1:]:
        x = values[node.inputs[0]]
        if node.name in folded:  # its batch norm does the work of both
            values[node.name] = x
        elif node.op == "norm" and node.inputs[0] in folded:
            conv = blueprint[node.inputs[0]]
            kernel, bias = _fold(conv, node, weights)
            values[node.name] = _conv(op, conv, x, kernel, bias, shapes[conv.inputs[0]])
        else:
            values[node.name] = _node(op, node, [values[name] for name in node.inputs], weights, shapes)
    return ov.Model([op.result(values[name]) for name in at], [images], blueprint.name)


def _fold(conv: Node, norm: Node, weights: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scale = weights[f"{norm.name}.weight"] / np.sqrt(weights[f"{norm.name}.var"] + np.float32(norm["epsilon"]))
    before = weights[f"{conv.name}.bias"] if conv["bias"] else 0
    bias = weights[f"{norm.name}.bias"] + (before - weights[f"{norm.name}.mean"]) * scale
    kernel = weights[f"{conv.name}.weight"] * scale[:, None, None, None]
    return kernel.astype(np.float32, copy=False), bias.astype(np.float32)


def _node(op: Any, node: Node, inputs: list[Any], weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    x = inputs[0]
    match node.op:
        case "conv":
            bias = weights[f"{node.name}.bias"] if node["bias"] else None
            return _conv(op, node, x, weights[f"{node.name}.weight"], bias, shapes[node.inputs[0]])
        case "norm":
            scale = weights[f"{node.name}.weight"] / np.sqrt(weights[f"{node.name}.var"] + np.float32(node["epsilon"]))
            shift = weights[f"{node.name}.bias"] - weights[f"{node.name}.mean"] * scale
            axes = (-1, *[1] * (len(shapes[node.name]) - 1))
            return op.add(op.multiply(x, scale.reshape(axes)), shift.reshape(axes))
        case "act":
            return _activation(op, node, x)
        case "pool":
            return op.reduce_mean(x, np.array([2, 3]), keep_dims=False)
        case "max_pool":
            top, bottom, left, right = padding_of(node, *shapes[node.inputs[0]][1:])
            strides, kernel = [node["stride"]] * 2, list(node["kernel"])
            return op.max_pool(x, strides, [1, 1], [top, left], [bottom, right], kernel).output(0)
        case "dense":
            product = op.matmul(x, op.constant(weights[f"{node.name}.weight"]), False, True)
            return op.add(product, weights[f"{node.name}.bias"])
        case "dropout":  # evaluation mode
            return x
    return _arrangement(op, node, inputs)


def _arrangement(op: Any, node: Node, inputs: list[Any]) -> Any:
    """Nodes that combine or rearrange values."""
    x = inputs[0]
    match node.op:
        case "add":
            return op.add(x, inputs[1])
        case "scale":
            return op.multiply(x, op.unsqueeze(inputs[1], np.array([2, 3])))
        case "pad_channels":
            before, after = [0, node["before"], 0, 0], [0, node["after"], 0, 0]
            return op.pad(x, before, after, "constant", np.float32(0))
        case "luma":
            shares = np.array(LUMA, np.float32)[:, None, None]
            return op.reduce_sum(op.multiply(x, shares), np.array([1]), keep_dims=True)
        case "flatten":
            return op.reshape(x, np.array([0, -1]), special_zero=True)
        case "concat":
            return op.concat(inputs, 1)
    raise UsageError(f"The fast engine does not support the op '{node.op}' of node '{node.name}'.")


def _fitted_head(blueprint: Blueprint) -> tuple[Node, ...]:
    """The nodes after the features. They stay in fp32: their large weights nearly cancel each other."""
    names = blueprint.layers
    head = blueprint.nodes[names.index(FEATURES) + 1 :] if FEATURES in names else ()
    for before, node in zip((FEATURES, *(node.name for node in head)), head, strict=False):
        if node.inputs != (before,) or (node.op, node.attrs.get("kind")) not in (("dense", None), ("act", "sqrt")):
            raise UsageError(f"The fast engine does not support such a head: node '{node.name}' ({node.op}).")
    return head


def _head_value(node: Node, x: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    if node.op == "act":
        return np.sqrt(np.maximum(x, 0) + np.float32(SQRT_EPSILON))
    result: NDArray[np.float32] = x @ weights[f"{node.name}.weight"].T + weights[f"{node.name}.bias"]
    return result


def _conv(op: Any, node: Node, x: Any, kernel: NDArray[np.float32], bias: Any, incoming: tuple[int, ...]) -> Any:
    top, bottom, left, right = padding_of(node, *incoming[1:])
    strides, before, after = [node["stride"]] * 2, [top, left], [bottom, right]
    if node["groups"] == 1:
        x = op.convolution(x, op.constant(kernel), strides, before, after, [1, 1])
    else:
        filters, per_group = kernel.shape[0], kernel.shape[1]
        grouped = kernel.reshape(node["groups"], filters // node["groups"], per_group, *kernel.shape[2:])
        x = op.group_convolution(x, op.constant(grouped), strides, before, after, [1, 1])
    return x if bias is None else op.add(x, bias[:, None, None])


def _activation(op: Any, node: Node, x: Any) -> Any:
    match node["kind"]:
        case "relu":
            return op.relu(x)
        case "relu6":
            return op.clamp(x, 0.0, 6.0)
        case "hard_sigmoid":
            return op.hsigmoid(x)
        case "hard_swish":
            return op.hswish(x)
        case "sqrt":
            return op.sqrt(op.add(op.relu(x), np.float32(SQRT_EPSILON)))
    raise UsageError(f"The fast engine does not support the activation '{node['kind']}' of node '{node.name}'.")
