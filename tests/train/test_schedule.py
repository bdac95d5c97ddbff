"""Rates of steps against torch's schedulers, shares of nodes against what the families are made of, and averages."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from averages import Averaging
from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.backbones.families.inverted import EFFICIENTNET_LITE, efficientnet_lite, mobilenet_v3
from headstart.backbones.families.resnet import cifar_resnet, resnet
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.families.squeezenet import squeezenet
from headstart.backbones.families.vgg import vgg
from headstart.backbones.ops import Node
from headstart.core.errors import UsageError
from headstart.engines.registry import torch_engine
from headstart.train.recipe import AVERAGES, SCHEDULES, Recipe
from headstart.train.schedule import rate, rates_by_layer, snapshot_after, stages, warm_up_steps
from headstart.train.weight_average import SLOWEST, ema_decay

PLAIN = Recipe(learning_rate=0.5, averaging="none")


def curve(recipe: Recipe, steps: int, per_epoch: int = 1) -> list[float]:
    return [rate(recipe, step, steps, steps_per_epoch=per_epoch) for step in range(steps)]


def torch_curve(steps: int, name: str, **options: Any) -> list[float]:
    torch_engine()
    import torch

    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimiser, **options)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimiser steps here
        for _ in range(steps):
            rates.append(float(optimiser.param_groups[0]["lr"]))
            scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [12, 37, 200])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_one_cycle_is_that_of_torch(steps: int, share: float) -> None:
    ours = curve(replace(PLAIN, schedule="one_cycle", warm_up=share), steps)
    theirs = torch_curve(steps - 1, "OneCycleLR", max_lr=0.5, total_steps=steps, pct_start=share, cycle_momentum=False)
    assert ours[:-1] == pytest.approx(theirs, rel=1e-9)
    assert ours[-1] == pytest.approx(0.5 / 25 * 1e-4)


@pytest.mark.parametrize("steps", [2, 10, 37])
def test_cosine_is_that_of_torch(steps: int) -> None:
    theirs = torch_curve(steps, "CosineAnnealingLR", T_max=steps)
    assert curve(replace(PLAIN, warm_up=0), steps) == pytest.approx(theirs, rel=1e-9)


def test_step_decay_drops_where_an_epoch_begins() -> None:
    rates = curve(replace(PLAIN, schedule="step", warm_up=0), 30, per_epoch=3)  # 10 epochs
    assert rates == pytest.approx([0.5] * 15 + [0.05] * 9 + [0.005] * 6)  # three quarters is the middle of epoch 8


def test_warm_up_rises_evenly_to_the_full_rate() -> None:
    rates = curve(replace(PLAIN, schedule="constant", warm_up=0.4), 10)
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, *[0.5] * 6])
    assert curve(replace(PLAIN, warm_up=0.4), 10)[4] == 0.5


def test_snapshots_fall_where_a_cosine_ends() -> None:
    recipe = replace(PLAIN, warm_up=0.1, averaging="snapshots", epochs=8)
    rates = curve(recipe, 90)
    taken = [step for step in range(90) if snapshot_after(recipe, step, 90)]
    assert taken == [48, 69, 89]  # three of the four, those of the second half
    for step in taken[:-1]:
        assert rates[step] < 0.01 * rates[step + 1] == 0.01 * 0.5
    assert not any(snapshot_after(replace(recipe, averaging="ema"), step, 90) for step in range(90))


@settings(deadline=None)
@given(
    schedule=st.sampled_from(SCHEDULES),
    averaging=st.sampled_from(AVERAGES),
    warm_up=st.floats(0.01, 0.9),
    epochs=st.integers(2, 9),
    steps=st.integers(1, 60),
)
def test_every_rate_is_above_zero_and_at_most_the_peak(
    schedule: str, averaging: str, warm_up: float, epochs: int, steps: int
) -> None:
    recipe = Recipe(schedule=schedule, averaging=averaging, warm_up=warm_up, epochs=epochs, learning_rate=0.5)
    rates = np.array(curve(recipe, steps))
    assert (rates > 0).all()
    assert (rates <= 0.5 * (1 + 1e-12)).all()
    assert schedule in ("one_cycle", "step") or rates.max() == pytest.approx(0.5)
    assert warm_up_steps(recipe, steps) < steps
    if averaging == "snapshots":
        assert snapshot_after(recipe, steps - 1, steps)


# --- shares of nodes --------------------------------------------------------------------------------------------------


def headed(blueprint: Blueprint, classes: int = 2) -> Blueprint:
    last = blueprint[LOGITS].inputs[0]
    return blueprint.trunk([last]).with_head(classes, sqrt=False)


def names(blueprint: Blueprint) -> list[str]:
    """The first node of each stage."""
    return [stage[0] for stage in stages(blueprint)]


def test_stages_are_those_of_the_papers() -> None:
    lite = efficientnet_lite("lite0", 64, 1.0, 1.0)
    assert len(EFFICIENTNET_LITE) == 7
    assert [stage[0].rpartition(".")[0][:8] for stage in stages(lite)] == [
        "", *(f"blocks.{stage}" for stage in range(7)), "", ""
    ]  # fmt: skip
    assert stages(lite)[0] == ["conv_stem", "bn1"]
    assert stages(lite)[-2:] == [["conv_head", "bn2"], ["logits"]]
    assert names(headed(mobilenet_v3("v3", "small", 64)))[-2:] == ["conv_head", "logits"]
    heads = ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]
    assert names(resnet("r18", 18, 64)) == [*heads, "layer4.0.conv1", "logits"]
    assert names(cifar_resnet("r20", 20)) == [*heads, "logits"]
    assert "layer2.0.downsample.0" in stages(resnet("r50", 50, 64))[2]
    groups = ["features.0", "features.5", "features.10", "features.17", "features.24"]
    assert names(vgg("vgg16", 16, 32)) == [*groups, "classifier.0", "classifier.3", "logits"]
    assert names(headed(vgg("vgg16", 16, 32))) == [*groups, "classifier.0", "classifier.3", "logits"]
    assert names(squeezenet("s", "1.1", 64))[-1] == "classifier.1"
    assert len(stages(squeezenet("s", "1.1", 64))) == 5
    assert names(small_cnn(32, 10)) == ["conv1", "conv2", "conv3", "logits"]
    assert names(mlp(4, (8, 8), 3)) == ["dense1", "dense2", "logits"]
    assert names(mlp(4, (), 3)) == ["logits"]


@pytest.mark.parametrize(
    "blueprint",
    [efficientnet_lite("lite0", 64, 1.0, 1.0), resnet("r18", 18, 64), vgg("v", 16, 32, norm=True), small_cnn(32, 3)],
)
def test_every_node_with_weights_is_in_one_stage(blueprint: Blueprint) -> None:
    found = [name for stage in stages(blueprint) for name in stage]
    assert sorted(found) == sorted(blueprint.parameters())
    everything = rates_by_layer(blueprint, Recipe(unfreeze="all", layer_decay=0.5))
    assert everything.keys() == blueprint.parameters().keys()
    assert everything[LOGITS] == 1.0
    assert set(everything.values()) == {0.5**below for below in range(len(stages(blueprint)))}
    assert list(everything.values()) == sorted(everything.values())


def test_what_moves() -> None:
    lite = efficientnet_lite("lite0", 64, 1.0, 1.0)
    assert rates_by_layer(lite, Recipe(unfreeze="head")) == {LOGITS: 1.0}
    top = rates_by_layer(lite, Recipe(unfreeze="top", layer_decay=0.5))
    assert {(name[:8], share) for name, share in top.items()} == {
        ("blocks.5", 0.125), ("blocks.6", 0.25), ("conv_hea", 0.5), ("bn2", 0.5), ("logits", 1.0)
    }  # fmt: skip
    assert rates_by_layer(lite, Recipe(unfreeze="blocks.5", layer_decay=0.5)) == top
    assert list(rates_by_layer(lite, Recipe(unfreeze="blocks.6.0.conv_pwl"))) == [
        "blocks.6.0.conv_pwl", "blocks.6.0.bn3", "conv_head", "bn2", "logits"
    ]  # fmt: skip
    assert list(rates_by_layer(lite, Recipe(unfreeze="pooled"))) == [LOGITS]
    assert len(rates_by_layer(lite, Recipe(unfreeze="input"))) == len(lite.parameters())
    assert set(rates_by_layer(small_cnn(32, 3), Recipe())) == {"conv3", "bn3", "logits"}
    assert set(rates_by_layer(resnet("r20", 18, 64), Recipe(unfreeze="layer4"))) > {"layer4.1.bn2", "layer4.0.conv1"}


def test_what_does_not_exist_is_refused() -> None:
    lite = efficientnet_lite("lite0", 64, 1.0, 1.0)
    with pytest.raises(UsageError, match=r"'lite0' has no layer or stage 'block\.5'\. Did you mean blocks\.5"):
        rates_by_layer(lite, Recipe(unfreeze="block.5"))
    with pytest.raises(UsageError, match=r"no layer or stage 'blocks\.1\.'"):
        rates_by_layer(lite, Recipe(unfreeze="blocks.1."))
    with pytest.raises(UsageError, match=r"nothing from 'logits' on has weights.*Expected 'classifier\.1'"):
        rates_by_layer(squeezenet("s", "1.1", 64), Recipe(unfreeze=LOGITS))
    bare = Blueprint("bare", (Node("input", "input", (), {"channels": 3}), Node(LOGITS, "flatten", ("input",))), 4)
    with pytest.raises(UsageError, match="'bare' has no weights to train"):
        rates_by_layer(bare, Recipe())


def test_of_a_module_only_the_head_moves_unless_all_does() -> None:
    attrs = {
        "source": "timm/x",
        "features": "y",
        "config": "",
        "head": False,
        "units": 4,
        "weights": {"w.weight": (4, 3)},
    }
    module = Blueprint(
        "module",
        (
            Node("input", "input", (), {"channels": 3}),
            Node("features", "module", ("input",), attrs),
            Node(LOGITS, "dense", ("features",), {"units": 2}),
        ),
        8,
    )
    assert rates_by_layer(module, Recipe()) == {LOGITS: 1.0}
    assert rates_by_layer(module, Recipe(unfreeze="all", layer_decay=0.5)) == {"features": 0.5, LOGITS: 1.0}


# --- averages ---------------------------------------------------------------------------------------------------------


def walk(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"w": rng.normal(size=3).astype(np.float32), "seen": np.array(step)} for step in range(count)]


def test_a_moving_average_is_corrected_for_its_start() -> None:
    path, decay = walk(50), ema_decay(50)
    average = Averaging(Recipe(averaging="ema"), 50)
    assert average.weights(path[0])["w"] == pytest.approx(path[0]["w"])
    for step, weights in enumerate(path):
        average.update(step, weights)
        shares = decay ** np.arange(step, -1, -1.0)
        expected = np.average([each["w"] for each in path[: step + 1]], axis=0, weights=shares)
        assert average.weights(weights)["w"] == pytest.approx(expected, rel=1e-5)
    assert average.weights(path[-1])["seen"] == 49
    assert average.weights(path[-1])["w"].dtype == np.float32


def test_snapshots_are_averaged_evenly_and_the_last_weights_count_before_there_is_one() -> None:
    path, recipe = walk(40), Recipe(averaging="snapshots", epochs=4, warm_up=0)
    average = Averaging(recipe, 40)
    for step, weights in enumerate(path):
        average.update(step, weights)
        if step < 19:
            assert average.weights(weights)["w"] == pytest.approx(weights["w"])
    expected = np.mean([path[step]["w"] for step in (19, 29, 39)], axis=0)
    assert average.weights(path[-1])["w"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("averaging", AVERAGES)
def test_an_average_goes_on_bit_by_bit(averaging: str) -> None:
    path, recipe = walk(40), Recipe(averaging=averaging, epochs=4, warm_up=0)
    whole, first, second = (Averaging(recipe, 40) for _ in range(3))
    for step in range(40):
        whole.update(step, path[step])
    for step in range(25):
        first.update(step, path[step])
    second.load_state(first.state())
    for step in range(25, 40):
        second.update(step, path[step])
    assert np.array_equal(second.weights(path[-1])["w"], whole.weights(path[-1])["w"])


def test_the_decay_looks_back_over_a_tenth() -> None:
    assert ema_decay(1) == 0
    assert ema_decay(200) == pytest.approx(0.95)
    assert ema_decay(10**6) == SLOWEST
