"""One vocabulary of devices for all engines, and a sentence where one is not to be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.families.small import small_cnn
from headstart.core.errors import UsageError
from headstart.engines.devices import DEVICES
from headstart.engines.names import resolve_engine
from headstart.engines.registry import check_present, torch_engine
from making import Shell

NETWORK = small_cnn(12, 3)
NO_CUDA = "PyTorch finds no cuda on this machine. It finds: "


@pytest.fixture
def no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")


def test_auto_takes_an_engine_that_has_the_device() -> None:
    assert [resolve_engine("auto", NETWORK, device) for device in DEVICES] == ["fast", "fast", "torch", "torch"]
    assert resolve_engine("keras", NETWORK, "mps") == "keras"


def test_what_an_engine_cannot_give_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match=r"fast engine computes on the processor.*device='cuda'.*engine='torch'"):
        hs.fit("no/such/folder", engine="fast", device="cuda")
    for ask in (
        lambda: hs.fit("no/such/folder", device="gpu"),
        lambda: hs.compare("no/such/folder", device="gpu"),
        lambda: hs.pretrained("efficientnet_lite0", device="gpu"),
        lambda: check_present("torch", "gpu"),
    ):
        with pytest.raises(UsageError, match=r"There is no device 'gpu'\. Known: auto, cpu, cuda, mps"):
            ask()


def test_the_device_is_passed_on_everywhere(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    choose = torch_engine().choose_device

    def noted(device: str) -> str:
        asked.append(device)
        return str(choose(device))

    monkeypatch.setattr(torch_engine(), "choose_device", noted)
    fitted = hs.fit(photos, pixels=32, engine="torch", device="cpu", cache=False)
    assert (fitted.device, fitted.network.device) == ("cpu", "cpu")
    fitted.save(tmp_path / "model")
    opened = hs.load(tmp_path / "model", engine="torch", device="cpu")
    assert (opened.device, opened.network.device) == ("cpu", "cpu")
    own = hs.pretrained("efficientnet_lite0", pixels=32, engine="torch", device="cpu")
    assert own.network.device == "cpu"
    assert set(asked) == {"cpu"}
    on_fast = hs.load(tmp_path / "model")
    assert (on_fast.engine, on_fast.network.device) == ("fast", "cpu")
    image = np.zeros((1, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(opened.predict_proba(image), on_fast.predict_proba(image), atol=0.02)


@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_is_not_there_names_those_that_are(
    shell: Shell, photos: Path, bundle: Path, tmp_path: Path
) -> None:
    photo = next(photos.rglob("*.png"))
    for arguments in (
        ("fit", photos, "--out", tmp_path / "new"),
        ("compare", photos, "--backbones", "efficientnet_lite0"),
        ("predict", bundle, photo),
        ("predict", "efficientnet_lite0", photo),
        ("evaluate", bundle, photos, "--engine", "torch"),
    ):
        answer = shell(*arguments, "--device", "cuda")
        assert (answer.code, answer.out) == (2, ""), arguments
        assert NO_CUDA in answer.err, arguments
    running = ("--device", "cpu", "--engine", "torch")
    assert shell("evaluate", bundle, photos, *running, "--include-training-set", "--json").code == 0
