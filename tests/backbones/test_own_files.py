"""Files of one's own: prefixes, other heads, and whose network the weights are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from numpy.typing import NDArray

from headstart.backbones.catalogue import BACKBONES, Pretrained, load_pretrained
from headstart.backbones.names import rename, translate
from headstart.backbones.weights import match, read_weights
from headstart.core.errors import UsageError

RESNET = BACKBONES["resnet18"].blueprint().weight_shapes()
Arrays = dict[str, NDArray[Any]]


def of(module: Any) -> Arrays:
    """A library's names, each with an array that nothing else has."""
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    return {key: np.full(shape, place, np.float32) for place, (key, shape) in enumerate(shapes.items())}


def torchvision_s(name: str) -> Arrays:
    with torch.device("meta"):
        return of(torchvision.models.get_model(name))


def resnet18() -> Arrays:
    return torchvision_s("resnet18")


def under(prefix: str, weights: Mapping[str, NDArray[Any]]) -> Arrays:
    return {f"{prefix}{name}": array for name, array in weights.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "net.", "backbone.", "timm_model.", "module.encoder_q.", "model.cnn."),
        *("_orig_mod.module.", "module._orig_mod.", "model._fsdp_wrapped_module.", "a.b.c.d.e."),
    ],
)
def test_what_a_network_was_wrapped_in_is_taken_off_its_names(prefix: str) -> None:
    bare = rename(resnet18(), RESNET)
    found = rename(under(prefix, resnet18()), RESNET)
    assert found.keys() == bare.keys() == RESNET.keys()
    assert all(np.array_equal(found[name], bare[name]) for name in bare)


def test_wrappers_within_names_and_beside_them() -> None:
    """A compiled part of a network; and what an average of weights counts."""
    weights = {name.replace("layer2.", "layer2._orig_mod."): array for name, array in resnet18().items()}
    assert rename(weights, RESNET).keys() == RESNET.keys()
    averaged = {"n_averaged": np.asarray(3), **under("module.", resnet18())}
    assert match(rename(averaged, RESNET), RESNET, "a.pth", ignore=()).keys() == RESNET.keys()


def cut(weights: Arrays) -> Arrays:
    """As fastai names them: the body and the head are numbered, and so are the children of the body."""
    place = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    kept = [(name.partition("."), array) for name, array in weights.items() if not name.startswith("fc.")]
    return {f"0.{place[first]}.{rest}": array for (first, _, rest), array in kept} | {"1.8.weight": np.ones((2, 512))}


def test_the_children_of_a_network_in_order_are_known_by_their_numbers() -> None:
    bare, found = rename(resnet18(), RESNET), rename(cut(resnet18()), RESNET)
    assert [name for name in RESNET if name not in found] == ["logits.weight", "logits.bias"]
    assert all(np.array_equal(found[name], bare[name]) for name in RESNET if name in found)
    shapes = BACKBONES["vgg16"].blueprint().weight_shapes()
    vgg = {
        name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items() if name.startswith("features.")
    }
    for prefix in ("", "0.", "0.0.", "features."):
        assert rename({prefix + name[9:]: array for name, array in vgg.items()}, shapes).keys() == vgg.keys()


def test_of_two_networks_the_one_that_is_kept_after_training_is_taken() -> None:
    one, other = resnet18(), {name: -array for name, array in resnet18().items()}
    for first, second in (("encoder_k.", "encoder_q."), ("student.", "teacher."), ("target_network.", "online.")):
        found = rename({**under(first, other), **under(second, one), "queue": np.ones((4, 4))}, RESNET)
        np.testing.assert_array_equal(found["conv1.weight"], one["conv1.weight"])
    twice = rename({**under("model.", one), **under("backbone.", one)}, RESNET)
    assert match(twice, RESNET, "a.pth", ignore=()).keys() == RESNET.keys()
    with pytest.raises(UsageError, match=r"two networks that fit, under 'left.' and 'right.'"):
        rename({**under("left.", one), **under("right.", other)}, RESNET)


def test_a_deeper_network_is_not_taken_for_a_shallow_one() -> None:
    """All weights of ResNet-18 are in ResNet-34, with the same names and shapes."""
    for prefix in ("", "model."):
        named = rename(under(prefix, torchvision_s("resnet34")), RESNET)
        with pytest.raises(UsageError, match=r"0 of the network's 102 weights differ, and the file has \d+ more"):
            match(named, RESNET, "a.pth", ignore=("logits",))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"fc.weight": np.ones((2, 512)), "fc.bias": np.ones(2)}, "received one for 2"),
        ({"fc.1.weight": np.ones((2, 512)), "fc.1.bias": np.ones(2)}, "received none of this form"),
        (
            {"head.0.weight": np.ones((9, 512)), "head.3.weight": np.ones((2, 9)), "criterion.weight": np.ones(2)},
            "none",
        ),
        ({}, "none"),
    ],
)
def test_a_head_of_another_form_leaves_the_trunk_and_gives_no_answers(head: Arrays, said: str, tmp_path: Path) -> None:
    whole = torchvision.models.resnet18()
    trunk = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("fc.")}
    torch.save({**trunk, **{name: torch.tensor(array) for name, array in head.items()}}, tmp_path / "a.pth.tar")
    found = load_pretrained("resnet18", tmp_path / "a.pth.tar", head=False)
    np.testing.assert_array_equal(found.weights["conv1.weight"], whole.conv1.weight.detach().numpy())
    with pytest.raises(UsageError, match=f"head for the 1000 classes that resnet18 knows, .*{said}.*hs.fit"):
        load_pretrained("resnet18", tmp_path / "a.pth.tar")


