"""Blueprint → OpenVINO graph, forward: a few operations for each node."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import LUMA, SQRT_EPSILON, Node, padding_of
from headstart.core.errors import UsageError
from headstart.core.processors import cores
from headstart.core.types import ImageSpec
from headstart.engines.fast.int8 import Int8, is_faster, suits
from headstart.engines.fast.openvino_module import import_openvino
from headstart.engines.protocol import NO_INT8, Weights, foldable

if TYPE_CHECKING:
    import openvino as ov

_starting = threading.Lock()
_forked = threading.Event()  # in a process that was forked from one in which OpenVINO had been started


def core() -> ov.Core:
    """OpenVINO, started when it is first needed."""
    with _starting:
        return _start()


def start_beside() -> None:
    """Start OpenVINO on a thread, where a network will be run soon: that takes as long as reading a model.

    Raises:
        UsageError: in a forked process, see `compiled`.
    """
    _check_not_forked()

    def start() -> None:
        with suppress(Exception):  # whoever needs it is told
            core()

    threading.Thread(target=start, name="headstart").start()


@functools.cache
def _start() -> ov.Core:
    ov = import_openvino()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked.set)
    ov.Type.u8.to_dtype()  # builds a table on first use; two threads that build it at once wait for each other for ever
    return ov.Core()


def _check_not_forked() -> None:
    if _forked.is_set():
        raise UsageError(
            "This process was forked from one that had used the fast engine, and cannot compile a network: threads "
            "that it would wait for are not there. Start processes with multiprocessing.get_context('spawn')."
        )


def choose_precision(precision: str) -> str:
    """The precision, "auto" resolved for this processor: bf16 where it has instructions for that, else int8."""
    if precision != "auto":
        return precision
    if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "bf16"
    return "int8" if is_faster() else "fp32"


def precision_of(blueprint: Blueprint, precision: str) -> str:
    """As `choose_precision`, for one network.

    Raises:
        UsageError: int8 is asked for, and the network does not suit it.
    """
    chosen = choose_precision(precision)
    if chosen != "int8" or suits(blueprint):
        return chosen
    if precision == "int8":
        raise UsageError(
            f"'{blueprint.name}' cannot run in int8, which needs a network with batch norms before its convolutions. "
            + NO_INT8
        )
    return "fp32"


def compiled(model: ov.Model, rows: int, precision: str = "fp32", *, alone: bool) -> ov.CompiledModel:
    """A model for so many images at a time: on all cores if ``alone``, else on each of them.

    Raises:
        UsageError: in a forked process: OpenVINO may wait for ever for threads that are not there.
    """
    _check_not_forked()
    model.reshape({port: [rows, *list(port.get_partial_shape())[1:]] for port in model.inputs})
    settings = {
        "PERFORMANCE_HINT": "LATENCY" if alone else "THROUGHPUT",
        "NUM_STREAMS": 1 if alone else cores(),
        "INFERENCE_NUM_THREADS": cores(),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",  # int8 is in the graph
    }
    return core().compile_model(model, "CPU", settings)


def build(
    blueprint: Blueprint,
    weights: Weights,
    spec: ImageSpec,
    at: Sequence[str],
    *,
    floats: bool = False,
    int8: bool = False,
) -> ov.Model:
    """An OpenVINO model: NHWC images in, the nodes ``at`` out; batch norm folded into convolutions."""
    core()
    import openvino as ov
    from openvino import opset13 as op

    images = op.parameter([-1, spec.size, spec.size, 3], np.float32 if floats else np.uint8, name="images")
    low = Int8(blueprint, weights) if int8 else None
    values = values_of(op, images, blueprint, weights, spec, foldable(blueprint) - {*at}, low)
    return ov.Model([op.result(values[name]) for name in at], [images], blueprint.name)


@np.errstate(over="ignore", invalid="ignore")  # whoever takes values that are not finite refuses them
def values_of(
    op: Any,
    images: Any,
    blueprint: Blueprint,
    weights: Weights,
    spec: ImageSpec,
    folded: Collection[str],
    low: Int8 | None = None,
) -> dict[str, Any]:
    """The value of every node; those of the convolutions ``folded`` into their batch norm are what they take.

    Args:
        low: which convolutions are computed in int8.
    """
    white = 1 if images.get_element_type().is_real() else 255
    scale = 1 / (white * np.asarray(spec.std, np.float32))
    shift = -np.asarray(spec.mean, np.float32) / np.asarray(spec.std, np.float32)
    pixels = op.add(op.multiply(op.convert(images, "f32"), scale), shift)
    values: dict[str, Any] = {blueprint.nodes[0].name: op.transpose(pixels, np.array([0, 3, 1, 2]))}
    shapes = blueprint.shapes(spec.size)
    for node in blueprint.nodes[1:]:
        x = values[node.inputs[0]]
        if node.name in folded:  # its batch norm does the work of both
            values[node.name] = x
        elif node.op == "norm" and node.inputs[0] in folded:
            conv = blueprint[node.inputs[0]]
            kernel, bias = fold(conv, node, weights)
            values[node.name] = _conv(op, conv, x, kernel, bias, shapes[conv.inputs[0]], low)
        elif node.op == "conv":
            kernel, alone = weights[f"{node.name}.weight"], weights[f"{node.name}.bias"] if node["bias"] else None
            values[node.name] = _conv(op, node, x, kernel, alone, shapes[node.inputs[0]], low)
        else:
            values[node.name] = _node(op, node, [values[name] for name in node.inputs], weights, shapes)
    return values


def factor(norm: Node, weights: Weights) -> NDArray[np.float32]:
    """What a batch norm multiplies each channel by."""
    deviation = np.sqrt(weights[f"{norm.name}.var"] + np.float32(norm["epsilon"]))
    return np.asarray(weights[f"{norm.name}.weight"] / deviation, np.float32)


def fold(conv: Node, norm: Node, weights: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias of a convolution that does its batch norm's work as well."""
    scale = factor(norm, weights)
    before = weights[f"{conv.name}.bias"] if conv["bias"] else 0
    bias = weights[f"{norm.name}.bias"] + (before - weights[f"{norm.name}.mean"]) * scale
    kernel = weights[f"{conv.name}.weight"] * scale[:, None, None, None]
    return kernel.astype(np.float32, copy=False), bias.astype(np.float32)


def _node(op: Any, node: Node, inputs: list[Any], weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    x = inputs[0]
    match node.op:
        case "norm":
            scale = factor(node, weights)
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


def _conv(
    op: Any,
    node: Node,
    x: Any,
    kernel: NDArray[np.float32],
    bias: Any,
    incoming: tuple[int, ...],
    low: Int8 | None,
) -> Any:
    top, bottom, left, right = padding_of(node, *incoming[1:])
    kernel = kernel if node["groups"] == 1 else grouped(node, kernel)
    x, filters = low.pair(op, node.inputs[0], x, kernel) if low else (x, op.constant(kernel))
    convolution = op.convolution if node["groups"] == 1 else op.group_convolution
    x = convolution(x, filters, [node["stride"]] * 2, [top, left], [bottom, right], [1, 1])
    return x if bias is None else op.add(x, bias[:, None, None])


def grouped(node: Node, kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel of a convolution in groups: (groups, filters of each, channels of each, rows, columns)."""
    return kernel.reshape(node["groups"], -1, *kernel.shape[1:])


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
