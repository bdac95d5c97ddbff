"""The fast engine, with a slow, obvious NumPy computation as the referee."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import load_pretrained
from headstart.backbones.ops import ACTIVATIONS, OPS, SQRT_EPSILON, Node
from headstart.data.load import decode
from headstart.engines import fast
from headstart.engines.base import Network, get_engine
from headstart.engines.fast import FastNetwork, choose_precision
from headstart.errors import UsageError
from headstart.types import ImageSpec
from referee import (
    EVERY_OP,
    HEAD,
    INPUT,
    MAX_POOL,
    SAME,
    SPEC,
    Weights,
    assert_close,
    conv,
    photos,
    slow_forward,
    weights_for,
)


def has_bf16() -> bool:
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor does not compute in bf16")


def network_for(blueprint: Blueprint, spec: ImageSpec = SPEC, precision: str = "fp32") -> FastNetwork:
    return FastNetwork(blueprint, weights_for(blueprint), spec, precision)


# --- fp32 against the referee -----------------------------------------------------------------------------------------


def test_the_small_network_has_every_op() -> None:
    assert {node.op for node in EVERY_OP.nodes} == set(OPS)
    assert {node["kind"] for node in EVERY_OP.nodes if node.op == "act"} == set(ACTIVATIONS)


@pytest.mark.parametrize("at", EVERY_OP.layers)
def test_every_node_has_the_referees_value(at: str) -> None:
    """Also the output of a convolution into whose weights its batch norm could have been folded: the unfolded one."""
    network, images = network_for(EVERY_OP), photos(3)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)[at]
    assert expected.shape[1:] == EVERY_OP.shapes()[at]
    assert_close(network.forward(images, at), expected)


def test_a_batch_norm_is_folded_only_where_nobody_can_see_it() -> None:
    assert fast._foldable(EVERY_OP, keep=("logits",)) == {"stem", "depthwise", "uneven"}
    assert fast._foldable(EVERY_OP, keep=("logits", "stem")) == {"depthwise", "uneven"}
    model = fast.build(EVERY_OP, weights_for(EVERY_OP), SPEC, ("stem_act",))
    kinds = [operation.get_type_name() for operation in model.get_ops()]
    assert kinds.count("Convolution") == 1
    assert kinds.count("Add") == kinds.count("Multiply") + 1  # pixels: one of each; the folded bias


def test_several_nodes_come_from_one_pass_in_the_order_asked_for() -> None:
    network, images = network_for(EVERY_OP), photos(5)
    at = ("logits", "stem", "sum", "stem_norm", "logits", "input")
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    for name, value in zip(at, network.forward_many(images, at), strict=True):
        assert_close(value, expected[name])


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_convolution_has_the_referees_value(data: st.DataObject) -> None:
    size = data.draw(st.integers(4, 11), "size")
    groups = data.draw(st.sampled_from([1, 2, 3, 6]), "groups")
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), "kernel")
    stride = data.draw(st.integers(1, 3), "stride")
    padding = data.draw(st.just(SAME) | st.tuples(*[st.integers(0, 3)] * 4), "padding")
    bias, norm = data.draw(st.booleans(), "bias"), data.draw(st.booleans(), "norm")
    nodes = [INPUT, conv("widen", "input", 6, (1, 1)), conv("it", "widen", 6, kernel, stride, padding, bias=bias)]
    nodes[-1] = Node("it", "conv", ("widen",), dict(nodes[-1].attrs) | {"groups": groups})
    nodes += [Node("norm", "norm", ("it",), {"epsilon": 1e-3})] * norm
    blueprint = Blueprint("one", tuple(nodes), size)
    spec, images = ImageSpec(size), photos(2, size)
    expected = slow_forward(blueprint, weights_for(blueprint), spec, images)[nodes[-1].name]
    assert_close(network_for(blueprint, spec).forward(images, nodes[-1].name), expected)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_max_pooling_has_the_referees_value(data: st.DataObject) -> None:
    size = data.draw(st.integers(4, 11), "size")
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), "kernel")
    stride = data.draw(st.integers(1, 4), "stride")
    less = st.integers(0, min(kernel) - 1)
    padding = data.draw(st.just(SAME) | st.tuples(less, less, less, less), "padding")
    attrs = MAX_POOL | {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "ceil": data.draw(st.booleans(), "ceil"),
    }
    blueprint = Blueprint("one", (INPUT, Node("it", "max_pool", ("input",), attrs)), size)
    spec, images = ImageSpec(size), photos(2, size)
    expected = slow_forward(blueprint, {}, spec, images)["it"]
    assert expected.shape[1:] == blueprint.shapes()["it"]
    assert_close(network_for(blueprint, spec).forward(images, "it"), expected)


@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_a_batch_has_any_size(count: int) -> None:
    network, images = network_for(EVERY_OP), photos(count)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    assert_close(network.forward(images), expected["logits"])
    assert_close(network.forward(images, "sum"), expected["sum"])


def test_images_do_not_see_their_neighbours() -> None:
    network, images = network_for(EVERY_OP), photos(17)
    together = network.forward(images)
    network.forward(photos(17, seed=1))  # what an earlier batch leaves behind must not matter
    for row in (0, 7, 16):
        np.testing.assert_array_equal(network.forward(images[row : row + 1])[0], together[row])


def test_images_need_not_lie_in_one_piece() -> None:
    network, images = network_for(EVERY_OP), photos(6)
    np.testing.assert_array_equal(network.forward(images[::-2, :, ::-1]), network.forward(images[::-2, :, ::-1].copy()))


def test_normalisation_happens_inside_and_once() -> None:
    images = np.full((1, 9, 9, 3), (0, 128, 255), np.uint8)
    value = network_for(EVERY_OP).forward(images, "input")
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert value.shape == (1, 3, 9, 9)
    np.testing.assert_allclose(value[0, :, 4, 4], expected, rtol=1e-6)


@pytest.mark.parametrize("size", [32, 64, 97, 160])
def test_images_have_the_size_of_the_spec_not_the_native_one(size: int) -> None:
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
    network = network_for(blueprint, spec)
    expected = slow_forward(blueprint, weights_for(blueprint), spec, images)
    assert network.forward(images, "last").shape[2:] == (-(-size // 4),) * 2
    assert_close(network.forward(images, "last"), expected["last"])
    assert_close(network.forward(images), expected["logits"])


def test_a_size_that_the_network_shrinks_to_nothing_is_refused() -> None:
    nodes = (INPUT, conv("last", "input", 4, (9, 9), padding=(0, 0, 0, 0)), *HEAD)
    with pytest.raises(UsageError, match=r"'last'.*\(9, 9\) kernel fits"):
        FastNetwork(Blueprint("small", nodes, 9), {}, ImageSpec(8), "fp32").forward(photos(1, 8))


def test_threads_may_share_a_network() -> None:
    network, images = network_for(EVERY_OP), [photos(n % 5 + 1, seed=n) for n in range(24)]
    expected = [slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, batch) for batch in images[:6]]
    names = ["logits", "stem", "sum"]  # each compiled by whoever asks first
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda n: network.forward(images[n], names[n % 3]), range(24)))
    for n in range(24):
        np.testing.assert_array_equal(values[n], network.forward(images[n], names[n % 3]))
    for n, each in enumerate(expected):
        assert_close(values[n], each[names[n % 3]])


def test_a_runner_takes_up_to_a_micro_batch() -> None:
    network = network_for(EVERY_OP)
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


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(photos(1)[0], id="one image"),
        pytest.param(photos(1).transpose(0, 3, 1, 2), id="NCHW"),
        pytest.param(photos(1, 10), id="too large"),
        pytest.param(photos(1)[:, :8], id="not square"),
        pytest.param(photos(1)[..., :1], id="grey"),
        pytest.param(photos(1)[..., :1].repeat(4, axis=3), id="four channels"),
        pytest.param(photos(1).astype(np.float32) / 255, id="floats"),
        pytest.param(photos(1).astype(np.int64), id="int64"),
    ],
)
def test_other_images_are_refused(images: Any) -> None:
    with pytest.raises(UsageError) as caught:
        network_for(EVERY_OP).forward(images)
    assert "uint8 images of shape (N, 9, 9, 3)" in str(caught.value)
    assert f"Received: {images.dtype} {images.shape}" in str(caught.value)


@pytest.mark.parametrize("count", [0, 2])
def test_an_unknown_layer_is_refused_with_the_nearest(count: int) -> None:
    network = network_for(EVERY_OP)
    with pytest.raises(UsageError, match=r"'every_op' has no layer 'stem_nor'. Did you mean stem_norm"):
        network.forward(photos(count), "stem_nor")
    with pytest.raises(UsageError, match="no layer 'depth'"):
        network.runner(("logits", "depth"))


def test_an_unknown_engine_or_precision_is_refused_with_the_nearest() -> None:
    def build(engine: str, precision: str) -> Network:
        return get_engine(engine, EVERY_OP, weights_for(EVERY_OP), SPEC, precision)

    with pytest.raises(UsageError, match=r"no engine 'fats'. Did you mean fast\?"):
        build("fats", "fp32")
    with pytest.raises(UsageError, match=r"no precision 'fp23'. Did you mean fp32\?"):
        build("fast", "fp23")
    assert build("fast", "fp32").precision == "fp32"


def test_a_network_that_does_not_take_photos_is_refused() -> None:
    grey = Blueprint("grey", (Node("input", "input", (), {"channels": 1}), conv("last", "input", 4, (3, 3)), *HEAD), 9)
    with pytest.raises(UsageError, match=r"3 channels\. 'grey' takes 1"):
        network_for(grey)


@pytest.mark.parametrize("op", ["norm", "add"])
def test_a_head_that_could_not_be_kept_in_fp32_is_refused(op: str) -> None:
    trunk = Blueprint("trunk", (INPUT, conv("last", "input", 4, (3, 3)), *HEAD), 9).trunk(("last",))
    odd = {"norm": Node("odd", "norm", ("features",), {"epsilon": 1e-3}), "add": Node("odd", "add", ("features",) * 2)}
    nodes = (*trunk.nodes, odd[op], Node("logits", "dense", ("odd",), {"units": 2}))
    with pytest.raises(UsageError, match=rf"node 'odd' \({op}\)"):
        network_for(Blueprint("odd_head", nodes, 9))


# --- bf16 -------------------------------------------------------------------------------------------------------------


def small_trunk(sqrt: bool) -> Blueprint:
    nodes = (
        INPUT,
        conv("stem", "input", 8, (3, 3), stride=2),
        Node("stem_norm", "norm", ("stem",), {"epsilon": 1e-3}),
        Node("last", "act", ("stem_norm",), {"kind": "relu6"}),
        *HEAD,
    )
    return Blueprint("fitted", nodes, 9).trunk(("last", "stem_norm")).with_head(3, sqrt=sqrt)


@pytest.mark.parametrize("sqrt", [False, True])
def test_a_fitted_head_has_the_referees_value(sqrt: bool) -> None:
    blueprint, images = small_trunk(sqrt), photos(5)
    expected = slow_forward(blueprint, weights_for(blueprint), SPEC, images)
    for at in blueprint.layers[-4:]:
        assert_close(network_for(blueprint).forward(images, at), expected[at])


@needs_bf16
@pytest.mark.parametrize("sqrt", [False, True])
def test_the_fitted_head_stays_in_fp32_behind_a_bf16_trunk(sqrt: bool) -> None:
    blueprint, weights, images = small_trunk(sqrt), weights_for(small_trunk(sqrt)), photos(8)
    weights["logits.weight"] *= 1e3  # as large weights that nearly cancel each other
    network = FastNetwork(blueprint, weights, SPEC, "bf16")
    reference = network.at_precision("fp32").forward(images, "features")
    features = network.forward(images, "features").astype(np.float64)
    assert np.abs(features - reference).max() > 1e-5  # bf16 is at work, though fp32 was compiled first
    root = np.sqrt(np.maximum(features, 0) + SQRT_EPSILON) if sqrt else features
    exact = root @ weights["logits.weight"].T.astype(np.float64) + weights["logits.bias"]
    for value in (network.forward(images), network.forward_many(images, ("features", "logits"))[1]):
        assert_close(value, exact)


@needs_bf16
def test_auto_is_bf16_where_the_processor_has_it() -> None:
    assert choose_precision("auto") == network_for(EVERY_OP, precision="auto").precision == "bf16"
    assert choose_precision("fp32") == "fp32"


def test_auto_is_fp32_where_the_processor_lacks_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    class OlderProcessor:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8"]

    monkeypatch.setattr(fast, "_core", OlderProcessor)
    assert network_for(EVERY_OP, precision="auto").precision == "fp32"


@pytest.fixture(scope="module")
def real(shared: Path) -> tuple[FastNetwork, NDArray[np.uint8]]:
    """The default trunk, and photos of everything."""
    found = load_pretrained("efficientnet_lite0", head=False)
    files = sorted((shared / "data" / "imagenet_sample").glob("*.jpg"))[::80]
    images = np.stack([decode(file.read_bytes(), found.spec) for file in files])
    return FastNetwork(found.blueprint, found.weights, found.spec, "bf16"), images


@needs_bf16
def test_bf16_agrees_with_fp32_on_real_photos(real: tuple[FastNetwork, NDArray[np.uint8]]) -> None:
    network, images = real
    low, exact = network.forward(images, "features"), network.at_precision("fp32").forward(images, "features")
    cosines = (low * exact).sum(1) / np.linalg.norm(low, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosines.min() > 0.99
    assert np.abs(low - exact).max() > 1e-4 * np.abs(exact).max()  # it was bf16
    error = network.check_precision(images)
    assert 0 < error < fast.TOLERANCE / 2
    assert network.precision == "bf16"


@needs_bf16
def test_what_was_released_is_compiled_again(real: tuple[FastNetwork, NDArray[np.uint8]]) -> None:
    network, images = real
    network = network.at_precision("bf16")
    before, exact = (
        network.forward(images[:4], "features"),
        network.at_precision("fp32").forward(images[:4], "features"),
    )
    network.release()
    assert {precision for _, precision in network._compiled} == {"fp32"}
    np.testing.assert_array_equal(network.forward(images[:4], "features"), before)
    np.testing.assert_array_equal(network.at_precision("fp32").forward(images[:4], "features"), exact)


@needs_bf16
def test_bf16_that_is_too_coarse_gives_way_to_fp32(
    real: tuple[FastNetwork, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = real
    network = network.at_precision("bf16")  # one of its own, for others use the fixture
    monkeypatch.setattr(fast, "TOLERANCE", 1e-6)
    assert network.check_precision(images[:4]) > 1e-6
    assert network.precision == "fp32"
    assert network.check_precision(images[:4]) == 0.0
    exact = network.at_precision("fp32").forward(images[:4], "features")
    np.testing.assert_array_equal(network.forward(images[:4], "features"), exact)


def cancelling() -> tuple[Blueprint, Weights]:
    """A bright offset is added and taken away again: of what is left bf16's eight bits keep nothing."""
    nodes = (
        INPUT,
        conv("offset", "input", 8, (1, 1), bias=True),
        Node("offset_act", "act", ("offset",), {"kind": "relu"}),
        conv("last", "offset_act", 8, (1, 1), bias=True),
        *HEAD,
    )
    blueprint = Blueprint("cancelling", nodes, 9).trunk(("last",))
    weights = weights_for(blueprint)
    weights["offset.bias"] = np.full(8, 3e5, np.float32)
    weights["last.weight"] = np.eye(8, dtype=np.float32)[:, :, None, None]
    weights["last.bias"] = np.full(8, -3e5, np.float32)
    return blueprint, weights


