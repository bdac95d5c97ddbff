"""`hs.write_report` and `headstart report`: where the files go, what is told, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import headstart as hs
from headstart.diagnose.records import KINDS, Diagnosis, Verdict
from making import Shell
from reports import Page, full_diagnosis, full_robustness


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle)


def diagnosed(model: hs.Classifier, diagnosis: Diagnosis | None) -> hs.Classifier:
    found = hs.Classifier.__new__(hs.Classifier)
    vars(found).update(vars(model) | {"record": replace(model.record, diagnosis=diagnosis)})
    return found


def test_a_report_has_a_page_and_its_json(model: hs.Classifier, photos: Path, tmp_path: Path) -> None:
    names = [sample.name for sample in hs.open_source(photos).samples]
    found = hs.write_report(
        diagnosed(model, full_diagnosis(names, model.classes)), photos, out=tmp_path / "r", robustness=full_robustness()
    )
    assert sorted(os.listdir(tmp_path / "r")) == ["report.html", "report.json"]
    page, values = Page(found.html.read_text("utf-8")), json.loads(found.json.read_text("ascii"))
    assert page.faults == []
    assert (found.verdict, found.next_step) == (values["verdict"]["kind"], values["next_step"])
    assert found.size == found.html.stat().st_size
    assert 0 < found.pictures <= page.tags["img"]
    assert values["evaluation"]["accuracy"]["images"] == model.record.test
    assert values["evaluation"]["passed_over"] == model.record.train
    assert "robustness" in page.ids
    assert "distance" in page.ids
    assert "too little data" in repr(found)
    assert values["reproduce"]["commands"][0].startswith("headstart fit DATA --backbone efficientnet_lite0 --pixels 32")
    assert len(values["reproduce"]["training_set_sha256"]) == 64


def test_without_photos_it_says_so(model: hs.Classifier, tmp_path: Path) -> None:
    found = hs.write_report(model, out=tmp_path)
    page = Page(found.html.read_text("utf-8"))
    assert "This page has no photos" in page.shown
    assert model.record.result
    assert found.accuracy == model.record.result.accuracy
    verdict = model.record.diagnosis and model.record.diagnosis.verdict
    assert verdict
    assert (found.pictures, found.verdict, found.next_step) == (0, verdict.kind, verdict.next_step)


def test_a_report_that_is_there_is_kept(model: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("mine")
    with pytest.raises(hs.UsageError, match=r"report\.json' exists already\. .* replace it: overwrite=True"):
        hs.write_report(model, out=tmp_path)
    assert os.listdir(tmp_path) == ["report.json"]
    hs.write_report(model, out=tmp_path, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.json"]
    assert json.loads((tmp_path / "report.json").read_text())["classes"] == [*model.classes]


def test_what_cannot_be_is_refused_before_any_work(model: hs.Classifier, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(hs.UsageError, match=r"cannot be written to: .*Choose another folder\.$"):
        hs.write_report(model, "/nowhere/at/all", out=tmp_path / "file" / "report")
    with pytest.raises(hs.UsageError, match="/nowhere/at/all"):
        hs.write_report(model, "/nowhere/at/all", out=tmp_path / "r")
    (photos_of_others := tmp_path / "others").mkdir()
    for name in ("x", "y"):
        (photos_of_others / name).symlink_to(photos / "bars")
    with pytest.raises(hs.DataError, match="knows none of the 2 classes"):
        hs.write_report(model, photos_of_others, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_the_same_content_is_the_same_page(model: hs.Classifier, photos: Path, tmp_path: Path) -> None:
    first, second = (hs.write_report(model, photos, out=tmp_path / name) for name in "ab")
    assert first.html.read_bytes() == second.html.read_bytes()


def test_the_command_tells_where_it_is(small_bundle: Path, photos: Path, tmp_path: Path, shell: Shell) -> None:
    answer = shell("report", small_bundle, photos, "--out", tmp_path / "r", "--json")
    assert answer.json["report"] == str(tmp_path / "r" / "report.html")
    assert Path(answer.json["json"]).is_file()
    assert answer.json["verdict"] in KINDS
    assert 0 < answer.json["size_mb"] < 3
    again = shell("report", small_bundle, photos, "--out", tmp_path / "r")
    assert again.code == 2
    assert "exists already. Choose another place: --out. Or replace it: --overwrite" in again.err
    over = shell("report", small_bundle, "--out", tmp_path / "r", "--overwrite")
    assert over.code == 0
    assert str(tmp_path / "r" / "report.html") in over.out


def test_a_model_may_have_no_diagnosis(model: hs.Classifier, tmp_path: Path, shell: Shell) -> None:
    diagnosed(model, None).save(tmp_path / "model")
    answer = shell("report", tmp_path / "model", "--out", tmp_path / "r")
    assert "none: this model has no diagnosis" in answer.out
    assert shell("report", tmp_path / "model", "--out", tmp_path / "s", "--json").json["verdict"] is None


def test_fit_writes_the_page_into_the_folder_of_the_model(photos: Path, tmp_path: Path, shell: Shell) -> None:
    answer = shell("fit", photos, "--out", tmp_path / "model", "--pixels", "64")
    folder = tmp_path / "model"
    assert f"verdict        {json.loads((folder / 'report.json').read_text())['verdict']['kind']}" in answer.out
    assert str(folder / "report.html") in answer.out
    assert hs.load(folder).record.diagnosis
    again = shell("fit", photos, "--out", folder, "--pixels", "64", "--no-report", "--overwrite", "--json")
    assert (again.json["report"], again.json["verdict"]) == (None, None)
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "golden.safetensors", "model.safetensors"]


def test_the_command_shows_the_verdict_first(model: hs.Classifier, tmp_path: Path, shell: Shell) -> None:
    verdict = Verdict("too little data", "The error still falls.", "Add 320 photos.")
    diagnosed(model, Diagnosis(verdict)).save(tmp_path / "model")
    answer = shell("report", tmp_path / "model", "--out", tmp_path / "r")
    lines = answer.out.splitlines()
    assert lines[0].split(maxsplit=1) == ["verdict", "too little data"]
    assert any(line.split(maxsplit=1) == ["next", "Add 320 photos."] for line in lines)
    values = shell("report", tmp_path / "model", "--out", tmp_path / "s", "--json").json
    assert (values["verdict"], values["next_step"]) == ("too little data", "Add 320 photos.")


def test_what_is_asked_for_is_measured(small_bundle: Path, photos: Path, tmp_path: Path, shell: Shell) -> None:
    answer = shell("report", small_bundle, photos, "--corruptions", "--attack", "--out", tmp_path / "r", "--json")
    values = json.loads(Path(answer.json["json"]).read_text())
    assert {(each["kind"], each["strength"]) for each in values["corrupted"]} == {
        (kind, strength) for kind in ("noise", "blur", "JPEG", "brightness", "rotation") for strength in (1, 3, 5)
    }
    assert values["robustness"]["curve"]
    refused = shell("report", small_bundle, "--from-scratch", "--out", tmp_path / "s")
    assert refused.code == 2
    assert "--from-scratch goes with DATA: headstart report MODEL DATA --from-scratch" in refused.err


def test_columns_need_data(small_bundle: Path, tmp_path: Path, shell: Shell) -> None:
    answer = shell("report", small_bundle, "--label", "x", "--out", tmp_path / "r")
    assert (answer.code, answer.out) == (2, "")
    assert "--label goes with DATA" in answer.err
    assert not (tmp_path / "r").exists()
