"""A slow, obvious NumPy computation of any blueprint, and small networks to hold every engine against it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import SQRT_EPSILON, Node
from headstart.core.types import ImageSpec

Array = NDArray[Any]
Weights = dict[str, NDArray[np.float32]]

SAME = "same"
UNEVEN = (0, 2, 1, 0)  # top, bottom, left, right
SPEC = ImageSpec(9, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # a mix-up of channels would be seen


def slow_forward(blueprint: Blueprint, weights: Weights, spec: ImageSpec, images: Array) -> dict[str, Array]:
    """The value of every node, float64, one operation after the other as a textbook has it."""
    pixels = (images / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    values: dict[str, Array] = {"input": pixels.transpose(0, 3, 1, 2)}
    for node in blueprint.nodes[1:]:
        own = {part: weights.get(f"{node.name}.{part}") for part in ("weight", "bias", "mean", "var")}
        own = {part: None if array is None else array.astype(np.float64) for part, array in own.items()}
        values[node.name] = slow_node(node, [values[name] for name in node.inputs], **own)
    return values


def slow_node(node: Node, inputs: list[Array], weight: Any, bias: Any, mean: Any, var: Any) -> Array:
    x = inputs[0]
    if node.op == "conv":
        y = slow_conv(x, weight, node["stride"], node["padding"], node["groups"])
        return np.asarray(y + bias[:, None, None] if node["bias"] else y)
    if node.op == "norm":
        channels_last = np.moveaxis(x, 1, -1)
        return np.moveaxis((channels_last - mean) / np.sqrt(var + node["epsilon"]) * weight + bias, -1, 1)
    if node.op == "act":
        above = np.maximum(x, 0)
        gate = np.clip(x + 3, 0, 6) / 6
        kinds = {"relu": above, "relu6": np.minimum(above, 6), "hard_sigmoid": gate, "hard_swish": x * gate}
        return np.asarray((kinds | {"sqrt": np.sqrt(above + SQRT_EPSILON)})[node["kind"]])
    if node.op == "dense":
        return np.asarray(np.einsum("nd,kd->nk", x, weight) + bias)
    if node.op == "pool":
        return np.asarray(x.mean(axis=(2, 3)))
    if node.op == "add":
        return np.asarray(x + inputs[1])
    if node.op == "scale":
        return np.asarray(x * inputs[1][:, :, None, None])
    if node.op == "concat":
        return np.concatenate(inputs, axis=1)
    if node.op == "pad_channels":
        zeros = [np.zeros((len(x), count, *x.shape[2:])) for count in (node["before"], node["after"])]
        return np.concatenate([zeros[0], x, zeros[1]], axis=1)
    if node.op == "luma":
        return np.asarray(0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:])
    if node.op == "flatten":
        return x.reshape(len(x), x.shape[1] * x.shape[2] * x.shape[3])
    if node.op == "max_pool":
        return slow_max_pool(x, node)
    assert node.op == "dropout"
    return x


def windows(x: Array, kernel: tuple[int, ...], stride: int, padding: Any, beyond: float = 0.0) -> Array:
    """What a kernel sees at each of its places: (images, channels, down, across, rows, columns)."""
    images, channels, height, width = x.shape
    rows, columns = kernel
    if padding == SAME:  # the fewest pixels that give every stride-th input pixel an output; the odd one goes after
        down, across = -(-height // stride), -(-width // stride)
        lack_down = max((down - 1) * stride + rows - height, 0)
        lack_across = max((across - 1) * stride + columns - width, 0)
        padding = (lack_down // 2, lack_down - lack_down // 2, lack_across // 2, lack_across - lack_across // 2)
    top, bottom, left, right = padding
    framed = np.full((images, channels, height + top + bottom, width + left + right), beyond)
    framed[:, :, top : top + height, left : left + width] = x
    down, across = (framed.shape[2] - rows) // stride + 1, (framed.shape[3] - columns) // stride + 1
    seen = np.zeros((images, channels, down, across, rows, columns))
    for i in range(down):
        for j in range(across):
            seen[:, :, i, j] = framed[:, :, i * stride :, j * stride :][:, :, :rows, :columns]
    return seen


def slow_conv(x: Array, kernel: Array, stride: int, padding: Any, groups: int) -> Array:
    """For each filter and each place of the output, one sum."""
    filters, per_group = kernel.shape[:2]
    seen = windows(x, kernel.shape[2:], stride, padding)
    y = np.zeros((len(x), filters, *seen.shape[2:4]))
    for f in range(filters):
        first = f // (filters // groups) * per_group
        y[:, f] = np.einsum("ncijrs,crs->nij", seen[:, first : first + per_group], kernel[f])
    return y


def slow_max_pool(x: Array, node: Node) -> Array:
    """The largest of each window; in ceil mode a last one may overhang, if it starts in the image."""
    padding = node["padding"]
    if node["ceil"] and padding != SAME:
        top, bottom, left, right = padding
        (rows, columns), stride = node["kernel"], node["stride"]
        while (x.shape[2] + top + bottom - rows) % stride:
            bottom += 1
        while (x.shape[3] + left + right - columns) % stride:
            right += 1
        down, across = (x.shape[2] + top + bottom - rows) // stride, (x.shape[3] + left + right - columns) // stride
        if down * stride >= x.shape[2] + top:  # a last window in the padding alone is none
            bottom = padding[1]
        if across * stride >= x.shape[3] + left:
            right = padding[3]
        padding = (top, bottom, left, right)
    return np.asarray(windows(x, node["kernel"], node["stride"], padding, -np.inf).max(axis=(4, 5)))


def conv(
    name: str, x: str, filters: int, kernel: tuple[int, int], stride: int = 1, padding: Any = SAME, **more: Any
) -> Node:
    attrs = {"filters": filters, "kernel": kernel, "stride": stride, "padding": padding, "groups": 1, "bias": False}
    return Node(name, "conv", (x,), attrs | more)


MAX_POOL = {"kernel": (2, 2), "stride": 2, "padding": (0, 0, 0, 0), "ceil": False}
INPUT = Node("input", "input", (), {"channels": 3})
HEAD = (
    Node("pooled", "pool", ("last",), {"kind": "global_average"}),
    Node("dropout", "dropout", ("pooled",), {"rate": 0.2}),
    Node("logits", "dense", ("dropout",), {"units": 4}),
)
EVERY_OP = Blueprint(
    "every_op",
    (
        INPUT,
        conv("stem", "input", 6, (3, 3), stride=2),
        Node("stem_norm", "norm", ("stem",), {"epsilon": 1e-3}),
        Node("stem_act", "act", ("stem_norm",), {"kind": "relu6"}),
        conv("depthwise", "stem_act", 6, (5, 5), groups=6),
        Node("depthwise_norm", "norm", ("depthwise",), {"epsilon": 1e-5}),
        Node("sum", "add", ("stem_act", "depthwise_norm"), {}),
        conv("uneven", "sum", 4, (2, 3), padding=UNEVEN, groups=2, bias=True),  # its own padding, an even kernel
        Node("uneven_norm", "norm", ("uneven",), {"epsilon": 1e-2}),
        conv("again", "sum", 4, (1, 1), bias=True),
        Node("again_act", "act", ("again",), {"kind": "relu"}),
        conv("bare", "uneven_norm", 4, (3, 3), padding=(0, 0, 0, 0), bias=True),  # read twice, so never folded
        Node("bare_norm", "norm", ("bare",), {"epsilon": 1e-3}),
        Node("bare_root", "act", ("bare",), {"kind": "sqrt"}),
        Node("joined", "concat", ("bare_norm", "bare_root", "bare_norm"), {}),
        Node("joined_norm", "norm", ("joined",), {"epsilon": 1e-3}),  # not behind a convolution
        Node("again_pool", "pool", ("again_act",), {"kind": "global_average"}),
        Node("largest", "max_pool", ("again_act",), MAX_POOL | {"ceil": True}),
        Node("gate", "act", ("again_pool",), {"kind": "hard_sigmoid"}),
        Node("gated", "scale", ("largest", "gate"), {}),
        Node("wide", "pad_channels", ("gated",), {"before": 1, "after": 2}),
        Node("swish", "act", ("wide",), {"kind": "hard_swish"}),
        Node("flat", "flatten", ("swish",), {}),
        Node("luma", "luma", ("input",), {}),
        conv("of_luma", "luma", 3, (3, 3), stride=2),
        Node("luma_pool", "pool", ("of_luma",), {"kind": "global_average"}),
        Node("joined_pool", "pool", ("joined_norm",), {"kind": "global_average"}),
        Node("pooled", "concat", ("joined_pool", "again_pool", "flat", "luma_pool"), {}),
        Node("pooled_norm", "norm", ("pooled",), {"epsilon": 1e-3}),  # of a vector
        Node("dropout", "dropout", ("pooled_norm",), {"rate": 0.5}),
        Node("logits", "dense", ("dropout",), {"units": 5}),
    ),
    9,
)


def weights_for(blueprint: Blueprint, seed: int = 0) -> Weights:
    generator = np.random.default_rng(seed)

    def values(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name.endswith(".var"):
            return generator.uniform(0.3, 2.0, shape).astype(np.float32)
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        return np.asarray(generator.standard_normal(shape) / np.sqrt(fan_in), np.float32)

    return {name: values(name, shape) for name, shape in blueprint.weight_shapes().items()}


def photos(count: int, size: int = 9, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def assert_close(value: Array, expected: Array, tolerance: float = 1e-5) -> None:
    assert value.shape == expected.shape
    assert value.dtype == np.float32
    assert np.abs(value - expected).max(initial=0) <= tolerance * max(np.abs(expected).max(initial=0), 1e-3)


def drawn_convolution(data: st.DataObject, *, strides: int = 3, pads: int = 3) -> Blueprint:
    """Any convolution of 6 channels, called "it"; half of the time with a "norm" behind it, then the last node."""
    size = data.draw(st.integers(4, 11), "size")
    groups, filters = data.draw(st.sampled_from([(1, 5), (2, 6), (3, 12), (6, 6), (6, 12)]), "groups and filters")
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), "kernel")
    stride = data.draw(st.integers(1, strides), "stride")
    padding = data.draw(st.just(SAME) | st.tuples(*[st.integers(0, pads)] * 4), "padding")
    bias, norm = data.draw(st.booleans(), "bias"), data.draw(st.booleans(), "norm")
    it = conv("it", "widen", filters, kernel, stride, padding, bias=bias)
    nodes = [
        INPUT,
        conv("widen", "input", 6, (1, 1)),
        Node("it", "conv", ("widen",), dict(it.attrs) | {"groups": groups}),
    ]
    nodes += [Node("norm", "norm", ("it",), {"epsilon": 1e-3})] * norm
    return Blueprint("one", tuple(nodes), size)


def drawn_max_pool(data: st.DataObject, *, strides: int = 4) -> tuple[int, dict[str, Any]]:
    """The size of a picture, and the attributes of any max pooling of it."""
    size = data.draw(st.integers(4, 11), "size")
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), "kernel")
    less = st.integers(0, min(kernel) - 1)
    return size, MAX_POOL | {
        "kernel": kernel,
        "stride": data.draw(st.integers(1, strides), "stride"),
        "padding": data.draw(st.just(SAME) | st.tuples(less, less, less, less), "padding"),
        "ceil": data.draw(st.booleans(), "ceil"),
    }
