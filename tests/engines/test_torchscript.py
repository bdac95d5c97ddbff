"""TorchScript modules take no hooks, so no layer of theirs can be read: each door says what to give instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import headstart as hs
import making
from headstart.core.errors import UsageError
from headstart.engines.torch.modules import wrap


def net() -> nn.Sequential:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU())
    return nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


def holding(module: nn.Sequential) -> nn.Sequential:
    module[0] = torch.jit.script(module[0])
    return module


KINDS: dict[str, Callable[[nn.Sequential], Any]] = {
    "scripted": torch.jit.script,
    "traced": lambda module: torch.jit.trace(module, torch.zeros(2, 3, 32, 32)),
    "frozen": lambda module: torch.jit.freeze(torch.jit.script(module)),
    "inside": holding,
}
SAID = dict.fromkeys(KINDS, "is a TorchScript module") | {"inside": "holds a TorchScript module at '0'"}

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # torch's own, about torch.jit


@pytest.mark.parametrize("kind", KINDS)
def test_a_torchscript_module_is_refused_where_it_comes_in(kind: str, tmp_path: Path) -> None:
    module = KINDS[kind](net())
    with pytest.raises(UsageError, match=rf"{SAID[kind]}.*Give the torch\.nn\.Module"):
        wrap(module)
    photos = making.folder(tmp_path / "photos", count=4)
    with pytest.raises(UsageError, match=SAID[kind]):
        hs.fit(photos, backbone=module, pixels=32, cache=False)


def test_a_model_is_not_opened_with_one(tmp_path: Path) -> None:
    """It is the module given that is wrong, not the folder."""
    classifier = hs.fit(making.folder(tmp_path / "photos", count=6), backbone=net(), pixels=32, cache=False)
    classifier.save(tmp_path / "model")
    for kind, make in KINDS.items():
        with pytest.raises(UsageError, match=SAID[kind]):
            hs.load(tmp_path / "model", module=make(net()))
    with pytest.raises(UsageError, match=r"torch\.nn\.Module\. Received: OrderedDict"):
        hs.load(tmp_path / "model", module=net().state_dict())
