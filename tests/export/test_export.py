"""Exports: what is written, and what is refused after a check."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from export_cases import LIGHT, nothing_in, raising, stand_in, with_other_logits
from headstart.core.errors import MachineError
from headstart.export import onnx as to_onnx
from headstart.export.formats import FORMATS, Format
from headstart.export.package import GOLDEN, Package
from headstart.model.golden import Golden
from making import folder
from small_files import small_files

every_light = pytest.mark.parametrize("to", LIGHT)


@pytest.fixture(scope="module")
def model(bundle: Path) -> hs.Classifier:
    return hs.load(bundle, precision="fp32")


def test_int8_and_photos_go_together(model: hs.Classifier, tmp_path: Path) -> None:
    with pytest.raises(hs.UsageError, match=r"int8 takes its ranges from labelled photos.*data=PHOTOS"):
        model.export("tflite", tmp_path / "it.tflite", int8=True)
    with pytest.raises(hs.UsageError, match=r"Photos are for int8.*int8=True"):
        model.export("onnx", tmp_path / "it.onnx", data="photos")
    assert nothing_in(tmp_path)


@every_light
def test_an_export_stands_where_it_was_wanted_and_nothing_beside_it(
    to: str, model: hs.Classifier, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "place" / f"it{FORMATS[to].suffix}"
    done = model.export(to, target, takes="pixels")
    assert done.path == target
    files = [target] if target.is_file() else list(target.iterdir())
    assert done.files == {file: file.stat().st_size for file in files}
    assert [*target.parent.iterdir()] == [target]
    assert [*tmp_path.iterdir()] == [tmp_path / "new"]
    assert model.golden is not None
    assert (done.format, done.node, done.pixels, done.images) == (to, "logits", 64, len(model.golden.images))
    assert 0 < done.max_difference < 1e-5
    assert done.tolerance == 1e-4
    logits = LIGHT[to].replay(target, model.golden.images)["logits"]
    difference = np.abs(logits - model.golden.logits).max() / np.abs(model.golden.logits).max()
    assert done.max_difference == pytest.approx(difference, rel=0.5)
    assert str(target) in done.opens


def test_weights_for_a_library_go_the_same_way(model: hs.Classifier, tmp_path: Path) -> None:
    """The fitted head is not the library's, so its trunk's last feature map is what is held against."""
    done = model.export("timm", tmp_path / "it.safetensors")
    assert done.node in model.blueprint.layers
    assert done.node != "logits"
    assert 0 < done.max_difference < 1e-4
    assert f'checkpoint_path="{tmp_path / "it.safetensors"}"' in done.opens
    assert "64 × 64 pixels: RGB" in done.expects
    with pytest.raises(hs.UsageError, match="torchvision has no efficientnet"):
        model.export("torchvision", tmp_path / "it.pth")
    assert [*tmp_path.iterdir()] == [tmp_path / "it.safetensors"]


def test_a_backbone_gets_images_that_are_made_the_same_every_time(tmp_path: Path) -> None:
    backbone = hs.pretrained("efficientnet_lite0", pixels=32)
    first, second = Package.of(backbone).golden, Package.of(backbone).golden
    np.testing.assert_array_equal(first.images, second.images)
    assert first.images.dtype == np.uint8
    assert first.images.shape == (GOLDEN, 32, 32, 3)
    assert first.images.std() > 30
    assert np.ptp(first.logits, axis=0).max() > 1  # they are not all the same to the network
    np.testing.assert_allclose(first.logits, backbone.network.forward(first.images), rtol=1e-4, atol=1e-4)
    assert backbone.export("onnx", tmp_path / "it.onnx").images == GOLDEN


@every_light
@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), hs.UsageError, "cannot be written to .*No space left"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), hs.UsageError, "cannot be written to .*Read-only"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (SystemExit(143), SystemExit, "^143$"),
        (
            RuntimeError("its own\nwords"),
            hs.CheckError,
            "cannot be written in the format .*RuntimeError: its own words",
        ),
        (hs.UsageError("foreseen"), hs.UsageError, "^foreseen$"),
    ],
    ids=["full", "read-only", "interrupted", "ended", "its own", "foreseen"],
)
def test_what_stops_half_way_leaves_nothing(
    to: str, error: BaseException, expected: type[BaseException], words: str,
    model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    stand_in(monkeypatch, to, raising(error))
    with pytest.raises(expected, match=words):
        model.export(to, tmp_path / "new" / f"it{FORMATS[to].suffix}")
    assert nothing_in(tmp_path)


@every_light
def test_a_full_disk_is_no_failed_check(to: str, model: hs.Classifier, tmp_path: Path) -> None:
    """OpenVINO's writer does not say why it fails."""
    with small_files(4 << 20), pytest.raises(hs.UsageError, match=r"cannot be written to .*: File too large"):
        model.export(to, tmp_path / f"it{FORMATS[to].suffix}")
    assert nothing_in(tmp_path)


