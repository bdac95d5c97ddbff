"""Families: parameters and multiply-adds as published, and the values of their own libraries, layer by layer."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from timm.models import get_pretrained_cfg, list_pretrained

import headstart as hs
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES, CIFAR10, find_backbone, load_pretrained
from headstart.backbones.families.inverted import SYMMETRIC, mobilenet_v2
from headstart.backbones.families.mobilenet import mobilenet_v1
from headstart.backbones.families.resnet import resnet
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.families.vgg import vgg
from headstart.backbones.weights import sha256_of
from headstart.core.errors import UsageError
from headstart.engines.fast import FastNetwork
from official import CASES, SAVES, Case, CifarResNet, differences, filled
from referee import SPEC, assert_close, photos, slow_forward, weights_for

TOLERANCE = 1e-4  # of the largest value of a layer

# --- as published -----------------------------------------------------------------------------------------------------

# Millions of parameters, millions of multiply-adds. torchvision's documentation has both for its networks.
PUBLISHED: dict[str, tuple[float, float]] = {
    "vgg16": (138.357544, 15_470),
    "vgg16.keras": (138.357544, 15_470),
    "vgg16_bn": (138.365992, 15_470),
    "vgg19": (143.667240, 19_632),
    "vgg19.keras": (143.667240, 19_632),
    "vgg19_bn": (143.678248, 19_632),
    **dict.fromkeys(("resnet18", "resnet18.timm"), (11.689512, 1_814)),
    **dict.fromkeys(("resnet34", "resnet34.timm"), (21.797672, 3_664)),
    **dict.fromkeys(("resnet50", "resnet50.v2", "resnet50.timm"), (25.557032, 4_089)),
    **dict.fromkeys(("resnet101", "resnet101.v2", "resnet101.timm"), (44.549160, 7_801)),
    **dict.fromkeys(("resnet152", "resnet152.v2", "resnet152.timm"), (60.192808, 11_514)),
    # keras.io has 25.6, 44.7 and 60.4 M, running statistics included; He et al. 2015, table 1: 3.8, 7.6 and 11.3 G
    "resnet50.keras": (25.583592, 3_858),
    "resnet101.keras": (44.601832, 7_570),
    "resnet152.keras": (60.268520, 11_282),
    # Howard et al. 2017, table 8: 4.2 M and 569 M
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v1.timm"), (4.231976, 569)),
    # Sandler et al. 2018, table 4: 3.4 M and 300 M; 6.9 M and 585 M for 1.4. Its repository: 97 M for 0.5
    **dict.fromkeys(
        ("mobilenet_v2", "mobilenet_v2.torchvision", "mobilenet_v2.v2", "mobilenet_v2.timm"), (3.504872, 301)
    ),
    "mobilenet_v2_050": (1.968680, 97),
    "mobilenet_v2_140": (6.108776, 582),
    # Howard et al. 2019, table 3: 2.5 M and 56 M, 5.4 M and 219 M
    **{f"mobilenet_v3_small{origin}": (2.542856, 57) for origin in ("", ".timm", ".tf", ".keras")},
    **{f"mobilenet_v3_large{origin}": (5.483032, 217) for origin in ("", ".v2", ".timm", ".tf", ".keras")},
    "squeezenet1_0": (1.248424, 819),
    "squeezenet1_1": (1.235496, 349),
    "squeezenet1_1.caffe": (1.235496, 388),  # the same at 227 pixels
    # He et al. 2015, table 6: 0.27, 0.46, 0.66 and 0.85 M; akamaster's README: 0.27 to 0.85 M
    "cifar_resnet20": (0.269722, 41),
    "cifar_resnet32": (0.464154, 69),
    "cifar_resnet44": (0.658586, 97),
    "cifar_resnet56": (0.853018, 125),
    # EfficientNet-Lite's page says 407, 631, 899, 1640 and 4060 M: it counts normalisation and activations as well.
    "efficientnet_lite0": (4.652008, 385),
    "efficientnet_lite1": (5.416680, 600),
    "efficientnet_lite2": (6.092072, 860),
    "efficientnet_lite3": (8.197096, 1_608),
    "efficientnet_lite4": (13.006568, 3_944),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_has_its_published_size(name: str) -> None:
    parameters, multiply_adds = PUBLISHED[name]
    network = BACKBONES[name].blueprint()
    assert sum(network.parameters().values()) == round(parameters * 1e6)
    assert round(sum(network.multiply_adds().values()) / 1e6) == multiply_adds


# --- as recorded ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, each in BACKBONES.items() if "pytorch.org" in each.weights.url])
def test_a_record_says_what_torchvision_says(name: str) -> None:
    backbone = BACKBONES[name]
    kinds = torchvision.models.get_model_weights(backbone.architecture)
    (theirs,) = [each for each in kinds if each.url == backbone.weights.url]
    wanted = theirs.transforms()
    assert sum(backbone.blueprint().parameters().values()) == theirs.meta["num_params"]
    assert sum(backbone.blueprint().multiply_adds().values()) / 1e9 == pytest.approx(theirs.meta["_ops"], abs=6e-4)
    spec = backbone.spec
    assert ([spec.size], list(spec.mean), list(spec.std)) == (wanted.crop_size, wanted.mean, wanted.std)
    assert (spec.crop, spec.resample) == (wanted.crop_size[0] / wanted.resize_size[0], wanted.interpolation.value)
    assert theirs.url.endswith(f"-{backbone.weights.sha256}.pth")


@pytest.mark.parametrize("name", [name for name, each in BACKBONES.items() if "image-models" in each.weights.url])
def test_a_record_says_what_timm_says(name: str) -> None:
    backbone, spec = BACKBONES[name], BACKBONES[name].spec
    release = "/".join(backbone.weights.url.split("/")[-2:])
    (theirs,) = [cfg for cfg in TIMM if cfg.url.endswith(release)]
    assert (3, spec.size, spec.size) == theirs.input_size
    assert (spec.mean, spec.std, spec.crop, spec.resample) == (
        theirs.mean,
        theirs.std,
        theirs.crop_pct,
        theirs.interpolation,
    )
    assert backbone.weights.licence.lower() == theirs.license
    assert release.endswith(f"-{backbone.weights.sha256}.pth")


TIMM = [cfg for name in list_pretrained() if (cfg := get_pretrained_cfg(name)) is not None and cfg.url]


@pytest.mark.parametrize("name", [name for name, each in BACKBONES.items() if "keras" in each.weights.url])
def test_a_record_says_what_keras_says(name: str) -> None:
    """In its source, for importing it needs a framework."""
    found = importlib.util.find_spec("keras")
    if found is None or found.origin is None:
        pytest.skip("keras is not installed")
    record, architecture = BACKBONES[name].weights, BACKBONES[name].architecture
    module = (
        "resnet" if architecture.startswith("resnet") else architecture.removesuffix("_small").removesuffix("_large")
    )
    source = (Path(found.origin).parent / "src" / "applications" / f"{module}.py").read_text()
    assert record.md5 in source
    *base, folder, file = record.url.split("/")
    assert "/".join(base[3:]) in source
    assert f"{folder}/" in source
    assert file in source or (file.endswith(("_weights_tf_dim_ordering_tf_kernels.h5", "_224_1.0_float.h5")))


def test_every_record_says_where_its_weights_come_from_and_may_be_used() -> None:
    for name, backbone in BACKBONES.items():
        record = backbone.weights
        assert name == backbone.name == backbone.blueprint().name
        assert record.licence in ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "CC-BY-4.0")
        assert record.origin
        assert record.sha256 or record.md5 or not record.url  # nothing is fetched that cannot be checked
        assert bool(record.url) + bool(record.distribution) <= 1
    digits = [each.weights.sha256 or each.weights.md5 for each in BACKBONES.values()]
    assert len(set(digits)) == len(BACKBONES) - digits.count("") + 1
    assert {name for name, each in zip(BACKBONES, digits, strict=True) if not each} == {
        "mobilenet_v1",  # of which neither publisher names any
        "mobilenet_v1.timm",
    }


@pytest.mark.parametrize("name", BACKBONES)
def test_features_come_from_the_end_and_from_halfway(name: str) -> None:
    backbone = BACKBONES[name]
    network, (last, middle) = backbone.blueprint(), backbone.layers
    shapes, places = network.shapes(), network.layers
    assert network.size == backbone.spec.size
    assert shapes["logits"] == (len(backbone.classes()),)
    assert shapes[middle][1] in (shapes[last][1], 2 * shapes[last][1], 2 * shapes[last][1] + 1)
    # nothing but the head follows the last: no layer behind it sees places
    behind = [node for node in network.nodes[places.index(last) + 1 :] if len(shapes[node.name]) == 3]
    assert [node.op for node in behind] in ([], ["dropout", "conv", "act"])  # SqueezeNet's head
    work = network.multiply_adds()
    share = sum(work.get(node, 0) for node in places[: places.index(middle) + 1]) / sum(work.values())
    assert 0.3 < share < 0.97


# --- parity, layer by layer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "save"), [(case, list(SAVES)[place % len(SAVES)]) for place, case in enumerate(CASES)], ids=str
)
def test_every_layer_has_its_library_s_values(case: Case, save: str, tmp_path: Path) -> None:
    found = dict(differences(case, save, tmp_path))
    assert len(found) == (6 if case.head else 5)
    assert {node: share for node, share in found.items() if not share <= TOLERANCE} == {}


def test_every_catalogued_network_is_among_them() -> None:
    """Of one architecture with several weights, one will do."""
    compared = [BACKBONES[case.backbone].blueprint().nodes for case in CASES]
    assert [name for name, backbone in BACKBONES.items() if backbone.blueprint().nodes not in compared] == []


@pytest.mark.parametrize("change", [{"epsilon": 1e-3}, {"padding": "same"}, {"stride"}], ids=str)
def test_a_mistake_would_be_seen(change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "resnet50" if change == {"stride"} else "mobilenet_v2.torchvision"
    (case,) = [case for case in CASES if (case.backbone, case.source) == (name, "torchvision")]

    def build() -> Blueprint:
        if change != {"stride"}:
            return mobilenet_v2(name, **({"padding": SYMMETRIC, "epsilon": 1e-5} | change))
        nodes = resnet(name, 50, keras=True).nodes  # strides, and neither its biases nor its epsilon
        attrs = [{**node.attrs, "bias": False} if node.op == "conv" else node.attrs for node in nodes]
        return Blueprint(name, tuple(map(lambda node, attrs: replace(node, attrs=attrs), nodes, attrs)), 224)

    monkeypatch.setitem(BACKBONES, name, replace(BACKBONES[name], blueprint=build))
    assert max(share for _, share in differences(case, "zip", tmp_path)) > 10 * TOLERANCE


def test_epsilons_are_the_originals() -> None:
    """A difference in the fourth digit would not be seen in any value."""
    wanted = {
        "resnet50": 1e-5,
        "resnet50.keras": 1.001e-5,
        "resnet50.timm": 1e-5,
        "vgg16_bn": 1e-5,
        "cifar_resnet20": 1e-5,
    }
    wanted |= {"mobilenet_v1": 1e-3, "mobilenet_v1.timm": 1e-5}
    wanted |= {"mobilenet_v2": 1e-3, "mobilenet_v2.torchvision": 1e-5, "mobilenet_v2.timm": 1e-5}
    wanted |= {"mobilenet_v3_small": 1e-3, "mobilenet_v3_small.timm": 1e-5, "mobilenet_v3_small.keras": 1e-3}
    for name, epsilon in wanted.items():
        assert {node["epsilon"] for node in BACKBONES[name].blueprint().nodes if node.op == "norm"} == {epsilon}, name


def test_a_checkpoint_from_a_gpu_as_training_scripts_leave_it(tmp_path: Path) -> None:
    """As PyTorch before 1.6 wrote it, from several GPUs, with the accuracy beside: the CIFAR ResNets are such files."""
    module = filled(Case("cifar_resnet20", "akamaster", lambda: CifarResNet(20), pixels=32))
    state = {f"module.{key}": tensor for key, tensor in module.state_dict().items()}
    path = tmp_path / "resnet20.th"
    torch.save({"state_dict": state, "best_prec1": 91.73}, path, _use_new_zipfile_serialization=False)
    on_gpu = path.read_bytes().replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    assert on_gpu != path.read_bytes()
    path.write_bytes(on_gpu)
    found = load_pretrained("cifar_resnet20", path)
    np.testing.assert_array_equal(found.weights["layer3.2.bn2.var"], module.state_dict()["layer3.2.bn2.running_var"])
    np.testing.assert_array_equal(found.weights["logits.weight"], module.state_dict()["linear.weight"])


# --- real weights -----------------------------------------------------------------------------------------------------


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
    assert found.backbone.weights.sha256 == sha256_of(file)
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


# --- sizes ------------------------------------------------------------------------------------------------------------


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


# --- small networks ---------------------------------------------------------------------------------------------------


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
    spec = replace(SPEC, size=1, mean=(0.0,) * 5, std=(1.0,) * 5)  # type: ignore[arg-type]  # not an image's
    values = slow_forward(network, weights, spec, 255 * rows[:, None, None, :])
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
