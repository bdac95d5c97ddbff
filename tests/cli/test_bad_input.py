"""Bad input through the command line: one clear sentence, the right exit code, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from making import SHAPES, Shell, folder, packed, picture

QUICK = ("--pixels", 32)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "model"


def test_an_empty_folder(shell: Shell, tmp_path: Path, out: Path) -> None:
    answer = shell("fit", tmp_path, "--out", out)
    assert answer.code == 3
    assert "folder" in answer.err
    assert not out.exists()


def test_one_class_only(shell: Shell, tmp_path: Path, out: Path) -> None:
    answer = shell("fit", folder(tmp_path / "data", 4, ("bars",)), "--out", out, *QUICK)
    assert (answer.code, answer.out) == (3, "")
    assert "two classes" in answer.err
    assert answer.err.count("\n") == 1


def test_two_classes_of_which_one_has_one_photo(shell: Shell, tmp_path: Path, out: Path) -> None:
    data = folder(tmp_path / "data", 4, ("bars",))
    folder(tmp_path / "data", 1, ("discs",))
    answer = shell("fit", data, "--out", out, *QUICK)
    assert answer.code == 3
    assert "discs" in answer.err


def test_all_photos_unreadable(shell: Shell, tmp_path: Path, out: Path) -> None:
    for kind in SHAPES:
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "data" / kind / f"{number}.jpg").write_bytes(b"not an image")
    answer = shell("fit", tmp_path / "data", "--out", out)
    assert answer.code == 3
    assert "unreadable (9), first 'bars/0.jpg'" in answer.err


@pytest.mark.parametrize("command", ["fit", "check"])
def test_a_missing_path_and_a_file_for_a_folder(shell: Shell, tmp_path: Path, command: str) -> None:
    assert shell(command, tmp_path / "nowhere").code == 2
    (tmp_path / "photo.jpg").write_bytes(packed(picture("bars", 1), "JPEG"))
    answer = shell(command, tmp_path / "photo.jpg")
    assert answer.code == 2
    assert "folder" in answer.err


def test_a_place_that_cannot_be_written_costs_no_work(shell: Shell, photos: Path, tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "model", photos):
        answer = shell("fit", photos, "--out", place)
        assert answer.code == 2, answer.err
        assert "--out" in answer.err
    assert (tmp_path / "file").read_text() == "mine"
    assert not (home / "features").exists()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.argv = ["headstart", *sys.argv[1:]]
from headstart.cli.app import main
main()
"""


def test_a_full_disk_leaves_nothing_half_written(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    command = [sys.executable, "-c", LIMITED, "fit", str(photos), "--out", str(place / "model"), "--pixels", "32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.exists() or not list(place.iterdir())


def test_names_with_blanks_quotes_emoji_and_newlines(shell: Shell, tmp_path: Path, out: Path) -> None:
    names = {"bars": "a 'b' \"c\"", "discs": "🐈 [bold]x[bold]", "waves": "line\nbreak"}
    data = folder(tmp_path / "data", 6)
    for plain, odd in names.items():
        (data / plain).rename(data / odd)
        (data / odd / "0.png").rename(data / odd / f"{odd.replace('/', '')}.png")
    fitted = shell("fit", data, "--out", out, *QUICK, "--json")
    assert fitted.code == 0, fitted.err
    assert sorted(fitted.json["classes"]) == sorted(names.values())
    assert "line\\nbreak" in shell("evaluate", out, data, "--fitted-on-too").out + shell("check", data).out
    shown = shell("predict", out, *sorted(data.rglob("*.png")))
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 18
    assert "[bold]x[bold]" in shown.out


def test_many_classes(shell: Shell, tmp_path: Path, out: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(300):
        (tmp_path / "data" / f"{number:05}").mkdir(parents=True)
        for place in range(2):
            pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
            (tmp_path / "data" / f"{number:05}" / f"{place}.png").write_bytes(packed(pixels))
    answer = shell("fit", tmp_path / "data", "--out", out, *QUICK, "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["classes"]) == 300
    assert answer.json["accuracy"] is None  # two each: all of them are needed


def test_an_unknown_backbone_and_option(shell: Shell, photos: Path, out: Path) -> None:
    answer = shell("fit", photos, "--backbone", "mobilnet_v2", "--out", out)
    assert answer.code == 2
    assert "mobilenet_v2" in answer.err
    assert shell("fit", photos, "--epochs", 3).code == 2
    assert shell("predikt").code == 2


def test_weights_of_another_network(shell: Shell, photos: Path, tmp_path: Path, out: Path) -> None:
    save_file({"features.0.weight": np.ones((64, 3, 3, 3), np.float32)}, tmp_path / "other.safetensors")
    answer = shell(
        "fit", photos, "--backbone", "mobilenet_v2", "--weights", tmp_path / "other.safetensors", "--out", out
    )
    assert answer.code == 2
    assert "conv_stem.weight" in answer.err
    assert "(32, 3, 3, 3)" in answer.err


def test_the_shared_squeezenet_is_no_mobilenet(shell: Shell, photos: Path, shared: Path, out: Path) -> None:
    weights = shared / "weights" / "squeezenet1_1.torchvision.safetensors"
    answer = shell("fit", photos, "--backbone", "mobilenet_v2", "--weights", weights, "--out", out)
    assert answer.code == 2
    assert "conv_stem.weight" in answer.err


@pytest.mark.usefixtures("hears_ctrl_c")
def test_an_interruption_keeps_what_was_computed(tmp_path: Path, home: Path) -> None:
    data = folder(tmp_path / "data", 250)
    command = [sys.executable, "-m", "headstart", "fit", str(data), "--out", str(tmp_path / "model"), "--pixels", "160"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"HEADSTART_HOME": str(home)})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _kept(home):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, words = child.communicate(timeout=60)
    assert child.returncode == 130, words
    assert "Traceback" not in words
    assert "goes on from there" in words
    assert not (tmp_path / "model").exists()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=True)
    answer = json.loads(done.stdout)
    assert answer["from_store"] >= 256
    assert answer["from_store"] + answer["computed"] == 750


def _kept(home: Path) -> int:
    from headstart.learn.feature_cache import spaces

    return sum(space.rows for space in spaces(home))


@pytest.mark.parametrize(
    ("option", "value"), [("--pixels", 3), ("--holdout", 2), ("--seed", -1), ("--precision", "fp8")]
)
def test_settings_out_of_range(shell: Shell, photos: Path, out: Path, option: str, value: object) -> None:
    answer = shell("fit", photos, "--out", out, option, value)
    assert answer.code == 2, answer.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--mean", "0,0,0"), "--mean and --std belong together"),
        (("--mean", "0,0", "--std", "1,1,1"), "--mean: expected three numbers"),
        (("--mean", "0,0,nan", "--std", "1,1,1"), "--mean: expected three numbers"),
        (("--mean", "0,0,0", "--std", "1,0,1"), "are of pixels from 0 to 1. Received: 0,0,0 and 1,0,1"),
        (("--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5"), "by 255: 127.5 is 0.5"),
        (("--mean", "-1,0,0", "--std", "1,1,1"), "are of pixels from 0 to 1"),
    ],
)
def test_a_normalisation_that_is_none(shell: Shell, photos: Path, out: Path, given: tuple[str, ...], said: str) -> None:
    answer = shell("fit", photos, *given, "--out", out)
    assert (answer.code, said in answer.err) == (2, True)
    assert not out.exists()


