"""Weights for other libraries: their own loaders take the files, and their own networks give the same values."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES, load_pretrained
from headstart.backbones.families.inverted import mobilenet_v2
from headstart.backbones.families.small import small_cnn
from headstart.backbones.families.squeezenet import squeezenet
from headstart.backbones.families.vgg import vgg
from headstart.backbones.hdf5 import read_h5
from headstart.backbones.names import KERAS, rename
from headstart.backbones.ops import Node
from headstart.backbones.pth import read_pth
from headstart.backbones.published import CAFFE, IMAGENET
from headstart.backbones.weights import match, read_weights
from headstart.core.errors import CheckError, MissingExtraError, UsageError
from headstart.core.types import ImageSpec
from headstart.engines import frameworks
from headstart.engines.fast import FastNetwork
from headstart.export.library_forms import FORMS, LIBRARIES, find_part
from headstart.export.weights import SUFFIX, expects, replay, write
from referee import photos

APPLICATIONS, TORCHVISION, TIMM = LIBRARIES
TOLERANCE = 1e-5  # of the largest value
WHOLE, FITTED = "whole", "fitted"


@dataclass(frozen=True)
class Case:
    """A catalogued network for a library: with its own head, or with one that was fitted."""

    library: str
    backbone: str
    kind: str
    line: str  # how it is loaded
    pixels: int = 64

    def __str__(self) -> str:
        return f"{self.library}-{self.backbone}-{self.kind}"

    @property
    def blueprint(self) -> Blueprint:
        whole = BACKBONES[self.backbone].blueprint()
        return whole if self.kind == WHOLE else fitted(self.backbone)

    @property
    def spec(self) -> ImageSpec:
        return replace(BACKBONES[self.backbone].spec, size=self.pixels)


def fitted(name: str, classes: int = 3) -> Blueprint:
    return BACKBONES[name].blueprint().trunk(BACKBONES[name].layers).with_head(classes, sqrt=True)


def applications(backbone: str, kind: str, model: str, pixels: int = 64, options: str = "") -> Case:
    line = f'model = keras.applications.{model}(weights="FILE", {options}include_top={kind == WHOLE}, '
    more = ", classifier_activation=None" if kind == WHOLE else ""
    return Case(APPLICATIONS, backbone, kind, f"{line}input_shape=({pixels}, {pixels}, 3){more})", pixels)


def torchvision(backbone: str, kind: str, model: str, lacking: str = "") -> Case:
    line = f'model = torchvision.models.get_model({model}); model.load_state_dict(torch.load("FILE", weights_only=True)'
    return Case(
        TORCHVISION, backbone, kind, line + (f", strict=False)  # without its head: {lacking}" if lacking else ")")
    )


def timm(backbone: str, kind: str, model: str, more: str = "") -> Case:
    return Case(TIMM, backbone, kind, f'model = timm.create_model("{model}", checkpoint_path="FILE"{more})')


def timm_trunk(backbone: str, model: str, lacking: str) -> Case:
    line = (
        f'model = timm.create_model({model}, num_classes=0); timm.models.load_checkpoint(model, "FILE", strict=False)'
    )
    return Case(TIMM, backbone, FITTED, f"{line}  # without its head: {lacking}")


NONE = ", num_classes=0"
CASES = (
    applications("mobilenet_v1", WHOLE, "MobileNet", 75),
    applications("mobilenet_v2", FITTED, "MobileNetV2", 33),
    applications("mobilenet_v2_050.keras", WHOLE, "MobileNetV2", 64, "alpha=0.5, "),
    applications("mobilenet_v3_small.keras", WHOLE, "MobileNetV3Small"),
    applications("vgg16", FITTED, "VGG16"),
    torchvision("resnet18", WHOLE, '"resnet18"'),
    torchvision("resnet18.timm", FITTED, '"resnet18"', "fc"),
    torchvision("mobilenet_v2.torchvision", WHOLE, '"mobilenet_v2"'),
    torchvision("mobilenet_v2_050", FITTED, '"mobilenet_v2", width_mult=0.5', "classifier.1"),
    torchvision("mobilenet_v3_small", WHOLE, '"mobilenet_v3_small"'),
    torchvision("mobilenet_v3_small", FITTED, '"mobilenet_v3_small"', "classifier.0, classifier.3"),
    torchvision("squeezenet1_1", WHOLE, '"squeezenet1_1"'),
    torchvision("squeezenet1_1.caffe", FITTED, '"squeezenet1_1"', "classifier.1"),
    torchvision("vgg16.keras", FITTED, '"vgg16"', "classifier.0, classifier.3, classifier.6"),
    timm("efficientnet_lite0", WHOLE, "tf_efficientnet_lite0"),
    timm("efficientnet_lite0", FITTED, "tf_efficientnet_lite0", NONE),
    timm("mobilenet_v1.timm", WHOLE, "mobilenetv1_100"),
    timm("mobilenet_v2", WHOLE, "mobilenetv2_100", ', pad_type="same", bn_eps=0.001'),
    timm("mobilenet_v3_small", WHOLE, "mobilenetv3_small_100", ", bn_eps=0.001"),
    timm("mobilenet_v3_small.keras", WHOLE, "tf_mobilenetv3_small_100"),
    timm_trunk("mobilenet_v3_small.timm", '"mobilenetv3_small_100"', "conv_head"),
    timm("resnet18", FITTED, "resnet18", NONE),
)


def lively(blueprint: Blueprint, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights that keep what tells images apart alive through many layers."""
    generator, found, shapes = np.random.default_rng(seed), {}, blueprint.weight_shapes()
    for name, shape in shapes.items():
        part = name.rpartition(".")[2]
        if len(shape) > 1:
            values = generator.normal(0, (1.6 / np.prod(shape[1:])) ** 0.5, shape)
        elif part == "var" or (part == "weight" and name.replace(".weight", ".var") in shapes):
            values = generator.uniform(0.5, 1.5, shape)
        else:
            values = generator.normal(0, 0.05, shape)
        found[name] = values.astype(np.float32)
    return found


