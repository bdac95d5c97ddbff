"""Random weights have the spread that the papers ask for, and depend on nothing but seed and name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.builder import Builder
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.ops import Node
from headstart.core.errors import UsageError
from headstart.train.initialisation import STD, fans, initial_weights
from headstart.train.recipe import INITIALISATIONS
from referee import SPEC, slow_forward


def wide(groups: int = 1) -> Blueprint:
    b = Builder(16)
    x = b.conv("input", "conv", 64, 5, groups=groups, bias=True)
    b.dense(b.average(b.norm(x, "bn", 1e-5)), "logits", 600)
    return b.build("wide", 8)


@pytest.mark.parametrize(
    ("groups", "fan"),
    [(1, (16 * 25, 64 * 25)), (4, (4 * 25, 16 * 25)), (16, (25, 4 * 25))],
)
def test_fans_count_what_a_unit_takes_and_where_an_input_goes(groups: int, fan: tuple[int, int]) -> None:
    blueprint = wide(groups)
    shapes = blueprint.weight_shapes()
    assert fans(blueprint["conv"], shapes["conv.weight"]) == fan
    assert fans(blueprint["logits"], shapes["logits.weight"]) == (64, 600)


@pytest.mark.parametrize("method", INITIALISATIONS)
@pytest.mark.parametrize("groups", [1, 4])
def test_kernels_have_the_spread_of_the_method(method: str, groups: int) -> None:
    weights = initial_weights(wide(groups), method, seed=3)
    for name, fan_in, fan_out in (("conv", 400 // groups, 1600 // groups), ("logits", 64, 600)):
        kernel = weights[f"{name}.weight"].astype(np.float64)
        std = {"h": math.sqrt(2 / fan_in), "x": math.sqrt(2 / (fan_in + fan_out))}.get(method[0], STD)
        assert kernel.std() == pytest.approx(std, rel=0.03)
        assert abs(kernel.mean()) < 5 * std / math.sqrt(kernel.size)
        beyond = (abs(kernel) > math.sqrt(3) * std * (1 + 1e-6)).mean()
        assert beyond == 0 if "uniform" in method else 0.06 < beyond < 0.11  # of a normal 0.083


def test_the_spread_of_the_plain_methods_can_be_chosen() -> None:
    for method in ("normal", "uniform"):
        assert initial_weights(wide(), method, std=0.01)["conv.weight"].std() == pytest.approx(0.01, rel=0.03)


def test_biases_are_zero_and_batch_norms_change_nothing() -> None:
    blueprint = wide()
    weights = initial_weights(blueprint)
    assert {name: array.shape for name, array in weights.items()} == blueprint.weight_shapes()
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    for name, value in {
        "conv.bias": 0,
        "logits.bias": 0,
        "bn.weight": 1,
        "bn.bias": 0,
        "bn.mean": 0,
        "bn.var": 1,
    }.items():
        assert (weights[name] == value).all(), name


def test_a_node_draws_from_the_seed_and_its_own_name_alone() -> None:
    small, larger = small_cnn(16, 3, widths=(8, 16)), small_cnn(16, 3, widths=(8, 16, 16))
    first, second = initial_weights(small), initial_weights(larger)
    same = [name for name in first if first[name].shape == second[name].shape]
    assert {"conv1.weight", "conv2.weight", "logits.weight"} <= set(same)
    assert all(np.array_equal(first[name], second[name]) for name in same)
    assert not np.array_equal(first["conv1.weight"], initial_weights(small, seed=1)["conv1.weight"])
    deep = initial_weights(mlp(8, (8, 8), 3))
    assert not np.array_equal(deep["dense1.weight"], deep["dense2.weight"])


def depth(method: str, act: str, layers: int = 24, **options: Any) -> NDArray[np.float64]:
    """The scale of what every layer of a deep perceptron gives."""
    blueprint = mlp(3, (128,) * layers, 10, size=6, act=act)
    weights = initial_weights(blueprint, method, **options)
    images = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 3)).astype(np.uint8)
    values = slow_forward(blueprint, weights, SPEC, images)
    return np.array([np.sqrt(np.mean(values[f"dense{place}"] ** 2)) for place in range(1, layers + 1)])


@pytest.mark.parametrize("method", ["he", "he_uniform"])
def test_he_keeps_the_scale_through_relus_and_the_others_lose_it(method: str) -> None:
    scales = depth(method, "relu")
    assert 0.4 < scales[-1] / scales[0] < 2.5
    assert depth("xavier", "relu")[-1] < 1e-2 * scales[-1]
    assert depth("normal", "relu", std=0.01)[-1] < 1e-10 * scales[-1]


@pytest.mark.parametrize(
    ("method", "source", "message"),
    [
        ("xavier_norm", "", "Did you mean xavier_uniform or xavier"),
        ("he", "timm/x", "'timm/x' is a foreign module"),
    ],
)
def test_what_cannot_be_started_is_refused(method: str, source: str, message: str) -> None:
    attrs = {"source": source, "features": "", "config": "", "head": False, "units": 4, "weights": {"w.weight": (4, 3)}}
    nodes = (Node("input", "input", (), {"channels": 3}), Node("features", "module", ("input",), attrs))
    with pytest.raises(UsageError, match=message):
        initial_weights(Blueprint("module", nodes, 8) if source else wide(), method)
