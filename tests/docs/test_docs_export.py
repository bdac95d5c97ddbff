"""The scripts in docs/export.md, each run on a real export in a process that cannot import headstart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import headstart as hs
from headstart.export.formats import FORMATS
from making import packed, picture

DOC = Path(__file__).parents[2] / "docs" / "export.md"
ALONE = """
import runpy, sys
sys.modules["headstart"] = None  # importing it is an error from now on
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def scripts() -> dict[str, str]:
    """Heading -> the Python below it."""
    parts = re.split(r"^## (.+)$", DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {
        heading.strip("` "): re.findall(r"```python\n(.*?)```", text, re.DOTALL) for heading, text in _pairs(parts)
    }
    return {heading: blocks[0] for heading, blocks in found.items() if blocks}


def _pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_every_format_that_is_a_network_has_a_script() -> None:
    assert set(scripts()) == {name for name, each in FORMATS.items() if not each.library}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not square, and not of the network's size, so that the scripts have to crop and scale."""
    wide = picture("waves", 100, 150)[20:120]
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(packed(wide))
    return path


@pytest.mark.parametrize("name", scripts())
def test_a_script_says_what_the_classifier_says(name: str, bundle: Path, photo: Path, tmp_path: Path) -> None:
    classifier = hs.load(bundle, precision="fp32")
    file = tmp_path / f"exported{FORMATS[name].suffix}"
    classifier.export(name, file)
    script = tmp_path / "script.py"
    script.write_text(scripts()[name], encoding="utf-8")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, script, file, photo], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    *label, probability = done.stdout.split()
    assert label == [classifier.predict([photo])[0]]
    assert float(probability) == pytest.approx(classifier.predict_proba([photo]).max(), abs=6e-4)


def test_a_script_that_took_headstart_would_fail(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import headstart")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "script.py"], capture_output=True, text=True, check=False
    )
    assert "headstart" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("name", scripts())
def test_a_script_is_short(name: str) -> None:
    lines = [line for line in scripts()[name].splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 14
