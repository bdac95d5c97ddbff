"""What every engine keeps: the referee's values at every node, and gradients that central differences agree with."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import ACTIVATIONS, OPS, Node
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines import memory
from headstart.engines.fast import FastNetwork
from headstart.engines.memory import check_memory
from headstart.engines.names import ENGINES
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine, keras_engine, torch_engine
from referee import (
    EVERY_OP,
    HEAD,
    INPUT,
    SPEC,
    Array,
    Weights,
    assert_close,
    conv,
    drawn_convolution,
    drawn_max_pool,
    photos,
    slow_forward,
    slow_node,
    weights_for,
)

FORWARD = ("fast", "torch", "keras")
GRADIENTS: dict[str, Callable[[Blueprint, Weights, ImageSpec], Network]] = {  # in float64 where the engine has it
    "fast": lambda blueprint, weights, spec: FastNetwork(blueprint, weights, spec, "fp32"),
    "torch": lambda blueprint, weights, spec: torch_engine().TorchNetwork(blueprint, weights, spec, "fp64", "cpu"),
    "keras": lambda blueprint, weights, spec: keras_engine().KerasNetwork(blueprint, weights, spec, "fp64", "cpu"),
}

FLOATS: dict[str, type[Any]] = {"fast": np.float32, "torch": np.float64, "keras": np.float64}  # of their gradients
ROUNDING = {"fast": 1e-5, "torch": 1e-10, "keras": 1e-10}  # of values and gradients, relative to the largest

every_engine = pytest.mark.parametrize("engine", FORWARD)
every_gradient = pytest.mark.parametrize("engine", GRADIENTS)
some = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def build(engine: str, blueprint: Blueprint = EVERY_OP, spec: ImageSpec = SPEC, precision: str = "fp32") -> Any:
    return get_engine(engine, blueprint, weights_for(blueprint), spec, precision)


def test_no_engine_and_no_op_is_left_out() -> None:
    assert {*FORWARD} == {*GRADIENTS} == {*ENGINES} - {"auto"}
    assert {node.op for node in EVERY_OP.nodes} == set(OPS) - {"module"}  # which is no engine's own
    assert {node["kind"] for node in EVERY_OP.nodes if node.op == "act"} == set(ACTIVATIONS)


# --- forward ----------------------------------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("at", EVERY_OP.layers)
def test_every_node_has_the_referees_value(engine: str, at: str) -> None:
    """Also the output of a convolution into whose weights its batch norm could have been folded: the unfolded one."""
    network, images = build(engine), photos(3)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)[at]
    assert expected.shape[1:] == EVERY_OP.shapes()[at] == network.shape(at)
    assert_close(network.forward(images, at), expected)


@every_engine
def test_several_nodes_come_from_one_pass_in_the_order_asked_for(engine: str) -> None:
    network, images = build(engine), photos(5)
    at = ("logits", "stem", "sum", "stem_norm", "logits", "input")
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    for name, value in zip(at, network.forward_many(images, at), strict=True):
        assert_close(value, expected[name])


@every_engine
@some
@given(data=st.data())
def test_any_convolution_has_the_referees_value(engine: str, data: st.DataObject) -> None:
    blueprint = drawn_convolution(data)
    spec, images, last = ImageSpec(blueprint.size), photos(2, blueprint.size), blueprint.nodes[-1].name
    expected = slow_forward(blueprint, weights_for(blueprint), spec, images)[last]
    assert_close(build(engine, blueprint, spec).forward(images, last), expected)


@every_engine
@some
@given(data=st.data())
def test_any_max_pooling_has_the_referees_value(engine: str, data: st.DataObject) -> None:
    size, attrs = drawn_max_pool(data)
    blueprint = Blueprint("one", (INPUT, Node("it", "max_pool", ("input",), attrs)), size)
    spec, images = ImageSpec(size), photos(2, size)
    expected = slow_forward(blueprint, {}, spec, images)["it"]
    assert expected.shape[1:] == blueprint.shapes()["it"]
    assert_close(build(engine, blueprint, spec).forward(images, "it"), expected)


@every_engine
@pytest.mark.parametrize("sqrt", [False, True])
def test_a_fitted_head_has_the_referees_value(engine: str, sqrt: bool) -> None:
    trunk = Blueprint("trunk", (INPUT, conv("stem", "input", 8, (3, 3), 2), conv("last", "stem", 4, (1, 1)), *HEAD), 9)
    blueprint, images = trunk.trunk(("last", "stem")).with_head(3, sqrt=sqrt), photos(5)
    expected = slow_forward(blueprint, weights_for(blueprint), SPEC, images)
    network = build(engine, blueprint)
    for at in blueprint.layers[-4:]:
        assert_close(network.forward(images, at), expected[at])
    features, logits = network.runner(("features", "logits"))(images)
    assert_close(features, expected["features"])
    assert_close(logits, expected["logits"])


@every_engine
@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_a_batch_has_any_size(engine: str, count: int) -> None:
    network, images = build(engine), photos(count)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    assert_close(network.forward(images), expected["logits"])
    assert_close(network.forward(images, "sum"), expected["sum"])


@every_engine
def test_a_batch_may_be_larger_than_what_is_worked_at_a_time(engine: str) -> None:
    network, images = build(engine), photos(17)
    network.micro_batch = 3
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    for at, value in zip(("flat", "logits"), network.forward_many(images, ("flat", "logits")), strict=True):
        assert_close(value, expected[at])


@every_engine
def test_images_do_not_see_their_neighbours(engine: str) -> None:
    network, images = build(engine), photos(17)
    together = network.forward(images)
    network.forward(photos(17, seed=1))  # what an earlier batch leaves behind must not matter
    for row in (0, 7, 16):
        np.testing.assert_allclose(network.forward(images[row : row + 1])[0], together[row], rtol=1e-5, atol=1e-6)


@every_engine
def test_images_need_not_lie_in_one_piece_nor_be_writable(engine: str) -> None:
    network, images = build(engine), photos(6)
    images.flags.writeable = False
    turned = images[::-2, :, ::-1]
    np.testing.assert_array_equal(network.forward(turned), network.forward(turned.copy()))


@every_engine
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_from_0_to_1_are_the_same_images(engine: str, kind: type[Any]) -> None:
    network, images = build(engine), photos(5)
    for at in ("input", "sum", "logits"):
        value = network.forward(images, at)
        assert_close(network.forward((images / 255).astype(kind), at), value)
    between = (images / 255 + 0.5 / 255).clip(0, 1).astype(np.float32)  # which no bytes can say
    assert_close(network.forward(between), slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, between * 255)["logits"])


@every_engine
def test_normalisation_happens_inside_and_once(engine: str) -> None:
    images = np.full((1, 9, 9, 3), (0, 128, 255), np.uint8)
    value = build(engine).forward(images, "input")
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert value.shape == (1, 3, 9, 9)
    np.testing.assert_allclose(value[0, :, 4, 4], expected, rtol=1e-6)


@every_engine
@pytest.mark.parametrize("size", [32, 64, 97, 160])
def test_images_have_the_size_of_the_spec_not_the_native_one(engine: str, size: int) -> None:
    """SAME padding is resolved anew: at an odd size it is another one."""
    blueprint = Blueprint(
        "sizes",
        (
            INPUT,
            conv("stem", "input", 4, (3, 3), stride=2),
            Node("stem_norm", "norm", ("stem",), {"epsilon": 1e-3}),
            conv("last", "stem_norm", 4, (5, 5), stride=2, groups=4),
            *HEAD,
        ),
        224,
    )
    spec, images = ImageSpec(size), photos(2, size)
    network = build(engine, blueprint, spec)
    expected = slow_forward(blueprint, weights_for(blueprint), spec, images)
    assert network.forward(images, "last").shape[2:] == network.shape("last")[1:] == (-(-size // 4),) * 2
    assert_close(network.forward(images, "last"), expected["last"])
    assert_close(network.forward(images), expected["logits"])


@every_engine
def test_threads_may_share_a_network(engine: str) -> None:
    network, images = build(engine), [photos(n % 5 + 1, seed=n) for n in range(24)]
    expected = [slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, batch) for batch in images[:6]]
    names = ["logits", "stem", "sum"]
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda n: network.forward(images[n], names[n % 3]), range(24)))
    for n in range(24):
        np.testing.assert_array_equal(values[n], network.forward(images[n], names[n % 3]))
    for n, each in enumerate(expected):
        assert_close(values[n], each[names[n % 3]])


@every_engine
def test_a_runner_takes_up_to_a_micro_batch(engine: str) -> None:
    network = build(engine)
    network.micro_batch = 8
    run = network.runner(("sum", "logits"))
    for count in (network.micro_batch, 1, network.micro_batch):
        images = photos(count, seed=count)
        expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
        first, second = run(images)
        assert_close(first, expected["sum"])
        assert_close(second, expected["logits"])
    kept = first.copy()
    run(photos(1, seed=9))
    np.testing.assert_array_equal(first, kept)  # values are the taker's own, not the engine's memory


@every_engine
def test_weights_go_out_and_in_under_the_blueprints_names(engine: str) -> None:
    network, images = build(engine), photos(3)
    found = network.weights()
    given, other = weights_for(EVERY_OP), weights_for(EVERY_OP, seed=1)
    assert list(found) == list(EVERY_OP.weight_shapes())
    for name in found:
        np.testing.assert_array_equal(found[name], given[name])
        found[name] += 1  # a copy: the network does not see it
    before = network.forward(images)
    assert_close(before, slow_forward(EVERY_OP, given, SPEC, images)["logits"])
    network.load(other)
    assert_close(network.forward(images), slow_forward(EVERY_OP, other, SPEC, images)["logits"])
    network.load(given)
    np.testing.assert_array_equal(network.forward(images), before)


@every_engine
@pytest.mark.parametrize("kind", [np.float64, np.float16, ">f4"])
def test_weights_may_be_floats_of_any_kind(engine: str, kind: Any) -> None:
    images = photos(3)
    given = {name: array.astype(np.float16).astype(np.float32) for name, array in weights_for(EVERY_OP).items()}
    expected = slow_forward(EVERY_OP, given, SPEC, images)
    other = {name: array.astype(kind) for name, array in given.items()}
    loaded = build(engine)
    loaded.load(other)
    for network in (get_engine(engine, EVERY_OP, other, SPEC, "fp32"), loaded):
        values = network.forward_many(images, ("stem", "logits"))  # unfolded, and folded
        for at, value in zip(("stem", "logits"), values, strict=True):
            assert value.dtype == np.float32
            assert_close(value, expected[at])
        assert_close(network.forward(images), expected["logits"])
        assert {array.dtype for array in network.weights().values()} == {np.dtype(np.float32)}


@every_engine
def test_weights_that_float32_cannot_hold_are_refused(engine: str) -> None:
    large = weights_for(EVERY_OP) | {"logits.bias": np.full(5, 1e300)}
    for take in (lambda: get_engine(engine, EVERY_OP, large, SPEC, "fp32"), lambda: build(engine).load(large)):
        with pytest.raises(UsageError, match=r"logits\.bias holds values that are not finite"):
            take()


# --- what is refused --------------------------------------------------------------------------------------------------


@every_engine
def test_weights_of_another_network_are_refused(engine: str) -> None:
    network, images = build(engine), photos(2)
    before = network.forward(images)
    short = weights_for(EVERY_OP)
    del short["stem.weight"]
    misshapen = weights_for(EVERY_OP) | {"logits.bias": np.zeros(6, np.float32)}
    for wrong, name in ((short, "stem.weight"), (misshapen, "logits.bias"), (weights_for(EVERY_OP) | {"x": 0}, "x")):
        with pytest.raises(UsageError, match=f"weights for every_op.*{name}"):
            network.load(wrong | {"x": np.zeros(1, np.float32)} if name == "x" else wrong)
    np.testing.assert_array_equal(network.forward(images), before)


@every_engine
@pytest.mark.parametrize(
    "images",
    [
        pytest.param(photos(1)[0], id="one image"),
        pytest.param(photos(1).transpose(0, 3, 1, 2), id="NCHW"),
        pytest.param(photos(1, 10), id="too large"),
        pytest.param(photos(1)[:, :8], id="not square"),
        pytest.param(photos(1)[..., :1], id="grey"),
        pytest.param(photos(1)[..., :1].repeat(4, axis=3), id="four channels"),
        pytest.param(photos(1).astype(np.int64), id="int64"),
        pytest.param(photos(1).astype(np.float16) / 255, id="float16"),
    ],
)
def test_other_images_are_refused(engine: str, images: Any) -> None:
    with pytest.raises(UsageError) as caught:
        build(engine).forward(images)
    assert "uint8 images of shape (N, 9, 9, 3), or floats in [0, 1]" in str(caught.value)
    assert f"Received: {images.dtype} {images.shape}" in str(caught.value)


@every_engine
@pytest.mark.parametrize("wrong", [255.0, -1.0, np.nan])
def test_floats_that_are_no_pixels_are_refused(engine: str, wrong: float) -> None:
    images = np.full((1, 9, 9, 3), 0.5, np.float32)
    images[0, 3, 3, 1] = wrong
    with pytest.raises(UsageError, match=r"pixels from 0 to 1.*normalises them itself"):
        build(engine).forward(images)


@every_engine
@pytest.mark.parametrize("count", [0, 2])
def test_an_unknown_layer_is_refused_with_the_nearest(engine: str, count: int) -> None:
    network = build(engine)
    with pytest.raises(UsageError, match=r"'every_op' has no layer 'stem_nor'. Did you mean stem_norm"):
        network.forward(photos(count), "stem_nor")
    with pytest.raises(UsageError, match="no layer 'depth'"):
        network.runner(("logits", "depth"))


@every_engine
def test_an_unknown_engine_or_precision_is_refused_with_the_nearest(engine: str) -> None:
    with pytest.raises(UsageError, match=r"no engine 'fats'\. Did you mean fast"):
        build("fats")
    with pytest.raises(UsageError, match=r"no precision 'fp23'\. Did you mean fp32"):
        build(engine, precision="fp23")
    assert build(engine).precision == "fp32"
    assert (build(engine).engine, build(engine).name) == (engine, "every_op")
    assert build("auto").engine == "fast"


@every_engine
def test_a_network_that_does_not_take_photos_is_refused(engine: str) -> None:
    grey = Blueprint("grey", (Node("input", "input", (), {"channels": 1}), conv("last", "input", 4, (3, 3)), *HEAD), 9)
    with pytest.raises(UsageError, match=r"3 channels\. 'grey' takes 1"):
        build(engine, grey)


@every_engine
def test_a_size_that_the_network_shrinks_to_nothing_is_refused(engine: str) -> None:
    nodes = (INPUT, conv("last", "input", 4, (9, 9), padding=(0, 0, 0, 0)), *HEAD)
    with pytest.raises(UsageError, match=r"'last'.*\(9, 9\) kernel fits"):
        build(engine, Blueprint("small", nodes, 9), ImageSpec(8)).forward(photos(1, 8))


@every_engine
def test_a_network_too_large_for_memory_is_refused_before_it_is_built(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Blueprint("wide", (INPUT, conv("last", "input", 10**9, (3, 3)), *HEAD), 9)
    with pytest.raises(UsageError, match=r"'wide' at 9 pixels needs \d+\.\d GB of memory \(124\.0 GB weights"):
        get_engine(engine, wide, {}, SPEC)  # weights that nobody has made
    monkeypatch.setattr(memory, "available_memory", lambda: 2000)
    with pytest.raises(UsageError, match="'every_op' at 9 pixels needs"):
        build(engine)


def test_what_is_needed_of_memory_is_weights_and_what_is_held_at_once() -> None:
    nodes = (INPUT, conv("a", "input", 4, (1, 1)), conv("b", "a", 5, (1, 1)), Node("c", "add", ("b", "b"), {}))
    blueprint = Blueprint("three", (*nodes, Node("last", "add", ("c", "c"), {})), 10)
    weights, most = 4 * (3 * 4 + 4 * 5), 4 * 7 * 100 * (5 + 5)  # seven images; c beside b
    check_memory(blueprint, 10, 7, weights + most)
    with pytest.raises(UsageError, match="three"):
        check_memory(blueprint, 10, 7, weights + most - 1)


def test_free_memory_is_known_here() -> None:
    free = memory.available_memory()
    assert free is not None
    assert 10**7 < free < 10**14


# --- gradients --------------------------------------------------------------------------------------------------------


def slow_from(wrt: str, value: Array, rest: dict[str, Array], weights: Weights) -> dict[str, Array]:
    """The referee's values of every node, had node ``wrt`` had this value and those before it theirs."""
    values = rest | {wrt: value}
    for node in EVERY_OP.nodes[EVERY_OP.layers.index(wrt) + 1 :]:
        own = {part: weights.get(f"{node.name}.{part}") for part in ("weight", "bias", "mean", "var")}
        own = {part: None if array is None else array.astype(np.float64) for part, array in own.items()}
        values[node.name] = slow_node(node, [values[name] for name in node.inputs], **own)
    return values


