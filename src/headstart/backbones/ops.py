"""The operations of a blueprint: inputs, attributes and output shape of each.

Shapes are (channels, height, width) or (features,), without the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from headstart.core.errors import UsageError, did_you_mean

Shape = tuple[int, ...]
Padding = tuple[int, int, int, int]  # top, bottom, left, right

# op -> (number of inputs, or None for one or more, and the attributes it must have)
OPS: dict[str, tuple[int | None, frozenset[str]]] = {
    "input": (0, frozenset({"channels"})),
    "conv": (1, frozenset({"filters", "kernel", "stride", "padding", "groups", "bias"})),
    "norm": (1, frozenset({"epsilon"})),  # batch norm, with its running statistics
    "act": (1, frozenset({"kind"})),
    "max_pool": (1, frozenset({"kernel", "stride", "padding", "ceil"})),  # padding is never the largest
    "pool": (1, frozenset({"kind"})),
    "add": (2, frozenset()),
    "scale": (2, frozenset()),  # each channel of the first times its number in the second
    "concat": (None, frozenset()),  # along the channels
    "pad_channels": (1, frozenset({"before", "after"})),  # with zeros
    "luma": (1, frozenset()),  # one channel of three: the grey of red, green and blue
    "flatten": (1, frozenset()),  # channel by channel, row by row
    "dropout": (1, frozenset({"rate"})),
    "dense": (1, frozenset({"units"})),
    # a module of another library: its features, and its weights by its own names, of which "statistics" names those
    # that no optimiser changes; config is its architecture where that is plain data (a Keras model of Keras' own
    # layers, as JSON), else ""; grey: whether it takes one channel, the luma of the pixels
    "module": (1, frozenset({"source", "features", "head", "units", "weights", "config", "statistics", "grey"})),
}
NORM_STATISTICS = ("mean", "var")  # the weights of a batch norm that no optimiser changes
OPTIONAL = frozenset({"statistics", "grey"})  # attributes that a node need not have
# sqrt: of max(x, 0) + SQRT_EPSILON, so that its gradient stays finite; hard_sigmoid: min(max(x + 3, 0), 6) / 6;
# hard_swish: x times that
ACTIVATIONS = ("relu", "relu6", "hard_sigmoid", "hard_swish", "sqrt")
POOLS = ("global_average",)
SQRT_EPSILON = 1e-6
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as Pillow makes a photo grey


def _whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and value >= least


def _wholes(value: Any, count: int, least: int = 1) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(_whole(each, least) for each in value)


def _shapes(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(shape, list | tuple) and _wholes(shape, len(shape), 0)
        for name, shape in value.items()
    )


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _real(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_WHOLE = (_whole, "a whole number of at least 1")
# attribute -> a check of its value, and the expected values in words; "kind" depends on the op
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("channels", "filters", "stride", "groups", "units"), _WHOLE),
    "kernel": (lambda v: _wholes(v, 2), "(height, width)"),
    "padding": (lambda v: v == "same" or _wholes(v, 4, 0), '"same" or (top, bottom, left, right)'),
    **dict.fromkeys(("bias", "ceil", "head", "grey"), (lambda v: type(v) is bool, "true or false")),
    **dict.fromkeys(("source", "features", "config"), (lambda v: isinstance(v, str), "text")),
    "weights": (_shapes, "a shape for each name"),
    "statistics": (_names, "names"),
    **dict.fromkeys(("before", "after"), (lambda v: _whole(v, 0), "a whole number of at least 0")),
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

    def __reduce__(self) -> tuple[type[Node], tuple[Any, ...]]:  # a mapping proxy cannot be copied
        return Node, (self.name, self.op, self.inputs, dict(self.attrs))


def statistics_of(node: Node) -> tuple[str, ...]:
    """Which of a node's weights no optimiser changes: running means and variances, and the like in a module."""
    return NORM_STATISTICS if node.op == "norm" else tuple(node.attrs.get("statistics", ()))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding (before, after) of one axis; the odd pixel goes after, so it depends on ``size``."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def padding_of(node: Node, height: int, width: int) -> Padding:
    """The padding of a convolution or max pooling on an input of this size, resolved: (top, bottom, left, right)."""
    (rows, columns), stride = node["kernel"], node["stride"]
    if node["padding"] == "same":
        return *same_padding(height, rows, stride), *same_padding(width, columns, stride)
    top, bottom, left, right = node["padding"]
    if node.attrs.get("ceil"):
        bottom += _ceil(height, rows, stride, top, bottom)
        right += _ceil(width, columns, stride, left, right)
    return top, bottom, left, right


