"""Gradients of the fast engine beyond the contract: every window, every architecture, any count, many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headstart as hs
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import find_backbone
from headstart.backbones.ops import Node
from headstart.core.types import ImageSpec
from headstart.engines.fast import FastNetwork, gradients
from headstart.engines.registry import torch_engine
from referee import (
    EVERY_OP,
    HEAD,
    INPUT,
    MAX_POOL,
    SPEC,
    Array,
    Weights,
    conv,
    drawn_convolution,
    drawn_max_pool,
    photos,
    slow_forward,
    weights_for,
)

some = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def fast(blueprint: Blueprint, spec: ImageSpec = SPEC, precision: str = "fp32") -> FastNetwork:
    return FastNetwork(blueprint, weights_for(blueprint), spec, precision)


def by_torch(blueprint: Blueprint, spec: ImageSpec = SPEC, precision: str = "fp64") -> Any:
    return torch_engine().TorchNetwork(blueprint, weights_for(blueprint), spec, precision, "cpu")


def cotangent_of(value: Array) -> Array:
    return np.random.default_rng(5).standard_normal(value.shape)


def apart(found: Array, expected: Array) -> float:
    """The greatest difference, relative to the largest value."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


# --- windows ----------------------------------------------------------------------------------------------------------


@some
@given(data=st.data())
def test_any_convolution_has_the_gradient_that_its_values_change_by(data: st.DataObject) -> None:
    """All of it is linear, so that Σ cotangent · change of the value = Σ gradient · change of the pixels."""
    blueprint = drawn_convolution(data, strides=5, pads=5)
    spec, last, size = ImageSpec(blueprint.size), blueprint.nodes[-1].name, blueprint.size
    network, rng = fast(blueprint, spec), np.random.default_rng(0)
    before, after = rng.random((2, 2, size, size, 3))
    one, other = (slow_forward(blueprint, weights_for(blueprint), spec, each * 255) for each in (before, after))
    for at, wrt in ((last, "input"), (last, "widen"), *[("norm", "it"), ("it", "widen")] * (last == "norm")):
        value, pullback = network.vjp(before, at, wrt)
        weight = cotangent_of(value)
        gradient, change = pullback(weight), after - before if wrt == "input" else other[wrt] - one[wrt]
        most = float(np.linalg.norm(gradient) * np.linalg.norm(change))
        difference = float((gradient * change).sum() - (weight * (other[at] - one[at])).sum())
        assert abs(difference) <= 1e-5 * max(most, 1e-3), (at, wrt)


@some
@given(data=st.data())
def test_any_max_pooling_has_the_gradient_that_its_values_change_by(data: st.DataObject) -> None:
    """A step so short that no pixel overtakes another changes the values by the gradient's share."""
    size, attrs = drawn_max_pool(data, strides=5)
    blueprint, spec = Blueprint("one", (INPUT, Node("it", "max_pool", ("input",), attrs)), size), ImageSpec(size)
    rng, count = np.random.default_rng(0), 2 * size * size * 3
    start = (rng.permutation(count).reshape(2, size, size, 3) + 1) / (count + 2)
    step = rng.uniform(-0.3, 0.3, start.shape) / count
    value, pullback = fast(blueprint, spec).vjp(start, "it")
    weight = cotangent_of(value)
    one, other = (slow_forward(blueprint, {}, spec, each * 255)["it"] for each in (start, start + step))
    gradient, change = pullback(weight), float((weight * (other - one)).sum())
    assert abs(float((gradient * step).sum()) - change) <= 1e-5 * float(np.linalg.norm(gradient) * np.linalg.norm(step))


def test_of_equal_pixels_the_first_of_a_window_has_the_gradient() -> None:
    attrs = MAX_POOL | {"kernel": (3, 3), "padding": (1, 1, 1, 1)}
    blueprint = Blueprint("one", (INPUT, Node("it", "max_pool", ("input",), attrs)), 9)
    images = np.full((1, 9, 9, 3), 128, np.uint8)
    (value, pullback), (_, expected) = fast(blueprint).vjp(images, "it"), by_torch(blueprint).vjp(images, "it")
    weight = cotangent_of(value)
    assert apart(pullback(weight), expected(weight)) < 1e-6


