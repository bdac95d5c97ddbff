"""Files of keras.applications give the same networks here as there: layer by layer, in every form of file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES, Pretrained, find_backbone, load_pretrained
from headstart.backbones.families.inverted import mobilenet_v2
from headstart.backbones.families.mobilenet import mobilenet_v1
from headstart.backbones.families.vgg import vgg
from headstart.backbones.hdf5 import read_h5
from headstart.backbones.keras_names import from_keras, to_keras
from headstart.backbones.names import rename
from headstart.backbones.weights import match, read_weights
from headstart.core.errors import UsageError
from headstart.engines.fast import FastNetwork
from official_keras import CASES, LEGACY, NEW, WHOLE, Case, run

Arrays = dict[str, NDArray[Any]]

OF_THEIR_OWN: dict[str, tuple[str, Callable[[Case], Blueprint]]] = {  # blueprints that the catalogue does not have
    "vgg16": ("vgg16.keras", lambda case: vgg("vgg16", 16, case.pixels)),
    "mobilenet_v1_050": ("mobilenet_v1", lambda case: mobilenet_v1("half", width=case.alpha or 1.0)),
    "mobilenet_v2_050": ("mobilenet_v2", lambda case: mobilenet_v2("half", width=case.alpha or 1.0)),
}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that Keras wrote, and what it computed."""
    folder = tmp_path_factory.mktemp("official")
    run(folder)
    yield folder
    shutil.rmtree(folder)  # hundreds of megabytes


def opened(name: str, case: Case, file: Path) -> Pretrained:
    if name in OF_THEIR_OWN:
        record, build = OF_THEIR_OWN[name]
        backbone, blueprint = find_backbone(record), build(case)
        shapes = blueprint.weight_shapes()
        weights = match(rename(read_weights(file), shapes, "keras"), shapes, file)
        return Pretrained(blueprint, weights, replace(backbone.spec, size=case.pixels), backbone)
    record = name if name in BACKBONES and f"{name}.keras" not in BACKBONES else f"{name}.keras"
    return load_pretrained(record, file, case.pixels, head=case.top)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("vgg") else ()) for name in CASES]
)
def test_every_layer_is_keras_s(official: Path, name: str) -> None:
    case, stored = CASES[name], np.load(official / f"{name}.npz")
    found = opened(name, case, official / f"{name}{case.forms[0]}")
    network = FastNetwork(found.blueprint, found.weights, found.spec, "fp32")
    nodes = list(case.pairs.values())
    for node, ours in zip(nodes, network.forward_many(stored["pixels"], nodes), strict=True):
        theirs = stored[node]
        theirs = (theirs.transpose(0, 3, 1, 2) if theirs.ndim == 4 else theirs).reshape(
            ours.shape
        )  # V3 ends in 1×1 maps
        assert np.ptp(theirs) > 0.1, node
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max(), node


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.forms) > 1])
def test_all_forms_of_file_hold_the_same(official: Path, name: str) -> None:
    first, *others = CASES[name].forms
    weights = read_h5(official / f"{name}{first}")
    for form in others:
        equal(read_h5(official / f"{name}{form}"), weights)


def equal(ours: Arrays, theirs: Arrays) -> None:
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        np.testing.assert_array_equal(ours[key], array, err_msg=key)


def test_the_cases_have_every_form() -> None:
    assert {form for case in CASES.values() for form in case.forms} == {NEW, LEGACY, WHOLE}


def test_tf_keras_spelt_mobilenet_v3_otherwise(official: Path) -> None:
    weights = read_h5(official / f"mobilenet_v3_small{NEW}")

    def spelt(key: str) -> str:
        key = re.sub(r"^conv(_\d)?", r"Conv\1", key).replace("logits", "Logits")
        key = re.sub(r"^(expanded_conv(?:_\d+)?)_(?=[a-z])", r"\1/", key)
        return key.replace("excite_conv", "excite/Conv").replace("_bn/", "/BatchNorm/")

    old = {spelt(key): array for key, array in weights.items()}
    assert {"Conv/BatchNorm/gamma", "expanded_conv_3/expand/BatchNorm/beta", "expanded_conv/depthwise/kernel"} < set(
        old
    )
    assert {"expanded_conv/squeeze_excite/Conv_1/bias", "Conv_2/kernel", "Logits/kernel"} < set(old)
    shapes = find_backbone("mobilenet_v3_small.keras").blueprint().weight_shapes()
    equal(rename(old, shapes), rename(weights, shapes))
    assert rename(old, shapes).keys() == shapes.keys()


@pytest.mark.parametrize(
    ("depth", "blocks", "head"),
    [
        (50, (3, 4, 6, 3), "predictions"),
        (101, (3, 4, 23, 3), "probs"),
        (152, (3, 8, 36, 3), "fc1000"),
    ],
)
def test_deep_residual_networks_name_for_name(depth: int, blocks: tuple[int, ...], head: str) -> None:
    """The names as keras.applications counts them, written out."""
    names = ["conv1_conv", "conv1_bn", head]
    for stage, count in enumerate(blocks, 2):
        for block in range(1, count + 1):
            for part in (0, 1, 2, 3)[block > 1 :]:
                names += [f"conv{stage}_block{block}_{part}_{kind}" for kind in ("conv", "bn")]
    statistics = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = {
        f"{name}/{part}": np.zeros((1,) * 4)
        for name in names
        for part in (statistics if name.endswith("bn") else ("kernel", "bias"))
    }
    shapes = find_backbone(f"resnet{depth}.keras").blueprint().weight_shapes()
    assert from_keras(weights, shapes).keys() == shapes.keys()