def behind(wrt: str) -> list[str]:
    """Nodes that depend on node ``wrt``."""
    found = {wrt}
    for node in EVERY_OP.nodes:
        found |= {node.name} if found & set(node.inputs) else set()
    return [name for name in EVERY_OP.layers if name in found - {wrt}]


def assert_equals(engine: str, found: Array, expected: Array) -> None:
    """But for the rounding of the engine's floats."""
    rounding = ROUNDING[engine]
    np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding * max(float(np.abs(expected).max()), 1))


@every_gradient
@pytest.mark.parametrize("wrt", EVERY_OP.layers[:-1])
def test_from_every_node_to_every_one_before_it_central_differences_agree(engine: str, wrt: str) -> None:
    """A step along a random direction changes Σ cotangent · value by the gradient's share of it."""
    weights, rng = weights_for(EVERY_OP), np.random.default_rng(7)
    network = GRADIENTS[engine](EVERY_OP, weights, SPEC)
    images = rng.uniform(0.05, 0.95, (3, 9, 9, 3))
    rest = slow_forward(EVERY_OP, weights, SPEC, images * 255)
    start = images if wrt == "input" else rest[wrt]
    direction, step = rng.standard_normal(start.shape) * (start != 0), 1e-6  # where zeros tie, the largest has a kink

    def at(sign: float) -> dict[str, Array]:
        moved = start + sign * step * direction
        if wrt == "input":
            return slow_forward(EVERY_OP, weights, SPEC, moved * 255)
        return slow_from(wrt, moved, rest, weights)

    above, below = at(+1), at(-1)
    # of compiled functions only that to the next node, which is that one's own, and that through all the others
    names = behind(wrt) if engine == "torch" else {behind(wrt)[0]: 1, behind(wrt)[-1]: 1}
    assert names
    for name in names:
        value, pullback = network.vjp(images, name, wrt)
        assert_equals(engine, value, rest[name])
        cotangent = rng.standard_normal(value.shape)
        expected = float((cotangent * (above[name] - below[name])).sum() / (2 * step))
        gradient = pullback(cotangent)
        assert gradient.shape == start.shape
        assert gradient.dtype == FLOATS[engine]
        size = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        assert abs(float((gradient * direction).sum()) - expected) <= max(1e-6, ROUNDING[engine]) * max(size, 1e-3), (
            name
        )


