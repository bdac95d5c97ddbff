"""The scripts in docs/export.md, each run on a real export in a process that cannot import headstart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import headstart as hs
from headstart.export.formats import FORMATS
from making import picture

DOC = Path(__file__).parents[2] / "docs" / "export.md"
ALONE = """
import runpy, sys
sys.modules["headstart"] = None  # importing it is an error from now on
photo, *rest = sys.argv[1:]
for script, file in zip(rest[::2], rest[1::2], strict=True):
    sys.argv = [script, file, photo]
    runpy.run_path(script, run_name="__main__")
"""
TOGETHER = (("openvino", "onnx", "torch"), ("tflite", "keras", "savedmodel"))  # by what they wait for when imported


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
    assert {name for names in TOGETHER for name in names} == set(scripts())


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not square and turned, and so large that it is not decoded whole, with sides that no fraction divides."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.fromarray(picture("waves", 100, 150)).resize((1407, 1211)).save(path, quality=92, exif=exif)
    return path


def alone(photo: Path, *scripts_and_files: Path) -> subprocess.CompletedProcess[str]:
    """Scripts, each with a file and the photo, in a fresh process."""
    command: list[str | Path] = [sys.executable, "-c", ALONE, photo, *scripts_and_files]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("names", TOGETHER, ids=" ".join)
def test_a_script_says_what_the_classifier_says(
    names: tuple[str, ...], bundle: Path, photo: Path, tmp_path: Path
) -> None:
    classifier, given = hs.load(bundle, precision="fp32"), list[Path]()
    for name in names:
        file, script = tmp_path / f"exported-{name}{FORMATS[name].suffix}", tmp_path / f"{name}.py"
        classifier.export(name, file)
        script.write_text(scripts()[name], encoding="utf-8")
        given += [script, file]
    done = alone(photo, *given)
    assert done.returncode == 0, done.stderr
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        *label, probability = line.split()
        assert label == [classifier.predict([photo])[0]], name
        assert float(probability) == pytest.approx(classifier.predict_proba([photo]).max(), abs=6e-4), name


def test_a_script_that_took_headstart_would_fail(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import headstart")
    done = alone(tmp_path, tmp_path / "script.py", tmp_path)
    assert "headstart" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("name", scripts())
def test_a_script_is_short(name: str) -> None:
    lines = [line for line in scripts()[name].splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 14
