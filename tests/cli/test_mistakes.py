"""Mistakes that people make with names and paths, and the sentence that each gets: what it is, and what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import headstart as hs
from headstart.core import missing
from making import Shell


@pytest.fixture
def here(photos: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, a model and a photo in it, which commands are typed in."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(bundle, tmp_path / "model")
    shutil.copy(photos / "bars" / "0.png", tmp_path / "bars.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("predict modle bars.png", "There is no model 'modle'. Did you mean 'model'?"),
        ("predict nothing bars.png", "There is no model 'nothing', and no network of that name. See them: headstart"),
        (
            "predict resnet18x bars.png",
            "There is no model 'resnet18x', and no network of that name. Did you mean",
        ),
        ("predict bars.png model", "'bars.png' is a photo. The model comes first: headstart predict MODEL PHOTO"),
        ("evaluate photos model", "'photos' is a folder, but no model: it has no config.json. The model comes first"),
        ("finetune photos model", "'photos' is a folder, but no model"),
        (
            "finetune resnet18 photos",
            "'resnet18' is a network. Fit a head on it first: headstart fit",
        ),
        ("predict model model", "'model' is a model, not a folder of photos"),
        ("fit model --out new", "'model' is a model, not a folder of photos"),
        ("compare model", "'model' is a model, not a folder of photos"),
        ("show modle", "There is no model 'modle'. Did you mean 'model'?"),
        ("export modle --to onnx", "There is no model 'modle'. Did you mean 'model'?"),
        ("predict model bars.pmg", "No such file or folder: 'bars.pmg'. Did you mean 'bars.png'?"),
        ("predict model *.jpg", "No file matches the pattern '*.jpg'."),
        ("predict model https://example.org/a.jpg", "is an address, and nothing is downloaded. Save it first"),
        ("fit s3://bucket/photos --out new", "is an address, and nothing is downloaded"),
        ("fit photoss --out new", "No such file or folder: 'photoss'. Did you mean 'photos'?"),
        ("fit iris --out new", "'iris' is a table of numbers, not of photos: headstart train iris"),
        ("train photoss --out new", "No such file or folder: 'photoss'. Did you mean 'photos'?"),
        ("fit photos --device gpu --out new", "Known: auto, cpu, cuda, mps; cuda is an NVIDIA GPU"),
    ],
)
def test_it_is_told_what_it_is_and_what_to_do(typed: str, said: str, here: Path, shell: Shell) -> None:
    answer = shell(*typed.split())
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert len(answer.err) < 300
    assert not (here / "new").exists()


def test_a_pattern_is_filled_in_where_no_shell_does_it(here: Path, shell: Shell) -> None:
    done = shell("predict", "model", "photos/*/[01].png")
    assert done.code == 0
    assert len(done.out.splitlines()) == 6
    assert len(hs.load("model").predict("photos/*/[01].png")) == 6


def test_a_file_with_such_a_name_is_that_file(here: Path, shell: Shell) -> None:
    (here / "a[1].png").write_bytes((here / "bars.png").read_bytes())
    assert shell("predict", "model", "a[1].png").out.rstrip().endswith("a[1].png")


def test_what_may_not_be_read_is_not_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """Of one's own user too, whose tests may be run by root: the system's answer is put in its place."""

    def refused(path: object, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("headstart.core.missing.os.stat", refused)
    assert missing.why_missing("photos") == "'photos' cannot be read: permission denied."


def test_other_errors_of_the_system_are_told_as_they_are(here: Path) -> None:
    assert "file name too long" in missing.why_missing("a" * 300)
    assert "null" in missing.why_missing("a\0b")
    assert missing.why_missing("bars.png/below") == "No such file or folder: 'bars.png/below'."
    assert missing.why_missing("bars.png") == ""


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: hs.load("modle"), "There is no model 'modle'. Did you mean 'model'?"),
        (lambda: hs.load("bars.png"), "'bars.png' is a photo. The model comes first"),
        (lambda: hs.load_rows("nowhere"), "There is no model 'nowhere'. Make one with"),
        (lambda: hs.fit("iris"), "'iris' is a table of numbers"),
        (lambda: hs.load("model").predict("model"), "'model' is a model, not a folder of photos"),
    ],
)
def test_python_gets_the_same_sentences(call: object, said: str, here: Path) -> None:
    with pytest.raises(hs.UsageError) as error:
        call()  # type: ignore[operator]
    assert said in str(error.value)
