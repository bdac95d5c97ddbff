"""Families: sizes, records and values as published."""

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

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES, load_pretrained
from headstart.backbones.families.inverted import SYMMETRIC, mobilenet_v2
from headstart.backbones.families.resnet import resnet
from official import CASES, SAVES, Case, CifarResNet, differences, filled

TOLERANCE = 1e-4  # of the largest value of a layer


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
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v1.timm", "mobilenet_v1.tf"), (4.231976, 569)),
    # Sandler et al. 2018, table 4: 3.4 M and 300 M; 6.9 M and 585 M for 1.4. Its repository: 97 M for 0.5
    **{f"mobilenet_v2{origin}": (3.504872, 301) for origin in ("", ".torchvision", ".v2", ".timm", ".tf")},
    **dict.fromkeys(("mobilenet_v2_050", "mobilenet_v2_050.keras"), (1.968680, 97)),
    **dict.fromkeys(("mobilenet_v2_140", "mobilenet_v2_140.keras"), (6.108776, 582)),
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
    **dict.fromkeys(("efficientnet_lite0", "efficientnet_lite0.timm"), (4.652008, 385)),
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
        *("mobilenet_v1", "mobilenet_v1.timm", "mobilenet_v1.tf"),  # of which no publisher names any
        *("mobilenet_v2.tf", "mobilenet_v2_050.keras", "mobilenet_v2_140.keras"),
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


LARGE = ("vgg", "resnet101", "resnet152")  # of which a smaller one of the family is tried too


def _with_save(place: int, case: Case) -> Any:
    slow = str(case).startswith(LARGE)
    return pytest.param(case, list(SAVES)[place % len(SAVES)], marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("case", "save"), [_with_save(*each) for each in enumerate(CASES)], ids=str)
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
