"""What is left out of data that a caller holds is said, in one sentence; and how labels make no two classes."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import headstart as hs
from headstart.core.counts import each_kind
from headstart.data.inputs import unlabelled_dataset
from making import Shell

FEW: dict[str, Any] = {"pixels": 32, "cache": False, "holdout": 0, "progress": False}


@pytest.fixture(scope="module")
def files(photos: Path) -> list[str]:
    return sorted(map(str, photos.rglob("*.png")))


def kinds(files: list[str]) -> list[str]:
    return [Path(file).parent.name for file in files]


def test_files_that_are_not_there_are_said_in_one_sentence_at_the_callers_line(files: list[str]) -> None:
    given = [*files, "gone.png", "lost.png"]
    labels = [*kinds(files), "bars", "waves"]
    said = r"^2 images are left out: missing \(2\), first 'gone\.png': no such file or directory\.$"
    with pytest.warns(hs.DataWarning, match=said) as caught:
        model = hs.fit(given, labels, **FEW)
    assert [each.filename for each in caught] == [__file__]
    assert [each.name for each in model.record.left_out] == ["gone.png", "lost.png"]
    frame = pd.DataFrame({"path": given, "label": labels})
    with pytest.warns(hs.DataWarning, match=said):
        hs.fit(frame, **FEW)


def test_a_row_without_a_label_is_said(files: list[str]) -> None:
    frame = pd.DataFrame({"path": files, "label": [None, *kinds(files)[1:]]})
    with pytest.warns(hs.DataWarning, match=r"^1 image is left out: no label \(1\), first 'row 0': the label is blank"):
        hs.fit(frame, **FEW)


def test_nothing_is_said_where_nothing_is_lost(files: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", hs.DataWarning)
        model = hs.fit([*files, files[0]], [*kinds(files), kinds(files)[0]], **FEW)
    assert [(each.kind, each.detail) for each in model.record.left_out] == [("duplicate", "given twice")]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (lambda row: "x", r"in memory\. Received: 36 images in 1 class\. All labels are 'x': give photos of another"),
        (
            lambda row: row / 7,
            r"left out: class too small \(36\), first '.*\. Nearly every photo has a label of its own",
        ),
        (
            lambda row: "x" if row else "y",
            r"left out: class too small \(1\), .*\. Give two photos or more of each class",
        ),
    ],
)
def test_labels_that_make_no_two_classes(files: list[str], label: Any, said: str) -> None:
    with pytest.raises(hs.DataError, match=said) as refused:
        hs.fit(files, [label(row) for row in range(len(files))], **FEW)
    assert "folder" not in str(refused.value)


def test_a_folder_with_one_class_is_told_of_folders(photos: Path) -> None:
    with pytest.raises(hs.DataError, match="Put each class's photos into a folder of its own"):
        hs.fit(f"{photos}/bar*/*", **FEW)


def test_kinds_are_counted() -> None:
    assert each_kind(["class too small", "duplicate", "duplicate"]) == "duplicate (2), class too small (1)"


@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png"])
def test_a_name_that_no_file_can_have(name: str, bundle: Path, files: list[str]) -> None:
    shown = name.encode("utf-8", "backslashreplace").decode()
    problem = hs.Problem(shown, "missing", "no file can have this name")
    assert list(hs.load(bundle).predictions([files[0], name]))[1] == problem
    assert hs.check([name, *files], ["bars", *kinds(files)], progress=False).unreadable == (problem,)


def test_predictions_go_on_past_files_that_are_not_there(bundle: Path, files: list[str]) -> None:
    model = hs.load(bundle)
    found = list(model.predictions([files[0], "nope.png", files[1]]))
    assert [type(each).__name__ for each in found] == ["Prediction", "Problem", "Prediction"]
    assert found[1] == hs.Problem("nope.png", "missing", "no such file or directory")
    with pytest.raises(hs.UsageError, match=r"No such file or folder: 'nope\.png'"):
        model.predict([files[0], "nope.png"])
    with pytest.raises(hs.UsageError, match=r"No such file or folder: 'nope\.png'"):
        list(model.predictions("nope.png"))


@pytest.fixture
def inbox(photos: Path, tmp_path: Path) -> Path:
    """A folder with two photos, and all that is none."""
    box = tmp_path / "inbox"
    (box / "closed").mkdir(parents=True)
    for name in ("a.png", "z.png"):
        shutil.copy(photos / "bars" / "0.png", box / name)
    (box / "closed" / "in it.png").symlink_to(box / "nowhere")
    (box / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (box / "link.jpg").symlink_to(box / "nowhere.jpg")
    (box / "notes.txt").write_text("passed over in silence")
    (box / "text.jpg").write_text("this is no photo at all")
    (box / "up.jpg").symlink_to(box)
    return box


def test_predictions_have_all_that_the_command_names(bundle: Path, inbox: Path, shell: Shell) -> None:
    command = shell("predict", bundle, inbox, "--json")
    rows = [json.loads(line) for line in command.out.splitlines()]
    found = list(hs.load(bundle).predictions(inbox))
    assert [(each.name, each.kind, each.detail) for each in found if isinstance(each, hs.Problem)] == [
        (row["path"], row["error"], row["detail"]) for row in rows if "error" in row
    ]
    names = [each.name if isinstance(each, hs.Problem) else each.path for each in found]
    assert names == [row["path"] for row in rows]
    assert [os.path.relpath(name, inbox) for name in names] == [
        "a.png", "closed/in it.png", "film.mp4", "link.jpg", "text.jpg", "up.jpg", "z.png",
    ]  # fmt: skip
    assert (command.code, [type(found[place]) for place in (0, -1)]) == (3, [hs.Prediction] * 2)


def test_a_folder_that_cannot_be_opened_has_its_place_too(
    bundle: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed/"):
            raise PermissionError(13, "Permission denied")
        return before(path)

    monkeypatch.setattr("os.scandir", scandir)
    found = list(hs.load(bundle).predictions(inbox))
    assert found[1] == hs.Problem(f"{inbox}/closed", "unreadable", "permission denied")


def test_predict_says_what_of_a_folder_it_leaves_out(bundle: Path, inbox: Path) -> None:
    (inbox / "text.jpg").unlink()
    model = hs.load(bundle)
    said = r"^4 files are left out: missing \(2\), unreadable \(1\), left out \(1\), first '.*in it\.png': a link to "
    for ask in (model.predict, model.predict_proba, model.embed):
        with pytest.warns(hs.DataWarning, match=said) as caught:
            assert len(ask(inbox)) == 2
        assert [each.filename for each in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error", hs.DataWarning)
        assert len(list(model.predictions(inbox))) == 6
        assert len(model.predict(inbox / "a.png")) == 1


def test_paths_are_from_the_directory_where_they_were_given(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inbox)
    dataset = unlabelled_dataset(["a.png", "z.png"], all_listed=True)
    monkeypatch.chdir("..")
    assert dataset.read(1) == (inbox / "z.png").read_bytes()
