"""Gradients on OpenVINO: what autograd does, as a graph that is built once.

The pullback of every op is a few operations, so the backward pass is a graph like the forward one. It is a second
graph: the forward one also gives what the backward one needs of its values, mostly one byte for each activation, so a
pullback computes no forward pass again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.backbones.ops import LUMA, Node, Shape
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines.fast.graph import core, factor, fold, values_of
from headstart.engines.fast.windows import Windows, conv_gradient, largest, max_pool_gradient
from headstart.engines.protocol import Weights, foldable

if TYPE_CHECKING:
    import openvino as ov

TO_NHWC, TO_NCHW = np.array([0, 2, 3, 1]), np.array([0, 3, 1, 2])


def between(blueprint: Blueprint, at: str, wrt: str) -> set[str]:
    """The nodes that a gradient from ``at`` to ``wrt`` goes through, both included; none if it leads nowhere."""
    after, before = {wrt}, {at}
    for node in blueprint.nodes:
        after |= {node.name} if after & {*node.inputs} else set()
    for node in reversed(blueprint.nodes):
        before |= {*node.inputs} if node.name in before else set()
    return after & before


@np.errstate(over="ignore", invalid="ignore")  # whoever takes values that are not finite refuses them
def build_pair(blueprint: Blueprint, weights: Weights, spec: ImageSpec, at: str, wrt: str) -> tuple[ov.Model, ov.Model]:
    """Two OpenVINO models: the value of node ``at``, and its pullback to node ``wrt``.

    The first takes float images (N, size, size, 3) and gives the value, and after it what the second needs. That one
    takes a cotangent of the value's shape, and what the first gave after the value, in that order.
    """
    core()
    import openvino as ov
    from openvino import opset13 as op

    network = blueprint.upto(at)
    shapes, path = network.shapes(spec.size), between(network, at, wrt)
    images = op.parameter([-1, spec.size, spec.size, 3], np.float32, name="images")
    folded = foldable(network) - {at, wrt}
    values = values_of(op, images, network, weights, spec, folded)
    cotangent = op.parameter([-1, *shapes[at]], np.float32, name="cotangent")
    backward = _Backward(op, network, weights, shapes, values, folded, path)
    found = {at: cotangent}
    for node in reversed(network.nodes):
        if node.name == wrt:
            break
        if node.name in path:
            for name, part in zip(node.inputs, backward.parts(node, found[node.name]), strict=True):
                if name in path:
                    found[name] = op.add(found[name], part) if name in found else part
    gradient = found[wrt]
    if wrt == INPUT:  # from normalised channels to pixels
        deviation = np.asarray(spec.std, np.float32).reshape(-1, 1, 1)
        gradient = op.transpose(op.divide(gradient, deviation), TO_NHWC)
    return (
        ov.Model([op.result(values[at]), *backward.kept], [images], f"{network.name}: {at}"),
        ov.Model([op.result(gradient)], [cotangent, *backward.taken], f"{network.name}: {at} to {wrt}"),
    )


class _Backward:
    """The pullback of every op."""

    def __init__(
        self,
        op: Any,
        blueprint: Blueprint,
        weights: Weights,
        shapes: Mapping[str, Shape],
        values: Mapping[str, Any],
        folded: set[str],
        path: set[str],
    ) -> None:
        self._op, self._blueprint, self._weights, self._shapes = op, blueprint, weights, shapes
        self._values, self._folded, self._path = values, folded, path
        self.kept: list[Any] = []  # results of the forward graph
        self.taken: list[Any] = []  # the same ones, as parameters of the backward graph

    def parts(self, node: Node, g: Any) -> list[Any]:
        """What the gradient ``g`` with respect to a node's output adds to that with respect to each of its inputs."""
        op, incoming = self._op, [self._shapes[name] for name in node.inputs]
        match node.op:
            case "conv" | "norm" | "dense":
                return [self._weighted(node, g)]
            case "act":
                return [op.multiply(g, self._slope(node))]
            case "max_pool":
                return [max_pool_gradient(op, self._largest(node), g, self._windows(node))]
            case "pool":
                size = incoming[0][1:]
                share = np.full((1, 1, *size), 1 / math.prod(size), np.float32)
                return [op.multiply(op.unsqueeze(g, np.array([2, 3])), share)]
            case "add":
                return [g, g]
            case "scale":
                return self._scale(node, g)
            case "concat":
                ends = np.cumsum([shape[0] for shape in incoming])
                return [self._channels(g, end - shape[0], end) for end, shape in zip(ends, incoming, strict=True)]
            case "pad_channels":
                return [self._channels(g, node["before"], node["before"] + incoming[0][0])]
            case "luma":
                return [op.multiply(g, np.array(LUMA, np.float32)[:, None, None])]
            case "flatten":
                return [op.reshape(g, np.array([0, *incoming[0]]), special_zero=True)]
            case "dropout":
                return [g]
        raise UsageError(f"The fast engine has no gradient of the op '{node.op}' of node '{node.name}'.")

    def _weighted(self, node: Node, g: Any) -> Any:
        op, weights = self._op, self._weights
        match node.op:
            case "dense":
                return op.matmul(g, op.constant(weights[f"{node.name}.weight"]), False, False)
            case "conv":
                if node.name in self._folded:  # its batch norm does the work of both
                    return g
                kernel = weights[f"{node.name}.weight"]
                return conv_gradient(op, node, kernel, g, self._windows(node))
        if node.inputs[0] in self._folded:
            conv = self._blueprint[node.inputs[0]]
            return conv_gradient(op, conv, fold(conv, node, weights)[0], g, self._windows(conv))
        return op.multiply(g, factor(node, weights).reshape(-1, *[1] * (len(self._shapes[node.name]) - 1)))

    def _windows(self, node: Node) -> Windows:
        return Windows.of(node, self._shapes[node.inputs[0]], self._shapes[node.name])

    def _keep(self, value: Any, kind: str = "f32") -> Any:
        """A value of the forward graph for the backward one, passed on as ``kind``; it is float there.

        Maps are passed on with their channels last, as they lie in memory.
        """
        op, value = self._op, self._op.convert(value, kind)
        is_map = len(value.get_output_partial_shape(0)) == 4
        result = op.result(op.transpose(value, TO_NHWC) if is_map else value)
        parameter = op.parameter(result.get_output_partial_shape(0), result.get_element_type().to_dtype())
        self.kept.append(result)
        self.taken.append(parameter)
        return op.convert(op.transpose(parameter, TO_NCHW) if is_map else parameter, "f32")

    def _slope(self, node: Node) -> Any:
        """The derivative of an activation; zero where it has none."""
        op, x, y = self._op, self._values[node.inputs[0]], self._values[node.name]
        match node["kind"]:
            case "relu":
                return self._keep(op.greater(y, np.float32(0)), "u8")
            case "relu6":
                return self._keep(self._inside(y, 0, 6), "u8")
            case "hard_sigmoid":
                return op.multiply(self._keep(self._inside(x, -3, 3), "u8"), np.float32(1 / 6))
            case "hard_swish":
                x = self._keep(x)
                bent = op.add(op.multiply(x, np.float32(1 / 3)), np.float32(0.5))
                slope = op.select(op.greater(x, np.float32(-3)), bent, np.float32(0))
                return op.select(op.less(x, np.float32(3)), slope, np.float32(1))
            case "sqrt":
                above = op.convert(op.greater(x, np.float32(0)), "f32")
                return self._keep(op.divide(above, op.multiply(y, np.float32(2))))
        raise UsageError(f"The fast engine has no gradient of the activation '{node['kind']}' of node '{node.name}'.")

    def _largest(self, node: Node) -> Any:
        op, places = self._op, math.prod(node["kernel"])
        if places == 1:
            return op.constant(np.float32(0))
        place = largest(op, self._values[node.inputs[0]], self._values[node.name], self._windows(node))
        return self._keep(place, "u8" if places <= 256 else "f32")

    def _inside(self, value: Any, low: float, high: float) -> Any:
        op = self._op
        return op.logical_and(op.greater(value, np.float32(low)), op.less(value, np.float32(high)))

    def _scale(self, node: Node, g: Any) -> list[Any]:
        op, (x, factors) = self._op, node.inputs
        to_x = to_factors = None
        if x in self._path:
            to_x = op.multiply(g, op.unsqueeze(self._keep(self._values[factors]), np.array([2, 3])))
        if factors in self._path:
            kept = self._keep(self._values[x])
            to_factors = op.reduce_sum(op.multiply(g, kept), np.array([2, 3]), keep_dims=False)
        return [to_x, to_factors]

    def _channels(self, g: Any, start: int, stop: int) -> Any:
        return self._op.slice(g, *(np.array([value]) for value in (start, stop, 1, 1)))