def images_of(pixels: int) -> NDArray[np.uint8]:
    """A dark one, and a bright one of another colour."""
    dark, bright = photos(2, pixels)
    return np.stack([dark // 3, np.maximum(bright, (60, 200, 120))]).astype(np.uint8)


def deviation(value: NDArray[Any], expected: NDArray[Any]) -> float:
    assert value.shape == expected.shape
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max()  # it depends on the image
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def framework(library: str) -> Mapping[str, Any]:
    """What the loader's lines speak of."""
    frameworks.guard()
    if library == APPLICATIONS:
        import keras

        return {"keras": keras}
    import timm
    import torch
    import torchvision

    return {"timm": timm, "torch": torch, "torchvision": torchvision}


def opened_with(line: str, path: Path, library: str) -> Any:
    """The model that is there after the printed line was run."""
    scope = dict(framework(library))
    exec(line.replace("FILE", str(path)), scope)
    return scope["model"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_library_s_own_network_gives_the_same_values(case: Case, tmp_path: Path) -> None:
    blueprint, path = case.blueprint, tmp_path / f"a{SUFFIX[case.library]}"
    weights, images = lively(blueprint), images_of(case.pixels)
    line = write(case.library, blueprint, weights, case.spec, path)
    assert line == case.line

    node, value = replay(case.library, blueprint, case.spec, path, images)
    assert node == ("logits" if case.kind == WHOLE else BACKBONES[case.backbone].layers[0])
    ours = FastNetwork(blueprint, weights, case.spec, "fp32").forward(images, node)
    assert deviation(value, ours) <= TOLERANCE

    shapes = blueprint.upto(node).weight_shapes()  # and we read it, too
    names = KERAS if case.library == APPLICATIONS else case.library
    back = match(rename(read_weights(path), shapes, names), shapes, path)
    for name in shapes:
        np.testing.assert_array_equal(back[name], weights[name], err_msg=name)

    if case.library != APPLICATIONS and not case.backbone.startswith("vgg"):  # whose heads take seconds to be made
        stored = read_pth(path) if case.library == TORCHVISION else read_weights(path)
        held = opened_with(line, path, case.library).state_dict()
        for name, array in stored.items():
            np.testing.assert_array_equal(held[name].numpy(), array, err_msg=name)


@pytest.mark.parametrize("name", ["resnet50.keras", "mobilenet_v1"])
def test_keras_s_own_preprocessing_goes_with_the_weights(name: str, tmp_path: Path) -> None:
    """Written for its order of colours, which a replay that shares our mistake would not show."""
    blueprint, spec = fitted(name), replace(BACKBONES[name].spec, size=48)
    weights, images, path = lively(blueprint), images_of(48), tmp_path / "a.weights.h5"
    model = opened_with(write(APPLICATIONS, blueprint, weights, spec, path), path, APPLICATIONS)
    function, _, rest = expects(APPLICATIONS, blueprint, spec)["in words"].partition(",")
    assert rest == " of RGB from 0 to 255"
    value = np.array(model(eval(function, dict(framework(APPLICATIONS)))(images.astype(np.float32)), training=False))
    node = BACKBONES[name].layers[0]
    ours = FastNetwork(blueprint, weights, spec, "fp32").forward(images, node)
    assert deviation(value.transpose(0, 3, 1, 2), ours) <= TOLERANCE


def test_what_the_pixels_must_be_is_said() -> None:
    def said(library: str, name: str, spec: ImageSpec) -> Mapping[str, Any]:
        return expects(library, BACKBONES[name].blueprint(), spec)

    words = "BGR, (x / 255 - mean) / std with mean (0.406, 0.456, 0.485) and std (0.225, 0.224, 0.229)"
    assert said(APPLICATIONS, "vgg16", IMAGENET) == {
        "order": "BGR",
        "mean": IMAGENET.mean[::-1],
        "std": IMAGENET.std[::-1],
        "in words": words,
    }
    assert said(TORCHVISION, "vgg16", IMAGENET)["in words"].startswith("RGB, (x / 255 - mean) / std with mean (0.485,")
    assert said(APPLICATIONS, "resnet50.keras", CAFFE)["in words"].startswith("keras.applications.resnet.preprocess")
    inside = said(APPLICATIONS, "mobilenet_v3_small.keras", ImageSpec(224))
    assert (inside["order"], inside["in words"]) == ("RGB", "RGB from 0 to 255; the network scales them itself")
    assert said(APPLICATIONS, "mobilenet_v3_small.keras", IMAGENET)["in words"].startswith("RGB, (x / 255 - mean)")


def test_mobilenet_v3_of_other_pixels_is_loaded_without_its_preprocessing(tmp_path: Path) -> None:
    blueprint, spec, path = fitted("mobilenet_v3_small.tf"), replace(IMAGENET, size=48), tmp_path / "a.weights.h5"
    weights, images = lively(blueprint), images_of(48)
    line = write(APPLICATIONS, blueprint, weights, spec, path)
    assert line.endswith("input_shape=(48, 48, 3), include_preprocessing=False)")
    node, value = replay(APPLICATIONS, blueprint, spec, path, images)
    assert deviation(value, FastNetwork(blueprint, weights, spec, "fp32").forward(images, node)) <= TOLERANCE


@pytest.mark.parametrize(
    ("library", "blueprint", "said"),
    [
        (APPLICATIONS, mobilenet_v2(classes=3), "classes=3"),
        (TIMM, mobilenet_v2(classes=3), "num_classes=3"),
        (TORCHVISION, squeezenet("squeezenet1_1", "1.1", classes=4), "num_classes=4"),
    ],
    ids=["keras", "timm", "torchvision"],
)
def test_a_head_of_its_form_may_have_any_number_of_classes(
    library: str, blueprint: Blueprint, said: str, tmp_path: Path
) -> None:
    spec, path, weights, images = ImageSpec(48), tmp_path / f"a{SUFFIX[library]}", lively(blueprint), images_of(48)
    line = write(library, blueprint, weights, spec, path)
    assert said in line
    opened_with(line, path, library)
    node, value = replay(library, blueprint, spec, path, images)
    assert node == "logits"
    assert deviation(value, FastNetwork(blueprint, weights, spec, "fp32").forward(images)) <= TOLERANCE


def test_the_real_mobilenet_leaves_as_keras_has_it(shared: Path, tmp_path: Path) -> None:
    """From timm's file by way of the blueprint into Keras's, every number the same."""
    found = load_pretrained("mobilenet_v2", shared / "weights" / "mobilenet_v2.timm.safetensors")
    write(APPLICATIONS, found.blueprint, found.weights, found.spec, tmp_path / "a.weights.h5")
    ours, theirs = read_h5(tmp_path / "a.weights.h5"), read_h5(shared / "weights" / "mobilenet_v2.keras.weights.h5")
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        np.testing.assert_array_equal(ours[key], array, err_msg=key)


# --- what no library has ----------------------------------------------------------------------------------------------

ANY = "The formats onnx, openvino, keras, savedmodel, tflite and torch take any network."


@pytest.mark.parametrize(
    ("library", "name", "message"),
    [
        (TORCHVISION, "cifar_resnet20", rf"torchvision has no cifar_resnet20\. {ANY}"),
        (APPLICATIONS, "efficientnet_lite0", r"keras-applications has no efficientnet_lite0\. .* would do for timm\."),
        (TIMM, "squeezenet1_1", r"timm has no squeezenet1_1\. The weights would do for torchvision\."),
        (TORCHVISION, "mobilenet_v1", r"torchvision has no mobilenet_v1\. .* would do for keras-applications\."),
        (
            TORCHVISION,
            "mobilenet_v2",
            r"another form than 'mobilenet_v2': the layer 'conv_stem' has padding same, not \(1, 1, 1, 1\)\. "
            r"The weights would do for keras-applications and timm\.",
        ),
        (APPLICATIONS, "mobilenet_v2.timm", r"the layer 'conv_stem' has padding \(1, 1, 1, 1\), not same\."),
        (TIMM, "mobilenet_v1", r"mobilenetv1_100 in another form .* 'conv_stem' has padding same"),
        (APPLICATIONS, "mobilenet_v3_large", r"the layer 'conv_stem' has padding"),
        (TORCHVISION, "mobilenet_v3_small.timm", r"the layer 'bn1' has epsilon 1e-05, not 0\.001\."),
        (APPLICATIONS, "resnet50", r"the layer 'conv1' has bias False, not True\. .* for torchvision and timm\."),
        (APPLICATIONS, "resnet18", r"keras-applications has no resnet18\."),
        (TIMM, "resnet50.keras", r"the layer 'conv1' has bias True, not False\."),
    ],
)
@pytest.mark.parametrize("kind", [WHOLE, FITTED])
def test_another_form_is_refused_and_nothing_written(
    library: str, name: str, message: str, kind: str, tmp_path: Path
) -> None:
    blueprint = BACKBONES[name].blueprint() if kind == WHOLE else fitted(name)
    with pytest.raises(UsageError, match=message):
        write(library, blueprint, {}, BACKBONES[name].spec, tmp_path / f"a{SUFFIX[library]}")
    assert list(tmp_path.iterdir()) == []


def changed(name: str, at: str, **attrs: Any) -> Blueprint:
    blueprint = BACKBONES[name].blueprint()
    nodes = [
        Node(each.name, each.op, each.inputs, {**each.attrs, **attrs}) if each.name == at else each
        for each in blueprint.nodes
    ]
    return Blueprint(name, tuple(nodes), blueprint.size)


def test_the_blueprint_counts_and_not_its_name(tmp_path: Path) -> None:
    for at, attrs, message in (
        ("layer2.0.conv2", {"padding": (0, 2, 0, 2)}, r"padding \(0, 2, 0, 2\), not \(1, 1, 1, 1\)"),
        ("layer4.1.bn2", {"epsilon": 1e-3}, r"epsilon 0\.001, not 1e-05"),
        ("layer1.0.relu1", {"kind": "relu6"}, r"kind relu6, not relu"),
        ("layer1.0.bn1", {"epsilon": 2e-5}, r"the layer 'layer1\.0\.bn1' has epsilon"),
    ):
        with pytest.raises(UsageError, match=message):
            find_part(TORCHVISION, changed("resnet18", at, **attrs))
    assert find_part(TIMM, changed("efficientnet_lite0", "dropout", rate=0.5)).classes == 1000
    middle = BACKBONES["resnet18"].blueprint().trunk(["layer3.1.relu"])
    with pytest.raises(UsageError, match=r"the layer 'layer4.0.conv1' is not there"):
        find_part(TORCHVISION, middle)
    with pytest.raises(UsageError, match=r"'small_cnn' is no network of the catalogue.*onnx"):
        find_part(TIMM, small_cnn(9, 2))
    with pytest.raises(UsageError, match=r"no library 'torchvisio'.*Did you mean torchvision"):
        find_part("torchvisio", middle)
    with pytest.raises(UsageError, match=r"Weights for timm end in \.safetensors\. Received: 'a\.pth'"):
        write(TIMM, BACKBONES["resnet18"].blueprint(), {}, IMAGENET, tmp_path / "a.pth")


def test_a_head_for_images_of_another_size_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    small = vgg("vgg16", 16, size=32, classes=3)
    message = r"vgg16 has classifier\.0\.weight of shape \(4096, 25088\).*\(4096, 512\), for images of another size"
    with pytest.raises(UsageError, match=message):
        write(TORCHVISION, small, lively(small), replace(IMAGENET, size=32), tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for library, package, extra in ((TIMM, "timm", "torch"), (APPLICATIONS, "keras", "keras")):
        name = {TIMM: "resnet18", APPLICATIONS: "mobilenet_v2"}[library]
        blueprint = BACKBONES[name].blueprint()
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"needs {package}.*pip install 'headstart\[{extra}\]'"):
            write(library, blueprint, lively(blueprint), IMAGENET, tmp_path / f"a{SUFFIX[library]}")


def test_a_file_that_lacks_weights_is_not_taken_for_whole(tmp_path: Path) -> None:
    trunk, whole, spec = fitted("resnet18"), BACKBONES["resnet18"].blueprint(), replace(IMAGENET, size=32)
    for library in (TORCHVISION, TIMM):
        path = tmp_path / f"a{SUFFIX[library]}"
        write(library, trunk, lively(trunk), spec, path)
        with pytest.raises(CheckError, match=r"does not fit .* resnet18: fc.weight is missing"):
            replay(library, whole, spec, path, photos(1, 32))


def test_every_form_is_a_catalogued_network_s() -> None:
    for library, forms in FORMS.items():
        for form in forms:
            part = find_part(library, BACKBONES[form.backbone].blueprint())
            assert (part.form, part.node, part.classes) == (form, "logits", 1000)
