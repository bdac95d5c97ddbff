"""Any module of PyTorch as a network: its layers by path, gradients between any two, fitted on, saved and opened."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import headstart as hs
from headstart.backbones.blueprint import FEATURES
from headstart.backbones.ops import OPS
from headstart.backbones.weights import weights_digest
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec, Normalisation
from headstart.engines.registry import get_engine
from headstart.engines.torch.module_layers import pooled
from headstart.engines.torch.modules import wrap
from headstart.engines.torch.network import TorchNetwork, to_module
from making import record_of
from referee import photos as some_photos

SPEC = ImageSpec(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TINY = "timm/test_resnet"  # of timm's own tests: half a million parameters


class Residual(nn.Module):  # type: ignore[misc]
    """As people write them: one ReLU for all, working in place, also on what was added."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem(x)))
        y = self.body(x)
        y += x
        return self.fc(self.relu(y).mean((2, 3)).mul_(2))


class Dazzled(Residual):
    """The same weights, other code."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2)


def residual(seed: int = 0, classes: int = 7) -> Residual:
    torch.manual_seed(seed)
    module = Residual(classes)
    for norm in (module.bn, module.body[3]):  # as after some training
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(value, 0.1, 1)
    return module


def sequence() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, 2, 1),
        nn.SiLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


def network_for(module: Any, precision: str = "fp32", **more: Any) -> TorchNetwork:
    """With the module's own head behind it."""
    found = wrap(module, spec=SPEC, **more)
    trunk = found.trunk
    weights = dict(trunk.weights)
    blueprint = trunk.blueprint
    if found.head is not None:
        blueprint = blueprint.with_head(len(found.head[0]), sqrt=False)
        weights |= {"logits.weight": found.head[0], "logits.bias": found.head[1]}
    return TorchNetwork(blueprint, weights, trunk.spec, precision, "cpu", module=found.module)


