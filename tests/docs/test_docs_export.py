"""The scripts in docs/export.md, each run on a real export in a process that cannot import headstart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.export.formats import FORMATS
from making import picture

DOC = Path(__file__).parents[2] / "docs" / "export.md"
ALONE = """
import runpy, sys
sys.modules["headstart"] = None  # importing it is an error from now on
count, *rest = sys.argv[1:]
photos, rest = rest[: int(count)], rest[int(count) :]
for script, file in zip(rest[::2], rest[1::2], strict=True):
    for photo in photos:
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
    networks = {name for name, each in FORMATS.items() if not each.library}
    assert set(scripts()) == networks - {"web"}  # which is opened, not run from Python
    assert {name for names in TOGETHER for name in names} == set(scripts())


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not square and turned, and not so large that Headstart would not decode it whole."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.fromarray(picture("waves", 100, 150)).resize((407, 281)).save(path, quality=92, exif=exif)
    return path


def alone(photos: Sequence[Path], *scripts_and_files: Path) -> subprocess.CompletedProcess[str]:
    """Scripts, each with a file and every photo, in a fresh process."""
    command: list[str | Path] = [sys.executable, "-c", ALONE, str(len(photos)), *photos, *scripts_and_files]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
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
    done = alone([photo], *given)
    assert done.returncode == 0, done.stderr
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        *label, probability = line.split()
        assert label == classifier.predict([photo], unknown="unknown").tolist(), name
        assert float(probability) == pytest.approx(classifier.predict_proba([photo]).max(), abs=6e-4), name


def test_every_script_reads_a_photo_in_the_same_way() -> None:
    """So it is enough to try one of them on the photos of other kinds."""
    parts = [re.findall(r"^photo = .*^rgb = .*?$", text, re.DOTALL | re.MULTILINE) for text in scripts().values()]
    assert all(part == parts[0] and len(part) == 1 for part in parts)


def deep_and_transparent(place: Path) -> list[Path]:
    """Photos that do not become RGB by `convert` alone."""
    colours = Image.fromarray(picture("waves", 100, 150)).resize((151, 101))
    grey, across = np.asarray(colours.convert("L"), np.uint16), Image.linear_gradient("L").rotate(90).resize((151, 101))
    turned = Image.Exif()
    turned[0x0112] = 6
    faded, faded_grey = colours.copy(), colours.convert("L")
    faded.putalpha(across)
    faded_grey.putalpha(across)
    Image.fromarray(grey * 257).save(place / "16-bit.png")
    Image.fromarray(grey * 16).save(place / "12-bit.png", exif=turned)
    Image.fromarray(grey * 64).save(place / "14-bit.tiff")
    faded.save(place / "faded.png", exif=turned)
    faded_grey.save(place / "faded-grey.png")
    colours.quantize(8).save(place / "palette.png", transparency=bytes(range(0, 256, 32)))
    colours.convert("CMYK").save(place / "cmyk.jpg", quality=95)
    return sorted(place.iterdir())


@pytest.mark.parametrize("levels", [None, (0.0, 20000.0)], ids=["guessed", "of the data"])
def test_a_photo_of_any_kind_gets_the_probability_of_predict(
    levels: tuple[float, float] | None, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    photos, model = deep_and_transparent(tmp_path / "photos"), hs.load(bundle, precision="fp32")
    spec = replace(model.spec, levels=levels)
    classifier = hs.Classifier(
        model.blueprint, model.weights, spec, model.classes, model.unknown, golden=model.golden, precision="fp32"
    )
    file, script = tmp_path / "exported.onnx", tmp_path / "script.py"
    classifier.export("onnx", file)
    script.write_text(scripts()["onnx"], encoding="utf-8")
    done = alone(photos, script, file)
    assert done.returncode == 0, done.stderr
    expected = classifier.predict_proba(photos)
    assert np.ptp(expected.max(1)) > 0.01  # not all are certain
    for photo, line, row in zip(photos, done.stdout.splitlines(), expected, strict=True):
        *label, probability = line.split()
        assert label == classifier.predict([photo], unknown="unknown").tolist(), photo.name
        assert float(probability) == pytest.approx(row.max(), abs=6e-4), photo.name


def test_a_script_that_took_headstart_would_fail(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import headstart")
    done = alone([tmp_path], tmp_path / "script.py", tmp_path)
    assert "headstart" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("name", scripts())
def test_a_script_is_short(name: str) -> None:
    lines = [line for line in scripts()[name].splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 22
