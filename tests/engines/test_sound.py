"""Weights that make no network: refused when they are read, or by what the network answers, in every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

import headstart as hs
from making import Shell


def spoilt(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    change(state)
    torch.save(state, path)
    return path


def negative(state: dict[str, torch.Tensor]) -> None:
    state["layer1.0.bn1.running_var"] *= -1


def huge(state: dict[str, torch.Tensor]) -> None:
    for name, value in state.items():
        if value.is_floating_point() and "running" not in name:
            state[name] = value * 1e30


@pytest.mark.parametrize("engine", ["fast", "torch"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (negative, r"layer1\.0\.bn1, the variances of a batch norm: expected none below 0, received -1\."),
        (huge, r"gives (no finite numbers|the same (features|values) for )"),
    ],
)
def test_it_is_a_sentence_and_no_model(
    change: Callable[[dict[str, torch.Tensor]], None], says: str, engine: str, photos: Path, tmp_path: Path
) -> None:
    file = spoilt(tmp_path / "a.pth", change)
    with pytest.raises(hs.UsageError, match=says):
        hs.fit(str(photos), backbone="resnet18", weights=file, pixels=64, engine=engine, cache=False)
    with pytest.raises(hs.UsageError, match=says):
        hs.pretrained("resnet18", file, pixels=64, engine=engine)


def test_nothing_but_the_sentence_is_printed(shell: Shell, photos: Path, tmp_path: Path) -> None:
    file, out = spoilt(tmp_path / "a.pth", huge), tmp_path / "model"
    answer = shell("fit", photos, "--backbone", "resnet18", "--weights", file, "--pixels", 64, "--out", out)
    assert answer.code == 2
    assert answer.err.startswith("headstart: 'resnet18' gives ")
    assert answer.err.count("\n") == 1
    assert not out.exists()


def test_sound_weights_are_let_through(tmp_path: Path) -> None:
    file = spoilt(tmp_path / "a.pth", lambda state: None)
    assert len(hs.pretrained("resnet18", file, pixels=64).classes) == 1000