def _ceil(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """What torch's ceil mode adds after an axis: for an incomplete last window, if it starts before the padding."""
    over = (size + before + after - kernel) % stride
    starts = size + before + after - kernel - over + stride  # of one more window
    return stride - over if over and size + before + after >= kernel and starts < size + before else 0


def check_node(node: Node, seen: Collection[str], blueprint: str) -> None:
    """Refuse an unknown op, attribute or value, and inputs that are not among the names ``seen`` before."""
    where = f"Blueprint '{blueprint}', node '{node.name}'"
    if not isinstance(node.name, str) or not node.name:
        raise UsageError(f"{where}: expected a name. Received: {node.name!r}.")
    if node.op not in OPS:
        raise UsageError(f"{where}: unknown op '{node.op}'. {did_you_mean(str(node.op), OPS)}")
    count, attributes = OPS[node.op]
    if not attributes - OPTIONAL <= set(node.attrs) <= attributes:
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
    if node.op == "max_pool" and node["padding"] != "same" and max(node["padding"]) >= min(node["kernel"]):
        raise UsageError(
            f"{where}: expected less padding than the kernel {node['kernel']}. Received: {node['padding']}."
        )


def shape_of(node: Node, inputs: Sequence[Shape], size: int) -> Shape:
    """The shape of a node's output, for square images of ``size`` pixels."""
    if node.op == "input":
        return (node["channels"], size, size)
    x = inputs[0]
    if node.op in ("conv", "max_pool", "pool", "pad_channels", "flatten", "scale"):
        _expect(node, x, len(x) == 3, "channels × height × width")
    match node.op:
        case "dense" | "module":
            _expect(node, x, len(x) == 1 or node.op == "module", "a vector")
            return (node["units"],)
        case "pool":
            return x[:1]
        case "luma":
            _expect(node, x, len(x) == 3 == x[0], "3 channels × height × width")
            return (1, *x[1:])
        case "flatten":
            return (math.prod(x),)
        case "pad_channels":
            return (node["before"] + x[0] + node["after"], *x[1:])
        case "add":
            _expect(node, inputs[1], inputs[1] == x, f"two equal shapes, the first {x}")
        case "scale":
            _expect(node, inputs[1], inputs[1] == x[:1], f"a number for each of {x[0]} channels")
        case "concat":
            odd = next((shape for shape in inputs if shape[1:] != x[1:]), None)
            _expect(node, odd or x, odd is None, f"equal heights and widths, the first {x}")
            return (sum(shape[0] for shape in inputs), *x[1:])
        case "conv":
            groups = node["groups"]
            fits = x[0] % groups == 0 == node["filters"] % groups
            _expect(node, x, fits, f"channels and filters in {groups} groups")
            return (node["filters"], *_windows(node, x))
        case "max_pool":
            return (x[0], *_windows(node, x))
    return x


def _windows(node: Node, incoming: Shape) -> tuple[int, int]:
    """Height and width of the output of a convolution or max pooling."""
    (rows, columns), stride = node["kernel"], node["stride"]
    top, bottom, left, right = padding_of(node, *incoming[1:])
    height = (incoming[1] + top + bottom - rows) // stride + 1
    width = (incoming[2] + left + right - columns) // stride + 1
    _expect(node, incoming, height > 0 and width > 0, f"an input that a {node['kernel']} kernel fits into")
    return height, width


def _expect(node: Node, shape: Shape, fits: bool, expected: str) -> None:
    if not fits:
        raise UsageError(f"Node '{node.name}' ({node.op}) expected {expected}. Received: {shape}.")