@needs_bf16
@pytest.mark.parametrize("count", [1, 8])
def test_a_network_that_bf16_breaks_is_found_out(count: int) -> None:
    blueprint, weights = cancelling()
    network = FastNetwork(blueprint, weights, SPEC, "bf16")
    assert network.check_precision(photos(count)) > fast.TOLERANCE
    assert network.precision == "fp32"


@needs_bf16
def test_bf16_that_gives_no_numbers_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FastNetwork(small_trunk(False), weights_for(small_trunk(False)), SPEC, "bf16")
    honest = FastNetwork.forward

    def overflowing(self: FastNetwork, images: NDArray[np.uint8], at: str = "logits") -> NDArray[np.float32]:
        value = honest(self, images, at)
        return np.full_like(value, np.nan) if self.precision == "bf16" else value

    monkeypatch.setattr(FastNetwork, "forward", overflowing)
    network.check_precision(photos(4))
    assert network.precision == "fp32"


def test_without_images_precision_stays_as_it_is() -> None:
    network = network_for(small_trunk(False), precision="bf16")
    assert network.check_precision(photos(0)) == 0.0
    assert network.precision == "bf16"


TWO_THREADS_AT_ONCE = """
import sys, threading
import numpy as np
from headstart.backbones.builder import Builder
from headstart.engines.fast import FastNetwork
from headstart.types import ImageSpec

b = Builder()
b.classifier(b.act("input", "act", "relu"), 2, 0.0)
weights = {"logits.weight": np.ones((2, 3), np.float32), "logits.bias": np.zeros(2, np.float32)}
network = FastNetwork(b.build("tiny", 8), weights, ImageSpec(8), "fp32")
sys.setswitchinterval(1e-6)
together = threading.Barrier(4)

def run():
    together.wait()
    network.forward(np.zeros((1, 8, 8, 3), np.uint8))

threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(int("openvino_telemetry" in sys.modules))
"""


def test_first_use_from_several_threads_neither_hangs_nor_wakes_the_telemetry() -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", TWO_THREADS_AT_ONCE], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.strip() == "0"
