"""int8 in the fast engine: what values reach by the batch norms, the same sums everywhere, and when it is taken."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.builder import Builder
from headstart.backbones.catalogue import find_backbone
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines import protocol
from headstart.engines.fast import FastNetwork, graph, int8
from headstart.engines.protocol import coarseness
from headstart.engines.registry import get_engine
from headstart.learn.features import describe
from real_networks import real_network
from referee import Weights, photos

SPEC = ImageSpec(9)
IN_16_BITS = 2**15 - 1


def small_network(groups: int = 1, filters: int = 8) -> Blueprint:
    """Two convolutions, of which the second one takes int8."""
    b = Builder()
    x = b.act(b.norm(b.conv("input", "stem", 8, 1), "stem_norm", 1e-3), "stem_act", "relu6")
    x = b.norm(b.conv(x, "next", filters, 3, groups=groups), "next_norm", 1e-3)
    b.classifier(x, 3, 0.0)
    return b.build("small", 9).trunk((x,))


def fitting_weights(blueprint: Blueprint, seed: int = 0) -> Weights:
    """Random weights whose batch norms have the statistics of what they take."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(0, 0.3, shape).astype(np.float32) if len(shape) == 4 else np.ones(shape, np.float32)
        for name, shape in blueprint.weight_shapes().items()
    }
    images = photos(32)
    for norm in (node for node in blueprint.nodes if node.op == "norm"):
        weights[f"{norm.name}.bias"] = rng.normal(1, 0.5, weights[f"{norm.name}.bias"].shape).astype(np.float32)
        seen = FastNetwork(blueprint, weights, SPEC, "fp32").forward(images, norm.inputs[0])
        weights[f"{norm.name}.mean"], weights[f"{norm.name}.var"] = seen.mean((0, 2, 3)), seen.var((0, 2, 3))
    return weights