def test_a_saved_model_has_weights_of_its_own(shell: Shell, photos: Path, bundle: Path, out: Path) -> None:
    """A file that was named and passed over would look as if it had been used."""
    photo = next(photos.rglob("*.png"))
    for command in (
        ("predict", bundle, photo),
        ("evaluate", bundle, photos),
        ("export", bundle, "--to", "openvino", "--out", out),
    ):
        answer = shell(*command, "--weights", "nowhere.pth")
        assert (answer.code, "has its own weights: --weights is for backbones" in answer.err) == (2, True)
    assert not out.exists()


def test_models_that_are_none(shell: Shell, photos: Path, bundle: Path, tmp_path: Path) -> None:
    photo = next(photos.rglob("*.png"))
    assert shell("predict", tmp_path / "nothing", photo).code == 2
    assert shell("predict", photos, photo).code == 2
    altered = Path(shutil.copytree(bundle, tmp_path / "altered"))
    raw = bytearray((altered / "model.safetensors").read_bytes())
    raw[-5] ^= 1
    (altered / "model.safetensors").write_bytes(raw)
    answer = shell("predict", altered, photo)
    assert answer.code == 4
    assert "altered" in answer.err


def test_predict_goes_on_past_what_it_cannot_read(shell: Shell, photos: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    big = tmp_path / "big.jpg"  # of another size than those that were fitted on
    big.write_bytes(packed(picture("waves", 900, 300), "JPEG"))
    answer = shell("predict", bundle, tmp_path / "bad.jpg", big, "--json")
    assert answer.code == 3
    first, second = map(json.loads, answer.out.splitlines())
    assert first["error"] == "empty"
    assert second["label"] == "waves"


def test_with_debug_the_exit_code_is_the_same(tmp_path: Path) -> None:
    codes = []
    for flags in ([], ["--debug"]):
        command = [sys.executable, "-m", "headstart", *flags, "fit", str(tmp_path / "nothing")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
        assert ("Traceback" in done.stderr) == bool(flags)
        assert "headstart: No such file or folder" in done.stderr
    assert codes == [2, 2]


@pytest.mark.parametrize("option", ["--days", "--max-gb"])
def test_no_cache_is_emptied_by_a_negative_number(shell: Shell, option: str) -> None:
    answer = shell("cache", "--prune", option, -1)
    assert (answer.code, answer.out) == (2, "")
    assert f"{option}: expected 0 or more" in answer.err


def test_check_proposes_no_fit_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    answer = shell("check", folder(tmp_path / "one", 1))
    assert answer.code == 0
    assert "Nothing to fit yet" in answer.out
    assert "headstart fit" not in answer.out
    assert "headstart fit" in shell("check", folder(tmp_path / "two", 2)).out


@pytest.mark.parametrize(("command", "kept"), [("check", False), ("fit", True), ("fit --no-cache", False)])
def test_only_what_is_kept_is_said_to_be(
    command: str, kept: bool, shell: Shell, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headstart.data.fingerprints.Fingerprints.take", interrupted)
    name, *options = command.split()
    answer = shell(name, photos, *options, *(("--out", out) if name == "fit" else ()))
    assert answer.code == 130
    assert ("What was computed is kept" in answer.err) == kept


def test_a_network_without_an_address_names_those_that_have_one(shell: Shell, photos: Path, out: Path) -> None:
    answer = shell("fit", photos, "--backbone", "mobilenet_v2", "--out", out)
    assert answer.code == 2
    assert "come from a file of your own: --weights FILE. Or take one whose weights are fetched" in answer.err
    assert "mobilenet_v2.torchvision, mobilenet_v2.v2, mobilenet_v2.timm" in answer.err
