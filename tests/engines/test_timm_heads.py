"""Models of timm with several heads, or another than one linear layer: timm itself takes those away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import headstart as hs
import making
from headstart.backbones.blueprint import FEATURES
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines.torch.modules import wrap
from headstart.engines.torch.network import TorchNetwork
from referee import photos

HEADS = {
    "repvit_m1": "two, each with a batch norm, whose answers are averaged",
    "efficientvim_m1": "four, at the end of each stage",
    "dla46_c": "a convolution",
}


def made(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return timm.create_model(name, pretrained=False).eval()


def features_of(model: Any, spec: ImageSpec, images: Any) -> Any:
    """As timm gives them."""
    model.reset_classifier(0)
    pixels = (images / 255 - np.array(spec.mean)) / np.array(spec.std)
    with torch.no_grad():
        return model(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()


@pytest.mark.parametrize("name", HEADS)
def test_features_are_what_timm_gives_without_its_heads(name: str, tmp_path: Path) -> None:
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    model = made(name)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    named, live = wrap(f"timm/{name}", tmp_path / "weights.pth", pixels=64), wrap(model, pixels=64)
    images = photos(2, named.trunk.spec.size)
    expected = features_of(model, named.trunk.spec, images)
    for found, modules in ((named, (named.module, None)), (live, (live.module, made(name, seed=1)))):
        for module in modules:  # built anew from the name, or from another live model with its heads
            trunk = found.trunk
            network = TorchNetwork(trunk.blueprint, trunk.weights, trunk.spec, device="cpu", module=module)
            value = network.forward(images, FEATURES)
            np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_file_with_heads_for_other_classes_gives_the_same_trunk(tmp_path: Path) -> None:
    model = made("repvit_m1")
    whole = wrap(model, pixels=64)
    model.reset_classifier(5)
    torch.save(model.state_dict(), tmp_path / "five.pth")
    found = wrap("timm/repvit_m1", tmp_path / "five.pth", pixels=64)
    assert found.trunk.weights.keys() == whole.trunk.weights.keys()
    for name, array in whole.trunk.weights.items():
        np.testing.assert_array_equal(found.trunk.weights[name], array)


def test_a_classifier_on_two_heads_is_saved_and_opened(tmp_path: Path) -> None:
    data = making.folder(tmp_path / "photos", count=6)
    fitted = hs.fit(data, backbone=made("repvit_m1"), pixels=64, cache=False)
    fitted.save(tmp_path / "model")
    opened = hs.load(tmp_path / "model", module=made("repvit_m1", seed=1))
    images = list(photos(3, 64))
    np.testing.assert_allclose(opened.predict_proba(images), fitted.predict_proba(images), atol=1e-4)


class TwoHeads(nn.Module):  # type: ignore[misc]
    """As distilled networks have them; here the numbers of classes and of features are the same."""

    def __init__(self, *, averaged: bool) -> None:
        super().__init__()
        self.stem, self.averaged = nn.Conv2d(3, 4, 3), averaged
        self.head, self.head_dist = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x).mean((2, 3))
        both = self.head(x), self.head_dist(x)
        return (both[0] + both[1]) / 2 if self.averaged else both


def test_a_head_beside_which_another_leads_to_the_output_is_none() -> None:
    spec = ImageSpec(16)
    with pytest.raises(
        UsageError, match=r"another way to the output beside the Linear at 'head_dist'.*features='PATH'"
    ):
        wrap(TwoHeads(averaged=True), spec=spec)
    assert wrap(TwoHeads(averaged=True), spec=spec, features="stem").trunk.blueprint.shapes()[FEATURES] == (4,)
    found = wrap(TwoHeads(averaged=False), spec=spec)  # each answer has its own: the last one is taken
    assert found.trunk.blueprint[FEATURES]["features"] == "head_dist"
