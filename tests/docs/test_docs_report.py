"""docs/report.md: its code runs, its screen is that of the command, and it names every key of the JSON."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

import headstart as hs
from headstart.diagnose.records import Diagnosis, Verdict
from making import Shell

DOC = Path(__file__).parents[2] / "docs" / "report.md"


@pytest.fixture
def here(small_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with "model", which has a diagnosis, and "photos"."""
    model = hs.load(small_bundle)
    verdict = Verdict("too little data", "The error still falls with more photos.", "Add photos.")
    model.record = replace(model.record, diagnosis=Diagnosis(verdict))
    model.save(tmp_path / "model")
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_runs(here: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    (here / "script.py").write_text(block, encoding="utf-8")
    found = runpy.run_path(str(here / "script.py"))["report"]
    assert isinstance(found, hs.Report)
    assert found.html == Path("report") / "report.html"


def test_the_screen_and_the_keys_are_those_of_the_command(here: Path, shell: Shell) -> None:
    text = DOC.read_text(encoding="utf-8")
    (screen,) = re.findall(r"^\$ headstart report .*?\n(.*?)```", text, re.DOTALL | re.M)
    shown = shell("report", "model", "photos").out
    rows, told = ([line[:15].strip() for line in text.splitlines()] for text in (shown, screen))
    assert [row for row in rows if row] == [row for row in told if row]
    assert all(len(line) <= 80 for line in screen.splitlines())
    as_json = text.partition("## As JSON")[2]
    assert {*re.findall(r"`(\w+)`", as_json)} - {"wrong"} == {
        *json.loads((here / "report" / "report.json").read_text())
    }