# --- whose network it is ----------------------------------------------------------------------------------------------


def opened(name: str, module: Any, path: Path) -> Pretrained:
    torch.save(module.state_dict(), path)
    return load_pretrained(name, path, head=False)


@pytest.mark.parametrize(
    ("name", "library", "theirs", "taken", "others"),
    [
        ("mobilenet_v2", torchvision, "mobilenet_v2", "mobilenet_v2.torchvision", ""),
        ("mobilenet_v2", timm, "mobilenetv2_100", "mobilenet_v2.timm", "mobilenet_v2.tf"),
        ("mobilenet_v2.tf", timm, "mobilenetv2_100", "mobilenet_v2.tf", "mobilenet_v2.timm"),
        ("mobilenet_v2_050", timm, "mobilenetv2_050", "mobilenet_v2_050", ""),
        ("mobilenet_v3_small", torchvision, "mobilenet_v3_small", "mobilenet_v3_small", ""),
        ("mobilenet_v3_small", timm, "mobilenetv3_small_100", "mobilenet_v3_small.timm", "mobilenet_v3_small.tf"),
        ("squeezenet1_1", torchvision, "squeezenet1_1", "squeezenet1_1", "squeezenet1_1.caffe"),
        ("efficientnet_lite0", timm, "tf_efficientnet_lite0", "efficientnet_lite0", "efficientnet_lite0.timm"),
        ("efficientnet_lite0.timm", timm, "efficientnet_lite0", "efficientnet_lite0.timm", "efficientnet_lite0"),
        ("efficientnet_lite1", timm, "tf_efficientnet_lite1", "efficientnet_lite1", ""),
    ],
)
def test_the_names_tell_whose_network_it_is_or_it_is_said(
    name: str, library: Any, theirs: str, taken: str, others: str, tmp_path: Path
) -> None:
    make = timm.create_model if library is timm else torchvision.models.get_model
    found = opened(name, make(theirs), tmp_path / "a.pth")
    assert found.backbone.name == taken
    assert (f"run as {taken}; {others} would have other padding or pixels" in found.assumed) == bool(others)
    assert bool(found.assumed) == bool(others)


def test_a_head_named_as_timm_s_is_no_sign_of_other_pixels(tmp_path: Path) -> None:
    """Only a network that computes something else with the same weights is another variant."""
    trunk = {name: array for name, array in resnet18().items() if not name.startswith("fc.")}
    named = {**under("backbone.", trunk), "head.fc.weight": np.ones((2, 512)), "head.fc.bias": np.ones(2)}
    assert translate(named, RESNET).libraries == {"timm"}
    torch.save({name: torch.tensor(np.asarray(array, np.float32)) for name, array in named.items()}, tmp_path / "a.pth")
    assert load_pretrained("resnet18", tmp_path / "a.pth", head=False).backbone.name == "resnet18"


def test_the_content_says_how_a_file_is_read(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(2)}
    for name in ("a.ckpt", "a.pth.tar", "a.model", "a"):
        torch.save(state, tmp_path / name)
        assert list(read_weights(tmp_path / name)) == ["a.weight"]
    for name in ("a.pth", "a.safetensors", "a.h5", "a.bin"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n")
        with pytest.raises(UsageError, match=r"Git LFS .* git lfs pull"):
            read_weights(tmp_path / name)


def test_of_a_network_and_its_average_the_average_is_taken(tmp_path: Path) -> None:
    """As Lightning's callback and others keep it beside the weights that are trained."""
    plain, averaged = resnet18(), {name: array + 1 for name, array in resnet18().items()}
    for prefix in ("ema_model.module.", "averaged_model.", "model_ema."):
        both = {**under("model.", plain), **under(prefix, averaged)}
        found = match(rename(both, RESNET), RESNET, "a.ckpt", ignore=())
        for name, array in match(rename(averaged, RESNET), RESNET, "b.pth", ignore=()).items():
            np.testing.assert_array_equal(found[name], array)


def test_a_file_of_torch_is_read_under_any_name(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "a.safetensors")
    assert read_weights(tmp_path / "a.safetensors").keys() >= {"conv1.weight", "fc.bias"}
