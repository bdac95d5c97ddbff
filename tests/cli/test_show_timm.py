"""What `headstart show` says of networks of timm, by name and in saved models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import headstart as hs
from headstart.backbones.catalogue import find_backbone
from headstart.engines.registry import summary_of
from headstart.engines.torch.module_layers import Trace
from headstart.engines.torch.summary import _layers
from making import Shell
from terminals import COLUMNS, on_a_terminal


@pytest.mark.parametrize(("name", "pixels"), [("resnet18", None), ("resnet50", 96)])
def test_the_sums_are_those_of_the_same_network_in_the_catalogue(name: str, pixels: int | None) -> None:
    """Without its weights: nothing is fetched in a test."""
    summary, blueprint = summary_of(f"timm/{name}", pixels), find_backbone(name).blueprint()
    assert summary.pixels == pixels or blueprint.size
    assert sum(layer.parameters for layer in summary.layers) == sum(blueprint.parameters().values())
    work = {layer.name: layer.multiply_adds for layer in summary.layers if layer.multiply_adds}
    assert sum(work.values()) == sum(blueprint.multiply_adds(pixels).values())
    shapes = blueprint.shapes(pixels)
    assert [layer.shape for layer in summary.layers if layer.name == "conv1"] == [shapes["conv1"]]
    assert list(work)[:2] == ["conv1", "layer1.0.conv1"]


def test_the_table_fits_on_a_terminal() -> None:
    code, raw, lines = on_a_terminal("show", "timm/resnet18", "--pixels", 64)
    assert code == 0
    assert max(map(len, lines)) <= COLUMNS
    assert "…" not in raw
    (first,) = [line.split() for line in lines if line.startswith("conv1")]
    assert first == ["conv1", "Conv2d", "7×7", "/", "2", "64×32×32", "9,408", "9,633,792"]
    said = " ".join(lines)
    assert "timm/resnet18 at 64 pixels: 11,689,512 parameters, 149 million multiply-adds an image" in said
    assert "maps as channels × height × width" in said
    assert "Not listed: 16 Identity layers." in said


def test_a_transformer_has_layers_whose_work_is_not_known(shell: Shell) -> None:
    answer = shell("show", "timm/vit_tiny_patch16_224", "--json").json
    (own,) = [row for row in answer["layers"] if row["name"] == "cls_token, pos_embed"]
    assert (own["op"], own["parameters"], own["multiply_adds"]) == ("VisionTransformer", 198 * 192, None)
    model = timm.create_model("vit_tiny_patch16_224")
    assert answer["parameters"] == sum(each.numel() for each in model.parameters())
    assert any(note.startswith("?: a layer of another kind") for note in answer["notes"])
    assert "and no others. Received: 64" in shell("show", "timm/vit_tiny_patch16_224", "--pixels", 64).err


class Odd(nn.Module):  # type: ignore[misc]
    """One convolution twice, a weight that two layers share, windows, a layer that is not run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Any) -> Any:
        x = self.conv(self.conv(x))  # (N, 3, 8, 8)
        return self.second(self.first(x.flatten(0, 1)))  # (3 N, 8, 8)


def test_layers_that_are_shared_are_counted_once_and_their_work_each_time() -> None:
    model = Odd().eval()
    rows = {layer.name: layer for layer in _layers(model, Trace(model, 8, "odd"))}
    assert (rows["conv"].parameters, rows["conv"].multiply_adds) == (3 * 9 + 3, 2 * 3 * 64 * 9)
    assert rows["first"].shape == (3, 8, 8)
    assert [rows[name].parameters for name in ("first", "second", "unused")] == [64, 0, 30]
    assert [rows[name].multiply_adds for name in ("first", "second", "unused")] == [3 * 64 * 8, 3 * 64 * 8, 0]
    assert rows["unused"].shape is None


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), where / "weights.pth")
    name = "timm/mobilenetv3_small_050"
    fitted = hs.fit(str(photos), backbone=name, weights=where / "weights.pth", pixels=32, cache=False, progress=False)
    fitted.save(where / "model")
    return where / "model"


def test_a_saved_model_shows_the_layers_inside(model: Path, shell: Shell, tmp_path: Path) -> None:
    answer = shell("show", model, "--json").json
    rows = {row["name"]: row for row in answer["layers"]}
    assert (rows["conv_stem"]["op"], rows["conv_stem"]["shape"]) == ("Conv2d", [16, 16, 16])
    assert (rows["features"]["op"], rows["features"]["shape"], rows["logits"]["shape"]) == ("module", [1024], [3])
    assert rows["classifier"]["op"] == "Identity"  # the head of its own is gone
    assert answer["parameters"] == sum(hs.load(model).blueprint.parameters().values())
    assert answer["parameters"] == sum(row["parameters"] for row in answer["layers"])
    assert shell("show", model, "--pixels", 64, "--json").json["layers"][1]["shape"] == [16, 32, 32]
    drawn = shell("show", model, "--graph", tmp_path / "net.svg")
    assert drawn.out.endswith(f"graph: {tmp_path / 'net.svg'}\n")


def test_what_cannot_be_shown_is_told(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = shell("show", "timm/resnet18", "--graph", tmp_path / "net.svg")
    assert (said.code, said.out, [*tmp_path.iterdir()]) == (2, "", [])
    assert "without --graph its layers are listed" in said.err
    assert "Did you mean resnet18" in shell("show", "timm/resnet1", "--json").err
    monkeypatch.setitem(sys.modules, "timm", None)
    said = shell("show", "timm/resnet18")
    assert (said.code, said.out) == (2, "")
    assert "needs timm, which is not installed. Install it with: " in said.err
    assert "pip install 'headstart[torch]'" in said.err