def expected(blueprint: Blueprint, weights: Weights, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The features, with the second convolution in whole numbers."""
    x = FastNetwork(blueprint, weights, SPEC, "fp32").forward(images, "stem_act").astype(np.float64)
    kernel, bias = graph.fold(blueprint["next"], blueprint["next_norm"], weights)
    depthwise = kernel.shape[1] == 1
    reach = weights["stem_norm.bias"] + 4 * np.abs(weights["stem_norm.weight"])
    step = min(float(reach.max()), 6.0) / (255 if depthwise else 128)
    levels = np.rint(x / step).clip(0, 255)
    factors = np.abs(kernel).max((1, 2, 3)) / 127
    whole = np.rint(kernel / factors[:, None, None, None])
    padded = np.pad(levels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))  # (N, C, 9, 9, 3, 3)
    if depthwise:
        sums = np.einsum("nchwij,cij->nchw", windows, whole[:, 0])
    else:
        sums = np.einsum("nchwij,fcij->nfhw", windows, whole)
    found = sums * (step * factors)[None, :, None, None] + bias[None, :, None, None]
    return np.asarray(found.mean((2, 3)), np.float64)


@pytest.mark.parametrize("groups", [1, 8])
def test_a_convolution_in_int8_is_one_of_whole_numbers(groups: int) -> None:
    blueprint, images = small_network(groups), photos(16, seed=1)
    weights = fitting_weights(blueprint)
    low, exact = (FastNetwork(blueprint, weights, SPEC, name).forward(images, FEATURES) for name in ("int8", "fp32"))
    wanted = expected(blueprint, weights, images)
    assert np.linalg.norm(low - exact) > 10 * np.linalg.norm(low - wanted)  # a value on the edge may take either level
    assert coarseness(low, exact) < 0.1


def test_no_sum_is_cut_off_in_16_bits() -> None:
    """The largest values times the largest weights, all of one sign."""
    assert 2 * (int8.INNER - 1) * int8.LARGEST <= IN_16_BITS
    blueprint = small_network()
    weights = fitting_weights(blueprint)
    weights["stem_norm.bias"][:] = 50.0  # beyond the 6 of the activation
    weights["next.weight"] = np.full_like(weights["next.weight"], 0.3)
    low, exact = (FastNetwork(blueprint, weights, SPEC, name).forward(photos(2), FEATURES) for name in ("int8", "fp32"))
    np.testing.assert_allclose(low, exact, rtol=1e-3)


def test_answers_do_not_depend_on_the_batch() -> None:
    blueprint = small_network()
    network, images = FastNetwork(blueprint, fitting_weights(blueprint), SPEC, "int8"), photos(20)
    together = network.forward(images, FEATURES)
    for row in (0, 19):
        np.testing.assert_array_equal(network.forward(images[row : row + 1], FEATURES)[0], together[row])
    np.testing.assert_allclose(network.for_images(2).forward(images[:2], FEATURES), together[:2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("efficientnet_lite0", True),
        ("mobilenet_v2", True),
        ("mobilenet_v3_large", True),
        ("resnet50", True),
        ("cifar_resnet20", True),
        ("vgg16", False),
        ("squeezenet1_1", False),
    ],
)
def test_networks_with_batch_norms_suit_int8(name: str, wanted: bool) -> None:
    assert int8.suits(find_backbone(name).blueprint()) == wanted


def on_processor(monkeypatch: pytest.MonkeyPatch, kind: str, capabilities: list[str]) -> None:
    class Processor:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return capabilities

    monkeypatch.setattr(graph, "core", Processor)
    monkeypatch.setattr(platform, "machine", lambda: kind)


@pytest.mark.parametrize(
    ("kind", "capabilities", "wanted", "without_norms"),
    [
        ("x86_64", ["FP32", "INT8", "BF16"], "bf16", "bf16"),
        ("AMD64", ["FP32", "INT8"], "int8", "fp32"),
        ("arm64", ["FP32", "INT8"], "fp32", "fp32"),
    ],
)
def test_auto_is_what_is_fastest_on_the_processor(
    kind: str, capabilities: list[str], wanted: str, without_norms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_processor(monkeypatch, kind, capabilities)
    assert graph.precision_of(small_network(), "auto") == wanted
    assert graph.precision_of(find_backbone("vgg16").blueprint(), "auto") == without_norms
    assert graph.precision_of(small_network(), "fp32") == "fp32"


def test_int8_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    vgg = find_backbone("vgg16").blueprint()
    with pytest.raises(UsageError, match=r"'vgg16' cannot run in int8.*--precision fp32|precision='fp32'"):
        graph.precision_of(vgg, "int8")
    with pytest.raises(UsageError, match=r"Only the fast engine computes in int8\. Received: "):
        hs.fit(tmp_path, engine="torch", precision="int8")
    blueprint = small_network()
    with pytest.raises(UsageError, match=r"Only the fast engine computes in int8\. 'small"):
        get_engine("torch", blueprint, fitting_weights(blueprint), SPEC, "int8", "cpu")


def test_a_network_whose_batch_norms_say_nothing_is_found_out() -> None:
    """Its values reach many times as far as they say."""
    blueprint = small_network()
    weights = fitting_weights(blueprint)
    weights["stem_norm.weight"], weights["stem_norm.bias"] = np.full((2, 8), 0.01, np.float32)
    weights["stem_norm.var"][:], weights["stem_norm.mean"][:] = 0, -3
    network = FastNetwork(blueprint, weights, SPEC, "int8")
    assert network.check_precision(photos(8)) > protocol.TOLERANCE
    assert network.precision == "fp32"


def test_sums_that_overflow_are_not_hidden() -> None:
    blueprint = small_network()
    weights = fitting_weights(blueprint)
    weights["next.weight"] = np.full_like(weights["next.weight"], 3e38)
    network = FastNetwork(blueprint, weights, SPEC, "int8")
    network.check_precision(photos(4))
    assert network.precision == "fp32"
    assert not np.isfinite(network.forward(photos(4), FEATURES)).all()


def test_features_in_int8_are_kept_apart() -> None:
    blueprint = small_network()
    weights = fitting_weights(blueprint)
    low, exact = (describe(FastNetwork(blueprint, weights, SPEC, each), "0", FEATURES) for each in ("int8", "fp32"))
    assert low == exact | {"precision": "int8", "int8": int8.SCHEME}


@pytest.fixture(scope="module")
def real(shared: Path) -> tuple[FastNetwork, NDArray[np.uint8]]:
    return real_network(shared, "int8")


def test_int8_agrees_with_fp32_on_real_photos(real: tuple[FastNetwork, NDArray[np.uint8]]) -> None:
    network, images = real
    error = network.check_precision(images)
    assert 0.01 < error < 0.75 * protocol.TOLERANCE
    assert network.precision == "int8"


def test_real_values_stay_within_what_batch_norms_say(real: tuple[FastNetwork, NDArray[np.uint8]]) -> None:
    network, images = real
    reaches = int8._reaches(network.blueprint, network.weights())
    names = [name for name in reaches if network.blueprint[name].op in ("norm", "add")]
    values = network.at_precision("fp32").forward_many(images[:4], names)
    for name, value in zip(names, values, strict=True):
        low, high = (bound[None, :, None, None] for bound in (reaches[name].low, reaches[name].high))
        assert ((value < low) | (value > high)).mean() < 0.01
        assert value.std() > 0.02 * (high - low).mean()  # no wider than it has to be
