"""Blueprints: JSON, parts of a network, and the published networks."""

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
from headstart.backbones.families.inverted import efficientnet_lite, round_channels
from headstart.backbones.ops import Node
from headstart.core.errors import UsageError
from nodes import CONV, SMALL, add, conv, dense, net, pool

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
