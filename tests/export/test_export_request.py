"""What is checked of an export before any work."""

from __future__ import annotations

import errno
import importlib.util
import os
import tempfile
from pathlib import Path

import pytest

import headstart as hs
from export_cases import nothing_in
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import Node
from headstart.core.errors import MissingExtraError
from headstart.export.formats import FORMATS, check_holds, default_path, find_format, target_of
from referee import INPUT


def test_an_unknown_format_is_refused_with_the_nearest() -> None:
    with pytest.raises(hs.UsageError, match=r"no format 'tf-lite'\. Did you mean tflite"):
        find_format("tf-lite")
    with pytest.raises(hs.UsageError, match=r"no format 'zzz'\. Known: keras, keras-applications, onnx"):
        find_format("zzz")


def test_int8_is_refused_where_there_is_none() -> None:
    with pytest.raises(hs.UsageError, match=r"onnx is written in fp32 only\. In int8: to='tflite'"):
        find_format("onnx", int8=True)
    assert find_format("tflite", int8=True).name == "tflite"


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("onnx", "onnxruntime", "onnx"),
        ("keras", "keras", "keras"),
        ("savedmodel", "tensorflow", "keras"),
        ("tflite", "ai_edge_litert", "tflite"),
        ("torch", "torch", "torch"),
        ("timm", "timm", "torch"),
        ("torchvision", "torchvision", "torch"),
        ("keras-applications", "keras", "keras"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_command(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda each: None if each == package else real(each))
    words = rf"format {name} needs {package.replace('_', '-')}, .*pip install 'headstart\[{extra}\]'"
    with pytest.raises(MissingExtraError, match=words):
        find_format(name)


def test_every_format_is_there_to_be_written_and_replayed() -> None:
    for each in FORMATS.values():
        module = each.module()
        assert callable(module.write)
        assert callable(module.replay)
        assert each.library or "FILE" in each.opens


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    onnx, openvino = FORMATS["onnx"], FORMATS["openvino"]
    (tmp_path / "mine.onnx").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "mine.onnx")
    for found, name in ((onnx, "mine.onnx"), (onnx, "link.onnx"), (openvino, "empty"), (onnx, "empty")):
        with pytest.raises(hs.UsageError, match=r"exists already\..*path=PATH.*overwrite=True"):
            target_of(found, tmp_path / name)
    assert (tmp_path / "mine.onnx").read_text() == "mine"


def test_a_name_ends_as_those_of_its_format_do(tmp_path: Path) -> None:
    for name in ("model.bin", ".onnx", "onnx"):
        with pytest.raises(hs.UsageError, match=rf"of format onnx ends in \.onnx\. Received: '.*{name}'"):
            target_of(FORMATS["onnx"], tmp_path / name)
    assert target_of(FORMATS["onnx"], tmp_path / "new" / "model.onnx") == tmp_path / "new" / "model.onnx"
    assert target_of(FORMATS["openvino"], tmp_path / "any.name") == tmp_path / "any.name"
    assert nothing_in(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read_only(**_: object) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / "file").write_text("mine")
    with pytest.raises(hs.UsageError, match="file' cannot be written to: Not a directory"):
        target_of(FORMATS["onnx"], tmp_path / "file" / "model.onnx")
    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    with pytest.raises(
        hs.UsageError, match=r"cannot be written to: Read-only file system\. Choose another place: path"
    ):
        target_of(FORMATS["onnx"], tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("source", "kind", "would"),
    [("timm/vit_tiny", "PyTorch module", "torch"), ("keras/Xception", "Keras model", "keras or savedmodel or tflite")],
)
def test_somebody_elses_network_is_sent_to_the_formats_that_hold_it(source: str, kind: str, would: str) -> None:
    attrs = {"source": source, "features": "f", "head": True, "units": 3, "weights": {}, "config": ""}
    blueprint = Blueprint("theirs", (INPUT, Node("logits", "module", ("input",), attrs)), 9)
    for found in FORMATS.values():
        if found.name in would.split(" or "):
            check_holds(found, blueprint)
        else:
            with pytest.raises(hs.UsageError, match=f"'{source}' is a {kind}, ") as error:
                check_holds(found, blueprint)
            assert error.value.args[0].endswith(f"Formats for it: --to {would}")


def test_the_usual_place_is_the_working_folder_under_the_models_name(tmp_path: Path) -> None:
    assert default_path(FORMATS["onnx"], f"{tmp_path}/cats/") == "cats.onnx"
    assert default_path(FORMATS["openvino"], "cats") == "cats_openvino"
    assert default_path(FORMATS["tflite"], "cats", int8=True) == "cats_int8.tflite"
    assert default_path(FORMATS["torch"], "timm/vit_tiny") == "vit_tiny.pt2"
    assert default_path(FORMATS["onnx"], "/") == "model.onnx"