@every_gradient
def test_a_node_is_its_own_gradient(engine: str) -> None:
    network = GRADIENTS[engine](EVERY_OP, weights_for(EVERY_OP), SPEC)
    value, pullback = network.vjp(photos(2), "sum", "sum")
    cotangent = np.random.default_rng(0).standard_normal(value.shape).astype(np.float32)
    np.testing.assert_array_equal(pullback(cotangent), cotangent)
    value, pullback = network.vjp(photos(2), "input", "input")  # what the first layer sees, to the pixels
    expected = np.broadcast_to(1 / np.array(SPEC.std), (2, 9, 9, 3))
    np.testing.assert_allclose(pullback(np.ones_like(value)), expected, rtol=1e-6)


@every_gradient
def test_images_do_not_see_their_neighbours_gradients(engine: str) -> None:
    network, images = GRADIENTS[engine](EVERY_OP, weights_for(EVERY_OP), SPEC), photos(4)
    value, pullback = network.vjp(images)
    cotangent = np.random.default_rng(0).standard_normal(value.shape)
    together = pullback(cotangent)
    for row in range(4):
        alone, back = network.vjp(images[row : row + 1])
        assert_equals(engine, alone[0], value[row])
        assert_equals(engine, back(cotangent[row : row + 1])[0], together[row])


