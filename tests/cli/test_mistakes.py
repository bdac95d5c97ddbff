"""Mistakes that people make with names and paths, and the sentence that each gets: what it is, and what to do."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import headstart as hs
from headstart.core import missing
from making import Shell, picture


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
        (
            "predict model https://example.org/a.jpg",
            "is an address, and nothing is downloaded unless it is asked",
        ),
        ("fit s3://b/photos?endpoint_override=127.0.0.1:9&region=x --out new", "cannot be reached"),
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


SAVED = Image.fromarray(picture("bars", 3))


def saved(kind: str, image: Image.Image = SAVED, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


NO_PHOTOS = {  # file -> its content, and what is said of it
    "empty.jpg": (b"", "empty", "0 bytes"),
    "cut.jpg": (saved("JPEG")[:1500], "truncated", "image file is truncated"),
    "words.jpg": (b"Some words that somebody wrote.\n", "unreadable", "it is text, not an image"),
    "page.jpg": (b"\n<!DOCTYPE html><html>404", "unreadable", "it is a web page, not an image: fetch the image again"),
    "pointer.jpg": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "unreadable", "it is a pointer of Git LFS",
    ),
    "zeros.jpg": (bytes(5000), "unreadable", "it begins with zeros alone"),
    "archive.jpg": (b"PK\x03\x04" + bytes(200), "unreadable", "it is an archive, not an image"),
    "film.png": (b"\0\0\0\x20ftypisom" + bytes(200), "unreadable", "it is a video, not an image"),
    "paper.png": (saved("PDF"), "unreadable", "PDF is not read: save it as JPEG or PNG"),
    "paper.pdf": (saved("PDF"), "unreadable", "it is not read: save it as JPEG or PNG"),
    "drawing.svg": (b"<svg></svg>", "unreadable", "it is not read: save it as JPEG or PNG"),
    "drawing.png": (b"<?xml version='1.0'?>\n<svg></svg>", "unreadable", "SVG is not read: save it as JPEG or PNG"),
    "canon.CR2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(200), "unreadable", "camera raw files are not read"),
    "canon.jpg": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(200), "unreadable", "camera raw files are not read"),
    "adobe.dng": (saved("TIFF"), "unreadable", "camera raw files are not read: save it as JPEG"),
    "fuji.jpg": (b"FUJIFILMCCD-RAW 0201", "unreadable", "camera raw files are not read"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(200), "unreadable", "HEIC is read once this is installed: "),
    "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(200), "unreadable", "HEIC is read once this is installed: "),
    "newer.avif": (b"\0\0\0\x18ftypavif" + bytes(200), "unreadable", "AVIF is read with Pillow 11.3"),
}  # fmt: skip


def test_each_file_that_is_no_photo_is_said_to_be_what_it_is(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By predict, check and fit alike; the rest is used."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("headstart.data.opened_image.has_avif", lambda: False)
    for name, (content, _, _) in NO_PHOTOS.items():
        (here / "photos" / "discs" / name).write_bytes(content)
    predicted = shell("predict", "model", "photos/discs", "--json")
    assert predicted.code == 3
    answers = [json.loads(line) for line in predicted.out.splitlines()]
    told = {each["path"]: (each["error"], each["detail"]) for each in answers if "error" in each}
    assert len(answers) - len(told) == 12
    checked = shell("check", "photos", "--json").json["unreadable"]
    fitted = shell("fit", "photos", "--pixels", 32, "--out", "new", "--json").json["left_out"]
    for name, (_, kind, detail) in NO_PHOTOS.items():
        found = [told[f"photos/discs/{name}"]]
        found += [(p["kind"], p["detail"]) for said in (checked, fitted) for p in said if p["name"] == f"discs/{name}"]
        assert len({*found}) == 1, found
        assert len(found) == 3
        assert found[0][0] == kind, name
        assert found[0][1].startswith(detail), (name, found[0])
    assert len(told) == len(checked) == len(fitted) == len(NO_PHOTOS)


def test_odd_photos_are_read(here: Path, shell: Shell) -> None:
    """Of one bit, of floating point in 64 bits, animated, or of four inks: none is said to be no photo."""
    other = Image.fromarray(picture("waves", 5))
    odd = {
        "bit.png": saved("PNG", SAVED.convert("1")),
        "inks.tif": saved("TIFF", SAVED.convert("CMYK")),
        "film.gif": saved("GIF", save_all=True, append_images=[other]),
        "film.webp": saved("WEBP", save_all=True, append_images=[other], lossless=True),
    }
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(SAVED) / 255, photometric="rgb")
    odd["float64.tif"] = file.getvalue()
    (here / "odd").mkdir()
    for name, content in odd.items():
        (here / "odd" / name).write_bytes(content)
    done = shell("predict", "model", "odd", "--json")
    answers = {Path(each["path"]).name: each["label"] for each in map(json.loads, done.out.splitlines())}
    assert (done.code, done.err) == (0, "")
    assert {*answers} == {*odd}
    assert {answers[name] for name in ("inks.tif", "film.gif", "film.webp", "float64.tif")} == {"bars"}  # not "waves"
