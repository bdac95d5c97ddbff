"""The format torch: `torch.export.load` opens it anywhere, with the logits of fp32 for batches of any size."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from exporting import (
    AWKWARD,
    BATCHES,
    assorted_photos,
    check_answers,
    difference,
    every_op,
    fp32,
    of_bundle,
    pictures,
)
from headstart.backbones.blueprint import LOGITS
from headstart.core.errors import UsageError
from headstart.core.quiet import quiet
from headstart.core.types import ImageSpec
from headstart.engines.registry import torch_engine
from headstart.export import torch as format_torch
from headstart.export.labels import LABELS, METADATA
from headstart.export.package import Package
from headstart.learn.calibrate import softmax
from headstart.model.golden import Golden
from referee import photos as noise
from small_files import small_files

torch_engine()
import torch  # noqa: E402  # after the guard
from torch import nn  # noqa: E402


@pytest.fixture(scope="module")
def package(bundle: Path) -> Package:
    return of_bundle(bundle)


@pytest.fixture(scope="module")
def file(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "model.pt2"
    format_torch.write(package, path)
    return path


class Net(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.fc = nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Linear(6, 7)

    def forward(self, x: Any) -> Any:
        return self.fc(self.act(self.stem(x)).mean((2, 3)))


class Moody(Net):
    def forward(self, x: Any) -> Any:
        return super().forward(x if x.sum() > 0 else -x)  # the way it takes depends on the images


def wrapped(module: Any, features: str | None = None) -> Package:
    found = torch_engine().wrap(module, spec=ImageSpec(16), features=features)
    blueprint = found.trunk.blueprint.with_head(3, sqrt=False)
    rng = np.random.default_rng(0)
    shapes = {name: blueprint.weight_shapes()[name] for name in (f"{LOGITS}.weight", f"{LOGITS}.bias")}
    head = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    golden = Golden(np.zeros((0, 16, 16, 3), np.uint8), np.zeros((0, 3), np.float32))
    weights = {**found.trunk.weights, **head}
    return Package(blueprint, weights, found.trunk.spec, ("a", "b", "c"), golden, module=found.module)


@pytest.mark.parametrize("count", BATCHES)
def test_a_batch_of_any_size_gets_the_logits_of_fp32(file: Path, package: Package, photos: Path, count: int) -> None:
    images = pictures(photos, package, count)
    assert difference(format_torch.replay(file, images)["logits"], fp32(package, images)) <= 1e-5


def test_photos_of_any_size(bundle: Path, tmp_path: Path) -> None:
    model = hs.load(bundle, engine="fast", precision="fp32")
    format_torch.write(Package.of(model, "photos"), tmp_path / "model.pt2")
    with quiet():
        program = torch.export.load(tmp_path / "model.pt2").module()

    def replay(photos: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {name: value.numpy() for name, value in program(torch.from_numpy(photos)).items()}

    check_answers(model, assorted_photos(), replay)
    together = replay(np.repeat(assorted_photos()[0][None], 3, axis=0))
    assert (together["label"] == together["label"][0]).all()


def test_every_operation_in_a_file_that_torch_opens_by_itself(tmp_path: Path) -> None:
    """In a process without headstart, too: see the scripts of docs/export.md."""
    package, texts = every_op(), {LABELS: "", METADATA: ""}
    format_torch.write(package, tmp_path / "model.pt2")
    with quiet():
        program = torch.export.load(tmp_path / "model.pt2", extra_files=texts).module()
        values = {name: value.numpy() for name, value in program(torch.from_numpy(package.golden.images)).items()}
    assert difference(values["logits"], package.golden.logits) <= 1e-5
    np.testing.assert_allclose(values["probabilities"], softmax(values["logits"]), atol=1e-6)
    assert texts[LABELS].split("\n") == ["bar", "a b", "naïve ☃", "two lines", '"quoted"', ""]
    assert json.loads(texts[METADATA]) == package.metadata()
    assert tuple(json.loads(json.loads(texts[METADATA])["classes"])) == AWKWARD


def test_nothing_of_it_asks_for_gradients(file: Path, package: Package) -> None:
    with quiet():
        program = torch.export.load(file).module()
        assert not program(torch.from_numpy(package.golden.images))["logits"].requires_grad


@pytest.mark.parametrize("features", [None, "act"])  # what the last layer is given, and a layer on the way
def test_a_module_of_ones_own(features: str | None, tmp_path: Path) -> None:
    package = wrapped(Net(), features)
    format_torch.write(package, tmp_path / "model.pt2")
    network = torch_engine().TorchNetwork(package.blueprint, package.weights, package.spec, module=package.module)
    for count in BATCHES:
        images = noise(count, 16)
        logits = format_torch.replay(tmp_path / "model.pt2", images)["logits"]
        assert difference(logits, network.forward(images)) <= 1e-5


def test_a_module_that_cannot_be_followed_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot trace 'module:test_export_torch.Moody'.*to_torch\(\)"):
        format_torch.write(wrapped(Moody()), tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    package = every_op()
    images, differences = package.golden.images, list[float]()

    def export(path: Path) -> None:
        format_torch.write(package, path)
        differences.append(difference(format_torch.replay(path, images)["logits"], package.golden.logits))

    threads = [threading.Thread(target=export, args=(tmp_path / f"{number}.pt2",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(differences) == 2
    assert max(differences) <= 1e-4


def test_the_archive_holds_no_code(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        endings = {Path(name).suffix for name in archive.namelist()}
    assert not endings & {".py", ".pkl", ".so"}


def test_quiet_is_quiet_and_over_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("one")
        print("two", file=sys.stderr)
        os.write(1, b"three")
        os.write(2, b"four")
        warnings.warn("five", stacklevel=1)
        logging.getLogger("six").error("six")
    assert tuple(capfd.readouterr()) == ("", "")
    with pytest.raises(ValueError, match="seven"), quiet():
        raise ValueError("seven")
    print("eight")
    os.write(2, b"nine")
    assert tuple(capfd.readouterr()) == ("eight\n", "nine")
    with pytest.warns(UserWarning, match="ten"):
        warnings.warn("ten", UserWarning, stacklevel=1)
    assert logging.getLogger("six").isEnabledFor(logging.ERROR)


def test_a_full_disk_does_not_end_the_process(bundle: Path, tmp_path: Path) -> None:
    """As PyTorch's own writer does."""
    with small_files(4 << 20), pytest.raises(UsageError, match=r"cannot be written to .*: File too large"):
        hs.load(bundle).export("torch", tmp_path / "it.pt2")
    assert not [*tmp_path.iterdir()]
