"""`headstart predict` beyond a line a photo: the next classes, tables, folders; and `evaluate --out`."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.core.types import Accuracy, Confusion, Evaluation
from headstart.model.answers import put_into
from headstart.plots.confusion import confusion_matrix, draw_confusions
from making import SHAPES, Shell


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_the_next_classes_stand_below(shell: Shell, bundle: Path, photos: Path) -> None:
    photo = photos / "bars" / "0.png"
    (pairs,) = hs.load(bundle).predict(photo, top=3)
    lines = shell("predict", bundle, photo, "--top", 3).out.splitlines()
    assert [line.split()[0] for line in lines] == [label for label, _ in pairs]
    assert [line.split()[1] for line in lines] == [f"{chance:.1%}" for _, chance in pairs]
    answer = json.loads(shell("predict", bundle, photo, "--top", 9, "--all-probabilities", "--json").out)
    assert [(each["label"], each["probability"]) for each in answer["top"]] == pairs
    assert answer["probabilities"] == dict(pairs)
    refused = shell("predict", bundle, photo, "--all-probabilities")
    assert (refused.code, "--all-probabilities goes with --json" in refused.err) == (2, True)
    plain = json.loads(shell("predict", bundle, photo, "--json").out)
    assert set(plain) == {"path", "label", "probability", "unknown"}


def test_a_table_of_all(shell: Shell, bundle: Path, photos: Path, tmp_path: Path) -> None:
    file, model = tmp_path / "new" / "answers.csv", hs.load(bundle)
    done = shell("predict", bundle, photos, "--out", file, "--top", 2, "--all-probabilities")
    assert done.code == 0
    assert done.out.startswith("answers        36: ")
    assert f"wrote          {file}" in done.out
    rows = table(file)
    assert [*rows[0]] == ["path", "label", "probability", "unknown", "error", "label_2", "probability_2", *SHAPES]
    assert {row["error"] for row in rows} == {""}
    paths = [row["path"] for row in rows]
    assert [row["label"] for row in rows] == list(model.predict(paths))
    assert [
        [(row["label"], float(row["probability"])), (row["label_2"], float(row["probability_2"]))] for row in rows
    ] == (model.predict(paths, top=2))
    np.testing.assert_allclose([[float(row[name]) for name in SHAPES] for row in rows], model.predict_proba(paths))
    refused = shell("predict", bundle, photos, "--out", file)
    assert (refused.code, "exists already" in refused.err) == (2, True)
    assert shell("predict", bundle, photos / "bars", "--out", file, "--overwrite").code == 0
    assert len(table(file)) == 12


def test_a_photo_that_cannot_be_read_is_a_row_with_its_error(
    shell: Shell, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    done = shell("predict", bundle, photos / "bars" / "0.png", tmp_path / "broken.jpg", "--out", tmp_path / "a.csv")
    assert done.code == 3
    assert "broken.jpg" in done.err
    assert "answers        1: bars 1\nunreadable     1, each a row with its error\n" in done.out
    sound, broken = table(tmp_path / "a.csv")
    assert (sound["label"], sound["error"]) == ("bars", "")
    assert broken["error"].startswith("unreadable: it is text")
    again = (photos / "bars" / "0.png", tmp_path / "broken.jpg", "--out", tmp_path / "b.csv", "--json")
    machine = shell("predict", bundle, *again)
    assert (machine.code, machine.err) == (3, "")
    assert machine.json == {
        "path": str(tmp_path / "b.csv"), "rows": 2, "labels": {"bars": 1}, "unknown": 0, "unreadable": 1, "kept": 0
    }  # fmt: skip
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    assert (broken["path"], broken["label"], broken["unknown"]) == (str(tmp_path / "broken.jpg"), "", "False")


@pytest.mark.parametrize("links", [False, True])
def test_photos_are_sorted_into_folders(shell: Shell, bundle: Path, photos: Path, tmp_path: Path, links: bool) -> None:
    inbox, sorted_into = tmp_path / "inbox", tmp_path / "sorted"
    for kind in SHAPES:
        for seed in range(2):  # the same names in several folders
            (inbox / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / kind / f"{seed}.png", inbox / kind)
    Image.new("RGB", (64, 64), "white").save(inbox / "white.png")
    answers = {Path(item.path): item for item in hs.load(bundle).predictions(inbox) if isinstance(item, hs.Prediction)}
    for again in range(2):
        done = shell("predict", bundle, inbox, "--sort-into", sorted_into, *["--links"] * links)
        assert done.code == 0
        assert "answers        7: " in done.out
        there = [path for path in sorted_into.rglob("*") if path.is_file()]
        assert len(there) == 7 * (again + 1)  # nothing is replaced
    expected = {(item.label if not item.unknown else "unknown", path.read_bytes()) for path, item in answers.items()}
    assert {(path.parent.name, path.read_bytes()) for path in there} == expected
    assert all(path.is_symlink() == links for path in there)
    assert all(path.exists() for path in answers)  # the photos stay where they are


def test_a_label_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    for label in ("../../above", "/etc", "a/b", "..", ".", "", "con\0trol", "a:b"):
        target = put_into(tmp_path / "into", label, str(tmp_path / "a.png"), link=False)
        assert target.parent.parent == tmp_path / "into"
        assert target.parent.name not in ("", ".", "..")
        assert target.read_bytes() == b"content"
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "into"}


def half_a_copy(_: object, target: Path) -> None:
    target.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("link", [False, True])
def test_a_photo_that_cannot_be_copied_leaves_no_file(
    link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(hs.UsageError, match=r"cannot be put into .*: No such file"):
        put_into(tmp_path / "into", "bars", str(tmp_path / "gone.png"), link=link)
    (tmp_path / "a.png").write_bytes(b"content")
    if not link:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copy2", half_a_copy)
            with pytest.raises(hs.UsageError, match=r"cannot be put into .*: No space left on device"):
                put_into(tmp_path / "into", "bars", str(tmp_path / "a.png"), link=False)
    assert [path for path in tmp_path.rglob("*.png") if path.name != "a.png" or path.parent != tmp_path] == []
    assert put_into(tmp_path / "into", "bars", str(tmp_path / "a.png"), link=link).name == "a.png"


def test_addresses_are_not_sorted(shell: Shell, bundle: Path, photos: Path, tmp_path: Path) -> None:
    there, url = photos / "bars" / "0.png", "http://127.0.0.1:1/a.jpg"
    for more in ((), ("--urls",), ("--urls", "--links"), ("--urls", "--out", str(tmp_path / "a.csv"))):
        answer = shell("predict", bundle, there, url, "--sort-into", tmp_path / "sorted", *more)
        assert (answer.code, answer.out) == (2, "")
        assert f"'{url}' is an address, and has no file that could be copied. Leave --sort-into out" in answer.err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("-", "-"), "'-' stands for standard input, which is read once. Name it once."),
        (("--top", "0"), "--top: expected 1 or more"),
        (("--out", "a.txt"), "--out: expected a name that ends in .csv or .parquet"),
        (("--links",), "--links goes with --sort-into DIR"),
        (("--sort-into", "PHOTO"), "--sort-into: expected a folder"),
    ],
)
def test_what_cannot_be_is_said_first(
    shell: Shell, photos: Path, bundle: Path, given: tuple[str, ...], said: str
) -> None:
    photo = photos / "bars" / "0.png"
    answer = shell("predict", bundle, photo, *(str(photo) if word == "PHOTO" else word for word in given))
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


def test_rows_have_tables_too(shell: Shell, tmp_path: Path) -> None:
    hs.train_rows("iris").save(tmp_path / "model")
    names = hs.load_rows(tmp_path / "model").columns
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, [5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])
    command = ("predict", tmp_path / "model", tmp_path / "rows.csv")
    assert shell(*command, "--out", tmp_path / "a.csv", "--top", 3).code == 0
    assert [row["label"] for row in table(tmp_path / "a.csv")] == ["setosa", "virginica"]
    assert len(shell(*command, "--top", 2).out.splitlines()) == 4
    refused = shell(*command, "--sort-into", tmp_path / "sorted")
    assert (refused.code, "cannot be sorted into folders" in refused.err) == (2, True)


def test_the_wrong_photos_are_named_and_the_matrix_is_drawn(
    shell: Shell, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    for seed in range(3):
        (data / "bars" / f"{seed}.png").rename(data / "waves" / f"was {seed}.png")
    command = ("evaluate", bundle, data, "--include-training-set", "--out", tmp_path / "plots")
    said = shell(*command, "--json").json
    model = hs.load(bundle)
    assert [each["name"] for each in said["wrong"]] == [f"waves/was {k}.png" for k in _surest(model, data)]
    assert {each["label"] for each in said["wrong"]} == {"bars"}
    first = said["wrong"][0]
    assert first["probability"] == max(each["probability"] for each in said["wrong"])
    chances = dict(zip(model.classes, model.predict_proba(data / first["name"])[0], strict=True))
    assert (first["probability"], first["of_truth"]) == pytest.approx((chances["bars"], chances["waves"]), abs=1e-6)
    png, matrix, wrong, *_ = map(Path, said["files"])
    with Image.open(png) as drawn:
        assert drawn.size[0] > 300
    assert matrix.read_text().splitlines() == [
        "truth / label,bars,discs,waves",
        "bars,9,0,0",
        "discs,0,12,0",
        "waves,3,0,12",
    ]
    assert [row["path"] for row in table(wrong)] == [each["name"] for each in said["wrong"]]
    refused = shell(*command)
    assert (refused.code, "confusion.png' exists already" in refused.err) == (2, True)
    words = shell(*command, "--overwrite").out
    assert f"surest         waves as bars {first['probability']:.1%}  {first['name']}" in words


def test_calibration_and_coverage_are_drawn_and_in_tables(
    shell: Shell, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("evaluate", bundle, photos, "--include-training-set", "--out", tmp_path / "plots")
    said = shell(*command, "--json").json
    png, reliability, coverage = map(Path, said["files"][3:])
    with Image.open(png) as drawn:
        assert drawn.size[0] > 1000
    assert [{name: float(value) for name, value in row.items()} for row in table(reliability)] == said["reliability"]
    assert [{name: float(value) for name, value in row.items()} for row in table(coverage)] == said["coverage"]
    for name in ("calibration.png", "calibration.csv", "coverage.csv"):
        for other in (tmp_path / "plots").iterdir():
            if other.name != name:
                other.unlink()
        refused = shell(*command)
        assert (refused.code, f"{name}' exists already" in refused.err) == (2, True)
        assert shell(*command, "--overwrite").code == 0


def _surest(model: hs.Classifier, data: Path) -> list[int]:
    chances = model.predict_proba([data / "waves" / f"was {seed}.png" for seed in range(3)]).max(axis=1)
    return [int(k) for k in np.argsort(-chances, kind="stable")]


def test_many_classes_and_labels_of_none() -> None:
    """A class that is predicted and has no images has a column; names end at some number."""
    names = [f"class {k:03}" for k in range(100)]
    per_class = {name: Accuracy.of(3, 4) for name in names[:80]}
    confusions = tuple(Confusion(name, "class 099", 1) for name in names[:80])
    result = Evaluation(Accuracy.of(240, 320), 0.7, 0.5, 0.1, 0.0, confusions, per_class)
    there, matrix = confusion_matrix(result, names)
    assert there == [*names[:80], "class 099"]
    assert (matrix.sum(), np.trace(matrix), matrix[:, -1].sum()) == (320, 240, 80)
    figure = draw_confusions(there, matrix, result)
    assert not figure.axes[0].get_xticklabels()
    assert len(draw_confusions(there[:20], matrix[:20, :20], result).axes[0].get_xticklabels()) == 20
