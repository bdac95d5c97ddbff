"""`hs.fit` and the classifier it gives: real pictures, the real default backbone, at few pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from making import SHAPES, folder, packed, picture, record_of


def quick(data: object, labels: object = None, **options: object) -> hs.Classifier:
    return hs.fit(data, labels, pixels=64, **options)  # type: ignore[arg-type]


def test_fits_class_folders_and_predicts(photos: Path, tmp_path: Path) -> None:
    model = quick(str(photos))
    assert model.classes == SHAPES
    assert record_of(model)["train"] + record_of(model)["test"] == 36
    assert record_of(model)["result"]["accuracy"]["value"] == 1.0
    fresh = folder(tmp_path / "fresh", 4, start=100)
    paths = sorted(str(path) for path in fresh.rglob("*.png"))
    truth = [Path(path).parent.name for path in paths]
    assert model.predict(paths).tolist() == truth
    probabilities = model.predict_proba(paths)
    assert probabilities.shape == (12, 3)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert model.score(str(fresh)) == model.score(paths, truth) == 1.0
    assert model.predict_proba([]).shape == (0, 3)
    names = {str(path.relative_to(photos)) for path in photos.rglob("*.png")}
    for (name, cosine), *others in model.nearest(paths, 3):
        assert name in names
        assert all(cosine >= other for _, other in others)
        assert len(others) == 2


def test_every_way_to_hand_over_images_gives_the_same(photos: Path) -> None:
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    labels = [Path(path).parent.name for path in paths]
    arrays = np.stack([np.asarray(Image.open(path)) for path in paths])
    by_path, by_array = quick(paths, labels), quick(arrays, labels)
    expected = by_path.predict_proba(paths)
    assert np.allclose(by_path.predict_proba(arrays), expected)
    assert np.allclose(by_path.predict_proba(list(arrays)), expected)
    assert np.allclose(by_path.predict_proba(arrays / np.float32(255)), expected)
    assert by_array.classes == by_path.classes
    assert (by_array.predict(paths) == by_path.predict(paths)).all()


@pytest.mark.parametrize("kind", [int, np.int8, bool, np.bool_, np.float32, str])
def test_answers_are_of_the_kind_of_the_labels(kind: type, photos: Path, tmp_path: Path) -> None:
    """As with scikit-learn: they can be compared with what was given, also of a model that was saved."""
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    y = np.array([kind(int(Path(path).parent.name == "waves")) for path in paths])
    model = hs.fit(paths, y, pixels=32, precision="fp32")
    model.save(tmp_path / "model")
    for each in (model, hs.load(tmp_path / "model")):
        assert each.classes_.tolist() == np.unique(y).tolist()
        assert np.mean(each.predict(paths) == y) > 0.9
        assert each.score(paths, y) == np.mean(each.predict(paths) == y)
        assert {type(label) for label in each.predict(paths).tolist()} == {type(y[0].item())}


def test_labels_are_compared_by_value_and_unknown_ones_are_wrong(photos: Path) -> None:
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    y = [{"bars": 10, "discs": 2, "waves": 1}[Path(path).parent.name] for path in paths]
    model = hs.fit(paths, y, pixels=32, precision="fp32")
    right = np.mean(model.predict(paths) == y)
    assert model.score(paths, [float(label) for label in y]) == model.score(paths, y) == pytest.approx(right)
    some = [label if row else 77 for row, label in enumerate(y)]
    assert model.score(paths, some) == pytest.approx(np.mean(model.predict(paths) == some))
    assert model.evaluate(paths, some, fitted_on_too=True).accuracy.images == len(paths) - 1  # it is named, not counted


def test_classes_that_are_numbers_are_in_their_order(photos: Path) -> None:
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    y = [{"bars": 10, "discs": 2, "waves": 1}[Path(path).parent.name] for path in paths]
    model = hs.fit(paths, y, pixels=32, precision="fp32")
    assert model.classes_.tolist() == [1, 2, 10]
    assert np.mean(model.classes_[model.predict_proba(paths).argmax(axis=1)] == y) > 0.9


def test_the_same_photos_give_the_same_model_whatever_they_are_called(photos: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    for path in photos.rglob("*.png"):
        (renamed / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, renamed / path.parent.name / f"{99 - int(path.stem)}.png")
    one, other = quick(str(photos)), quick(str(renamed))
    assert one.fitted_on == other.fitted_on
    assert quick(str(photos), seed=1).fitted_on != one.fitted_on


def test_a_second_fit_computes_nothing_and_is_equal(photos: Path) -> None:
    first, second = quick(str(photos)), quick(str(photos))
    assert (record_of(first)["computed"], record_of(first)["from_store"]) == (36, 0)
    assert (record_of(second)["computed"], record_of(second)["from_store"]) == (0, 36)
    for name, array in first.weights.items():
        assert np.array_equal(array, second.weights[name])


def test_a_test_part_is_what_is_measured_on_and_never_leaks(tmp_path: Path) -> None:
    folder(tmp_path / "train", 8)
    folder(tmp_path / "test", 4, start=50)
    copied, again = tmp_path / "train/bars/copy.png", Image.open(tmp_path / "test/discs/50.png")
    shutil.copy(tmp_path / "test/bars/50.png", copied)
    again.save(tmp_path / "train/discs/again.jpg", quality=90)
    model = quick(str(tmp_path))
    left_out = {problem["name"]: problem["kind"] for problem in record_of(model)["left_out"]}
    assert left_out["train/bars/copy.png"] == "duplicate"
    assert left_out["train/discs/again.jpg"] == "copy of a test image"
    assert all(name.startswith("train/") for name in left_out)
    assert (record_of(model)["test_part"], record_of(model)["test"]) == ("test", 12)
    assert record_of(model)["train"] == 26 - len(left_out)
    result = model.evaluate(str(tmp_path))
    assert (result.accuracy.images, result.passed_over) == (12, 0)
    assert result.accuracy.value == record_of(model)["result"]["accuracy"]["value"]


def test_evaluate_passes_over_what_was_fitted_on(photos: Path) -> None:
    model = quick(str(photos))
    result = model.evaluate(str(photos))
    assert result.passed_over == record_of(model)["train"]
    assert result.accuracy.images == record_of(model)["test"]
    assert result.nll == pytest.approx(record_of(model)["result"]["nll"], abs=1e-3)  # features are kept in float16
    assert model.evaluate(str(photos), fitted_on_too=True).accuracy.images == 36
    whole = quick(str(photos), holdout=0)
    assert record_of(whole)["result"] is None
    with pytest.raises(hs.DataError, match="36 are in the training set"):
        whole.evaluate(str(photos))


def test_one_label_too_many_is_noticed(photos: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "other", 2, ("bars",))
    (other / "bars").rename(other / "barz")
    with pytest.raises(hs.DataError, match="barz"):
        quick(str(photos)).evaluate(str(other))


def test_bad_files_cost_a_line_each(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    whole = packed(picture("bars", 77), "JPEG")
    (data / "bars/empty.png").write_bytes(b"")
    (data / "bars/text.jpg").write_text("no image")
    (data / "bars/cut.jpg").write_bytes(whole[: len(whole) // 2])
    model = quick(str(data))
    left_out = {problem["name"]: problem["kind"] for problem in record_of(model)["left_out"]}
    assert left_out == {"bars/empty.png": "empty", "bars/text.jpg": "unreadable", "bars/cut.jpg": "truncated"}
    kinds = [type(item).__name__ for item in model.predictions([data / "bars/0.png", data / "bars/text.jpg"])]
    assert kinds == ["Prediction", "Problem"]
    with pytest.raises(hs.DataError, match=r"text\.jpg"):
        model.predict([data / "bars/text.jpg"])


def test_one_file_under_two_labels_is_left_out_of_both(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    shutil.copy(data / "bars/0.png", data / "waves/x.png")
    problems = record_of(quick(str(data)))["left_out"]
    assert {(p["name"], p["kind"]) for p in problems} == {
        ("bars/0.png", "conflicting labels"),
        ("waves/x.png", "conflicting labels"),
    }


def test_near_copies_stay_on_one_side(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", 10)
    for path in list(data.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".jpg"), quality=85)
    model = quick(str(data), holdout=0.3)
    assert record_of(model)["near_duplicates"] == 60
    groups: dict[str, set[bool]] = {}
    from headstart.data.load import content_key

    for path in data.rglob("*.*"):
        inside = content_key(path.read_bytes()) in model.fitted_on
        groups.setdefault(f"{path.parent.name}/{path.stem}", set()).add(inside)
    assert all(len(sides) == 1 for sides in groups.values())
    assert any(sides == {False} for sides in groups.values())


def test_groups_of_a_table_stay_on_one_side(photos: Path, tmp_path: Path) -> None:
    from headstart.data.load import content_key

    data = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = [
        f"{path.relative_to(data)},{path.parent.name},{int(path.stem) // 3}" for path in sorted(data.rglob("*.png"))
    ]
    (data / "metadata.csv").write_text("file_name,label,group\n" + "\n".join(rows) + "\n")
    model = quick(str(data), holdout=0.3)
    sides: dict[int, set[bool]] = {}
    for path in data.rglob("*.png"):
        sides.setdefault(int(path.stem) // 3, set()).add(content_key(path.read_bytes()) in model.fitted_on)
    assert record_of(model)["test"] > 0
    assert all(len(side) == 1 for side in sides.values())


def test_patients_with_many_photos_are_measured_and_the_interval_counts_them(photos: Path, tmp_path: Path) -> None:
    """Two patients a class, and one of the third class, which cannot be measured; groups are no near copies."""
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = []
    for path in sorted(data.rglob("*.png")):
        kind = path.parent.name
        patient = 0 if kind == "waves" else int(path.stem) // 6
        rows.append(f"{path.relative_to(data)},{kind},{kind}{patient}")
    (data / "metadata.csv").write_text("file_name,label,group\n" + "\n".join(rows) + "\n")
    model = quick(str(data))
    record = model.record
    assert (record.train, record.test, record.not_measured) == (24, 12, ("waves",))
    assert record.near_duplicates < 12
    assert record.result is not None
    assert (record.result.accuracy.images, record.result.accuracy.groups) == (12, 2)
    assert record.result.accuracy.low < 0.2


def test_a_class_of_one_photo_is_left_out_with_a_sentence(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "lonely").mkdir()
    (data / "lonely/1.png").write_bytes(packed(picture("waves", 500)))
    model = quick(str(data))
    assert model.classes == SHAPES
    (problem,) = record_of(model)["left_out"]
    assert (problem["kind"], "lonely" in problem["detail"]) == ("class too small", True)


@pytest.mark.parametrize(
    "options", [{"head": "ridge"}, {"prior": "empirical"}, {"precision": "fp32"}, {"cache": False}]
)
def test_every_setting_works(photos: Path, home: Path, options: dict[str, object]) -> None:
    model = quick(str(photos), **options)
    assert record_of(model)["result"]["accuracy"]["value"] >= 0.8
    assert (home / "features").exists() == options.get("cache", True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"holdout": 2}, "holdout"),
        ({"pixels": 7}, "pixels"),
        ({"backbone": "eficientnet_lite0"}, "efficientnet_lite0"),
        ({"head": "lad"}, "lda"),
        ({"prior": "flatt"}, "flat"),
        ({"precision": "fp23"}, "fp32"),
        ({"backbone": "mobilenet_v2"}, "weights"),
    ],
)
def test_a_wrong_setting_is_a_sentence(photos: Path, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(hs.UsageError, match=sentence):
        hs.fit(str(photos), **({"pixels": 64} | options))  # type: ignore[arg-type]


def test_labels_that_do_not_fit_the_images(photos: Path) -> None:
    with pytest.raises(hs.UsageError):
        hs.fit([str(next(photos.rglob("*.png")))], ["a", "b"])
    with pytest.raises(hs.UsageError, match="labels"):
        hs.fit([str(next(photos.rglob("*.png")))])


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("cats_dogs", 0.985),
        pytest.param("apple_leaves", 0.96, marks=pytest.mark.slow),
        pytest.param("oxford_pets", 0.83, marks=pytest.mark.slow),
    ],
)
def test_accuracy_on_real_photos(shared: Path, name: str, floor: float) -> None:
    model = hs.fit(str(shared / "data" / name))
    accuracy = record_of(model)["result"]["accuracy"]
    assert accuracy["value"] >= floor
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