def test_too_little_memory_is_no_failed_check(
    model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, "onnx", raising(RuntimeError("Exception from x.cpp:1:\nstd::bad_alloc\n\n")))
    with pytest.raises(
        MachineError, match=r"There is not enough memory: std::bad_alloc\. Take fewer pixels \(pixels\)"
    ):
        model.export("onnx", tmp_path / "it.onnx")
    assert nothing_in(tmp_path)


def test_a_name_that_a_library_may_not_open_is_refused(model: hs.Classifier, tmp_path: Path) -> None:
    with pytest.raises(hs.UsageError, match="has letters that not every library can open"):
        model.export("onnx", tmp_path / os.fsdecode(b"\xff.onnx"))


@pytest.mark.parametrize("stop", [OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=["error", "interrupted"])
@every_light
def test_what_cannot_take_its_place_leaves_nothing(
    to: str, stop: BaseException, model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> Path:
        raise stop

    for owner, name in ((os, "link"), (Path, "replace"), (Path, "rename")):
        monkeypatch.setattr(owner, name, fails)
    with pytest.raises((hs.UsageError, KeyboardInterrupt)):
        model.export(to, tmp_path / f"it{FORMATS[to].suffix}", takes="pixels")
    assert nothing_in(tmp_path)


@every_light
def test_an_older_export_is_replaced_where_that_is_asked_for(to: str, model: hs.Classifier, tmp_path: Path) -> None:
    target = tmp_path / f"it{FORMATS[to].suffix}"
    first = model.export(to, target, takes="pixels")
    with pytest.raises(hs.UsageError, match=r"exists already.*overwrite=True"):
        model.export(to, target, takes="pixels")
    again = model.export(to, target, takes="pixels", overwrite=True)
    assert again.files.keys() == first.files.keys()
    assert [*tmp_path.iterdir()] == [target]


def test_a_folder_with_something_else_in_it_is_left_alone(model: hs.Classifier, tmp_path: Path) -> None:
    model.export("openvino", tmp_path / "it", takes="pixels")
    (tmp_path / "it" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "it").iterdir()}
    with pytest.raises(hs.UsageError, match=r"other things in it \('notes\.txt' first\)"):
        model.export("openvino", tmp_path / "it", takes="pixels", overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "it").iterdir()} == before
    (tmp_path / "file.onnx").mkdir()
    with pytest.raises(hs.UsageError, match="is a folder, the export is a file"):
        model.export("onnx", tmp_path / "file.onnx", overwrite=True)


@every_light
def test_two_exports_to_one_place_are_one_and_an_error(
    to: str, model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both, outcomes, target = threading.Barrier(2, timeout=20), list[object](), tmp_path / f"it{FORMATS[to].suffix}"

    def wait(_: Path) -> None:
        both.wait()

    stand_in(monkeypatch, to, wait)  # neither has found the other's file

    def export() -> None:
        try:
            outcomes.append(model.export(to, target, takes="pixels"))
        except hs.UsageError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=export) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (done,) = (each for each in outcomes if isinstance(each, hs.Exported))
    (words,) = (each for each in outcomes if isinstance(each, str))
    assert words.startswith(f"'{target}' exists already. Choose another place:")
    assert [*tmp_path.iterdir()] == [target]
    assert done.files == {file: file.stat().st_size for file in done.files}


