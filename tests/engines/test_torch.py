"""What the PyTorch engine alone does: an ordinary module out, gradients as torch has them, the same answers as fast."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.catalogue import load_pretrained
from headstart.backbones.ops import SQRT_EPSILON, Node
from headstart.core.errors import UsageError
from headstart.core.install import extra_install
from headstart.data.load import decode
from headstart.engines import protocol
from headstart.engines.torch.graph import BlueprintModule
from headstart.engines.torch.network import TorchNetwork, choose_device, to_module
from headstart.learn.calibrate import softmax
from making import Shell, record_of
from referee import EVERY_OP, HEAD, INPUT, SPEC, assert_close, conv, photos, slow_forward, weights_for


def small_trunk(sqrt: bool = False) -> Blueprint:
    nodes = (
        INPUT,
        conv("stem", "input", 8, (3, 3), stride=2),
        Node("stem.norm", "norm", ("stem",), {"epsilon": 1e-3}),
        Node("last", "act", ("stem.norm",), {"kind": "relu6"}),
        *HEAD,
    )
    return Blueprint("fitted", nodes, 9).trunk(("last", "stem.norm")).with_head(3, sqrt=sqrt)


def network_for(blueprint: Blueprint, precision: str = "fp32", device: str = "cpu") -> TorchNetwork:
    return TorchNetwork(blueprint, weights_for(blueprint), SPEC, precision, device)


# --- an ordinary module -----------------------------------------------------------------------------------------------


def test_nodes_are_submodules_of_their_names_and_weights_are_keys_of_the_state_dict() -> None:
    module = to_module(small_trunk(), weights_for(small_trunk()), SPEC)
    assert {"stem", "stem.norm", "last", "features", "logits"} <= {name for name, _ in module.named_modules()}
    assert isinstance(module.get_submodule("stem"), torch.nn.Conv2d)
    assert isinstance(module.get_submodule("stem.norm"), torch.nn.BatchNorm2d)
    keys = {key for key in module.state_dict() if not key.endswith("num_batches_tracked")}
    assert keys == {
        "stem.weight",
        "stem.norm.weight",
        "stem.norm.bias",
        "stem.norm.running_mean",
        "stem.norm.running_var",
        "logits.weight",
        "logits.bias",
    }
    for name, array in weights_for(small_trunk()).items():
        np.testing.assert_array_equal(module.state_dict()[module.keys[name]].numpy(), array)


@pytest.mark.parametrize("name", ["forward", "training", "a..b", "stem.weight", "keys", "pixel_mean", "x.forward"])
def test_a_name_that_a_module_needs_itself_is_no_obstacle(name: str) -> None:
    nodes = (INPUT, conv("stem", "input", 4, (3, 3)), conv(name, "stem", 4, (3, 3), bias=True))
    blueprint = Blueprint("odd", (*nodes, Node("last", "act", (name,), {"kind": "relu"}), *HEAD), 9)
    network, images = network_for(blueprint), photos(2)
    expected = slow_forward(blueprint, weights_for(blueprint), SPEC, images)
    assert_close(network.forward(images, name), expected[name])
    assert_close(network.forward(images), expected["logits"])
    assert list(network.weights()) == list(weights_for(blueprint))


def test_a_node_may_be_called_like_the_folder_of_others() -> None:
    """As VGG's features.0 and the trunk's features."""
    nodes = (INPUT, conv("features.0", "input", 4, (3, 3)), conv("features.1", "features.0", 4, (3, 3)))
    blueprint = Blueprint("vgg", nodes, 9).trunk(("features.1",)).with_head(3, sqrt=False)
    expected = slow_forward(blueprint, weights_for(blueprint), SPEC, photos(2))
    for at in blueprint.layers:
        assert_close(network_for(blueprint).forward(photos(2), at), expected[at])


def test_a_module_takes_either_layout_and_either_kind_of_pixels() -> None:
    module = to_module(EVERY_OP, weights_for(EVERY_OP), SPEC)
    images = photos(4)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)["logits"]
    for pixels in (images, (images / 255).astype(np.float32)):
        for layout in (pixels, pixels.transpose(0, 3, 1, 2)):
            assert_close(module(torch.tensor(layout.copy())).detach().numpy(), expected)
    assert not module.training
    for wrong in (images[0], images[..., :1], np.zeros((1, 4, 9, 9), np.float32)):
        with pytest.raises(UsageError, match=r"\(N, height, width, 3\) or \(N, 3, height, width\)"):
            module(torch.tensor(wrong))


def test_a_module_of_three_pixels_is_taken_to_have_its_channels_last() -> None:
    blueprint = Blueprint("tiny", (INPUT, conv("last", "input", 4, (1, 1)), *HEAD), 3)
    module = to_module(blueprint, weights_for(blueprint), SPEC)
    images = photos(2, 3)
    expected = slow_forward(blueprint, weights_for(blueprint), SPEC, images)["logits"]
    assert_close(module(torch.tensor(images)).detach().numpy(), expected)


def test_a_module_trains_and_its_statistics_move() -> None:
    module, images = to_module(small_trunk(), weights_for(small_trunk()), SPEC), torch.tensor(photos(8))
    labels = torch.arange(8) % 3
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimiser = torch.optim.SGD(module.parameters(), 0.2)
    losses = []
    module.train()
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(module(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all((value != before[name]).any() for name, value in module.state_dict().items())


def test_a_module_is_copied_saved_exported_and_printed(tmp_path: Path) -> None:
    module, images = to_module(EVERY_OP, weights_for(EVERY_OP), SPEC), torch.tensor(photos(3))
    expected = module(images)
    torch.testing.assert_close(copy.deepcopy(module)(images), expected)
    torch.save(module.state_dict(), tmp_path / "state.pth")
    other = BlueprintModule(EVERY_OP, SPEC).eval()
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    torch.testing.assert_close(other(images), expected)
    torch.testing.assert_close(torch.export.export(module, (images,), strict=False).module()(images), expected)
    assert "kind='hard_swish'" in repr(module)


# --- gradients as torch has them --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("fp64", 1e-12)])
def test_the_gradient_is_that_of_torch_func_vjp(precision: str, tolerance: float) -> None:
    network, rng = network_for(EVERY_OP, precision), np.random.default_rng(3)
    pixels = rng.uniform(0, 1, (3, 9, 9, 3))
    dtype = torch.float64 if precision == "fp64" else torch.float32
    module = to_module(EVERY_OP, weights_for(EVERY_OP), SPEC, dtype=dtype)
    reference, carry = torch.func.vjp(module, torch.tensor(pixels, dtype=dtype))
    value, pullback = network.vjp(pixels)
    assert str(value.dtype) == {"fp32": "float32", "fp64": "float64"}[precision]
    np.testing.assert_allclose(value, reference.detach().numpy(), rtol=tolerance, atol=tolerance)
    for _ in range(3):
        cotangent = rng.standard_normal(value.shape)
        expected = carry(torch.tensor(cotangent, dtype=dtype))[0].detach().numpy()
        gradient = pullback(cotangent)
        assert gradient.dtype == value.dtype
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_bytes_and_floats_have_the_same_gradient() -> None:
    """With respect to pixels from 0 to 1, whichever were given."""
    network, images = network_for(EVERY_OP), photos(2)
    (_, of_bytes), (_, of_floats) = network.vjp(images), network.vjp((images / 255).astype(np.float32))
    cotangent = np.ones((2, 5), np.float32)
    np.testing.assert_allclose(of_bytes(cotangent), of_floats(cotangent), rtol=1e-4, atol=1e-5)


def test_gradients_are_never_in_bf16() -> None:
    low, exact, images = network_for(EVERY_OP, "bf16"), network_for(EVERY_OP), photos(3)
    assert np.abs(low.forward(images) - exact.forward(images)).max() > 1e-4  # it does compute in bf16
    (value, pullback), (expected, reference) = low.vjp(images), exact.vjp(images)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(pullback(value), reference(value))


def test_weights_take_no_part_in_a_gradient() -> None:
    network = network_for(EVERY_OP)
    network.vjp(photos(2))[1](np.ones((2, 5)))
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network._module.parameters())


# --- precision and device ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sqrt", [False, True])
def test_the_fitted_head_stays_in_fp32_behind_a_bf16_trunk(sqrt: bool) -> None:
    blueprint, weights, images = small_trunk(sqrt), weights_for(small_trunk(sqrt)), photos(8)
    weights["logits.weight"] *= 1e3
    network = TorchNetwork(blueprint, weights, SPEC, "bf16", "cpu")
    features = network.forward(images, FEATURES).astype(np.float64)
    assert np.abs(features - network.at_precision("fp32").forward(images, FEATURES)).max() > 1e-5
    root = np.sqrt(np.maximum(features, 0) + SQRT_EPSILON) if sqrt else features
    exact = root @ weights["logits.weight"].T.astype(np.float64) + weights["logits.bias"]
    for value in (network.forward(images), network.forward_many(images, (FEATURES, "logits"))[1]):
        assert_close(value, exact)


def test_bf16_that_is_too_coarse_gives_way_to_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = network_for(small_trunk(), "bf16"), photos(8)
    assert 0 < network.check_precision(images) < protocol.TOLERANCE
    assert network.precision == "bf16"
    monkeypatch.setattr(protocol, "TOLERANCE", 1e-6)
    assert network.check_precision(images) > 1e-6
    assert network.precision == "fp32"
    assert network.check_precision(images) == 0.0
    network.release()
    np.testing.assert_array_equal(network.forward(images), network_for(small_trunk()).forward(images))


def test_fp64_is_a_network_of_its_own() -> None:
    network = network_for(EVERY_OP, "fp64")
    assert network.forward(photos(1)).dtype == np.float64
    assert network.forward(photos(0)).dtype == np.float64
    with pytest.raises(UsageError, match="fp64 cannot share its weights with one in fp32"):
        network.at_precision("fp32")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no device 'gpu'\. "):
        network_for(EVERY_OP, device="gpu")
    for device in ("cuda", "mps"):
        if not getattr(torch, device).is_available():
            with pytest.raises(UsageError, match=f"finds no {device} on this machine"):
                choose_device(device)
    assert choose_device("auto") in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_an_accelerator_gives_the_same_values_and_gradients(device: str) -> None:
    if not getattr(torch, device).is_available():
        pytest.skip(f"this machine has no {device}")
    network, images = network_for(EVERY_OP, device=device), photos(40)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    for at in EVERY_OP.layers:
        assert_close(network.forward(images, at), expected[at])
    (value, pullback), (_, reference) = network.vjp(images), network_for(EVERY_OP).vjp(images)
    expected_gradient = reference(value)
    off = np.abs(pullback(value) - expected_gradient).max() / np.abs(expected_gradient).max()
    assert off < 1e-4


NO_TORCH = """
import sys
sys.modules["torch"] = None
import headstart as hs
try:
    hs.{}