def test_a_window_may_have_more_places_than_a_byte_can_name() -> None:
    attrs = MAX_POOL | {"kernel": (17, 16), "stride": 1}
    blueprint, spec = Blueprint("one", (INPUT, Node("it", "max_pool", ("input",), attrs)), 18), ImageSpec(18)
    images = np.random.default_rng(0).permutation(18 * 18 * 3).reshape(1, 18, 18, 3) / (18 * 18 * 3 + 1)
    images[:, 16, 15] = 1  # place 271 of the first window
    (value, pullback), (_, expected) = (make(blueprint, spec).vjp(images, "it") for make in (fast, by_torch))
    weight = cotangent_of(value)
    assert apart(pullback(weight), expected(weight)) < 1e-6


# --- whole networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sqrt", [False, True])
def test_a_fitted_head_has_gradients_too(sqrt: bool) -> None:
    """From every node of the head to every node before it."""
    trunk = Blueprint("trunk", (INPUT, conv("stem", "input", 8, (3, 3), 2), conv("last", "stem", 4, (1, 1)), *HEAD), 9)
    blueprint = trunk.trunk(("last", "stem")).with_head(3, sqrt=sqrt)
    names = blueprint.layers
    head = names[names.index("features") :]
    ours, theirs = fast(blueprint), by_torch(blueprint)
    for at in head:
        for wrt in ("input", "stem", *head[: head.index(at) + 1]):
            (value, pullback), (_, expected) = ours.vjp(photos(3), at, wrt), theirs.vjp(photos(3), at, wrt)
            weight = cotangent_of(value)
            assert apart(pullback(weight), expected(weight)) < 1e-5, (at, wrt)


def random_trunk(name: str, pixels: int) -> tuple[Blueprint, Weights, ImageSpec]:
    """A catalogued network without its head, of any size of images, with weights whose values stay near 1."""
    backbone, rng = find_backbone(name), np.random.default_rng(0)
    blueprint, weights = backbone.blueprint().trunk(backbone.layers), Weights()
    for key, shape in blueprint.weight_shapes().items():
        if len(shape) > 1:
            value = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        else:
            value = rng.uniform(0.8, 1.2, shape) if key.endswith(("weight", "var")) else rng.normal(0, 0.1, shape)
        weights[key] = value.astype(np.float32)
    return blueprint, weights, ImageSpec(pixels, backbone.spec.mean, backbone.spec.std)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("efficientnet_lite0", 64),
        ("mobilenet_v1", 65),
        ("mobilenet_v2", 65),
        ("mobilenet_v2.torchvision", 64),
        ("mobilenet_v3_small.keras", 64),
        ("mobilenet_v3_large", 48),
        ("resnet18", 64),
        ("resnet50", 47),
        ("resnet50.keras", 64),
        ("vgg16_bn", 32),
        ("squeezenet1_0", 64),
        ("squeezenet1_1.caffe", 65),
        ("cifar_resnet20", 32),
    ],
)
def test_an_architecture_has_the_gradients_of_torch(name: str, pixels: int) -> None:
    """The same direction: where rounding turns a single unit on or off, some values differ."""
    blueprint, weights, spec = random_trunk(name, pixels)
    images = photos(2, pixels)
    ours = FastNetwork(blueprint, weights, spec, "fp32").vjp(images, "features")
    theirs = torch_engine().TorchNetwork(blueprint, weights, spec, "fp32", "cpu").vjp(images, "features")
    weight = cotangent_of(ours[0])
    found, expected = ours[1](weight).astype(np.float64), theirs[1](weight).astype(np.float64)
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.995
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=0.05)


