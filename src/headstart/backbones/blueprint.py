"""An architecture as a small graph of named nodes: the computational graph as data.

Every engine builds its network from this one description, so node names, weight names and numbers agree everywhere.
Shapes are (channels, height, width) or (features,), without the batch. Weights are named ``<node>.weight``,
``<node>.bias`` and, for batch norm, ``<node>.mean`` and ``<node>.var``; convolutions are OIHW, dense layers (out, in).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from headstart.errors import UsageError, did_you_mean

Shape = tuple[int, ...]
INPUT, POOLED, FEATURES, LOGITS = "input", "pooled", "features", "logits"

# op -> (number of inputs, or None for one or more, and the attributes it must have)
OPS: dict[str, tuple[int | None, frozenset[str]]] = {
    "input": (0, frozenset({"channels"})),
    "conv": (1, frozenset({"filters", "kernel", "stride", "padding", "groups", "bias"})),
    "norm": (1, frozenset({"epsilon"})),  # batch norm, with its running statistics
    "act": (1, frozenset({"kind"})),
    "pool": (1, frozenset({"kind"})),
    "add": (2, frozenset()),
    "concat": (None, frozenset()),  # along the channels
    "dropout": (1, frozenset({"rate"})),
    "dense": (1, frozenset({"units"})),
}
ACTIVATIONS = ("relu", "relu6", "sqrt")  # sqrt: of max(x, 0) + SQRT_EPSILON, so that its gradient stays finite
POOLS = ("global_average",)
SQRT_EPSILON = 1e-6


def _whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and value >= least


def _wholes(value: Any, count: int, least: int = 1) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(_whole(each, least) for each in value)


def _real(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_WHOLE = (_whole, "a whole number of at least 1")
# attribute -> whether it may have a value, and which it may have; "kind" depends on the op
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("channels", "filters", "stride", "groups", "units"), _WHOLE),
    "kernel": (lambda v: _wholes(v, 2), "(height, width)"),
    "padding": (lambda v: v == "same" or _wholes(v, 4, 0), '"same" or (top, bottom, left, right)'),
    "bias": (lambda v: type(v) is bool, "true or false"),
    "epsilon": (lambda v: _real(v) and v > 0, "a number above 0"),
    "rate": (lambda v: _real(v) and 0 <= v < 1, "a share below 1"),
}


@dataclass(frozen=True, slots=True)
class Node:
    """One step of the graph."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))

    def __getitem__(self, attribute: str) -> Any:
        return self.attrs[attribute]


