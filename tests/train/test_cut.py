"""A network cut in two is the network: whatever moves, what lies below the cut does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, Blueprint
from headstart.backbones.families.inverted import mobilenet_v2
from headstart.backbones.families.resnet import cifar_resnet
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.families.squeezenet import squeezenet
from headstart.train.cut import above, cut_at
from headstart.train.recipe import Recipe
from headstart.train.schedule import rates_by_layer
from referee import slow_node, weights_for


def headed(blueprint: Blueprint, layers: tuple[str, ...]) -> Blueprint:
    return blueprint.trunk(layers).with_head(3, sqrt=True)


NETWORKS: dict[str, Callable[[], tuple[Blueprint, int]]] = {
    "mobilenet": lambda: (headed(mobilenet_v2(width=0.35), ("bn2.act", "blocks.5.1.bn2.act")), 64),
    "resnet": lambda: (cifar_resnet("cifar_resnet20", 20), 32),
    "squeezenet": lambda: (
        headed(squeezenet("squeezenet1_1", "1.1"), ("features.12.concat", "features.7.concat")),
        64,
    ),
    "small_cnn": lambda: (small_cnn(16, 3), 16),
    "mlp": lambda: (mlp(3, (8, 8), 3, size=4), 4),
}


def forward(blueprint: Blueprint, weights: Mapping[str, Any], x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Every node's value, of what the first one takes."""
    values = {INPUT: x}
    for node in blueprint.nodes[1:]:
        own = {part: weights.get(f"{node.name}.{part}") for part in ("weight", "bias", "mean", "var")}
        values[node.name] = slow_node(node, [values[name] for name in node.inputs], **own)
    return values


@pytest.mark.parametrize("unfreeze", ["head", "top", "all"])
@pytest.mark.parametrize("name", NETWORKS)
def test_both_parts_together_are_the_network(name: str, unfreeze: str) -> None:
    blueprint, size = NETWORKS[name]()
    rates = rates_by_layer(blueprint, replace(Recipe(), unfreeze=unfreeze))
    cut = cut_at(blueprint, rates)
    assert (cut == INPUT) == (unfreeze == "all")
    if cut == INPUT:
        return
    assert not set(blueprint.upto(cut).layers) & set(rates)
    upper = above(blueprint, cut, size)
    assert rates.keys() <= set(upper.layers)
    weights = weights_for(blueprint)
    x = np.random.default_rng(0).normal(size=(2, 3, size, size))
    whole = forward(blueprint, weights, x)
    middle = whole[cut]
    given = middle.reshape(*middle.shape, *(1,) * (4 - middle.ndim))
    kept = {key: weights[key] for key in upper.weight_shapes()}
    parts = forward(upper, kept, given)
    last = blueprint.layers[-1]
    np.testing.assert_allclose(parts[last], whole[last], rtol=1e-5, atol=1e-6)


def test_the_head_alone_stands_on_the_features() -> None:
    blueprint, size = NETWORKS["mobilenet"]()
    assert cut_at(blueprint, {"logits"}) == FEATURES
    assert above(blueprint, FEATURES, size).layers == (INPUT, FEATURES, "head_sqrt", "logits")


def test_a_layer_that_the_features_take_from_below_lowers_the_cut() -> None:
    """Both features come from above it, or what is cut off would be missing."""
    blueprint = headed(mobilenet_v2(width=0.35), ("bn2.act", "blocks.3.1.bn2.act"))
    moving = rates_by_layer(blueprint, Recipe(unfreeze="top"))
    assert min(map(blueprint.layers.index, moving)) > blueprint.layers.index("blocks.3.1.bn2.act")
    upper = above(blueprint, cut_at(blueprint, moving), 64)
    assert "blocks.3.1.bn3" in upper.layers