def test_a_pretrained_network_has_gradients_as_it_comes() -> None:
    network = hs.pretrained("efficientnet_lite0", pixels=64).network
    assert network.engine == "fast"
    reference = hs.pretrained("efficientnet_lite0", pixels=64, engine="torch").network
    images = photos(2, 64)
    (value, pullback), (logits, expected) = network.vjp(images), reference.vjp(images)
    assert apart(value, logits) < 1e-4
    found, wanted = pullback(logits), expected(logits)
    assert (found * wanted).sum() / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.995


# --- precision, counts, threads ---------------------------------------------------------------------------------------


def test_gradients_are_never_in_bf16() -> None:
    low, exact, images = fast(EVERY_OP, precision="bf16"), fast(EVERY_OP), photos(3)
    (value, pullback), (expected, reference) = low.vjp(images), exact.vjp(images)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(pullback(value), reference(value))


def test_bytes_and_floats_have_the_same_gradient() -> None:
    """With respect to pixels from 0 to 1, whichever were given."""
    network, images = fast(EVERY_OP), photos(3)
    (value, of_bytes), (_, of_floats) = network.vjp(images), network.vjp(images / 255)
    assert apart(of_bytes(value), of_floats(value)) < 1e-4


def test_a_gradient_is_that_of_the_images_as_they_were() -> None:
    network, images = fast(EVERY_OP), (photos(3) / 255).astype(np.float32)
    value, pullback = network.vjp(images, "sum")
    before = pullback(value)
    images[:] = 0.5
    np.testing.assert_array_equal(pullback(value), before)


@pytest.mark.parametrize("most", [1, 3, 8])
def test_each_count_of_images_has_the_gradients_of_one_by_one(most: int) -> None:
    network, images = fast(EVERY_OP), photos(19)
    network.micro_batch = most
    value, pullback = network.vjp(images, "sum")
    weight = cotangent_of(value)
    expected = np.concatenate([network.vjp(images[[n]], "sum")[1](weight[[n]]) for n in range(19)])
    for count in (1, 2, 3, 5, 8, 19):
        value, pullback = network.vjp(images[:count], "sum")
        assert apart(pullback(weight[:count]), expected[:count]) < 1e-5


@pytest.mark.parametrize(
    ("count", "cores", "rows"),
    [(1, 2, 1), (2, 2, 1), (3, 2, 2), (5, 2, 4), (8, 2, 4), (100, 2, 6), (9, 1, 6), (8, 16, 1), (1000, 16, 6)],
)
def test_each_core_takes_an_equal_share(count: int, cores: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "cores", lambda: cores)
    assert gradients._share(count, 6) == rows


@pytest.mark.slow
def test_threads_may_share_a_network_and_a_pullback() -> None:
    network = fast(EVERY_OP)
    pairs = [("logits", "input"), ("sum", "stem"), ("logits", "sum"), ("stem_act", "input")]
    batches = [photos(n % 5 + 1, seed=n) for n in range(24)]

    def run(n: int) -> Array:
        value, pullback = network.vjp(batches[n], *pairs[n % 4])
        return pullback(value)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, range(24)))
    for n in range(24):
        np.testing.assert_array_equal(together[n], run(n))
    value, pullback = network.vjp(batches[4])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: pullback(n * value), range(1, 17)))
    for n in range(1, 17):
        np.testing.assert_array_equal(found[n - 1], pullback(n * value))


def test_a_network_holds_a_few_compiled_gradients_and_a_pullback_its_own() -> None:
    network, images = fast(EVERY_OP), photos(2)
    value, pullback = network.vjp(images)
    expected = pullback(value)
    after = EVERY_OP.layers[-gradients.KEPT - 3 : -1]
    for wrt in after:
        network.vjp(images, "logits", wrt)
    pairs = network._gradients._pairs
    assert [wrt for _, wrt, *_ in pairs] == [*after[-gradients.KEPT :]]
    network.vjp(images, "logits", after[-3])
    assert list(pairs)[-1][1] == after[-3]  # used last, goes last
    network.release()
    assert not pairs
    np.testing.assert_array_equal(pullback(value), expected)
    np.testing.assert_array_equal(network.vjp(images)[1](value), expected)