@dataclass(frozen=True)
class Blueprint:
    """A checked graph: ``input`` first, every node after those it takes, one output at the end.

    Raises:
        UsageError: an unknown op, attribute or value, a name used twice or not defined before, a node that none takes,
            an impossible shape.
    """

    name: str
    nodes: tuple[Node, ...]
    size: int  # native height and width of the input, pixels

    def __post_init__(self) -> None:
        if not self.nodes or self.nodes[0].op != INPUT or [n.op for n in self.nodes].count(INPUT) != 1:
            raise UsageError(f"Blueprint '{self.name}': expected exactly one 'input' node, and it first.")
        seen: set[str] = set()
        for node in self.nodes:
            _check(node, seen, self.name)
            seen.add(node.name)
        taken = {name for node in self.nodes for name in node.inputs}
        if idle := [name for name in self.layers[:-1] if name not in taken]:
            raise UsageError(f"Blueprint '{self.name}': expected one output, the last node. No node takes '{idle[0]}'.")
        if not _whole(self.size) or not isinstance(self.name, str):
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
        """The shape of every node's output for square images of ``size`` pixels (default: the native size)."""
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            shapes[node.name] = _shape(node, [shapes[name] for name in node.inputs], size or self.size)
        return shapes

    def weight_shapes(self) -> dict[str, Shape]:
        """Name and shape of every weight; none depends on the size of the image."""
        shapes = self.shapes()
        found: dict[str, Shape] = {}
        for node in self.nodes:
            incoming = shapes[node.inputs[0]] if node.inputs else ()
            if node.op == "conv":
                found[f"{node.name}.weight"] = (node["filters"], incoming[0] // node["groups"], *node["kernel"])
            elif node.op == "dense":
                found[f"{node.name}.weight"] = (node["units"], incoming[0])
            elif node.op == "norm":
                found |= {f"{node.name}.{part}": (incoming[0],) for part in ("weight", "bias", "mean", "var")}
            if node.op == "dense" or (node.op == "conv" and node["bias"]):
                found[f"{node.name}.bias"] = (shapes[node.name][0],)
        return found

    def parameters(self) -> dict[str, int]:
        """Learned numbers of every node that has any; running statistics do not count."""
        found: dict[str, int] = {}
        for name, shape in self.weight_shapes().items():
            node, _, part = name.rpartition(".")
            if part not in ("mean", "var"):
                found[node] = found.get(node, 0) + math.prod(shape)
        return found

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
        needed, pending = set(), [at]
        while pending:
            name = pending.pop()
            if name not in needed:
                needed.add(name)
                pending.extend(self[name].inputs)
        return Blueprint(self.name, tuple(node for node in self.nodes if node.name in needed), self.size)

    def trunk(self, also: Sequence[str] = ()) -> Blueprint:
        """The network without its head: ``features`` is what its own head sees, and the global averages of ``also``.

        A layer from the middle tells textures apart that the last one, made for ImageNet's objects, has let go.
        """
        upto = self.upto(POOLED).nodes
        pools = tuple(Node(f"{name}.pooled", "pool", (name,), {"kind": "global_average"}) for name in also)
        features = Node(FEATURES, "concat", (POOLED, *(pool.name for pool in pools)))
        return Blueprint(self.name, (*upto, *pools, features), self.size)

    def with_head(self, classes: int, *, sqrt: bool) -> Blueprint:
        """A trunk with a new linear head on its ``features``, behind a square root if asked."""
        root = (Node("head_sqrt", "act", (FEATURES,), {"kind": "sqrt"}),) if sqrt else ()
        head = Node(LOGITS, "dense", (root[0].name if root else FEATURES,), {"units": classes})
        return Blueprint(self.name, (*self.nodes, *root, head), self.size)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads back to an equal blueprint."""
        return {
            "name": self.name,
            "size": self.size,
            "nodes": [
                [node.name, node.op, list(node.inputs), json.loads(json.dumps(dict(node.attrs)))] for node in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Blueprint:
        """Read what `to_json` wrote; the same checks apply as to any blueprint."""
        try:
            nodes = tuple(
                Node(name, op, tuple(inputs), {key: tuple(v) if isinstance(v, list) else v for key, v in attrs.items()})
                for name, op, inputs, attrs in data["nodes"]
            )
            return cls(data["name"], nodes, data["size"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"Not a blueprint: {type(error).__name__}: {error}.") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blueprint) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.size, self.layers))


class Builder:
    """Collects nodes; each method adds one and returns its name, so that a family reads like the paper's table."""

    def __init__(self, channels: int = 3) -> None:
        self.nodes = [Node(INPUT, "input", (), {"channels": channels})]

    def conv(
        self, x: str, name: str, filters: int, kernel: int, stride: int = 1, *, padding: Any = "same", groups: int = 1
    ) -> str:
        """A convolution without bias; ``padding`` is "same" (TensorFlow's) or (top, bottom, left, right)."""
        attrs = {"filters": filters, "kernel": (kernel, kernel), "stride": stride, "padding": padding}
        return self._add(name, "conv", (x,), **attrs, groups=groups, bias=False)

    def norm(self, x: str, name: str, epsilon: float) -> str:
        """Batch norm."""
        return self._add(name, "norm", (x,), epsilon=epsilon)

    def act(self, x: str, name: str, kind: str) -> str:
        """An activation, one of `ACTIVATIONS`."""
        return self._add(name, "act", (x,), kind=kind)

    def add(self, x: str, y: str, name: str) -> str:
        """The sum of two nodes."""
        return self._add(name, "add", (x, y))

    def classifier(self, x: str, classes: int, dropout: float) -> str:
        """Global average pooling, dropout, a dense layer ``logits``."""
        x = self._add(POOLED, "pool", (x,), kind="global_average")
        x = self._add("dropout", "dropout", (x,), rate=dropout)
        return self._add(LOGITS, "dense", (x,), units=classes)

    def build(self, name: str, size: int) -> Blueprint:
        """The checked blueprint."""
        return Blueprint(name, tuple(self.nodes), size)

    def channels(self, x: str) -> int:
        """Channels of a node added before: those of the last convolution on the way to it."""
        node = next(node for node in self.nodes if node.name == x)
        if node.op == "conv":
            return int(node["filters"])
        return int(node["channels"]) if node.op == "input" else self.channels(node.inputs[0])

    def _add(self, node: str, op: str, inputs: tuple[str, ...], /, **attrs: Any) -> str:
        self.nodes.append(Node(node, op, inputs, attrs))
        return node


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding (before, after) of one axis; the odd pixel goes after, so it depends on ``size``."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv_padding(node: Node, height: int, width: int) -> tuple[int, int, int, int]:
    """The padding of a convolution on an input of this size, resolved: (top, bottom, left, right)."""
    if node["padding"] != "same":
        top, bottom, left, right = node["padding"]
        return top, bottom, left, right
    rows, columns = node["kernel"]
    return *same_padding(height, rows, node["stride"]), *same_padding(width, columns, node["stride"])


def _check(node: Node, seen: Collection[str], blueprint: str) -> None:
    where = f"Blueprint '{blueprint}', node '{node.name}'"
    if not isinstance(node.name, str) or not node.name:
        raise UsageError(f"{where}: expected a name. Received: {node.name!r}.")
    if node.op not in OPS:
        raise UsageError(f"{where}: unknown op '{node.op}'. {did_you_mean(str(node.op), OPS)}")
    count, attributes = OPS[node.op]
    if set(node.attrs) != attributes:
        raise UsageError(
            f"{where}: '{node.op}' takes the attributes {sorted(attributes)}. Received: {sorted(map(str, node.attrs))}."
        )
    if len(node.inputs) != count and not (count is None and node.inputs):
        wanted = "one input or more" if count is None else f"{count} inputs"
        raise UsageError(f"{where}: '{node.op}' takes {wanted}. Received: {len(node.inputs)}.")
    if node.name in seen:
        raise UsageError(f"{where}: the name is used twice.")
    for name in node.inputs:
        if name not in seen:
            raise UsageError(
                f"{where}: takes '{name}', which is not defined before it. {did_you_mean(str(name), seen)}"
            )
    for attribute, value in node.attrs.items():
        if attribute == "kind":
            known = ACTIVATIONS if node.op == "act" else POOLS
            if value not in known:
                raise UsageError(f"{where}: unknown {node.op} '{value}'. {did_you_mean(str(value), known)}")
        elif not _VALUES[attribute][0](value):
            raise UsageError(f"{where}: {attribute} is {_VALUES[attribute][1]}. Received: {value!r}.")


def _shape(node: Node, inputs: list[Shape], size: int) -> Shape:
    if node.op == "input":
        return (node["channels"], size, size)
    if node.op == "dense":
        _expect(node, inputs[0], len(inputs[0]) == 1, "a vector")
        return (node["units"],)
    if node.op == "pool":
        _expect(node, inputs[0], len(inputs[0]) == 3, "channels × height × width")
        return inputs[0][:1]
    if node.op == "add":
        _expect(node, inputs[1], inputs[0] == inputs[1], f"two equal shapes, the first {inputs[0]}")
    if node.op == "concat":
        for shape in inputs:
            _expect(node, shape, shape[1:] == inputs[0][1:], f"equal heights and widths, the first {inputs[0]}")
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])
    if node.op == "conv":
        return _conv_shape(node, inputs[0])
    return inputs[0]


def _conv_shape(node: Node, incoming: Shape) -> Shape:
    _expect(node, incoming, len(incoming) == 3, "channels × height × width")
    groups = node["groups"]
    _expect(
        node,
        incoming,
        incoming[0] % groups == 0 == node["filters"] % groups,
        f"channels and filters in {groups} groups",
    )
    top, bottom, left, right = conv_padding(node, *incoming[1:])
    height = (incoming[1] + top + bottom - node["kernel"][0]) // node["stride"] + 1
    width = (incoming[2] + left + right - node["kernel"][1]) // node["stride"] + 1
    _expect(node, incoming, height > 0 and width > 0, f"an input that a {node['kernel']} kernel fits into")
    return (node["filters"], height, width)


def _expect(node: Node, shape: Shape, fits: bool, expected: str) -> None:
    if not fits:
        raise UsageError(f"Node '{node.name}' ({node.op}) expected {expected}. Received: {shape}.")
