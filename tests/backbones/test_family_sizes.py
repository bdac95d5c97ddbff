"""Families: real weights, sizes of images, small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

import headstart as hs
from headstart.backbones.catalogue import BACKBONES, find_backbone, load_pretrained
from headstart.backbones.families.inverted import SYMMETRIC, mobilenet_v2
from headstart.backbones.families.mobilenet import mobilenet_v1
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.families.vgg import vgg
from headstart.backbones.published import CIFAR10
from headstart.backbones.weights import hash_of
from headstart.core.errors import UsageError
from headstart.engines.fast import FastNetwork
from official import CASES, filled
from referee import SPEC, assert_close, photos, slow_forward, weights_for


@pytest.mark.slow
def test_a_cifar_resnet_is_as_accurate_as_it_was_measured(shared: Path) -> None:
    table = hs.open_source(str(shared / "data" / "cifar10" / "test.parquet"))
    assert table.classes == CIFAR10
    model = hs.pretrained("cifar_resnet20", shared / "weights" / "cifar_resnet20.safetensors")
    assert model.score(table) == pytest.approx(0.810, abs=0.002)


def test_a_known_file_brings_its_own_preprocessing(shared: Path) -> None:
    file = shared / "weights" / "squeezenet1_1.torchvision.safetensors"
    found = load_pretrained("squeezenet1_1", file)
    assert found.backbone is BACKBONES["squeezenet1_1.caffe"]
    assert (found.spec.size, found.spec.std[0]) == (227, 1 / 255)
    assert load_pretrained("squeezenet1_1", file, 160, head=False).spec == replace(found.spec, size=160)
    assert found.backbone.weights.sha256 == hash_of(file)
    file = shared / "weights" / "mobilenet_v2.timm.safetensors"
    assert load_pretrained("mobilenet_v2.torchvision", file).backbone.name == "mobilenet_v2"


def test_a_file_is_known_by_the_digits_that_its_publisher_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = [case for case in CASES if case.backbone == "mobilenet_v3_large"]
    path = tmp_path / "a.pth"
    torch.save(filled(case).state_dict(), path)
    assert load_pretrained("mobilenet_v3_large", path).backbone.name == "mobilenet_v3_large"
    monkeypatch.setattr("headstart.backbones.catalogue.hash_of", lambda path, algorithm: f"5c1a4163{algorithm}")
    assert load_pretrained("mobilenet_v3_large", path).backbone.name == "mobilenet_v3_large.v2"
    md5 = BACKBONES["mobilenet_v3_large.keras"].weights.md5
    monkeypatch.setattr(
        "headstart.backbones.catalogue.hash_of", lambda path, algorithm: md5 if algorithm == "md5" else "0" * 64
    )
    assert load_pretrained("mobilenet_v3_large", path).backbone.name == "mobilenet_v3_large.keras"


def test_a_network_that_flattens_takes_its_native_size_only_but_its_trunk_any(tmp_path: Path) -> None:
    network = vgg("vgg16", 16)
    message = r"'vgg16' takes images of 224 pixels only, not 160: its layer 'classifier.0' has a weight for every place"
    with pytest.raises(UsageError, match=message):
        network.shapes(160)
    assert network.shapes(224) == network.shapes()
    trunk = network.trunk(BACKBONES["vgg16"].layers)
    assert trunk.shapes(160)["features"] == trunk.shapes()["features"] == (1024,)
    small = vgg("small", 16, size=32, classes=3)  # another native size, another head
    assert small.weight_shapes()["classifier.0.weight"] == (4096, 512)
    with pytest.raises(UsageError, match="of 32 pixels only"):
        small.shapes(64)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_trunk_takes_the_smallest_and_an_odd_size(name: str) -> None:
    backbone = find_backbone(name)
    trunk = backbone.blueprint().trunk(backbone.layers)
    for size in (32, 161):
        assert trunk.shapes(size)["features"] == trunk.shapes()["features"]


@pytest.mark.parametrize(("width", "parameters"), [(0.25, 475_544), (0.5, 1_342_536), (0.75, 2_601_976)])
def test_width_multipliers_of_the_first_mobilenet(width: float, parameters: int) -> None:
    """keras.io has them with the running statistics; Howard et al. 2017, table 6: 0.5, 1.3 and 2.6 M."""
    network = mobilenet_v1("narrow", width=width)
    running = sum(shape[0] for name, shape in network.weight_shapes().items() if name.endswith((".mean", ".var")))
    assert sum(network.parameters().values()) + running == parameters
    assert network["blocks.4.1.conv_pw"]["filters"] == 1024 * width


def test_the_first_mobilenet_pads_as_its_libraries_do() -> None:
    """keras.applications adds a row below where it strides, so an odd size loses its last one; SAME would keep it."""
    keras, timm = mobilenet_v1(), mobilenet_v1("symmetric", padding=SYMMETRIC)
    assert [node["padding"] for node in keras.nodes if node.op == "conv" and node["stride"] == 2] == [
        "same",
        *[(0, 1, 0, 1)] * 4,
    ]
    assert {node["padding"] for node in keras.nodes if node.op == "conv" and node["stride"] == 1} == {"same"}
    assert [keras.shapes(75)[f"blocks.{stage}.0.conv_dw"][1] for stage in range(5)] == [38, 19, 9, 4, 2]
    assert [timm.shapes(75)[f"blocks.{stage}.0.conv_dw"][1] for stage in range(5)] == [38, 19, 10, 5, 3]


@pytest.mark.parametrize(
    ("width", "stem", "last"), [(0.35, 16, 1280), (0.5, 16, 1280), (1.0, 32, 1280), (1.4, 48, 1792)]
)
def test_width_multipliers_round_as_the_original_does(width: float, stem: int, last: int) -> None:
    """keras.applications and torchvision agree on these; the last layer never has fewer than 1280."""
    network = mobilenet_v2("narrow", width=width)
    assert (network["conv_stem"]["filters"], network["conv_head"]["filters"]) == (stem, last)
    theirs = torchvision.models.mobilenet_v2(width_mult=width)
    assert sum(network.parameters().values()) == sum(each.numel() for each in theirs.parameters())
    assert network.layers[-5:] == ("bn2", "bn2.act", "pooled", "dropout", "logits")
    assert "blocks.6.0.bn3" in network.layers  # seven stages, also where two come out equally wide


def test_a_perceptron_takes_a_table_as_images_of_one_pixel() -> None:
    network = mlp(5, (7, 6), 3)
    assert network.weight_shapes() == {
        "dense1.weight": (7, 5),
        "dense1.bias": (7,),
        "dense2.weight": (6, 7),
        "dense2.bias": (6,),
        "logits.weight": (3, 6),
        "logits.bias": (3,),
    }
    weights, rows = weights_for(network), np.random.default_rng(0).normal(size=(4, 5))
    spec = SimpleNamespace(mean=np.zeros(5), std=np.ones(5))  # of numbers, not of colours
    values = slow_forward(network, weights, spec, 255 * rows[:, None, None, :])  # type: ignore[arg-type]
    x = rows
    for name in ("dense1", "dense2"):
        x = np.maximum(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0)
    np.testing.assert_allclose(values["logits"], x @ weights["logits.weight"].T + weights["logits.bias"], rtol=1e-6)
    assert mlp(5, (), 3).layers == ("input", "flatten", "logits")  # a linear model


def test_small_networks_compute_what_they_say() -> None:
    for network in (small_cnn(18, 4), small_cnn(9, 2, widths=(8,), dropout=0.0), mlp(3, (16,), 4, size=6, dropout=0.1)):
        weights, spec = weights_for(network), replace(SPEC, size=network.size)
        images = photos(3, network.size)
        value = FastNetwork(network, weights, spec, "fp32").forward(images)
        assert_close(value, slow_forward(network, weights, spec, images)["logits"])
    assert small_cnn(18, 4).shapes()["pool3"] == (128, 3, 3)  # halved three times, and no pixel lost
    assert small_cnn(18, 4, channels=1).weight_shapes()["conv1.weight"] == (32, 1, 3, 3)
