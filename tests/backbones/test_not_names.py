"""Files and folders given as the name of a network: what to do with them, wherever a name is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headstart.backbones.catalogue import find_backbone
from headstart.backbones.not_names import why_no_name
from headstart.core.errors import UsageError
from headstart.engines.names import framework_of
from headstart.engines.registry import open_backbone
from making import Shell

SAYS = {
    "model.h5": r"--backbone NAME --weights model\.h5.*model\.save\(\"model\.keras\"\)",
    "MODEL.HDF5": r"--backbone NAME --weights MODEL\.HDF5",
    "x.weights.h5": r"--backbone NAME --weights x\.weights\.h5",
    "net.pth": r"--backbone NAME --weights net\.pth.*backbone=MODULE",
    "net.pt": r"--backbone NAME --weights net\.pt",
    "net.safetensors": r"--backbone NAME --weights net\.safetensors",
    "pytorch_model.bin": r"--backbone NAME --weights pytorch_model\.bin",
    "net.onnx": r"no network is taken from.*a \.keras file",
    "net.tflite": "no network is taken from",
}


@pytest.mark.parametrize("name", SAYS)
@pytest.mark.parametrize("folder", ["", "some/folder/"])
def test_a_file_is_told_what_to_do_with(name: str, folder: str) -> None:
    """Whether or not it is there."""
    says = SAYS[name].replace("--weights ", f"--weights {re.escape(folder)}")
    for take in (find_backbone, lambda name: open_backbone(name, head=False)):
        with pytest.raises(UsageError) as error:
            take(folder + name)
        assert re.match(rf"'{re.escape(folder + name)}' is .*{says}", error.value.args[0])


def test_a_file_without_a_known_ending_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "network").write_bytes(b"x")
    assert "is a file in a format that no network is taken from" in why_no_name(str(tmp_path / "network"))
    assert "is a folder, not the name of a network" in why_no_name(str(tmp_path))


@pytest.mark.parametrize("name", ["resnet51", "mobilenet_v1.tmm", "resnet50.kears"])
def test_a_misspelt_name_is_none_of_them(name: str) -> None:
    assert why_no_name(name) == ""
    with pytest.raises(UsageError, match=r"^There is no backbone"):
        find_backbone(name)


@pytest.mark.parametrize("name", ["x.keras", "X.KERAS", "keras/VGG16"])
def test_keras_files_are_keras(name: str) -> None:
    assert framework_of(name) == "keras"


@pytest.mark.parametrize(
    "command", [("fit", "PHOTOS", "--backbone", "FILE"), ("predict", "FILE", "PHOTOS"), ("show", "FILE")], ids=str
)
def test_the_commands_say_so(command: tuple[str, ...], photos: Path, tmp_path: Path, shell: Shell) -> None:
    file = tmp_path / "model.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    places = {"PHOTOS": str(photos), "FILE": str(file)}
    answer = shell(*(places.get(each, each) for each in command))
    assert answer.code == 2
    said = " ".join(answer.err.split())
    assert "is an HDF5 file of Keras" in said
    assert "--weights" in said
