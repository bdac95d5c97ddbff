"""The whole diagnosis of a head, and how a model keeps it."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from diagnosed import blobs, fitted
from headstart.core.types import ImageDataset, Sample
from headstart.data.check import Repeat
from headstart.diagnose.diagnose import OUTLIERS, FittedHead, diagnose_head
from headstart.diagnose.records import (
    KINDS,
    Diagnosis,
    Outlier,
    Shortcut,
)
from headstart.learn.heads import STRENGTHS
from headstart.model.records import FitRecord, from_json, to_json

pytestmark = pytest.mark.usefixtures("half_of_the_cores")


@pytest.fixture(scope="module")
def head() -> FittedHead:
    """A fifth is the test set; four training images lie far away, two labels are wrong, and two pairs show the same."""
    x, labels = blobs(300, 12, 3.0, classes=3)
    x[:4] = 15 * np.eye(12)[5:9]
    labels[[10, 11]] = (labels[[10, 11]] + 1) % 3
    x[30], x[250] = x[31], x[40]
    return fitted(x, labels, np.arange(300) >= 240, copies=[(31, 30), (250, 40)])


@pytest.fixture(scope="module")
def diagnosis(head: FittedHead) -> Diagnosis:
    return diagnose_head(head)


def test_every_part_is_there(diagnosis: Diagnosis) -> None:
    assert diagnosis.verdict.kind in KINDS
    curve, complexity, parts = diagnosis.learning_curve, diagnosis.complexity, diagnosis.bias_variance
    assert curve is not None
    assert complexity is not None
    assert parts is not None
    assert parts.judged_on == curve.judged_on == "test set"
    assert curve.points[-1].images == 239  # one is a copy of a test image
    assert len(complexity.points) == len(STRENGTHS)
    assert {*parts.per_class} == {"class 0", "class 1", "class 2"}
    assert diagnosis.seconds > 0
    assert [each.what for each in diagnosis.shortcuts if not each.is_one] == [
        "size",
        "file type",
        "brightness",
        "border",
    ]


def test_the_facts_are_those_of_the_parts(head: FittedHead, diagnosis: Diagnosis) -> None:
    figures, curve = diagnosis.verdict.figures, diagnosis.learning_curve
    assert curve is not None
    assert figures["images"] == 239
    assert figures["train_error"] == head.wrong(head.train).mean() == curve.points[-1].train_error
    assert (figures["from_half"], figures["from_half_z"]) == (curve.from_half, curve.from_half_z)
    assert figures["more"] == pytest.approx(curve.twice.accuracy - (1 - curve.points[-1].error))
    right = head.fit.logits.argmax(axis=1) == head.split.labels[head.train[head.fit.rows]]
    assert figures["accuracy"] == pytest.approx(right.mean())
    assert figures["accuracy_se"] == pytest.approx((right.mean() * (1 - right.mean()) / len(right)) ** 0.5)
    tested = 1 - head.wrong(head.test).mean()
    spread = (figures["accuracy_se"] ** 2 + max(tested * (1 - tested), 1 / 60) / 60) ** 0.5
    assert figures["test_z"] == pytest.approx((tested - right.mean()) / spread)
    assert figures["copied"] == pytest.approx(1 / 60)
    assert figures["copies_within"] == pytest.approx(2 / 240)


def test_wrong_labels_and_outliers_are_named(diagnosis: Diagnosis, head: FittedHead) -> None:
    suspected = diagnosis.wrong_labels
    assert suspected is not None
    assert {suspect.name for suspect in suspected.suspects[:2]} == {"10.jpg", "11.jpg"}
    assert suspected.suspects[0].label != suspected.suspects[0].suggested
    assert len(diagnosis.outliers) == OUTLIERS
    assert {f"{row}.jpg" for row in range(4)} <= {outlier.name for outlier in diagnosis.outliers}
    rows = head.train[head.fit.rows[np.argsort(head.typical)]].tolist()
    assert [outlier.name for outlier in diagnosis.outliers] == [f"{row}.jpg" for row in rows[:OUTLIERS]]
    places = [outlier.typical for outlier in diagnosis.outliers]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] < 0.1


def test_look_alikes_are_those_that_tell_something(diagnosis: Diagnosis, head: FittedHead) -> None:
    """Copies with another label, or in the other part; 30 and 31 are as alike, but of two classes."""
    assert head.dataset.samples[30].label != head.dataset.samples[31].label
    assert head.dataset.samples[250].label == head.dataset.samples[40].label
    names = {(repeat.names, repeat.relation) for repeat in diagnosis.look_alikes}
    assert names == {(("30.jpg", "31.jpg"), "across classes"), (("40.jpg", "250.jpg"), "across splits")}
    samples = [Sample(sample.name, "one", "") for sample in head.dataset.samples]
    same = replace(head, dataset=ImageDataset("", samples, head.dataset.read))
    assert diagnose_head(same).look_alikes == ()


def test_without_a_test_set_images_are_held_out_in_turn() -> None:
    found = diagnose_head(fitted(*blobs(200, 10, 2.0)))
    assert found.learning_curve is not None
    assert found.bias_variance is not None
    assert found.learning_curve.judged_on == "held out in turn"
    assert found.bias_variance.judged_on == "left out of the resample"
    assert found.verdict.figures["test_z"] == found.verdict.figures["copied"] == 0


@pytest.mark.parametrize("kind", ["lda", "ridge"])
@pytest.mark.parametrize("count", [4, 5, 7, 12, 30])
def test_a_handful_of_images_is_enough(kind: str, count: int) -> None:
    found = diagnose_head(fitted(*blobs(count, 20, 3.0), kind=kind))
    assert found.verdict.kind in KINDS
    assert np.isfinite([*found.verdict.figures.values()]).all()
    json.dumps(to_json(found), allow_nan=False)


def test_a_seed_gives_the_same_diagnosis(head: FittedHead, diagnosis: Diagnosis) -> None:
    again, other = diagnose_head(head), diagnose_head(replace(head, seed=1))
    assert replace(again, seconds=0.0) == replace(diagnosis, seconds=0.0)
    assert other.learning_curve != diagnosis.learning_curve
    assert other.bias_variance != diagnosis.bias_variance


# --- kept by a model ---


def full(diagnosis: Diagnosis) -> Diagnosis:
    """With something in every field."""
    whole = replace(
        diagnosis,
        look_alikes=(Repeat(("a.jpg", "b.jpg"), ("cats", "dogs"), ("train", "test")),),
        outliers=(Outlier("a.jpg", "cats", 0.25),),
        shortcuts=(Shortcut("size", 0.75, 0.5, 40, True),),
        seconds=2.0,
    )
    assert all(getattr(whole, field.name) for field in fields(Diagnosis))
    return whole


def test_it_comes_back_from_json(diagnosis: Diagnosis) -> None:
    for each in (diagnosis, full(diagnosis), Diagnosis(diagnosis.verdict)):
        record = FitRecord(images=4, train=3, test=1, diagnosis=each)
        text = json.dumps(to_json(record), allow_nan=False)
        assert from_json(FitRecord, json.loads(text)) == record


def test_a_record_of_before_has_none(diagnosis: Diagnosis) -> None:
    record = FitRecord(images=4, train=3, test=1)
    assert "diagnosis" not in to_json(record)
    assert from_json(FitRecord, {"images": 4, "train": 3, "test": 1}) == record
    later = json.loads(json.dumps(to_json(replace(record, diagnosis=diagnosis))))
    later["diagnosis"]["of_tomorrow"] = later["diagnosis"]["verdict"]["of_tomorrow"] = 1
    assert from_json(FitRecord, later).diagnosis == diagnosis


def test_fit_makes_one_and_a_saved_model_keeps_it(photos: Path, bundle: Path, tmp_path: Path) -> None:
    model = hs.load(bundle)
    found = model.record.diagnosis
    assert isinstance(found, Diagnosis)
    assert found.verdict.kind in KINDS
    assert found.bias_variance is not None
    assert found.wrong_labels is not None
    assert {outlier.label for outlier in found.outliers} <= {*model.classes}
    assert {outlier.name for outlier in found.outliers} <= {
        path.relative_to(photos).as_posix() for path in photos.rglob("*.png")
    }
    assert found.seconds > 0
    assert "diagnosis" in model.record.seconds
    model.save(tmp_path / "again")
    assert hs.load(tmp_path / "again").record.diagnosis == found


def test_fit_makes_none_where_none_is_wanted(photos: Path, tmp_path: Path) -> None:
    model = hs.fit(str(photos), pixels=32, cache=False, diagnose=False)
    assert model.record.diagnosis is None
    assert "diagnosis" not in model.record.seconds
    model.save(tmp_path / "model")
    assert "diagnosis" not in json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["fit"]
    assert hs.load(tmp_path / "model").record.diagnosis is None


def test_frames_of_few_videos_are_fitted_and_diagnosed(photos: Path, tmp_path: Path) -> None:
    """Each class in few groups: there are too few of them for a learning curve, and that is no error."""
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]},{path.split('/')[0]}" for path in paths]
    table = Path(shutil.copytree(photos, tmp_path / "photos")) / "table.csv"
    table.write_text("image,label,patient\n" + "\n".join(rows), encoding="utf-8")
    found = hs.fit(hs.open_source(table, group_column="patient"), pixels=32, holdout=0, cache=False).record.diagnosis
    assert found is not None
    assert found.learning_curve is None
    assert found.bias_variance is None
    assert found.verdict.kind in KINDS
