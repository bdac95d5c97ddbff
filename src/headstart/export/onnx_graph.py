"""Builds an ONNX graph from a blueprint, node by node with the blueprint's names; no framework, no tracing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headstart import __version__
from headstart.backbones.blueprint import LOGITS
from headstart.backbones.ops import LUMA, SQRT_EPSILON, Node, Shape, padding_of
from headstart.core.errors import UsageError
from headstart.export.formats import PHOTOS
from headstart.export.operations.onnx import Graph, OnnxOperations
from headstart.export.package import INPUT, OUTPUTS, UNKNOWN_OUTPUTS, Package
from headstart.export.photo_input import to_pixels
from headstart.export.verdict import answers

OPSET, IR_VERSION = 14, 7  # the lowest that has HardSwish (ONNX 1.9, 2021), so that older runtimes open it, too
BATCH = "batch"
_, PROBABILITIES, LABEL = OUTPUTS
SCORE, UNLIKE = UNKNOWN_OUTPUTS
MOST = 2**31 - 2**20  # bytes of weights that fit into one protocol buffer
_ALIKE = {"add": "Add", "flatten": "Flatten", "dropout": "Identity"}  # evaluation mode


def build(package: Package) -> Any:
    """An `onnx.ModelProto`: uint8 ``images`` (batch, size, size, 3) → `Package.outputs`; or of ``photos`` of any size.

    The output of every node has the node's name, and its shape is in the graph's value infos; "input" is the input of
    the first layer, (batch, 3, size, size). Metadata is `Package.metadata`.

    Raises:
        UsageError: more weights than fit into a file of this format.
        MissingExtraError: ONNX is not installed.
    """
    blueprint, size = package.blueprint, package.spec.size
    if 4 * sum(array.size for array in package.weights.values()) > MOST:
        raise UsageError(f"'{blueprint.name}' has weights of more than 2 GB, which one ONNX file cannot hold.")
    graph = Graph()
    images = package.given if package.takes != PHOTOS else _from_photos(graph, package)
    _pixels(graph, package, images)
    shapes = blueprint.shapes(size)
    for node in blueprint.nodes[1:]:
        _add(graph, node, package, shapes[node.inputs[0]])
    _answer(graph, package)

    helper, kinds = graph.helper, graph.onnx.TensorProto

    def value(name: str, shape: Sequence[int | str], kind: int = kinds.FLOAT, note: str = "") -> Any:
        return helper.make_tensor_value_info(name, kind, [BATCH, *shape], doc_string=note)

    classes = shapes[LOGITS]
    height, width = package.sides
    outputs: dict[str, tuple[Any, ...]] = {
        LOGITS: (classes,),
        PROBABILITIES: (classes, kinds.FLOAT, "softmax of the logits: calibrated"),
        LABEL: ((), kinds.INT64, "the place of the class in the metadata's classes"),
        SCORE: ((), kinds.FLOAT, "the smaller, the less typical"),
        UNLIKE: ((), kinds.BOOL, "unlike the training photos"),
    }
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            blueprint.name,
            [value(package.given, (height or "height", width or "width", 3), kinds.UINT8, INPUT[package.takes])],
            [value(each, *outputs[each]) for each in package.outputs],
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


def _from_photos(graph: Graph, package: Package) -> str:
    """The network's pixels, of photos of any size."""
    ops = OnnxOperations(graph, PHOTOS)
    return str(to_pixels(ops, ops.value(PHOTOS), package.spec).name)


def _answer(graph: Graph, package: Package) -> None:
    """Everything that is said beside the logits."""
    ops = OnnxOperations(graph, "answer")
    probabilities = graph.add("Softmax", f"{ops.prefix}.{PROBABILITIES}", [LOGITS], axis=1)
    features = package.blueprint[LOGITS].inputs[0]
    found = answers(ops, package, *(ops.value(name) for name in (LOGITS, probabilities, features)))
    for name, value in found.items():
        if name != LOGITS:
            graph.add("Identity", name, [value.name])


def _pixels(graph: Graph, package: Package, images: str) -> None:
    """Normalisation, and channels first."""
    mean, std = (np.asarray(each, np.float32) for each in (package.spec.mean, package.spec.std))
    first = package.blueprint.nodes[0].name
    graph.add("Cast", f"{first}.floats", [images], to=graph.onnx.TensorProto.FLOAT)
    graph.add("Mul", f"{first}.scaled", [f"{first}.floats", graph.constant(f"{first}.scale", 1 / (255 * std))])
    graph.add("Add", f"{first}.pixels", [f"{first}.scaled", graph.constant(f"{first}.shift", -mean / std)])
    graph.add("Transpose", first, [f"{first}.pixels"], perm=[0, 3, 1, 2])


def _add(graph: Graph, node: Node, package: Package, incoming: Shape) -> None:
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


def _activate(graph: Graph, node: Node, constant: Any) -> None:
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