except hs.MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "call", ["pretrained('efficientnet_lite0', engine='torch')", "fit('.', backbone='timm/resnet18')"]
)
def test_without_torch_the_sentence_says_what_to_type(call: str, photos: Path) -> None:
    call = call.replace("'.'", repr(str(photos)))
    done = subprocess.run([sys.executable, "-c", NO_TORCH.format(call)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        f"The PyTorch engine needs torch, which is not installed. Install it with: {extra_install('torch')}"
    )


# --- the same answers as the fast engine ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo(shared: Path) -> NDArray[np.uint8]:
    """Real photos of everything."""
    files = sorted((shared / "data" / "imagenet_sample").glob("*.jpg"))[::80]
    return np.stack([decode(file.read_bytes(), hs.ImageSpec(224)) for file in files])


@pytest.fixture(scope="module")
def both(zoo: NDArray[np.uint8]) -> tuple[hs.Classifier, hs.Classifier]:
    fast = hs.pretrained("efficientnet_lite0")
    return fast, hs.pretrained("efficientnet_lite0", engine="torch")


def test_fp32_gives_the_probabilities_of_fast(both: tuple[hs.Classifier, hs.Classifier], zoo: Any) -> None:
    fast, other = both
    assert (fast.network.engine, other.network.engine, other.precision) == ("fast", "torch", "fp32")
    expected = softmax(fast.network.forward(zoo))
    assert np.abs(softmax(other.network.forward(zoo)) - expected).max() < 1e-4
    assert np.ptp(expected.max(axis=1)) > 0.1


def test_bf16_gives_the_labels_of_fast_wherever_its_error_is_below_the_margin(
    both: tuple[hs.Classifier, hs.Classifier], zoo: Any
) -> None:
    exact = both[0].network.forward(zoo)
    low = both[1].network.at_precision("bf16").forward(zoo)
    error = np.abs(low - exact).max()
    first, second = np.sort(exact, axis=1)[:, :-3:-1].T
    clear = first - second > 2 * error  # both logits may be off
    assert 1e-3 < error < 1.5
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(low.argmax(axis=1)[clear], exact.argmax(axis=1)[clear])


def test_a_model_opened_on_either_engine_says_the_same(bundle: Path, photos: Path) -> None:
    fast, other = hs.load(bundle, precision="fp32"), hs.load(bundle, engine="torch", precision="fp32")
    assert (fast.engine, other.engine) == ("fast", "torch")
    np.testing.assert_allclose(other.predict_proba(photos), fast.predict_proba(photos), atol=1e-4)
    for one, two in zip(fast.predictions(photos), other.predictions(photos), strict=True):
        assert isinstance(one, hs.Prediction)
        assert isinstance(two, hs.Prediction)
        assert (one.path, one.label, one.unknown) == (two.path, two.label, two.unknown)


def test_the_command_line_predicts_with_torch(bundle: Path, photos: Path, shell: Shell) -> None:
    def answers(*more: str) -> list[dict[str, Any]]:
        lines = shell("predict", bundle, photos, "--json", "--precision", "fp32", *more).out.splitlines()
        return [json.loads(line) for line in lines]

    fast, other = answers(), answers("--engine", "torch")
    assert len(fast) == 36
    for one, two in zip(fast, other, strict=True):
        assert abs(one.pop("probability") - two.pop("probability")) < 1e-4
        assert one == two


def test_a_fit_on_torch_is_the_fit_on_fast(photos: Path) -> None:
    fast = hs.fit(str(photos), pixels=64, precision="fp32")
    other = hs.fit(str(photos), pixels=64, engine="torch")
    assert (other.engine, other.precision, record_of(other)["from_store"]) == ("torch", "fp32", 0)
    np.testing.assert_allclose(other.predict_proba(photos), fast.predict_proba(photos), atol=5e-3)
    assert record_of(hs.fit(str(photos), pixels=64, engine="torch"))["computed"] == 0


def test_to_torch_reproduces_the_probabilities(bundle: Path, photos: Path) -> None:
    model, files = hs.load(bundle, precision="fp32"), sorted(photos.rglob("*.png"))
    expected = model.predict_proba(files)
    module = model.to_torch()
    images = torch.tensor(np.stack([decode(file.read_bytes(), model.spec) for file in files]))
    with torch.no_grad():
        for pixels in (images, images.permute(0, 3, 1, 2) / 255):
            assert np.abs(torch.softmax(module(pixels), 1).numpy() - expected).max() < 1e-4
        module.get_submodule("logits").weight += 1  # of its own
    np.testing.assert_array_equal(model.predict_proba(files), expected)


def test_the_documented_example_runs_and_its_gradient_is_that_of_its_loss() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gradients.md").read_text(encoding="utf-8")
    said: list[Any] = []
    here: dict[str, Any] = {"print": lambda *words: said.extend(words)}
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, here)
    before, _, after = said
    assert (after < before - 0.1).all()
    assert here["maps"].shape == (2, *here["network"].shape("bn2.act")[1:])
    assert here["maps"].max() > 0
    np.testing.assert_allclose(here["rows"], here["network"].weights()["logits.weight"][[340, 281]], rtol=1e-6)

    name = here["network"].name  # the same functions on a network in float64, against central differences
    found = load_pretrained(name, pixels=32)
    here["network"] = TorchNetwork(found.blueprint, found.weights, found.spec, "fp64", "cpu")
    rng = np.random.default_rng(1)
    x, step = rng.uniform(0.1, 0.9, (2, 32, 32, 3)), 1e-7
    direction = rng.standard_normal(x.shape)
    expected = (here["loss"](x + step * direction)[0] - here["loss"](x - step * direction)[0]) / (2 * step)
    gradient = here["loss"](x)[1]
    np.testing.assert_allclose((gradient * direction).sum((1, 2, 3)), expected, rtol=1e-3)