def test_the_real_mobilenet_is_the_same_from_either_library(shared: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    outputs = []
    for file in ("mobilenet_v2.keras.weights.h5", "mobilenet_v2.timm.safetensors"):
        found = load_pretrained("mobilenet_v2", shared / "weights" / file)
        logits = FastNetwork(found.blueprint, found.weights, found.spec, "fp32").forward(images).astype(np.float64)
        outputs.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=1e-5)
    assert outputs[0].max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_the_way_out_is_the_way_in_turned_round(official: Path, name: str) -> None:
    case = CASES[name]
    weights = read_h5(official / f"{name}{case.forms[0]}")
    own = opened(name, case, official / f"{name}{case.forms[0]}").weights
    back = to_keras(own, {key: array.shape for key, array in weights.items()})
    equal(back, weights)
    assert all(array.flags.c_contiguous for array in back.values())
    equal(from_keras(back, {key: array.shape for key, array in own.items()}), own)


def test_keys_without_a_weight_are_left_out() -> None:
    own = {"conv_stem.weight": np.ones((32, 3, 3, 3)), "blocks.1.0.conv_pwl.weight": np.ones((24, 96, 1, 1))}
    keys = {"Conv1/kernel": (3, 3, 3, 32), "predictions/kernel": (1280, 1000), "dense_9/kernel": (1, 1)}
    assert list(to_keras(own, keys)) == ["Conv1/kernel"]


def test_weights_lie_in_memory_as_they_are_written(official: Path) -> None:
    """safetensors writes an array as it lies; a transposed view would come back as another one."""
    for name in ("vgg19", "mobilenet_v3_small"):
        shapes = find_backbone(f"{name}.keras").blueprint().weight_shapes()
        renamed = rename(read_h5(official / f"{name}{NEW}"), shapes)
        assert all(array.flags.c_contiguous for array in renamed.values())


# --- what does not belong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("vgg16.keras", "vgg19", r"'block4_conv4/kernel' expected no such weight"),
        ("resnet101.keras", "resnet50", r"'layer3.6.conv1.weight' expected \(256, 1024, 1, 1\), received none"),
        ("mobilenet_v2", "mobilenet_v2_050", r"'conv_stem.weight' expected \(32, 3, 3, 3\), received \(16, 3, 3, 3\)"),
        ("mobilenet_v1", "mobilenet_v2", r"'bn1.weight' expected \(32,\), received none"),
        ("mobilenet_v2", "mobilenet_v3_small", r"'conv_stem.weight' expected \(32, 3, 3, 3\), received none"),
        (
            "efficientnet_lite0",
            "mobilenet_v2",
            r"'blocks.2.0.conv_dw.weight' expected \(144, 1, 5, 5\), received \(144, 1, 3, 3\)",
        ),
        ("squeezenet1_1", "resnet50", r"'features.0.weight' expected \(64, 3, 3, 3\), received none"),
        ("cifar_resnet20", "resnet50", r"'conv1.weight' expected \(16, 3, 3, 3\), received \(64, 3, 7, 7\)"),
    ],
)
def test_a_file_of_another_network_is_refused(official: Path, name: str, file: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_pretrained(name, official / f"{file}{NEW}", head=False)


@pytest.mark.parametrize(
    ("name", "file", "taken"),
    [
        ("mobilenet_v2", "mobilenet_v2", "mobilenet_v2"),
        ("mobilenet_v2_050", "mobilenet_v2_050", "mobilenet_v2_050.keras"),
        ("mobilenet_v3_small", "mobilenet_v3_small", "mobilenet_v3_small.keras"),
        ("resnet50", "resnet50", "resnet50.keras"),
    ],
)
def test_a_file_of_keras_is_run_as_keras_runs_it(official: Path, name: str, file: str, taken: str) -> None:
    found = load_pretrained(name, official / f"{file}{NEW}", head=False)
    assert (found.backbone.name, found.assumed) == (taken, "")


@pytest.mark.parametrize("name", ["vgg16.keras", "resnet50.keras", "mobilenet_v2", "mobilenet_v3_large.keras"])
def test_strange_keys_and_shapes_are_left_for_the_message(name: str) -> None:
    blueprint: Blueprint = BACKBONES[name].blueprint()
    shapes = blueprint.weight_shapes()
    strange: Arrays = {"dense_7/kernel": np.ones((4, 3)), "Conv1/3": np.ones(2), "a/b/kernel": np.ones((1, 2, 3, 4))}
    strange |= {"block99_conv1/bias": np.ones(1), "conv6_block1_1_conv/bias": np.ones(1), "/kernel": np.ones(1)}
    kept = rename(strange, shapes)
    assert list(kept) == list(strange)
    assert all(kept[key] is array for key, array in strange.items())
    layer = {"vgg16.keras": "fc1", "resnet50.keras": "conv1_conv"}.get(name, "conv_1")
    for shape in ((), (0,), (5,), (0, 5), (5, 4), (1, 0, 2), (2, 1, 3, 1), (1, 1, 5, 0), (1,) * 6):
        with pytest.raises(UsageError, match="does not fit"):
            match(rename({f"{layer}/kernel": np.ones(shape)}, shapes), shapes, "a.h5")


def test_the_keys_tell_that_keras_wrote_them() -> None:
    shapes = find_backbone("mobilenet_v2").blueprint().weight_shapes()
    weights = {"Conv1/kernel": np.arange(864.0).reshape(3, 3, 3, 32), "Conv_1_bn/moving_variance": np.ones(1280)}
    assert list(rename(weights, shapes)) == ["conv_stem.weight", "bn2.var"]
    assert rename(weights, shapes, "keras").keys() == rename(weights, shapes).keys()
    assert rename(weights, shapes)["conv_stem.weight"][5, 2, 1, 0] == weights["Conv1/kernel"][1, 0, 2, 5]
    assert list(rename(weights, shapes, "timm")) == list(weights)
