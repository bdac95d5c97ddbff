"""The command `headstart export`."""

from __future__ import annotations

from pathlib import Path

import pytest

from export_cases import nothing_in, raising, stand_in, with_other_logits
from headstart.cli.export import _size
from headstart.export import onnx as to_onnx
from making import Shell


def test_the_command_answers_at_a_glance(
    shell: Shell, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = shell("export", bundle, "--to", "openvino")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines if line[:3] != " " * 3 or line.split()[0].startswith("model.")] == [
        "wrote",
        "model.bin",
        "model.xml",
        "takes",
        "gives",
        "difference",
        "open",
    ]
    assert f"{tmp_path}/model_openvino  13." in lines[0]
    said = " ".join(answer.out.split())
    assert "takes photos (N, height, width, 3), uint8 RGB, any size" in said
    assert "logits, probabilities (N, 3): bars, discs, waves; label, unknown_score, unknown (N,)" in said
    assert "e-0" in said
    assert "openvino.Core().compile_model" in lines[-1]
    assert (tmp_path / "model_openvino" / "model.xml").is_file()


def test_sizes_are_whole_bytes_where_they_are_small() -> None:
    assert [_size(count) for count in (0, 12, 999, 1000, 99_900, 100_000)] == [
        "0 bytes", "12 bytes", "999 bytes", "1.0 kB", "99.9 kB", "0.1 MB",
    ]  # fmt: skip


def test_the_command_answers_machines(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    answer = shell("export", bundle, "--to", "onnx", "--out", tmp_path / "it.onnx", "--json")
    assert (answer.code, answer.err, answer.out.count("\n")) == (0, "", 1)
    said = answer.json
    assert said["files"] == [said["path"]] == [str(tmp_path / "it.onnx")]
    assert said["bytes"] == (tmp_path / "it.onnx").stat().st_size
    assert 0 < said["max_difference"] < 1e-2
    assert (said["format"], said["tolerance"], said["pixels"], said["int8"]) == ("onnx", 1e-2, 64, None)
    assert (said["takes"], said["outputs"]) == (
        "photos", ["logits", "probabilities", "label", "unknown_score", "unknown"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "onyx"), "no format 'onyx'. Did you mean onnx"),
        (("--to", "onnx", "--int8"), "fp32 only"),
        (("--to", "keras", "--takes", "photos"), "format keras cannot crop and scale photos; it takes pixels. Formats"),
        (
            ("--to", "tflite", "--int8", "--takes", "photos"),
            "In int8 a file of format tflite takes pixels. Photos: without --int8",
        ),
        (("--to", "onnx", "--takes", "photo"), "--takes: expected one of auto, photos, pixels. Received: 'photo'"),
        (("--to", "onnx", "--out", "it.xml"), "ends in .onnx"),
        (("--to", "onnx", "--out", "there.onnx"), "exists already"),
        ((), "--to"),
    ],
)
def test_the_command_refuses_before_it_opens_the_model(
    arguments: tuple[str, ...], words: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_text("mine")
    answer = shell("export", "no/such/model", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert words in " ".join(answer.err.split())
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_the_command_ends_with_four_where_the_check_fails(
    shell: Shell, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "replay", with_other_logits(lambda logits: logits + 1))
    answer = shell("export", bundle, "--to", "onnx", "--out", tmp_path / "it.onnx", "--json")
    assert (answer.code, answer.out, answer.err.count("\n")) == (4, "", 1)
    assert "other answers" in answer.err
    assert nothing_in(tmp_path)


def test_the_command_interrupted_ends_with_130(
    shell: Shell, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "onnx", raising(KeyboardInterrupt()))
    answer = shell("export", bundle, "--to", "onnx", "--out", tmp_path / "it.onnx")
    assert (answer.code, answer.out) == (130, "")
    assert nothing_in(tmp_path)