def normalised(images: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """By hand: bytes NHWC to what the module takes."""
    pixels = (images / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    return torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=dtype).contiguous()


def photos(count: int = 3) -> Any:
    return some_photos(count, SPEC.size)


# --- layers -----------------------------------------------------------------------------------------------------------


def test_layers_are_paths_in_the_order_of_execution() -> None:
    network = network_for(residual())
    body = [f"body.{i}" for i in range(4)]
    assert network.layers == ("input", "stem", "bn", *body, "body", "relu", "fc", "features", "logits")
    for at in network.layers:
        assert network.forward(photos(), at).shape == (3, *network.shape(at))


def test_every_layer_has_the_value_that_it_has_in_the_module() -> None:
    module, images = sequence().eval(), photos()
    network = network_for(module)
    with torch.no_grad():
        for last in range(len(module) - 1):
            plain = copy.deepcopy(module[: last + 1])
            expected = plain(normalised(images)).numpy()
            np.testing.assert_allclose(network.forward(images, str(last)), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(network.forward(images), module(normalised(images)).numpy(), rtol=1e-4, atol=1e-5)


def test_what_works_in_place_afterwards_does_not_reach_what_was_read() -> None:
    module, images = residual().eval(), photos()
    network = network_for(module)
    with torch.no_grad():
        x = normalised(images)
        stem = module.stem(x)
        bn = module.bn(stem)
        body = module.body[3](module.body[0](bn.clamp(min=0)).clamp(min=0))
        after = (body + bn.clamp(min=0)).clamp(min=0)
    at = ("stem", "bn", "body", "relu", "features")
    expected = (stem, bn, body, after, 2 * after.mean((2, 3)))
    for name, value, wanted in zip(at, network.forward_many(images, at), expected, strict=True):
        np.testing.assert_allclose(value, wanted.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(network.forward(images, name), value)


def test_several_layers_and_batches_of_any_size() -> None:
    network = network_for(residual())
    network.micro_batch = 4
    images = photos(9)
    values = network.forward_many(images, ("bn", "logits", "bn"))
    for row in range(9):
        alone = network.forward_many(images[row : row + 1], ("bn", "logits", "bn"))
        for one, all_ in zip(alone, values, strict=True):
            np.testing.assert_allclose(one[0], all_[row], rtol=1e-4, atol=1e-5)
    assert network.forward(photos(0), "bn").shape == (0, 8, 16, 16)


def test_no_hook_is_left_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_for(residual())

    def hooks() -> int:
        modules = network._module.modules()
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)

    network.forward_many(photos(), ("bn", "logits"))
    network.vjp(photos(), "logits", "bn")[1](np.ones((3, 7)))
    assert hooks() == 0
    inner = network._module.get_submodule("features")
    seen = []

    def broken(x: Tensor) -> Tensor:
        seen.append(hooks())
        raise RuntimeError("out of memory")

    monkeypatch.setattr(inner.bn, "forward", broken)
    for call in (lambda: network.forward(photos(), "body"), lambda: network.vjp(photos(), "logits", "stem")):
        with pytest.raises(RuntimeError, match="out of memory"):
            call()
    assert min(seen) > 0
    assert hooks() == 0


def test_the_module_given_stays_as_it_is() -> None:
    module = residual().train()
    module.bn.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(module.state_dict())
    network = network_for(module)
    network.vjp(photos(), "logits", "bn")[1](np.ones((3, 7)))
    network.load({name: array + 1 for name, array in network.weights().items()})
    assert module.training
    assert module.relu.inplace
    assert isinstance(module.fc, nn.Linear)
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert [len(each._forward_hooks) for each in (module, module.stem, module.bn)] == [0, 0, 1]
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("around", [nn.DataParallel, torch.compile])
def test_wrappings_are_taken_off(around: Any) -> None:
    wrapped = wrap(around(residual()), spec=SPEC)
    assert wrapped.trunk.blueprint.source == f"module:{Residual.__module__}.Residual"


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", ["input", "0", "1", "2", "3", "4", "5", "6"])
def test_between_any_two_layers_the_gradient_is_that_of_torch_func_vjp(wrt: str) -> None:
    module, images = sequence().eval().double(), photos()
    for layer in module:
        if hasattr(layer, "inplace"):
            layer.inplace = False
    network = network_for(sequence(), "fp64")
    first = 0 if wrt == "input" else int(wrt) + 1
    with torch.no_grad():
        start = module[:first](normalised(images, torch.float64))
    for last in range(first, len(module)):
        at = "logits" if last == len(module) - 1 else str(last)
        expected, carry = torch.func.vjp(module[first : last + 1], start)
        value, pullback = network.vjp(images, at, wrt)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-6, atol=1e-6)
        cotangent = torch.randn_like(expected)
        gradient = carry(cotangent)[0].detach().numpy()
        if wrt == "input":
            gradient = gradient.transpose(0, 2, 3, 1) / np.array(SPEC.std)
        np.testing.assert_allclose(pullback(cotangent.numpy()), gradient, rtol=1e-6, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("wrt", ["input", "stem", "bn", "body.0", "body", "relu", "features"])
def test_what_works_in_place_has_its_gradient_too(wrt: str) -> None:
    """Central differences in float64, of a function written out by hand."""
    module, rng = residual().eval().double(), np.random.default_rng(0)
    network, images = network_for(residual(), "fp64"), rng.uniform(0.1, 0.9, (2, 32, 32, 3))
    value, pullback = network.vjp(images, "logits", wrt)
    cotangent = rng.standard_normal(value.shape)

    def logits(step: float, direction: Any) -> float:
        def moved(name: str, x: Tensor) -> Tensor:
            return x + step * torch.tensor(direction) if name == wrt else x

        pixels = images + step * direction if wrt == "input" else images
        with torch.no_grad():
            x = moved("stem", module.stem(normalised(pixels * 255, torch.float64)))
            x = moved("bn", module.bn(x)).clamp(min=0)
            y = moved("body.0", module.body[0](x))
            y = moved("body", module.body[3](y.clamp(min=0))) + x
            y = 2 * moved("relu", y.clamp(min=0)).mean((2, 3))
            return float((module.fc(moved("features", y)).numpy() * cotangent).sum())

    gradient = pullback(cotangent)
    direction, step = rng.standard_normal(gradient.shape), 1e-6
    expected = (logits(step, direction) - logits(-step, direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_a_gradient_to_a_layer_that_does_not_lie_before_is_refused() -> None:
    network = network_for(residual())
    with pytest.raises(UsageError, match=r"'body' does not lie before 'bn'.*Did you mean at='body', wrt='bn'"):
        network.vjp(photos(), "bn", "body")
    with pytest.raises(UsageError, match=r"'features' does not lie before 'stem'"):
        network.vjp(photos(), "stem", "features")
    with pytest.raises(UsageError, match=r"has no layer 'body\.7'\. Did you mean body"):
        network.vjp(photos(), "logits", "body.7")


# --- the head, and the features ---------------------------------------------------------------------------------------


def test_features_are_what_the_last_linear_layer_is_given() -> None:
    module = residual().eval()
    found = wrap(module, spec=SPEC)
    assert not any(getattr(layer, "inplace", False) for layer in found.module.modules())  # nobody's hooks are misled
    assert found.trunk.blueprint.shapes()[FEATURES] == (8,)
    assert not any(name.startswith(f"{FEATURES}.fc") for name in found.trunk.weights)
    assert found.head is not None
    np.testing.assert_array_equal(found.head[0], module.fc.weight.detach().numpy())
    features = network_for(module).forward(photos(), FEATURES)
    with torch.no_grad():
        np.testing.assert_allclose(
            features @ found.head[0].T + found.head[1], module(normalised(photos())).numpy(), rtol=1e-4, atol=1e-5
        )


class Answering(Residual):
    """Its logits in a dictionary, as transformers has it, or in a tuple."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.last = nn.LogSoftmax(1)

    def forward(self, x: Tensor) -> Any:
        logits = self.last(super().forward(x))
        return {"dict": {"logits": logits}, "tuple": (logits, x)}[self.kind]


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_a_head_is_recognised_whatever_the_module_makes_of_its_logits(kind: str) -> None:
    module = Answering(kind)
    module.load_state_dict(residual().state_dict())
    network = network_for(module)
    np.testing.assert_array_equal(network.forward(photos()), network_for(residual()).forward(photos()))
    with pytest.raises(UsageError, match=f"returns a {kind} .* from its forward; expected one tensor.*features='PATH'"):
        wrap(Answering(kind), spec=SPEC, features="")


def headless() -> nn.Sequential:
    """As SqueezeNet: a convolution for the classes, then the average."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_module_without_a_recognisable_head_is_refused_unless_features_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        wrap(headless(), spec=SPEC)
    assert "no head that can be recognised: looked for a torch.nn.Linear" in str(caught.value)
    assert "found Conv2d at '2'" in str(caught.value)
    assert "features='PATH', one of 0, 1, 2, 3, 4" in str(caught.value)
    for features, units in (("1", 6), ("2", 4), ("", 4)):
        network = network_for(headless(), features=features)
        value = network.forward(photos(), FEATURES)
        assert value.shape == (3, units)
        if features:
            np.testing.assert_allclose(value, network.forward(photos(), features).mean((2, 3)), rtol=1e-5)
    with pytest.raises(UsageError, match="no layer '11' that could give the features"):
        wrap(headless(), spec=SPEC, features="11")


def test_a_linear_layer_before_others_is_no_head() -> None:
    class Gated(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gate, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Conv2d(4, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.last(x * self.gate(x.mean((2, 3)))[:, :, None, None]).mean((2, 3))

    with pytest.raises(UsageError, match="found Conv2d at 'last'"):
        wrap(Gated(), spec=SPEC)


def test_features_are_averaged_wherever_the_channels_are() -> None:
    values = torch.arange(2 * 5 * 4 * 4, dtype=torch.float32).reshape(2, 5, 4, 4)
    torch.testing.assert_close(pooled(values), values.mean((2, 3)))
    torch.testing.assert_close(pooled(values.permute(0, 2, 3, 1)), values.mean((2, 3)))
    torch.testing.assert_close(pooled(values.flatten(2).transpose(1, 2)), values.mean((2, 3)))
    torch.testing.assert_close(pooled(values[:, :, 0, 0]), values[:, :, 0, 0])


# --- what is refused --------------------------------------------------------------------------------------------------


class Uncopyable(Residual):
    def __init__(self) -> None:
        super().__init__()
        self.kept = (torch.ones(1, requires_grad=True) * 2,)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (lambda: 3, r"Expected the name of a backbone or a torch\.nn\.Module\. Received: int"),
        (lambda: residual, r"Received: function"),
        (Uncopyable, "Uncopyable cannot be copied"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), r"fails on images of 32 pixels, .*\(2, 3, 32, 32\)"),
        (lambda: nn.Sequential(nn.Conv2d(4, 2, 1)), "fails on images of 32 pixels"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(module: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        wrap(module(), spec=SPEC)


def test_the_fast_engine_refuses_a_module_in_a_sentence() -> None:
    assert "module" in OPS
    trunk = wrap(residual(), spec=SPEC).trunk
    for build in (lambda: get_engine("fast", trunk.blueprint, trunk.weights, SPEC), lambda: _fast(trunk)):
        with pytest.raises(
            UsageError, match=r"module:.*Residual. is a PyTorch module.* engine='fast'\..* engine='torch'"
        ):
            build()


def _fast(trunk: Any) -> Any:
    from headstart.engines.fast import FastNetwork

    return FastNetwork(trunk.blueprint, trunk.weights, SPEC)


def test_a_module_is_needed_where_there_is_one_and_refused_where_there_is_none() -> None:
    trunk = wrap(residual(), spec=SPEC).trunk
    with pytest.raises(UsageError, match=r"a module of your own, .*Residual.*headstart\.load\(PATH, module=MODULE\)"):
        TorchNetwork(trunk.blueprint, trunk.weights, SPEC)
    with pytest.raises(UsageError, match=r"not the one .*: its weight 'stem.weight' expected \(8, 3, 3, 3\)"):
        TorchNetwork(trunk.blueprint, trunk.weights, SPEC, module=sequence())
    plain = hs.pretrained("efficientnet_lite0")
    with pytest.raises(UsageError, match="takes no module"):
        to_module(plain.blueprint, plain.weights, plain.spec, residual())


# --- timm -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights as timm's users have it."""
    torch.manual_seed(0)
    model = timm.create_model(TINY.removeprefix("timm/"))
    path = tmp_path_factory.mktemp("timm") / "tiny.pth"
    torch.save(model.state_dict(), path)
    return path


def test_a_model_of_timm_is_built_from_its_name_and_a_file(tiny: Path) -> None:
    found = wrap(TINY, tiny)
    model = timm.create_model(TINY.removeprefix("timm/"), checkpoint_path=str(tiny)).eval()
    config, spec = model.pretrained_cfg, found.trunk.spec
    assert (spec.size, spec.mean, spec.std, spec.crop, spec.resample) == (
        config["input_size"][1],
        tuple(config["mean"]),
        tuple(config["std"]),
        config["crop_pct"],
        config["interpolation"],
    )
    images = some_photos(2, spec.size)
    whole = found.whole()
    pixels = (images / 255 - np.array(spec.mean)) / np.array(spec.std)
    with torch.no_grad():
        expected = model(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
    for module in (found.module, None):  # built anew from the name
        network = TorchNetwork(whole.blueprint, whole.weights, spec, device="cpu", module=module)
        np.testing.assert_allclose(network.forward(images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert "layer2.0.conv1" in network.layers or len(network.layers) > 20


def test_a_live_model_of_timm_gets_the_pixels_that_it_names() -> None:
    model = timm.create_model(
        "test_resnet", pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3), "interpolation": "bicubic"}
    )
    spec = wrap(model).trunk.spec
    assert (spec.size, spec.mean, spec.std, spec.crop, spec.resample) == (
        160,
        (0.1, 0.2, 0.3),
        (0.5,) * 3,
        0.95,
        "bicubic",
    )
    assert wrap(model, spec=ImageSpec(96)).trunk.spec == replace(spec, size=96)
    assert wrap(model, pixels=96).trunk.spec == replace(spec, size=96)
    whole = ImageSpec(96, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # as the defaults are, and yet said
    assert wrap(model, spec=whole).trunk.spec == whole
    assert wrap(residual()).trunk.spec.mean == (0.485, 0.456, 0.406)
    assert wrap(residual(), spec=ImageSpec(48)).trunk.spec == replace(wrap(residual()).trunk.spec, size=48)


def test_what_pixels_are_assumed_is_said_where_nothing_tells_them() -> None:
    said = wrap(residual(), spec=ImageSpec(32)).trunk.assumed
    assert "does not say which pixels it wants. It gets ImageNet's mean and standard deviation. Name others" in said
    for known in (SPEC, Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))):
        assert wrap(residual(), spec=known).trunk.assumed == ""
    assert wrap(torchvision.models.squeezenet1_1(), spec=ImageSpec(64), features="features").trunk.assumed == ""
    assert wrap(timm.create_model("test_resnet"), spec=ImageSpec(64)).trunk.assumed == ""


class Around(nn.Module):  # type: ignore[misc]
    """A model of timm, as people put it into one of their own."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.base = way, timm.create_model("test_vit", num_classes=0)
        self.beside, self.fc = nn.Conv2d(3, self.base.num_features, 3), nn.Linear(self.base.num_features, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.base(x=images * 2 if self.way == "scaled" else images)
        return self.fc(x + self.beside(images).mean((2, 3)) if self.way == "beside" else x)


def test_a_model_of_timm_in_a_module_gets_its_pixels_if_it_gets_the_images_unchanged() -> None:
    base = timm.create_model("test_vit", num_classes=0)
    expected = wrap(timm.create_model("test_vit")).trunk.spec
    assert expected.mean == (0.5, 0.5, 0.5)
    for module in (nn.Sequential(base, nn.Linear(base.num_features, 2)), Around("plain")):
        found = wrap(module).trunk
        assert (found.spec, found.assumed) == (expected, "")
        assert wrap(module, spec=ImageSpec(160)).trunk.spec == expected
    for way in ("scaled", "beside"):
        found = wrap(Around(way)).trunk
        assert found.spec.mean == (0.485, 0.456, 0.406)
        assert "does not say which pixels it wants" in found.assumed


def test_a_file_with_a_head_for_other_classes_gives_a_trunk_and_no_classifier(tiny: Path, tmp_path: Path) -> None:
    state = torch.load(tiny, weights_only=True)
    state = {f"module.{name}": value[:3] if name.startswith("fc.") else value for name, value in state.items()}
    torch.save(state, tmp_path / "three.pth")
    found, other = wrap(TINY, tmp_path / "three.pth"), wrap(TINY, tiny)
    for name, array in other.trunk.weights.items():
        np.testing.assert_array_equal(found.trunk.weights[name], array)
    assert found.head is None
    with pytest.raises(UsageError, match="alone is no classifier: expected a head for the 1000 classes"):
        found.whole()
    assert len(other.whole().weights["logits.bias"]) == 1000


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_a_file_of_another_network_is_refused(change: str, tiny: Path, tmp_path: Path) -> None:
    state = torch.load(tiny, weights_only=True)
    name = next(name for name in state if name.endswith("conv1.weight"))
    if change == "missing":
        del state[name]
    else:
        state[name if change == "misshapen" else "layer5.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(UsageError, match="layer5.0.weight" if change == "extra" else name):
        wrap(TINY, tmp_path / "odd.pth")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm/resnet81", r"timm has no model 'resnet81'\. Did you mean resnet\w+"),
        ("timm/", r"timm has no model ''"),
        ("timm/hf-hub:someone/something", r"timm has no model 'hf-hub:someone/something'"),
        ("timm/local-dir:/tmp", r"timm has no model 'local-dir:/tmp'"),
        ("timm/resnet18.hf-hub:someone/something", r"timm cannot build 'resnet18\.hf-hub:someone/something'"),
        ("timm/test_resnet.no_such_tag", r"timm cannot build 'test_resnet\.no_such_tag'"),
    ],
)
def test_a_name_that_timm_does_not_have_is_refused_and_nothing_is_fetched(name: str, sentence: str, tiny: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        wrap(name, tiny)


def test_weights_are_those_that_lie_in_the_place_for_them(tiny: Path, home: Path) -> None:
    """Under the name that the sentence above says, so nothing is fetched."""
    (home / "weights").mkdir()
    state = {name: value.contiguous() for name, value in torch.load(tiny, weights_only=True).items()}
    save_file(state, home / "weights" / "timm--test_resnet.r160_in1k--model.safetensors")
    found, other = wrap(TINY), wrap(TINY, tiny)
    assert weights_digest(found.trunk.weights) == weights_digest(other.trunk.weights)


def test_without_timm_the_sentence_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(hs.MissingExtraError, match=r"needs timm, .* pip install 'headstart\[torch\]'"):
        wrap(TINY)


def test_a_size_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    size = wrap("timm/test_vit", tmp_path / "vit.pth").trunk.spec.size
    with pytest.raises(UsageError, match=f"'timm/test_vit' takes images of {size} pixels and no others. Received: 64"):
        wrap("timm/test_vit", tmp_path / "vit.pth", pixels=64)
    with pytest.raises(UsageError, match="pixels: expected 32 to 1024"):
        wrap(TINY, pixels=7)


def test_without_a_network_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"^The weights 'timm--test_resnet\S+ are not .* set: put .*weights=FILE"):
        hs.pretrained(TINY)


# --- fitted on, saved, opened -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(request: pytest.FixtureRequest) -> hs.Classifier:
    where = request.getfixturevalue("photos")
    return hs.fit(str(where), backbone=residual(), spec=SPEC, cache=False)


def test_a_module_is_fitted_on_and_its_classifier_is_one_like_any_other(photos: Path) -> None:
    seen: list[str] = []
    model = hs.fit(str(photos), backbone=residual(), spec=SPEC, progress=lambda stage, done, count: seen.append(stage))
    assert (model.engine, model.precision, model.spec) == ("torch", "fp32", SPEC)
    assert record_of(model)["backbone"] == f"module:{Residual.__module__}.Residual"
    assert model.score(photos) > 0.5
    assert seen
    assert record_of(hs.fit(str(photos), backbone=residual(), spec=SPEC))["computed"] == 0
    assert record_of(hs.fit(str(photos), backbone=residual(1), spec=SPEC))["from_store"] == 0  # other weights
    value, pullback = model.network.vjp(some_photos(2, 32), "logits", "bn")
    assert pullback(value).shape == (2, 8, 16, 16)


def test_a_classifier_on_a_module_is_saved_and_opened_with_the_module(fitted: hs.Classifier, tmp_path: Path) -> None:
    where = tmp_path / "model"
    fitted.save(where)
    assert "hs.fit(DATA, backbone=MODULE, pixels=" in (where / "README.md").read_text()
    images = list(some_photos(5, 40))
    other = residual(seed=5)  # the code counts, the weights come from the folder
    np.testing.assert_allclose(
        hs.load(where, module=other).predict_proba(images), fitted.predict_proba(images), atol=1e-5
    )
    with pytest.raises(UsageError, match=r"headstart\.load\(PATH, module=MODULE\)"):
        hs.load(where)
    with pytest.raises(UsageError, match=r"is a PyTorch module, .* engine='torch'"):
        hs.load(where, engine="fast", module=other)
    with pytest.raises(hs.CheckError, match="not the one that the model was made of"):
        hs.load(where, module=sequence())
    with pytest.raises(hs.CheckError, match="other answers"):
        hs.load(where, module=Dazzled())


def test_a_classifier_on_a_module_goes_to_torch(fitted: hs.Classifier) -> None:
    module, images = fitted.to_torch(), some_photos(4, 32)
    expected = fitted.network.forward(images)
    tensor = torch.tensor(images)
    np.testing.assert_allclose(module(tensor).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    exported = torch.export.export(module, (tensor,), strict=False).module()
    np.testing.assert_allclose(exported(tensor).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    module(tensor).sum().backward()
    assert module.get_submodule("features.stem").weight.grad is not None
    other = fitted.to_torch()
    with torch.no_grad():
        other.get_submodule("features.stem").weight.zero_()
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(tensor), module(tensor))


def test_a_layer_may_be_named_for_the_features_and_goes_with_the_model(photos: Path, tmp_path: Path) -> None:
    model = hs.fit(str(photos), backbone=headless(), spec=SPEC, features="1", cache=False)
    assert model.blueprint.shapes()[FEATURES] == (6,)
    model.save(tmp_path / "model")
    opened = hs.load(tmp_path / "model", module=headless())
    images = some_photos(3, 32)
    np.testing.assert_allclose(opened.network.forward(images), model.network.forward(images), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        logits = opened.to_torch()(torch.tensor(images)).numpy()
    np.testing.assert_allclose(logits, model.network.forward(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="has its own features; features='1' is for modules"):
        hs.fit(str(photos), features="1")


def test_a_model_of_timm_is_fitted_on_and_opened_by_its_name(tiny: Path, photos: Path, tmp_path: Path) -> None:
    model = hs.fit(str(photos), backbone=TINY, weights=tiny, pixels=64, cache=False)
    assert (model.engine, model.spec.size, record_of(model)["backbone"]) == ("torch", 64, TINY)
    model.save(tmp_path / "model")
    opened = hs.load(tmp_path / "model")
    images = list(some_photos(4, 80))
    np.testing.assert_allclose(opened.predict_proba(images), model.predict_proba(images), atol=1e-5)
    whole = hs.pretrained(TINY, tiny)
    assert len(whole.classes_) == 1000
    assert whole.predict(images).shape == (4,)
