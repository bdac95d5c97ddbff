"""Commands to install something: for the Python that runs, and as a shell takes them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.core.errors import MissingExtraError
from headstart.core.install import SIZES, extra_install, pip_install

EXTRAS = {"bench", "lint", "test"}  # that are for developers


def test_the_command_is_for_this_python() -> None:
    python, *rest = shlex.split(pip_install("headstart[torch]", "--upgrade"))
    assert os.path.samefile(python, sys.executable)
    assert rest == ["-m", "pip", "install", "--upgrade", "headstart[torch]"]


def test_it_works_where_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is installed: as after `make demo`, where "pip" alone is another Python's."""
    monkeypatch.chdir(tmp_path)
    command = pip_install("headstart[data]", "--dry-run --no-index --quiet --no-build-isolation")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_python_below_the_working_directory_is_named_in_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "python"))
    assert pip_install("rich") == "'my env/python' -m pip install rich"


def test_a_working_directory_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert pip_install("rich").endswith(" -m pip install rich")
    monkeypatch.chdir(tmp_path)


def test_every_extra_says_its_size() -> None:
    named = {line.split(" = ")[0] for line in _extras()} - EXTRAS
    assert named == {*SIZES}
    assert extra_install("torch").endswith("(up to 4.7 GB on disk)")
    assert "-m pip install 'headstart[onnx]' (up to 0.1 GB on disk)" in str(MissingExtraError("onnx", "onnx", "This"))


def _extras() -> list[str]:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    return [line for line in section.splitlines() if " = [" in line]
