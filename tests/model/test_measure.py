"""What `evaluate` counts is what a fit counts: the same images and interval, and a word for each of the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

import headstart as hs
from making import SHAPES, Shell, folder, packed, picture


def fitted(data: Path) -> hs.Classifier:
    return hs.fit(str(data), pixels=32, cache=False)


def kinds(result: hs.Evaluation) -> dict[str, str]:
    return {problem.name: problem.kind for problem in result.left_out or ()}


def test_it_agrees_with_the_fit_on_the_same_folder_groups_included(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = [f"{p.relative_to(data)},{p.parent.name},{p.parent.name}{int(p.stem) // 4}" for p in data.rglob("*.png")]
    (data / "metadata.csv").write_text("file_name,label,patient_id\n" + "\n".join(rows) + "\n")
    model = fitted(data)
    fit, again = model.record.result, model.evaluate(str(data))
    assert fit is not None
    assert fit.accuracy == again.accuracy
    assert again.accuracy.groups == 3
    assert fit.calibration_noise == pytest.approx(again.calibration_noise, abs=1e-3)
    assert [bar.images for bar in fit.reliability or ()] == [12] == [bar.images for bar in again.reliability or ()]
    assert len(fit.coverage or ()) == len(again.coverage or ()) >= 10
    model.save(tmp_path / "model")
    assert hs.load(tmp_path / "model").evaluate(str(data)).accuracy == fit.accuracy


def test_near_copies_of_training_images_are_passed_over(photos: Path, tmp_path: Path) -> None:
    model, other = fitted(photos), tmp_path / "other"
    new = folder(other, 4, start=300)
    for kind in SHAPES:
        for seed in range(12):
            Image.open(photos / kind / f"{seed}.png").resize((80, 80)).save(new / kind / f"copy{seed}.jpg", quality=70)
    model.save(tmp_path / "model")
    for each in (model, hs.load(tmp_path / "model")):
        result = each.evaluate(str(new))
        assert abs(result.passed_over - model.record.train) <= 3  # of pictures so simple, some are near each other
        assert result.accuracy.images + result.passed_over == 48
        assert each.evaluate(str(new), fitted_on_too=True).accuracy.images == 48


def test_a_model_that_kept_no_thumbnails_passes_over_exact_copies(photos: Path, bundle: Path) -> None:
    model = hs.load(bundle)
    before = model.evaluate(str(photos))
    model.thumbnails = model.thumbnails[:0]
    assert model.evaluate(str(photos)).passed_over == model.record.train == before.passed_over


def test_one_image_of_another_class_does_not_spoil_it(photos: Path, bundle: Path, tmp_path: Path) -> None:
    data = folder(tmp_path / "new", 3, start=400)
    (data / "bats").mkdir()
    (data / "bats" / "1.png").write_bytes(packed(picture("waves", 450)))
    result = hs.load(bundle).evaluate(str(data))
    assert kinds(result) == {"bats/1.png": "unknown class"}
    assert result.accuracy.images + result.passed_over == 9
    shutil.rmtree(data / "bars")
    shutil.rmtree(data / "discs")
    shutil.rmtree(data / "waves")
    with pytest.raises(hs.DataError, match=r"knows none of the 1 class of the images, 'bats' first"):
        hs.load(bundle).evaluate(str(data))


def test_what_is_missing_unreadable_or_labelled_twice_is_named(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    data = folder(tmp_path / "new", 4, start=500)
    shutil.copy(data / "bars" / "500.png", data / "waves" / "same.png")
    (data / "discs" / "text.png").write_text("words")
    rows = [f"{p.relative_to(data)},{p.parent.name}" for p in sorted(data.rglob("*.png"))] + ["gone.png,bars"] * 3
    (data / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    answer = shell("evaluate", bundle, data / "labels.csv", "--json").json
    assert (answer["unreadable"], answer["images"] + answer["passed_over"]) == (4, 11)
    found = [(problem["name"], problem["kind"]) for problem in answer["left_out"]]
    assert found.count(("gone.png", "missing")) == 3
    assert {("discs/text.png", "unreadable"), ("bars/500.png", "conflicting labels")} < set(found)
    words = shell("evaluate", bundle, data / "labels.csv").out
    for part in ("3 missing: gone.png", "2 conflicting labels", "1 unreadable: discs/text.png"):
        assert part in words
