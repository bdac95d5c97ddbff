"""`headstart explain`: pictures in a folder that it names, figures, and refusals before any work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from making import Shell


@pytest.fixture
def here(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two photos of one name, which commands are typed in."""
    for kind in ("bars", "discs"):
        (tmp_path / kind).mkdir()
        shutil.copy(photos / kind / "0.png", tmp_path / kind / "one.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_and_figures_of_several_photos(here: Path, bundle: Path, shell: Shell) -> None:
    done = shell("explain", bundle, "bars", "discs/one.png")
    assert done.code == 0
    written = sorted(path.name for path in (here / "explained").iterdir())
    assert written == ["one-2_evidence.png", "one-2_features.png", "one_evidence.png", "one_features.png"]
    for name in written:
        assert os.path.join("explained", name) in done.out
        with Image.open(here / "explained" / name) as picture:
            assert np.asarray(picture).std() > 10
    words = {line.split("  ")[0] for line in done.out.splitlines() if line}
    assert {"photo", "class", "evidence", "faithful", "ROAD", "kept alone", "other class", "random weights"} <= {
        word[:14].strip() for word in words
    }
    assert "bars" in done.out
    assert "% in bn2.act" in done.out


def test_json_is_an_object_for_each_photo(here: Path, bundle: Path, shell: Shell) -> None:
    done = shell("explain", bundle, "bars/one.png", "--class", "waves", "--layers", "bn2.act", "--out", "new", "--json")
    (found,) = [json.loads(line) for line in done.out.splitlines()]
    model = hs.load(bundle)
    assert (found["label"], found["predicted"]) == ("waves", "bars")
    wanted = model.predict_proba("bars/one.png")[0][model.classes.index("waves")]
    assert found["probability"] == pytest.approx(wanted, abs=1e-4)
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1)
    assert set(found["channels"]) == {"bn2.act"}
    assert len(found["channels"]["bn2.act"]) == 8
    tests = found["tests"]
    assert tests["score"] == pytest.approx(tests["insertion"] - tests["deletion"])
    assert {"blob", "road", "road_blob", "drop", "increase", "random_logit", "complexity_rise"} <= set(tests)
    assert [Path(file).name for file in found["files"]] == ["one_evidence.png", "one_features.png"]
    assert all(Path(file).parent == Path("new") for file in found["files"])


def test_without_tests_and_channels(here: Path, bundle: Path, shell: Shell) -> None:
    done = shell("explain", bundle, "bars/one.png", "--no-tests", "--layers", "none", "--no-crop", "--json")
    found = json.loads(done.out)
    assert (found["tests"], found["channels"]) == (None, {})
    assert [path.name for path in (here / "explained").iterdir()] == ["one_evidence.png"]


def test_nothing_is_replaced_unless_asked(here: Path, bundle: Path, shell: Shell) -> None:
    (here / "explained").mkdir()
    (here / "explained" / "one_features.png").write_text("mine")
    refused = shell("explain", "no_such_model", "bars/one.png")  # before the model is opened
    assert (refused.code, refused.out) == (2, "")
    assert "one_features.png' exists already" in refused.err
    assert (here / "explained" / "one_features.png").read_text() == "mine"
    assert shell("explain", bundle, "bars/one.png", "--no-tests", "--overwrite").code == 0
    assert (here / "explained" / "one_features.png").read_bytes().startswith(b"\x89PNG")


def test_a_photo_that_cannot_be_read_is_named_and_the_others_are_explained(
    here: Path, bundle: Path, shell: Shell
) -> None:
    (here / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand then nothing")
    done = shell("explain", bundle, "broken.png", "bars/one.png", "--no-tests")
    assert done.code == 3
    assert "broken.png" in done.err
    assert sorted(path.name for path in (here / "explained").iterdir()) == ["one_evidence.png", "one_features.png"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--class wave", "The model has no class 'wave'. Did you mean waves?"),
        ("--method camgrad", "There is no method of explanation 'camgrad'. Did you mean gradcam"),
        ("--layers bn2.act,bn7.act", "has no layer 'bn7.act'. Did you mean"),
        ("--at features", "has no places on the photo (height × width)"),
        ("--method integrated --at bn2.act", "explains the pixels, and takes no layer"),
        ("--out bars/one.png", "cannot be written to"),
    ],
)
def test_a_request_that_cannot_be_met(typed: str, said: str, here: Path, bundle: Path, shell: Shell) -> None:
    refused = shell("explain", bundle, "discs/one.png", *typed.split())
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert not (here / "explained").exists()
