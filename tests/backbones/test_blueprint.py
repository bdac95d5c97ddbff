"""Blueprints: checks and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.inverted import mobilenet_v2
from headstart.backbones.ops import Node, padding_of, same_padding
from headstart.core.errors import UsageError
from nodes import CONV, INPUT, SMALL, add, conv, dense, net, pool

BAD: dict[str, tuple[Callable[[], Blueprint], str]] = {
    "no nodes": (lambda: Blueprint("net", (), 8), "exactly one 'input' node, and it first"),
    "input not first": (lambda: Blueprint("net", (conv("a", "input"), INPUT), 8), "exactly one 'input' node"),
    "two inputs": (lambda: net(Node("more", "input", (), {"channels": 3})), "exactly one 'input' node"),
    "unknown op": (lambda: net(Node("a", "cnov", ("input",), CONV)), "node 'a': unknown op 'cnov'. Did you mean conv"),
    "unknown attribute": (lambda: net(conv("a", "input", dilation=1)), "takes the attributes .*'stride'.*'dilation'"),
    "missing attribute": (lambda: net(Node("a", "norm", ("input",))), r"takes the attributes \['epsilon'\].*: \[\]"),
    "unknown activation": (
        lambda: net(Node("a", "act", ("input",), {"kind": "relu9"})),
        "unknown act 'relu9'. Did you",
    ),
    "unknown pool": (lambda: net(Node("a", "pool", ("input",), {"kind": "relu"})), "unknown pool 'relu'. Known: glo"),
    "dangling name": (lambda: net(conv("alpha", "input"), conv("b", "alhpa")), "'alhpa', which is not .* mean alpha"),
    "takes itself": (lambda: net(conv("a", "a")), "node 'a': takes 'a', which is not defined before it"),
    "takes a later one": (lambda: net(conv("b", "a"), conv("a", "input")), "takes 'a', which is not defined before"),
    "duplicate name": (lambda: net(conv("a", "input"), conv("a", "a")), "node 'a': the name is used twice"),
    "empty name": (lambda: net(conv("", "input")), "expected a name. Received: ''"),
    "add of one": (lambda: net(add("a", "input")), "'add' takes 2 inputs. Received: 1"),
    "add of three": (lambda: net(add("a", "input", "input", "input")), "'add' takes 2 inputs. Received: 3"),
    "concat of none": (lambda: net(Node("a", "concat", ())), "'concat' takes one input or more. Received: 0"),
    "conv of two": (lambda: net(Node("a", "conv", ("input", "input"), CONV)), "'conv' takes 1 inputs. Received: 2"),
    "two outputs": (lambda: net(conv("a", "input"), conv("b", "input")), "one output.* No node takes 'a'"),
    "add of unequal": (
        lambda: net(conv("a", "input"), add("b", "input", "a")),
        r"'b' \(add\) expected two equal shapes, the first \(3, 8, 8\). Received: \(4, 8, 8\)",
    ),
    "concat of unequal": (
        lambda: net(conv("a", "input", stride=2), Node("b", "concat", ("input", "a"))),
        r"'b' \(concat\) expected equal heights and widths, the first \(3, 8, 8\). Received: \(4, 4, 4\)",
    ),
    "pool of a vector": (lambda: net(pool("a", "input"), pool("b", "a")), r"'b' \(pool\) expected channels"),
    "conv of a vector": (lambda: net(pool("a", "input"), conv("b", "a")), r"'b' \(conv\) expected channels"),
    "dense of an image": (lambda: net(dense("a", "input")), r"'a' \(dense\) expected a vector. Received: \(3, 8, 8\)"),
    "groups of the input": (lambda: net(conv("a", "input", groups=2)), "expected channels and filters in 2 groups"),
    "groups of the filters": (lambda: net(conv("a", "input", groups=3)), "expected channels and filters in 3 groups"),
    "too large a kernel": (
        lambda: net(conv("a", "input", kernel=(9, 1), padding=(0, 0, 0, 0))),
        r"expected an input that a \(9, 1\) kernel fits into. Received: \(3, 8, 8\)",
    ),
    "no size": (lambda: net(*SMALL, size=0), "size of whole pixels. Received: 0"),
    "half a pixel": (lambda: net(*SMALL, size=8.5), r"Received: 8\.5"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_network_is_refused(case: str) -> None:
    build, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        build()


@pytest.mark.parametrize(
    ("op", "attribute", "values"),
    [
        ("conv", "filters", (0, -1, 2.0, "4", True, None)),
        ("conv", "kernel", (3, (3,), (3, 3, 3), (0, 3), (3, 3.0), "33")),
        ("conv", "stride", (0, -2, 1.5, (1, 1))),
        ("conv", "padding", ("valid", 1, (1, 1), (1, 1, 1, -1), (1, 1, 1, 0.5), None)),
        ("conv", "groups", (0, 1.0)),
        ("conv", "bias", (0, "false", None)),
        ("norm", "epsilon", (0, -1e-3, math.nan, math.inf, "1e-3", True)),
        ("dropout", "rate", (-0.1, 1, math.nan, "0")),
        ("dense", "units", (0, 2.5)),
        ("act", "kind", (0, None, ["relu"], "Relu")),
    ],
)
def test_a_value_that_an_attribute_cannot_have_is_refused(op: str, attribute: str, values: tuple[Any, ...]) -> None:
    sound: dict[str, dict[str, Any]] = {
        "conv": CONV,
        "norm": {"epsilon": 1e-3},
        "dropout": {"rate": 0.2},
        "dense": {"units": 2},
    }
    attrs = sound.get(op, {"kind": "relu"})
    before = (pool("p", "input"),) if op == "dense" else ()
    for value in values:
        node = Node("odd", op, ("p" if before else "input",), attrs | {attribute: value})
        with pytest.raises(UsageError, match=rf"node 'odd'.*{attribute if attribute != 'kind' else 'unknown act'}"):
            net(*before, node)


def test_an_unknown_layer_is_refused_with_the_nearest() -> None:
    network = mobilenet_v2()
    for ask in (network.__getitem__, network.upto, lambda name: network.trunk((name,))):
        with pytest.raises(UsageError, match=r"blocks\.1\.0\.bn2"):
            ask("blocks.1.0.bn2.axt")


def test_a_node_cannot_be_changed_behind_the_checks() -> None:
    attrs = dict(CONV)
    node = conv("a", "input")
    with pytest.raises(TypeError):
        node.attrs["filters"] = 0  # type: ignore[index]
    kept = Node("a", "conv", ("input",), attrs)
    attrs["filters"] = 0
    assert kept["filters"] == 4


def brute_force_same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The least padding with which every stride-th pixel gets an output; before is never more than after."""
    wanted = len(range(0, size, stride))
    for total in range(size + kernel + stride):
        if len(range(0, size + total - kernel + 1, stride)) >= wanted:
            return total // 2, total - total // 2
    raise AssertionError


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7, 11])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_same_padding_is_the_least_that_gives_every_stride_an_output(kernel: int, stride: int) -> None:
    for size in range(1, 300):
        assert same_padding(size, kernel, stride) == brute_force_same(size, kernel, stride)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (112, 5, 2, (1, 2)), (7, 3, 1, (1, 1)), (5, 1, 3, (0, 0))],
)
def test_same_padding_puts_the_odd_pixel_after(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    """As tf.nn.conv2d documents it; PyTorch's usual padding=1 would be (1, 1) throughout."""
    assert same_padding(size, kernel, stride) == expected


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 400),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 4),
    st.tuples(*[st.integers(0, 5)] * 4),
)
def test_shapes_follow_the_size_of_the_image(
    size: int, kernel: tuple[int, int], stride: int, explicit: tuple[int, int, int, int]
) -> None:
    same = net(conv("a", "input", kernel=kernel, stride=stride), size=9)
    assert same.shapes(size)["a"] == (4, -(-size // stride), -(-size // stride))
    assert same.shapes() == same.shapes(9)
    assert padding_of(same["a"], size, size)[:2] == same_padding(size, kernel[0], stride)
    assert padding_of(same["a"], size, size)[2:] == same_padding(size, kernel[1], stride)

    node = conv("a", "input", kernel=kernel, stride=stride, padding=explicit)
    assert padding_of(node, size, size) == explicit
    top, bottom, left, right = explicit
    rows = len(range(0, size + top + bottom - kernel[0] + 1, stride))
    columns = len(range(0, size + left + right - kernel[1] + 1, stride))
    network = Blueprint("net", (INPUT, node), 9)
    if rows and columns:
        assert network.shapes(size)["a"] == (4, rows, columns)
    else:
        with pytest.raises(UsageError, match="kernel fits"):
            network.shapes(size)


def test_weights_do_not_depend_on_the_size() -> None:
    assert mobilenet_v2(size=97).weight_shapes() == mobilenet_v2().weight_shapes()
