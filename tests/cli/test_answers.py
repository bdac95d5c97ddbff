"""The commands as scripts may rely on them: JSON on standard output, words elsewhere, exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import headstart as hs
from making import SHAPES, Shell, folder, packed, picture


def test_fit_evaluate_and_predict_in_json(shell: Shell, photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    fitted = shell("fit", photos, "--out", model, "--pixels", 64, "--json")
    assert (fitted.code, fitted.err) == (0, "")
    answer = fitted.json
    assert {"accuracy", "interval", "images", "classes", "seconds", "model"} <= set(answer)
    assert (answer["images"], answer["classes"], answer["model"]) == (36, list(SHAPES), str(model))
    low, high = answer["interval"]
    assert low < answer["accuracy"] <= high
    assert sum(answer["stages"].values()) <= answer["seconds"] + 0.1
    assert sum(bar["images"] for bar in answer["reliability"]) == answer["tested_on"]
    assert answer["coverage"][-1] == {"coverage": 1.0, "accuracy": answer["accuracy"]}

    again = shell("evaluate", model, photos, "--json").json
    assert again["accuracy"] == answer["accuracy"]
    assert again["images"] == answer["tested_on"]
    assert {"interval", "macro_f1"} <= set(again)
    keys = ("calibration_error", "calibration_noise", "unknown")
    assert [again[key] for key in keys] == pytest.approx([answer[key] for key in keys], abs=1e-3)
    assert [bar["images"] for bar in again["reliability"]] == [bar["images"] for bar in answer["reliability"]]

    lines = shell("predict", model, photos / "bars", "--json").out.splitlines()
    assert len(lines) == 12
    for line in lines:
        said = json.loads(line)
        assert set(said) == {"path", "label", "probability", "unknown"}
        assert said["label"] == "bars"
        assert Path(said["path"]).exists()


def test_the_summary_in_words(shell: Shell, photos: Path, tmp_path: Path) -> None:
    answer = shell("fit", photos, "--out", tmp_path / "model", "--pixels", 64)
    assert answer.err == ""  # no bar off a terminal
    for words in ("accuracy", "95 % interval", "36 images in 3 classes", "headstart predict", "seconds"):
        assert words in answer.out
    assert "bars" in shell("predict", tmp_path / "model", photos / "bars" / "0.png").out


def test_pixels_and_what_was_assumed_of_weights_are_said(shell: Shell, photos: Path, tmp_path: Path) -> None:
    """A file in timm's names tells neither timm's padding from TensorFlow's nor the pixels it was trained on."""
    file, out = tmp_path / "tuned.pth", tmp_path / "model"
    torch.save(timm.create_model("mobilenetv2_100").state_dict(), file)
    own = ("--backbone", "mobilenet_v2", "--weights", file, "--pixels", 64, "--out", out)
    said = " ".join(shell("fit", photos, *own).out.split())
    assert "run as mobilenet_v2.timm; mobilenet_v2.tf would have other padding or pixels" in said
    answer = shell("fit", photos, *own, "--mean", "0.1,0.2,0.3", "--std", "1,1,1", "--overwrite", "--json").json
    assert answer["backbone"] == "mobilenet_v2.timm"
    assert "run as mobilenet_v2.timm" in answer["assumed"]
    spec = hs.load(out).spec
    assert (spec.size, spec.mean, spec.std) == (64, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    both = ("--backbones", "mobilenet_v2", "--weights", f"mobilenet_v2={file}", "--pixels", 32)
    assert "assumed        The names in" in shell("compare", photos, *both).out
    (row,) = shell("compare", photos, *both, "--json").json["rows"]
    assert row["assumed"] == answer["assumed"]
    saved = shell("predict", out, photos / "bars" / "0.png", "--mean", "0,0,0", "--std", "1,1,1")
    assert (saved.code, "is a saved model and has its own pixels" in saved.err) == (2, True)


def test_that_unknown_needs_photos_is_said(shell: Shell, photos: Path, tmp_path: Path) -> None:
    few = folder(tmp_path / "few", 5)
    said = [shell("fit", data, "--out", tmp_path / "model", "--pixels", 32).out for data in (few, photos)]
    assert ["photos of other things are often missed with fewer than 20" in each for each in said] == [True, False]


def test_check_finds_every_defect(shell: Shell, photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "bars/empty.png").write_bytes(b"")
    (data / "bars/cut.jpg").write_bytes(packed(picture("bars", 80), "JPEG")[:900])
    (data / "bars/text.jpg").write_text("words")
    (data / "bars/wrong.jpg").write_bytes(packed(picture("bars", 81)))
    shutil.copy(data / "bars/0.png", data / "waves/stray.png")
    found = shell("check", data, "--json").json
    assert {p["name"]: p["kind"] for p in found["unreadable"]} == {
        "bars/empty.png": "empty",
        "bars/cut.jpg": "truncated",
        "bars/text.jpg": "unreadable",
    }
    assert [p["name"] for p in found["wrong_names"]] == ["bars/wrong.jpg"]
    (repeat,) = found["duplicates"]
    assert (repeat["relation"], sorted(repeat["images"])) == ("across classes", ["bars/0.png", "waves/stray.png"])
    words = shell("check", data)
    assert words.code == 0
    for name in ("empty.png", "cut.jpg", "text.jpg", "wrong.jpg", "stray.png", "across classes"):
        assert name in words.out


def test_show_backbones_and_cache(shell: Shell, photos: Path, bundle: Path, tmp_path: Path) -> None:
    shown = shell("show", "efficientnet_lite0", "--json").json
    assert (shown["parameters"], shown["pixels"]) == (4_652_008, 224)
    assert shown["layers"][0]["name"] == "input"
    assert shown["layers"][-1]["name"] == "logits"
    assert "4,652,008" in shell("show", "efficientnet_lite0").out
    assert shell("show", bundle, "--json").json["layers"][-1]["shape"] == [3]

    rows = {row["name"]: row for row in shell("backbones", "--json").json["backbones"]}
    assert rows["efficientnet_lite0"]["weights"] == "at hand"
    assert rows["efficientnet_lite0"]["default"]
    words = shell("backbones", "--all").out
    assert all(name in words for name in rows)
    listed = [line.split()[0] for line in shell("backbones").out.partition("\n\n")[0].splitlines()[1:]]
    assert (listed[0], rows[listed[0]]["imagenet_top1"]) == ("efficientnet_lite0", 75.1)
    assert len(listed) == len({row["architecture"] for row in rows.values()})  # one each, what needs least:
    assert {"resnet50", "mobilenet_v2.torchvision", "mobilenet_v1"} <= {*listed}
    at_hand = [rows[name]["weights"] == "at hand" for name in listed]
    assert at_hand == sorted(at_hand, reverse=True)

    assert shell("cache", "--json").json["spaces"] == []
    shell("fit", photos, "--out", tmp_path / "model", "--pixels", 32, "--precision", "fp32")
    (space,) = shell("cache", "--json").json["spaces"]
    assert (space["images"], space["backbone"], space["bytes"] > 0) == (36, "efficientnet_lite0", True)
    assert "36" in shell("cache").out
    assert shell("cache", "--days", 3).code == 2
    assert shell("cache", "--prune", "--json").json["freed"] > 0
    assert shell("cache", "--json").json["bytes"] == 0


def test_a_zebra_without_any_fit(shell: Shell, shared: Path) -> None:
    zebra = shared / "data" / "imagenet_sample" / "340_zebra.jpg"
    answer = shell("predict", "efficientnet_lite0", zebra, "--json")
    assert (answer.code, answer.json["label"], answer.json["unknown"]) == (0, "zebra", False)


def test_version_help_and_a_closed_pipe(shell: Shell, photos: Path, bundle: Path) -> None:
    import headstart

    assert shell("--version").out.strip() == headstart.__version__
    assert all(name in shell("--help").out for name in ("fit", "check", "predict", "evaluate", "cache"))
    command = f"'{sys.executable}' -m headstart predict '{bundle}' '{photos}' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("end", "before", "code"),
    [(SystemExit(1), BrokenPipeError(), 0), (SystemExit(), None, 1), (SystemExit(0), None, 1)],
)
def test_an_exit_that_no_closed_pipe_is_the_reason_of_is_no_success(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, end: SystemExit, before: BaseException | None, code: int
) -> None:
    def app(**_: object) -> None:
        end.__context__ = before
        raise end

    monkeypatch.setattr("headstart.cli.app.command_line", lambda names: app)
    answer = shell("show", "mobilenet_v2")
    assert answer.code == code
    assert ("SystemExit" in answer.err) == bool(code)


NO_NETWORK = """
import json, socket, sys

def refuse(*arguments, **named):
    sys.stderr.write("network!")
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from headstart.cli.app import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["headstart", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
    assert "openvino_telemetry" not in sys.modules
"""


@pytest.mark.parametrize("isolated", [False, True])
def test_no_command_opens_a_connection(photos: Path, tmp_path: Path, isolated: bool) -> None:
    prefix = ["unshare", "-n"] if isolated else []
    if isolated and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine cannot make a network namespace")
    model, photo = str(tmp_path / "model"), str(photos / "bars" / "0.png")
    commands = [
        ["fit", str(photos), "--out", model, "--pixels", "32"],
        ["evaluate", model, str(photos)],
        ["predict", model, photo],
        ["predict", "efficientnet_lite0", photo],
    ]
    command = [*prefix, sys.executable, "-c", NO_NETWORK, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
