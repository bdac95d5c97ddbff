"""`headstart attack`: pictures of one photo, the curve of many, and a sentence for what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.cli.terminal import UNLIKE
from headstart.plots.attack import FILES
from headstart.plots.robustness import FILES as CURVE
from making import Answer, Shell, folder, picture
from trainers import one_thread  # noqa: F401

pytest.importorskip("torch")

ON_TORCH = ("--engine", "torch")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "attacked"


@pytest.fixture
def photo(photos: Path) -> Path:
    return photos / "bars" / "0.png"


def attack(shell: Shell, *arguments: object) -> Answer:
    return shell("attack", *arguments, *ON_TORCH)


# --- a photo ----------------------------------------------------------------------------------------------------------


def test_the_picture_that_it_writes_fools_predict(shell: Shell, small_bundle: Path, photo: Path, out: Path) -> None:
    done = attack(shell, small_bundle, photo, "--target", "discs", "--epsilon", "64/255", "--out", out, "--json")
    assert done.code == 0
    answer = done.json
    assert (answer["success"], answer["label"], answer["target"]) == (True, "discs", "discs")
    assert answer["before"]["label"] == "bars"
    assert answer["files"] == [str(out / name) for name in FILES]
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    read = json.loads(shell("predict", small_bundle, answer["files"][2], "--no-crop", "--json", *ON_TORCH).out)
    assert (read["label"], read["probability"]) == (answer["label"], pytest.approx(answer["probability"], abs=1e-5))
    assert read["unknown"] == answer["unknown"]
    one, two = (np.asarray(Image.open(path).convert("RGB"), float) / 255 for path in answer["files"][:3:2])
    change = (two - one).ravel()
    assert answer["linf"] == pytest.approx(np.abs(change).max())
    assert answer["l2"] == pytest.approx(np.linalg.norm(change), rel=1e-5)
    assert answer["l1"] == pytest.approx(np.abs(change).sum(), rel=1e-5)
    assert answer["linf"] <= 64 / 255 + 1e-6
    assert (answer["method"], answer["norm"], answer["epsilon"]) == ("pgd", "linf", pytest.approx(64 / 255))
    assert answer["in_floats"]["success"]


def test_the_screen_says_before_and_after_and_how_to_try_it(
    shell: Shell, small_bundle: Path, photo: Path, out: Path
) -> None:
    done = attack(shell, small_bundle, photo, "--method", "deepfool", "--out", out)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == f"photo          {photo}"
    assert lines[1].strip() == "96 × 96 pixels; the network sees the middle, at 32 × 32"
    words = {line.split("  ")[0]: line for line in lines}
    assert words["before"].split()[1] == "bars"
    assert "deepfool, the smallest change in l2, at most 50 steps" in words["attack"]
    assert "fooled" in words["as a PNG"]
    assert "linf" in words["change"]
    assert words["try it"].endswith(f"headstart predict {small_bundle} {out / FILES[2]} --no-crop")


def test_pixels_that_are_the_networks_own_go_in_as_they_are(
    shell: Shell, small_bundle: Path, tmp_path: Path, out: Path
) -> None:
    pixels = picture("bars", 3, 32)
    Image.fromarray(pixels).save(tmp_path / "exact.png")
    done = attack(shell, small_bundle, tmp_path / "exact.png", "--no-crop", "--method", "deepfool", "--out", out)
    assert "32 × 32 pixels, which go in as they are" in done.out
    with Image.open(out / FILES[0]) as original:
        np.testing.assert_array_equal(np.asarray(original), pixels)


def test_a_transparent_photo_and_another_size_are_said(
    shell: Shell, small_bundle: Path, tmp_path: Path, out: Path
) -> None:
    pixels = np.dstack([picture("bars", 3, 60), np.full((60, 60), 90, np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    done = attack(shell, small_bundle, tmp_path / "alpha.png", "--no-crop", "--method", "deepfool", "--out", out)
    assert done.code == 0
    assert "60 × 60 pixels, scaled to 32 × 32; what is transparent is white" in done.out


def test_what_did_not_work_is_said_and_is_no_error(shell: Shell, small_bundle: Path, photo: Path, out: Path) -> None:
    done = attack(shell, small_bundle, photo, "--epsilon", "0.3/255", "--steps", 2, "--out", out)
    assert done.code == 0
    assert "not fooled" in done.out
    assert "0.3/255 is less than half a level of eight bits" in done.out
    weak = attack(shell, small_bundle, photo, "--epsilon", "1/255", "--steps", 1, "--out", out, "--overwrite")
    assert "More --steps, a larger --epsilon or another --method may do it" in weak.out


def test_nothing_is_replaced_unless_asked(shell: Shell, small_bundle: Path, photo: Path, out: Path) -> None:
    out.mkdir()
    (out / FILES[1]).write_text("mine")
    refused = attack(shell, small_bundle, photo, "--out", out)
    assert (refused.code, refused.out) == (2, "")
    assert f"'{out / FILES[1]}' exists already" in refused.err
    assert sorted(path.name for path in out.iterdir()) == [FILES[1]]
    assert attack(shell, small_bundle, photo, "--method", "fgsm", "--out", out, "--overwrite").code == 0
    assert (out / FILES[1]).read_bytes()[:4] == b"\x89PNG"


def test_a_perceptron_of_digits_is_attacked_too(shell: Shell, tmp_path: Path, out: Path) -> None:
    pytest.importorskip("sklearn")
    recipe = tmp_path / "short.json"
    recipe.write_text('{"preset": "scratch", "epochs": 3}')
    trained = shell(
        "train", "digits", "--network", "mlp", "--hidden", "32", "--recipe", recipe, "--out", tmp_path / "model"
    )
    assert trained.code == 0, trained.err
    pixels = np.zeros((8, 8), np.uint8)
    pixels[1:7, 4] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    given = (tmp_path / "model", tmp_path / "one.png", "--no-crop", "--method", "deepfool")
    done = attack(shell, *given, "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.json["success"]
    assert done.json["label"] != done.json["before"]["label"]


# --- many photos ------------------------------------------------------------------------------------------------------


def test_a_curve_of_labelled_photos(shell: Shell, small_bundle: Path, tmp_path: Path, out: Path) -> None:
    data = folder(tmp_path / "data", 4, start=300)
    options = ("--epsilon", "8/255,64/255", "--steps", 4, "--out", out)
    done = attack(shell, small_bundle, "--data", data, *options, "--json")
    assert done.code == 0, done.err
    answer = done.json
    model = hs.load(small_bundle, engine="torch")
    found = hs.robustness(model, data, epsilons=["8/255", "64/255"], steps=4, progress=False)
    assert [point["accuracy"] for point in answer["curve"]] == [point.accuracy.value for point in found.curve]
    assert [point["epsilon"] for point in answer["curve"]] == [point.epsilon for point in found.curve]
    assert answer["curve"][0]["interval"] == [found.curve[0].accuracy.low, found.curve[0].accuracy.high]
    assert set(answer["curve"][0]["attacks"]) == {"noise", "fgsm", "pgd"}
    assert (answer["accuracy"], answer["images"]) == (found.accuracy.value, found.accuracy.images)
    assert [check["name"] for check in answer["checks"]] == ["gradients", "large epsilon", "more steps", "noise"]
    assert answer["files"] == [str(out / name) for name in CURVE]
    assert all((out / name).is_file() for name in CURVE)
    screen = attack(shell, small_bundle, "--data", data, *options, "--overwrite", "--images", 6)
    assert screen.code == 0
    assert f"6, drawn from {found.drawn_from}" in screen.out
    assert [line.split()[0] for line in screen.out.splitlines() if line[:2] in ("8/", "64")] == ["8/255", "64/255"]
    assert "checks         gradients" in screen.out
    refused = attack(shell, small_bundle, "--data", data, *options)
    assert (refused.code, "exists already" in refused.err) == (2, True)


def test_where_nothing_survives_there_is_nothing_to_try(
    shell: Shell, small_bundle: Path, photo: Path, out: Path
) -> None:
    asked = (small_bundle, photo, "--epsilon", "0.1/255", "--steps", "1", "--out", out)
    screen = attack(shell, *asked)
    assert (screen.code, "try it" in screen.out) == (0, False)
    assert "nothing of the change survives" in screen.out
    assert "nothing of the change survives" in attack(shell, *asked, "--overwrite", "--json").json["note"]


def test_that_predict_says_unknown_is_said(
    shell: Shell, small_bundle: Path, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hs.Classifier, "unlike_training", lambda self, pixels: np.ones(len(pixels), bool))
    asked = (small_bundle, photo, "--target", "discs", "--epsilon", "64/255", "--out", out)
    assert UNLIKE in attack(shell, *asked).out
    assert attack(shell, *asked, "--overwrite", "--json").json["unknown"] is True


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Give a photo, or labelled photos with --data DATA"),
        (("PHOTO", "--data", "DATA"), "and not both"),
        (("FOLDER",), "is a folder. Give one photo"),
        (("--data", "DATA", "--target", "discs"), "--target goes with a photo"),
        (("--data", "DATA", "--no-crop"), "--no-crop goes with a photo"),
        (("PHOTO", "--images", "3"), "--images goes with --data DATA, not with a photo"),
        (("PHOTO", "--label", "breed"), "--label goes with --data DATA, not with a photo"),
        (("PHOTO", "--include-training-set"), "--include-training-set goes with --data DATA, not with a photo"),
        (("PHOTO", "--target", "disks"), "The model has no class 'disks'. Did you mean discs?"),
        (("PHOTO", "--target", "bars"), "is taken for bars as it is"),
        (("PHOTO", "--epsilon", "0"), "--epsilon: expected a number above 0"),
        (("PHOTO", "--epsilon", "-1/255"), "--epsilon: expected a number above 0"),
        (("PHOTO", "--epsilon", "much"), "such as 8/255 or 0.03. Received: 'much'"),
        (("PHOTO", "--epsilon", "8"), "8 levels of 255 are 8/255"),
        (("PHOTO", "--method", "pdg"), "There is no attack 'pdg'. Did you mean pgd"),
        (("PHOTO", "--norm", "l3"), "There is no norm 'l3' here"),
        (("PHOTO", "--method", "descent"), "give it with --target CLASS"),
        (("PHOTO", "--steps", "0"), "--steps: expected a whole number, 1 or more"),
        (("PHOTO", "--restarts", "0"), "--restarts: expected a whole number, 1 or more"),
        (("PHOTO", "--seed", "-1"), "--seed: expected a whole number, 0 to 9223372036854775807"),
        (("nowhere.jpg",), "nowhere.jpg"),
        (("--data", "DATA", "--images", "0"), "--images: expected a whole number, 1 or more"),
        (("--data", "DATA", "--method", "fgsm,pg"), "There is no attack 'pg'"),
        (("--data", "DATA", "--epsilon", "1/255,x"), "Received: 'x'"),
        (("--data", "DATA", "--epsilon", "1/255,,2/255"), "--epsilon: expected one value, or several with commas"),
        (("--data", "DATA", "--method", ""), "--method: expected one value, or several with commas"),
        (("PHOTO", "--method", ""), "There is no attack ''"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_a_sentence_and_no_file(
    shell: Shell, small_bundle: Path, photos: Path, photo: Path, out: Path, given: tuple[str, ...], said: str
) -> None:
    places = {"PHOTO": str(photo), "FOLDER": str(photos), "DATA": str(photos)}
    done = attack(shell, small_bundle, *(places.get(word, word) for word in given), "--out", out)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not out.exists()


def test_a_broken_photo_is_a_sentence(shell: Shell, small_bundle: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    done = attack(shell, small_bundle, tmp_path / "broken.jpg", "--out", out)
    assert done.code == 3
    assert "broken.jpg' cannot be read" in done.err


def test_a_model_of_rows_is_no_victim(shell: Shell, photo: Path, tmp_path: Path, out: Path) -> None:
    pytest.importorskip("sklearn")
    hs.train_rows("iris", progress=False).save(tmp_path / "rows")
    done = attack(shell, tmp_path / "rows", photo, "--out", out)
    assert done.code == 2
    assert "is a model of rows of numbers" in done.err


def test_a_folder_that_cannot_be_written_to_is_said_before_any_work(
    shell: Shell, small_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    shutil.copy(photo, tmp_path / "file")
    done = attack(shell, small_bundle, photo, "--out", tmp_path / "file" / "inside")
    assert (done.code, "cannot be written to" in done.err) == (2, True)
