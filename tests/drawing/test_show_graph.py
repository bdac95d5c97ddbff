"""Drawings as files, and the command that draws."""

from __future__ import annotations

import hashlib
import html.parser
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from drawn import SVG, pictures, read
from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.backbones.builder import Builder
from headstart.backbones.catalogue import BACKBONES
from headstart.backbones.families.small import small_cnn
from headstart.core.errors import UsageError
from headstart.drawing import page
from headstart.drawing.page import draw
from headstart.drawing.picture import svg
from making import Shell

ODD = "<b>&\"'\x1b[31m]]>\ud800 é 猫 </text></script>"


def odd() -> Blueprint:
    b = Builder()
    return replace_names(b, f"{ODD}.0.{ODD}")


def replace_names(b: Builder, name: str) -> Blueprint:
    b.dense(b.average(b.act(b.conv(INPUT, name, 4, 3), f"{name}'", "relu")), LOGITS, 2)
    return b.build(f"</title><script>alert(1)</script>{ODD}", 8)


def test_odd_names_are_written_harmlessly(tmp_path: Path) -> None:
    drawn = read(draw(odd(), tmp_path / "odd.svg").read_text(encoding="utf-8"))
    names = [name for box in drawn.boxes for name in box]
    shown = ODD.replace("\x1b", "\\x1b").replace("\ud800", "\\ud800")
    assert names == ["input", f"{shown}.0.{shown}", f"{shown}.0.{shown}'", "pooled", "logits"]
    assert not list(drawn.root.iter(f"{SVG}script"))
    assert not list(drawn.root.iter("script"))
    tags: Counter[str] = Counter()

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags[tag] += 1

    Reader().feed(draw(odd(), tmp_path / "odd.html").read_text(encoding="utf-8"))
    assert (tags["script"], tags["svg"], tags["b"]) == (1, 1, 0)


def test_a_page_needs_nothing_else(tmp_path: Path) -> None:
    text = draw(small_cnn(8, 2), tmp_path / "net.HTML").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert svg(small_cnn(8, 2)) in text
    assert not re.search(r"""\b(src|href)\s*=|@import|url\((?!#)|fetch\(|import\b""", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}


def test_equal_blueprints_give_equal_bytes() -> None:
    """In another process too, where sets come in another order."""
    code = (
        "import sys, hashlib; from headstart.backbones.catalogue import BACKBONES; "
        "from headstart.drawing.picture import svg; "
        "print(hashlib.sha256(svg(BACKBONES['mobilenet_v3_small'].blueprint()).encode()).hexdigest())"
    )
    blueprint = BACKBONES["mobilenet_v3_small"].blueprint()
    again = Blueprint.from_json(blueprint.to_json())
    expected = {hashlib.sha256(svg(each).encode()).hexdigest() for each in (blueprint, again)}
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        )
        expected.add(done.stdout.decode().strip())
    assert len(expected) == 1


def test_shapes_are_those_of_the_size_asked_for(tmp_path: Path) -> None:
    blueprint = BACKBONES["cifar_resnet20"].blueprint()
    small = read(draw(blueprint, tmp_path / "small.svg", 16).read_text(encoding="utf-8"))
    assert small.lines["input", "conv1", "3×16×16"] == 1
    assert "at 16 pixels" in "".join(small.root.itertext())
    with pytest.raises(UsageError, match="takes images of 224 pixels only"):
        draw(BACKBONES["vgg16"].blueprint(), tmp_path / "none.svg", 64)
    assert [path.name for path in tmp_path.iterdir()] == ["small.svg"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stop"])
def test_nothing_is_left_half_written(failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw(small_cnn(8, 2), tmp_path / "net.svg")
    before = path.read_bytes()

    def fail(self: Path, *_: object, **__: object) -> None:
        self.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises((UsageError, KeyboardInterrupt), match=r"No space left|^$"):
        draw(small_cnn(8, 3), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net.svg"]


def test_show_draws_a_backbone(shell: Shell, tmp_path: Path) -> None:
    said = shell("show", "squeezenet1_1", "--graph", tmp_path / "net.svg")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"graph: {tmp_path / 'net.svg'}\n")
    assert "1,235,496 parameters" in said.out
    assert read((tmp_path / "net.svg").read_text(encoding="utf-8")).boxes == pictures()["squeezenet1_1"][1].boxes
    answer = shell("show", "cifar_resnet20", "--graph", tmp_path / "net.svg", "--pixels", 48, "--json").json
    assert (answer["graph"], answer["pixels"]) == (str(tmp_path / "net.svg"), 48)
    assert "3×48×48" in (tmp_path / "net.svg").read_text(encoding="utf-8")  # ours, so it was replaced
    assert shell("show", "cifar_resnet20", "--json").json["graph"] is None


def test_show_draws_a_model(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    assert shell("show", bundle, "--graph", tmp_path / "net.html").code == 0
    text = (tmp_path / "net.html").read_text(encoding="utf-8")
    for words in ('data-name="head_sqrt"', "dense, 3 units", "blocks.5.1.bn2.act.pooled", "<input"):
        assert words in text


@pytest.mark.parametrize("name", ["net.png", "net", "svg", "net.svg.gz"])
def test_another_ending_is_refused(name: str, shell: Shell, tmp_path: Path) -> None:
    said = shell("show", "cifar_resnet20", "--graph", tmp_path / name)
    assert (said.code, said.out) == (2, "")
    assert ".svg or .html" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("theirs", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x00\xff" * 99])
def test_a_file_of_others_is_let_be(theirs: bytes, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "net.svg"
    path.write_bytes(theirs)
    said = shell("show", "cifar_resnet20", "--graph", path)
    assert (said.code, said.out, path.read_bytes()) == (2, "", theirs)
    assert "not overwritten" in said.err
    assert said.err.count("\n") == 1


def test_a_page_may_take_the_place_of_a_picture(tmp_path: Path) -> None:
    draw(small_cnn(8, 2), tmp_path / "net.svg").rename(tmp_path / "net.html")
    assert "<nav>" in draw(small_cnn(8, 2), tmp_path / "net.html").read_text(encoding="utf-8")


def test_places_where_nothing_can_be_written(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = shell("show", "cifar_resnet20", "--graph", tmp_path / "none" / "net.svg")
    assert said.code == 2
    assert "there is no folder" in said.err
    (tmp_path / "folder.svg").mkdir()
    assert "not overwritten" in shell("show", "cifar_resnet20", "--graph", tmp_path / "folder.svg").err
    assert "File name too long" in shell("show", "cifar_resnet20", "--graph", tmp_path / f"{'x' * 300}.svg").err

    def read_only(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    said = shell("show", "cifar_resnet20", "--graph", tmp_path / "net.svg")
    assert (said.code, said.out) == (2, "")
    assert "Read-only file system" in said.err
    assert page.why_not_drawable(tmp_path / "net.svg") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.svg"]
