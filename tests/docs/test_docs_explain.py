"""docs/explain.md: its code runs, and it names every method and every line of the screen."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

import headstart as hs
from headstart.explain.request import METHODS
from making import Shell, picture

DOC = Path(__file__).parents[2] / "docs" / "explain.md"


@pytest.fixture
def cat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.fromarray(picture("discs", 5)).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cat.jpg"


def test_the_code_runs(cat: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "script.py").write_text(block, encoding="utf-8")
    found = runpy.run_path(str(tmp_path / "script.py"))["found"]
    assert isinstance(found[0], hs.Explanation)
    assert found[0].name == "cat.jpg"


def test_the_screen_is_that_of_the_command(cat: Path, bundle: Path, shell: Shell) -> None:
    (screen,) = re.findall(r"^\$ headstart explain .*?\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL | re.M)
    shown = shell("explain", bundle, "cat.jpg").out
    words = [line[:15].strip() for line in screen.splitlines()]
    assert [line[:15].strip() for line in shown.splitlines() if not line.startswith("warning")] == words
    assert all(len(line) <= 80 for line in screen.splitlines())


def test_every_method_has_its_place() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(METHODS) - {"auto"}
    assert "`auto` is `hirescam`" in text