@every_light
def test_a_file_cut_short_is_not_let_through(
    to: str, model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cut(path: Path) -> None:
        file = path if path.is_file() else path / "model.bin"
        os.truncate(file, file.stat().st_size // 2)

    stand_in(monkeypatch, to, cut)
    with pytest.raises(hs.CheckError, match=f"cannot be written in the format {to}: .*Nothing was written"):
        model.export(to, tmp_path / f"it{FORMATS[to].suffix}")
    assert nothing_in(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits: logits * 1.001, r"differ by up to 0.001 of the largest value, 0.0001 is allowed"),
        (lambda logits: logits * np.nan, "differ by up to nan"),
        (lambda logits: logits[:, ::-1], "differ by up to"),
        (lambda logits: logits[:1], r"of shape \(1, 3\), not \(4, 3\)"),
    ],
    ids=["other", "nan", "another order", "fewer"],
)
def test_other_answers_are_not_let_through(
    change: Callable[[NDArray[Any]], NDArray[Any]], words: str,
    model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(to_onnx, "replay", with_other_logits(change))
    with pytest.raises(hs.CheckError, match=words):
        model.export("onnx", tmp_path / "it.onnx", takes="pixels")
    assert nothing_in(tmp_path)


def test_other_weights_are_found_out_by_the_replay(model: hs.Classifier, tmp_path: Path) -> None:
    """Golden logits that the network does not give: as if the writer had mixed something up."""
    assert model.golden is not None
    golden = Golden(model.golden.images, model.golden.logits + np.float32(0.01) * np.abs(model.golden.logits).max())
    broken = hs.Classifier(model.blueprint, model.weights, model.spec, model.classes, golden=golden, precision="fp32")
    with pytest.raises(hs.CheckError, match="other answers than the model"):
        broken.export("onnx", tmp_path / "it.onnx")
    assert nothing_in(tmp_path)


def test_an_export_says_what_it_does_and_can_be_cancelled(model: hs.Classifier, tmp_path: Path) -> None:
    told = list[str]()
    model.export(
        "openvino",
        tmp_path / "whole",
        takes="pixels",
        progress=lambda stage, done, count: told.append(f"{stage} {done}"),
    )
    assert told == ["writing 0", "writing 1", "comparing 0", "comparing 1"]

    def cancel(stage: str, done: int, count: int) -> None:
        if stage == "comparing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.export("openvino", tmp_path / "cancelled", takes="pixels", progress=cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_an_export_that_is_killed_leaves_nothing_at_its_place(bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time, headstart as hs\n"
        "from headstart.export import onnx\n"
        "def write(package, path):\n"
        "    path.write_bytes(b'half')\n    print('half', flush=True)\n    time.sleep(60)\n"
        "onnx.write = write\n"
        "hs.load(sys.argv[1], precision='fp32').export('onnx', sys.argv[2])\n"
    )
    for stop in (signal.SIGKILL, signal.SIGTERM):
        place = tmp_path / stop.name
        place.mkdir()
        running = subprocess.Popen([sys.executable, "-c", code, bundle, place / "it.onnx"], stdout=subprocess.PIPE)
        assert running.stdout is not None
        assert running.stdout.readline() == b"half\n"
        running.send_signal(stop)
        assert running.wait(30) == -stop
        running.stdout.close()
        assert all(path.name.startswith(".headstart-") for path in place.iterdir())
        assert hs.load(bundle, precision="fp32").export("onnx", place / "it.onnx").max_difference < 1e-4


def in_int8(monkeypatch: pytest.MonkeyPatch, change: Callable[[NDArray[Any]], NDArray[Any]]) -> list[int]:
    """A format whose int8 is fp32 with other logits; returns how many photos it was calibrated on."""
    calibrated: list[int] = []

    def write(package: Package, path: Path, calibration: NDArray[np.uint8]) -> None:
        calibrated.append(len(calibration))
        to_onnx.write(package, path)

    monkeypatch.setattr(Format, "module", lambda _: SimpleNamespace(write=write, replay=with_other_logits(change)))
    return calibrated


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that the model was not fitted on."""
    return folder(tmp_path_factory.mktemp("others"), 21, start=100)


def test_int8_is_measured_on_photos_instead(
    model: hs.Classifier, others: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calibrated = in_int8(monkeypatch, lambda logits: logits * np.float32(1.1))
    done = model.export("tflite", tmp_path / "it.tflite", int8=True, data=str(others))
    assert done.loss is not None
    assert done.max_difference == pytest.approx(0.1, rel=1e-3)
    assert (done.tolerance, done.loss.points, done.loss.agreement) == (None, 0.0, 1.0)
    assert calibrated == [done.loss.calibration]
    assert (done.loss.calibration, done.loss.before.images) == (31, 32)
    assert done.as_json()["int8"]["points"] == 0.0


def test_int8_that_loses_too_much_is_not_let_through(
    model: hs.Classifier, others: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_int8(monkeypatch, lambda logits: logits[:, ::-1])
    with pytest.raises(hs.CheckError, match=r"int8 would lose \d+\.\d points of accuracy"):
        model.export("tflite", tmp_path / "it.tflite", int8=True, data=str(others))
    assert nothing_in(tmp_path)