@every_gradient
def test_a_pullback_may_be_called_again_and_is_linear(engine: str) -> None:
    network = GRADIENTS[engine](EVERY_OP, weights_for(EVERY_OP), SPEC)
    value, pullback = network.vjp(photos(2), "pooled", "sum")
    _, other = network.vjp(photos(2, seed=1), "pooled", "sum")
    a, b = np.random.default_rng(0).standard_normal((2, *value.shape))
    first, kept = pullback(a), pullback(a).copy()
    other(b)
    assert_equals(engine, pullback(2 * a - 3 * b), 2 * first - 3 * pullback(b))
    np.testing.assert_array_equal(first, kept)  # the taker's own
    assert network.vjp(photos(0))[1](np.zeros((0, 5))).shape == (0, 9, 9, 3)


@every_gradient
def test_a_pullback_keeps_the_weights_that_it_was_made_with(engine: str) -> None:
    network = GRADIENTS[engine](EVERY_OP, weights_for(EVERY_OP), SPEC)
    cotangent = np.random.default_rng(0).standard_normal((2, 5))
    _, before = network.vjp(photos(2))
    first = before(cotangent)
    network.load(weights_for(EVERY_OP, seed=1))
    _, after = network.vjp(photos(2))
    network.load(weights_for(EVERY_OP, seed=2))
    second = GRADIENTS[engine](EVERY_OP, weights_for(EVERY_OP, seed=1), SPEC).vjp(photos(2))[1](cotangent)
    assert np.abs(first - second).max() > 1e-3 * np.abs(first).max()
    assert_equals(engine, before(cotangent), first)
    assert_equals(engine, after(cotangent), second)


@every_gradient
def test_a_gradient_to_a_node_that_does_not_lie_before_is_refused(engine: str) -> None:
    network = GRADIENTS[engine](EVERY_OP, weights_for(EVERY_OP), SPEC)
    with pytest.raises(UsageError, match=r"'logits' does not lie before 'stem'.*Did you mean at='logits', wrt='stem'"):
        network.vjp(photos(2), "stem", "logits")
    with pytest.raises(UsageError, match=r"'uneven' does not lie before 'again_pool'.*Did you mean|Among its layers"):
        network.vjp(photos(2), "again_pool", "uneven")  # beside it
    with pytest.raises(UsageError, match=r"no layer 'stemm'\. Did you mean stem"):
        network.vjp(photos(2), "logits", "stemm")
    assert network.forward(photos(1)).shape == (1, 5)


@every_gradient
def test_a_cotangent_of_another_shape_is_refused(engine: str) -> None:
    _, pullback = GRADIENTS[engine](EVERY_OP, weights_for(EVERY_OP), SPEC).vjp(photos(2))
    with pytest.raises(UsageError, match=r"shape of 'logits', \(2, 5\)\. Received: \(5,\)"):
        pullback(np.ones(5))
