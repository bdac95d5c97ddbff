"""Blueprints: what is refused, what SAME padding is, what they count, and that their names are timm's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES
from headstart.backbones.families.inverted import efficientnet_lite, mobilenet_v2, round_channels
from headstart.backbones.ops import Node, padding_of, same_padding
from headstart.core.errors import UsageError

TIMM = {  # our name -> timm's
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "efficientnet_lite3": "tf_efficientnet_lite3",
    "efficientnet_lite4": "tf_efficientnet_lite4",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v2_050": "mobilenetv2_050",
    "mobilenet_v2_140": "mobilenetv2_140",
}
CONV = {"filters": 4, "kernel": (3, 3), "stride": 1, "padding": "same", "groups": 1, "bias": False}
INPUT = Node("input", "input", (), {"channels": 3})


def conv(name: str, x: str, **changes: Any) -> Node:
    return Node(name, "conv", (x,), CONV | changes)


def pool(name: str, x: str) -> Node:
    return Node(name, "pool", (x,), {"kind": "global_average"})


def dense(name: str, x: str) -> Node:
    return Node(name, "dense", (x,), {"units": 10})


def add(name: str, *inputs: str) -> Node:
    return Node(name, "add", inputs)


def net(*nodes: Node, size: int = 8) -> Blueprint:
    return Blueprint("net", (INPUT, *nodes), size)


SMALL = (conv("a", "input"), conv("b", "a"), add("c", "a", "b"), pool("pooled", "c"), dense("logits", "pooled"))


# --- what is refused --------------------------------------------------------------------------------------------------

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


# --- SAME padding -----------------------------------------------------------------------------------------------------


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


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_json_gives_an_equal_blueprint_back(name: str) -> None:
    backbone = BACKBONES[name]
    for blueprint in (
        backbone.blueprint(),
        backbone.blueprint().trunk(backbone.layers).with_head(7, sqrt=True),
        net(conv("a", "input", padding=(0, 1, 2, 3), kernel=(1, 3), bias=True)),
    ):
        again = Blueprint.from_json(json.loads(json.dumps(blueprint.to_json(), allow_nan=False)))
        assert again == blueprint
        assert hash(again) == hash(blueprint)
        assert again.nodes == blueprint.nodes
        assert again.weight_shapes() == blueprint.weight_shapes()


def test_blueprints_that_differ_are_not_equal() -> None:
    one = net(*SMALL)
    assert one == net(*SMALL)
    assert one != net(*SMALL, size=9)
    assert one != Blueprint("other", one.nodes, 8)
    assert one != net(conv("a", "input", bias=True), *SMALL[1:])
    assert one != one.to_json()


def changed(path: tuple[Any, ...], value: Any) -> Any:
    """The small network's JSON with one place replaced, or removed where the value is ``...``."""
    whole = json.loads(json.dumps(net(*SMALL).to_json()))
    at = whole
    for step in path[:-1]:
        at = at[step]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return whole


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "net",
        {},
        changed(("nodes",), ...),
        changed(("nodes",), None),
        changed(("nodes",), {"input": {}}),
        changed(("nodes",), []),
        changed(("size",), ...),
        changed(("size",), "8"),
        changed(("size",), 8.5),
        changed(("size",), math.inf),
        changed(("size",), -8),
        changed(("size",), True),
        changed(("nodes", 1), "conv"),
        changed(("nodes", 1, 0), 5),
        changed(("nodes", 1, 0), ["a"]),
        changed(("nodes", 1, 1), ["conv"]),
        changed(("nodes", 1, 1), None),
        changed(("nodes", 1, 2), "input"),
        changed(("nodes", 1, 2), 3),
        changed(("nodes", 1, 2), [3]),
        changed(("nodes", 1, 2), [["input"]]),
        changed(("nodes", 1, 3), []),
        changed(("nodes", 1, 3, "stride"), ...),
        changed(("nodes", 1, 3, "stride"), 0),
        changed(("nodes", 1, 3, "groups"), 0),
        changed(("nodes", 1, 3, "filters"), 1e300),
        changed(("nodes", 1, 3, "padding"), "valid"),
        changed(("nodes", 1, 3, "kernel"), {"height": 3}),
        changed(("nodes", 4, 3, "kind"), {}),
        changed(("nodes", 4, 3, "kind"), ["global_average"]),
        changed(("nodes", 2), ...),
        changed(("name",), ...),
        changed(("name",), 5),
    ],
)
def test_malformed_json_is_refused(data: Any) -> None:
    with pytest.raises(UsageError):
        Blueprint.from_json(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["input", "conv"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(
    [
        *(("name",), ("size",), ("nodes",), ("nodes", 0), ("nodes", 2), ("nodes", 2, 0), ("nodes", 2, 1)),
        *(("nodes", 2, 2), ("nodes", 2, 2, 0), ("nodes", 2, 3), ("nodes", 4, 3, "kind"), ("nodes", 5, 3, "units")),
        *(("nodes", 0, 3, "channels"), *(("nodes", 2, 3, attribute) for attribute in CONV)),
    ]
)


@settings(max_examples=300, deadline=None)
@given(PATHS, ANYTHING)
def test_json_of_any_content_is_read_or_refused_but_never_a_crash(path: tuple[Any, ...], value: Any) -> None:
    try:
        blueprint = Blueprint.from_json(changed(path, value))
    except UsageError:
        return
    blueprint.weight_shapes(), blueprint.multiply_adds(), blueprint.parameters()
    assert Blueprint.from_json(json.loads(json.dumps(blueprint.to_json()))) == blueprint


# --- parts of a network -----------------------------------------------------------------------------------------------


def test_upto_keeps_what_a_node_depends_on_and_nothing_else() -> None:
    assert net(*SMALL).upto("b").layers == ("input", "a", "b")
    assert net(*SMALL).upto("c").layers == ("input", "a", "b", "c")
    assert net(*SMALL).upto("input").layers == ("input",)
    assert net(*SMALL).upto("logits") == net(*SMALL)
    branches = net(conv("a", "input"), conv("b", "input"), add("c", "a", "b"))
    assert branches.upto("b").layers == ("input", "b")


def test_a_trunk_ends_with_its_features() -> None:
    network = net(*SMALL)
    trunk = network.trunk(("c",))
    assert trunk.layers == ("input", "a", "b", "c", "c.pooled", "features")
    assert trunk.shapes()["features"] == (4,)
    assert "logits.weight" not in trunk.weight_shapes()

    wide = network.trunk(("c", "a", "input"))
    assert wide.layers[-3:] == ("a.pooled", "input.pooled", "features")
    assert wide["features"].inputs == ("c.pooled", "a.pooled", "input.pooled")  # in the order asked for
    assert wide.shapes()["features"] == (4 + 4 + 3,)
    assert wide.weight_shapes() == trunk.weight_shapes()


def test_a_trunk_takes_vectors_as_they_are_and_no_more_than_it_needs() -> None:
    trunk = net(*SMALL).trunk(("pooled", "a"))
    assert trunk.layers == ("input", "a", "b", "c", "pooled", "a.pooled", "features")
    assert trunk["features"].inputs == ("pooled", "a.pooled")
    assert net(*SMALL).trunk(("b",)).layers == ("input", "a", "b", "b.pooled", "features")


@pytest.mark.parametrize("layers", [("a", "a"), ()])
def test_a_trunk_needs_layers_and_each_once(layers: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        net(*SMALL).trunk(layers)


@pytest.mark.parametrize("sqrt", [False, True])
def test_a_trunk_takes_a_new_head(sqrt: bool) -> None:
    trunk = net(*SMALL).trunk(("c", "a"))
    network = trunk.with_head(7, sqrt=sqrt)
    assert network.layers == (*trunk.layers, *(["head_sqrt"] if sqrt else []), "logits")
    assert network.shapes()["logits"] == (7,)
    assert network.weight_shapes() == trunk.weight_shapes() | {"logits.weight": (7, 8), "logits.bias": (7,)}
    assert network["logits"].inputs == ("head_sqrt" if sqrt else "features",)
    assert not sqrt or network["head_sqrt"].attrs == {"kind": "sqrt"}
    with pytest.raises(UsageError, match="used twice" if not sqrt else "'features'"):
        net(*SMALL).with_head(7, sqrt=sqrt)  # it has its own
    with pytest.raises(UsageError, match="units"):
        trunk.with_head(0, sqrt=sqrt)


# --- the published networks -------------------------------------------------------------------------------------------


def test_counts_can_be_worked_out_by_hand() -> None:
    network = net(conv("a", "input", stride=2, bias=True), Node("n", "norm", ("a",), {"epsilon": 1e-3}),
                  conv("d", "n", groups=4), pool("pooled", "d"), dense("logits", "pooled"))  # fmt: skip
    assert network.parameters() == {"a": 3 * 9 * 4 + 4, "n": 2 * 4, "d": 9 * 4, "logits": 4 * 10 + 10}
    assert network.multiply_adds() == {"a": 3 * 9 * 4 * 16, "d": 9 * 4 * 16, "logits": 40}
    assert network.multiply_adds(16)["a"] == 3 * 9 * 4 * 64
    assert network.weight_shapes()["d.weight"] == (4, 1, 3, 3)
    assert network.weight_shapes()["n.var"] == (4,)


def test_channels_are_rounded_as_the_originals_round_them() -> None:
    assert [round_channels(c) for c in (8, 16 * 1.1, 24 * 1.1, 40 * 1.1, 80 * 1.1, 11.9, 3)] == [
        *(8, 16, 24, 48, 88, 16, 8)
    ]
    wider = efficientnet_lite("wide", 64, 1.1, 1.2)
    assert wider["conv_stem"]["filters"] == 32  # the stem is never scaled
    assert wider["conv_head"]["filters"] == 1280


@pytest.mark.parametrize("name", TIMM)
def test_timm_has_the_same_weights_and_the_same_work(name: str) -> None:
    """Names, shapes and order of the state dict; multiply-adds and output shapes as counted on timm's own modules."""
    network = BACKBONES[name].blueprint()
    with torch.device("meta"):
        module = timm.create_model(
            TIMM[name], pretrained=False, **({"pad_type": "same"} if name == "mobilenet_v2" else {})
        )
    parts = {"running_mean": "mean", "running_var": "var"}
    theirs = {}
    for key, tensor in module.state_dict().items():
        node, _, part = key.replace("classifier", "logits").rpartition(".")
        if part != "num_batches_tracked":
            theirs[f"{node}.{parts.get(part, part)}"] = tuple(tensor.shape)
    assert list(network.weight_shapes().items()) == list(theirs.items())

    work, shapes = {}, {}

    def count(node: str) -> Callable[[Any, Any, Any], None]:
        def hook(layer: Any, _: Any, output: Any) -> None:
            shapes[node] = tuple(output.shape[1:])
            work[node] = layer.weight.numel() * math.prod(output.shape[2:])

        return hook

    for key, layer in module.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count(key.replace("classifier", "logits")))
    with torch.no_grad():
        module.eval()(torch.zeros(1, 3, network.size, network.size, device="meta"))
    assert network.multiply_adds() == work
    assert {node: network.shapes()[node] for node in shapes} == shapes
