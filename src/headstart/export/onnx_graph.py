"""Builds an ONNX graph from a blueprint, node by node with the blueprint's names; no framework, no tracing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headstart import __version__
from headstart.backbones.blueprint import LOGITS
from headstart.backbones.ops import LUMA, SQRT_EPSILON, Node, Shape, padding_of
from headstart.core.errors import UsageError, needs
from headstart.export.package import INPUT, Package

OPSET, IR_VERSION = 14, 7  # the lowest that has HardSwish (ONNX 1.9, 2021), so that older runtimes open it, too
IMAGES, PROBABILITIES, BATCH = "images", "probabilities", "batch"
MOST = 2**31 - 2**20  # bytes of weights that fit into one protocol buffer
_ALIKE = {"add": "Add", "flatten": "Flatten", "dropout": "Identity"}  # evaluation mode


def build(package: Package) -> Any:
    """An `onnx.ModelProto`: uint8 ``images`` (batch, size, size, 3) → ``logits`` and ``probabilities`` (batch, K).

    The output of every node has the node's name, and its shape is in the graph's value infos; "input" is the input of
    the first layer, (batch, 3, size, size). Metadata is `Package.metadata`.

    Raises:
        UsageError: more weights than fit into a file of this format.
        MissingExtraError: ONNX is not installed.
    """
    blueprint, size = package.blueprint, package.spec.size
    if 4 * sum(array.size for array in package.weights.values()) > MOST:
        raise UsageError(f"'{blueprint.name}' has weights of more than 2 GB, which one ONNX file cannot hold.")
    graph = _Graph()
    _pixels(graph, package)
    shapes = blueprint.shapes(size)
    for node in blueprint.nodes[1:]:
        _add(graph, node, package, shapes[node.inputs[0]])
    graph.add("Softmax", PROBABILITIES, [LOGITS], axis=1)

    helper, kinds = graph.helper, graph.onnx.TensorProto

    def value(name: str, shape: Sequence[int], kind: int = kinds.FLOAT, note: str = "") -> Any:
        return helper.make_tensor_value_info(name, kind, [BATCH, *shape], doc_string=note)

    classes = shapes[LOGITS]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            blueprint.name,
            [value(IMAGES, (size, size, 3), kinds.UINT8, INPUT)],
            [value(LOGITS, classes), value(PROBABILITIES, classes, note="softmax of the logits: calibrated")],
            graph.constants,
            value_info=[value(name, shape) for name, shape in shapes.items() if name != LOGITS],
        ),
        producer_name="headstart",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, package.metadata())
    return model


class _Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        with needs("onnx", "onnx", "The format onnx"):
            import onnx
        self.onnx, self.helper = onnx, onnx.helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any, kind: Any = np.float32) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value, kind), name))
        return name


def _pixels(graph: _Graph, package: Package) -> None:
    """Normalisation, and channels first."""
    mean, std = (np.asarray(each, np.float32) for each in (package.spec.mean, package.spec.std))
    first = package.blueprint.nodes[0].name
    graph.add("Cast", f"{first}.floats", [IMAGES], to=graph.onnx.TensorProto.FLOAT)
    graph.add("Mul", f"{first}.scaled", [f"{first}.floats", graph.constant(f"{first}.scale", 1 / (255 * std))])
    graph.add("Add", f"{first}.pixels", [f"{first}.scaled", graph.constant(f"{first}.shift", -mean / std)])
    graph.add("Transpose", first, [f"{first}.pixels"], perm=[0, 3, 1, 2])


def _add(graph: _Graph, node: Node, package: Package, incoming: Shape) -> None:
    name, inputs = node.name, list(node.inputs)

    def own(*parts: str) -> Iterator[str]:
        return (graph.constant(f"{name}.{part}", package.weights[f"{name}.{part}"]) for part in parts)

    def constant(part: str, value: Any, kind: Any = np.float32) -> str:
        return graph.constant(f"{name}.{part}", value, kind)

    match node.op:
        case "conv":
            weights = own("weight", *(("bias",) if node["bias"] else ()))
            graph.add("Conv", name, [*inputs, *weights], group=node["groups"], **_windows(node, incoming))
        case "norm":
            weights = own("weight", "bias", "mean", "var")
            graph.add("BatchNormalization", name, [*inputs, *weights], epsilon=float(node["epsilon"]))
        case "act":
            _activate(graph, node, constant)
        case "pool":
            graph.add("Flatten", name, [graph.add("GlobalAveragePool", f"{name}.average", inputs)])
        case "max_pool":
            graph.add("MaxPool", name, inputs, **_windows(node, incoming))  # pads with −inf, as ONNX has it
        case "scale":
            wide = graph.add("Unsqueeze", f"{name}.wide", [inputs[1], constant("axes", [2, 3], np.int64)])
            graph.add("Mul", name, [inputs[0], wide])
        case "concat":
            graph.add("Concat", name, inputs, axis=1)
        case "pad_channels":
            pads = constant("pads", [0, node["before"], 0, 0, 0, node["after"], 0, 0], np.int64)
            graph.add("Pad", name, [*inputs, pads, constant("zero", 0)])
        case "luma":
            graph.add("Conv", name, [*inputs, constant("shares", np.reshape(LUMA, (1, 3, 1, 1)))], kernel_shape=[1, 1])
        case "add" | "flatten" | "dropout":
            graph.add(_ALIKE[node.op], name, inputs)
        case "dense":
            graph.add("Gemm", name, [*inputs, *own("weight", "bias")], transB=1)
        case _:
            raise UsageError(f"The format onnx does not know the op '{node.op}' of node '{name}'.")


def _windows(node: Node, incoming: Shape) -> dict[str, list[int]]:
    top, bottom, left, right = padding_of(node, *incoming[1:])
    return {"kernel_shape": list(node["kernel"]), "strides": [node["stride"]] * 2, "pads": [top, left, bottom, right]}


def _activate(graph: _Graph, node: Node, constant: Any) -> None:
    name, inputs = node.name, list(node.inputs)
    match node["kind"]:
        case "relu":
            graph.add("Relu", name, inputs)
        case "relu6":
            graph.add("Clip", name, [*inputs, constant("low", 0), constant("high", 6)])
        case "hard_sigmoid":
            graph.add("HardSigmoid", name, inputs, alpha=1 / 6, beta=0.5)
        case "hard_swish":
            graph.add("HardSwish", name, inputs)
        case "sqrt":
            above = graph.add("Relu", f"{name}.above", inputs)
            graph.add("Sqrt", name, [graph.add("Add", f"{name}.sum", [above, constant("epsilon", SQRT_EPSILON)])])
        case kind:
            raise UsageError(f"The format onnx does not know the activation '{kind}' of node '{name}'.")
