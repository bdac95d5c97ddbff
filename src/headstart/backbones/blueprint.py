"""An architecture as a small graph of named nodes: the computational graph as data.

Every engine builds its network from this one description, so node names, weight names and numbers agree everywhere.
Shapes are (channels, height, width) or (features,), without the batch. Weights are named ``<node>.weight``,
``<node>.bias`` and, for batch norm, ``<node>.mean`` and ``<node>.var``; convolutions are OIHW, dense layers (out, in).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.backbones.ops import NORM_STATISTICS, Node, Shape, check_node, shape_of, statistics_of
from headstart.core.errors import UsageError, did_you_mean

INPUT, POOLED, FEATURES, LOGITS = "input", "pooled", "features", "logits"


@dataclass(frozen=True)
class Blueprint:
    """A checked graph: ``input`` first, every node after its inputs, one output at the end.

    Raises:
        UsageError: an unknown op, attribute or value, a name used twice or not defined before, a node without use, an
            impossible shape.
    """

    name: str
    nodes: tuple[Node, ...]
    size: int  # native height and width of the input, pixels

    def __post_init__(self) -> None:
        if not self.nodes or self.nodes[0].op != INPUT or [n.op for n in self.nodes].count(INPUT) != 1:
            raise UsageError(f"Blueprint '{self.name}': expected exactly one 'input' node, and it first.")
        seen: set[str] = set()
        for node in self.nodes:
            check_node(node, seen, self.name)
            seen.add(node.name)
        taken = {name for node in self.nodes for name in node.inputs}
        if idle := [name for name in self.layers[:-1] if name not in taken]:
            raise UsageError(f"Blueprint '{self.name}': expected one output, the last node. No node takes '{idle[0]}'.")
        if not (type(self.size) is int and self.size > 0) or not isinstance(self.name, str):
            raise UsageError(
                f"Blueprint '{self.name}': expected a name and a size of whole pixels. Received: {self.size!r}."
            )
        self.shapes(self.size)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise UsageError(f"'{self.name}' has no layer '{name}'. {did_you_mean(name, self.layers)}")

    @property
    def layers(self) -> tuple[str, ...]:
        """Node names in order."""
        return tuple(node.name for node in self.nodes)

    def shapes(self, size: int | None = None) -> dict[str, Shape]:
        """The shape of every node's output for square images of ``size`` pixels (default: the native size).

        Raises:
            UsageError: the images are smaller than a kernel, or not of the native size where they are flattened.
        """
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            shapes[node.name] = shape_of(node, [shapes[name] for name in node.inputs], size or self.size)
        if size not in (None, self.size) and any(node.op == "flatten" for node in self.nodes):
            self._check_weights(size, shapes)
        return shapes

    def weight_shapes(self) -> dict[str, Shape]:
        """Name and shape of every weight; none depends on the size of the image."""
        return {name: shape for weights in self.weights_by_node().values() for name, shape in weights.items()}

    def weights_by_node(self) -> dict[str, dict[str, Shape]]:
        """Of every node that has weights, their names and shapes. A name alone does not tell the node."""
        shapes = self.shapes()
        found: dict[str, dict[str, Shape]] = {}
        for node in self.nodes:
            incoming = shapes[node.inputs[0]] if node.inputs else ()
            parts: dict[str, Shape] = {}
            if node.op == "conv":
                parts["weight"] = (node["filters"], incoming[0] // node["groups"], *node["kernel"])
            elif node.op == "dense":
                parts["weight"] = (node["units"], incoming[0])
            elif node.op == "norm":
                parts = dict.fromkeys(("weight", "bias", *NORM_STATISTICS), (incoming[0],))
            elif node.op == "module":
                parts = {part: tuple(shape) for part, shape in node["weights"].items()}
            if node.op == "dense" or (node.op == "conv" and node["bias"]):
                parts["bias"] = (shapes[node.name][0],)
            if parts:
                found[node.name] = {f"{node.name}.{part}": shape for part, shape in parts.items()}
        return found

    def node_of_weight(self) -> dict[str, str]:
        """The node that every weight belongs to."""
        return {name: node for node, weights in self.weights_by_node().items() for name in weights}

    @property
    def source(self) -> str:
        """The origin of its module ("timm/NAME", "module:CLASS"), or "" where it has none."""
        return next((str(node["source"]) for node in self.nodes if node.op == "module"), "")

    def parameters(self) -> dict[str, int]:
        """The number of parameters of every node that has any; running statistics do not count."""
        found: dict[str, int] = {}
        for node, weights in self.weights_by_node().items():
            statistics = {f"{node}.{part}" for part in statistics_of(self[node])}
            found[node] = sum(math.prod(shape) for name, shape in weights.items() if name not in statistics)
        return {node: count for node, count in found.items() if count}

    def multiply_adds(self, size: int | None = None) -> dict[str, int]:
        """Multiply-adds of every convolution and dense layer for one image of ``size`` pixels."""
        shapes, weights = self.shapes(size), self.weight_shapes()
        return {
            node.name: math.prod(weights[f"{node.name}.weight"]) * math.prod(shapes[node.name][1:])
            for node in self.nodes
            if node.op in ("conv", "dense")
        }

    def upto(self, at: str) -> Blueprint:
        """The part of the graph that node ``at`` depends on."""
        return Blueprint(self.name, self._below([at]), self.size)

    def trunk(self, layers: Sequence[str]) -> Blueprint:
        """The network without its head: ``features`` are the global averages of ``layers``, concatenated.

        A middle layer keeps differences of texture that the last layer, trained for ImageNet's objects, has lost.
        """
        shapes = self.shapes()
        nodes, parts = list(self._below(layers)), []
        for name in layers:
            if len(shapes[name]) == 3:
                nodes.append(Node(f"{name}.pooled", "pool", (name,), {"kind": "global_average"}))
            parts.append(nodes[-1].name if len(shapes[name]) == 3 else name)
        return Blueprint(self.name, (*nodes, Node(FEATURES, "concat", tuple(parts))), self.size)

    def with_head(self, classes: int, *, sqrt: bool) -> Blueprint:
        """A trunk with a new linear head on its ``features``, or on their square root."""
        root = (Node("head_sqrt", "act", (FEATURES,), {"kind": "sqrt"}),) if sqrt else ()
        head = Node(LOGITS, "dense", (root[0].name if root else FEATURES,), {"units": classes})
        return Blueprint(self.name, (*self.nodes, *root, head), self.size)

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal blueprint."""
        return {
            "name": self.name,
            "size": self.size,
            "nodes": [
                [node.name, node.op, list(node.inputs), json.loads(json.dumps(dict(node.attrs)))] for node in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Blueprint:
        """The blueprint of `to_json`'s values, checked like any other."""
        try:
            nodes = tuple(
                Node(name, op, tuple(inputs), {key: tuple(v) if isinstance(v, list) else v for key, v in attrs.items()})
                for name, op, inputs, attrs in data["nodes"]
            )
            return cls(data["name"], nodes, data["size"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"Not a blueprint: {type(error).__name__}: {error}.") from error

    def _check_weights(self, size: int | None, shapes: Mapping[str, Shape]) -> None:
        """Refuse a size of images for which a layer has too many or too few weights."""
        native = self.shapes()
        for node in self.nodes:
            if node.op in ("dense", "norm") and shapes[node.inputs[0]][0] != native[node.inputs[0]][0]:
                raise UsageError(
                    f"'{self.name}' takes images of {self.size} pixels only, not {size}: "
                    f"its layer '{node.name}' has a weight for every place of them. A trunk without it takes any size."
                )

    def _below(self, at: Sequence[str]) -> tuple[Node, ...]:
        needed, pending = set(), list(at)
        while pending:
            name = pending.pop()
            if name not in needed:
                needed.add(name)
                pending.extend(self[name].inputs)
        return tuple(node for node in self.nodes if node.name in needed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blueprint) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.size, self.layers))
