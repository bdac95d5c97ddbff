"""What files are called in messages: with their folders, so that each can be found, and in an order that stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

import headstart as hs
from headstart.core.errors import DataError
from headstart.data import scan
from headstart.data.inputs import unlabelled_dataset
from headstart.data.rows import rows_to_predict
from headstart.data.sources import images_in, open_source
from making import Shell, folder
from source_files import plant, write_parquet


def test_what_a_folder_holds_is_told_in_the_order_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, *(f"{label}/{k}.{ending}" for label in ("b", "a") for k in range(3) for ending in ("jpg", "svg")))
    plant(tmp_path, "a/in/1.CR2", "Cats/1.jpg", "cats/1.jpg", "Dogs/1.jpg", "dogs/1.jpg")
    listed, said = scan._entries, []
    for order in (sorted, lambda found, key: sorted(found, key=key, reverse=True)):
        monkeypatch.setattr(scan, "_entries", lambda place, order=order: order(listed(place), key=lambda e: e.name))
        said.append([(each.name, each.kind) for each in open_source(tmp_path).problems])
    assert said[0] == said[1]
    files = [name for name, kind in said[0] if kind == "unreadable"]
    assert files == sorted(files)
    assert {"a/0.svg", "b/0.svg", "a/in/1.CR2"} <= {*files}


def test_photos_of_two_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "b/x/1.svg", "b/1.jpg", "a/x/1.svg", "a/1.jpg")
    monkeypatch.chdir(tmp_path)
    found, problems = images_in(["b", "a"])
    assert [sample.name for sample, _ in found] == ["b/1.jpg", "a/1.jpg"]  # in the order given
    assert [each.name for each in problems] == ["b/x/1.svg", "a/x/1.svg"]


def test_predict_names_what_it_cannot_read_by_its_path(bundle: Path, tmp_path: Path, shell: Shell) -> None:
    places = [folder(tmp_path / name, 1, ("bars",)) for name in ("second", "first")]
    for place in places:
        plant(place, "bars/cut.png", content=(place / "bars/0.png").read_bytes()[:900])
        plant(place, "bars/0.svg")
    said = shell("predict", bundle, *places)
    assert said.code == 3
    names = [line.split(": ")[1] for line in said.err.splitlines()]
    assert names == [f"{place}/bars/{file}" for place in places for file in ("0.svg", "cut.png")]


def test_a_table_is_named_with_its_folder(tmp_path: Path) -> None:
    """Where each part has one of the same name."""
    for part in ("train", "test"):
        plant(tmp_path, f"{part}/1.jpg", f"{part}/2.jpg", f"{part}/more.jpg")
        table = "file_name,label,place\n1.jpg,a,x\n2.jpg,b,y\ngone.jpg,a,x\n,b,y\n"
        (tmp_path / part / "metadata.csv").write_text(table)
    problems = open_source(tmp_path).problems
    assert len({(each.name, each.kind) for each in problems}) == len(problems) == 8
    lines = [each.name for each in problems if each.detail.endswith("names no file")]
    assert lines == ["test/metadata.csv, line 5", "train/metadata.csv, line 5"]
    (beside,) = [each for each in problems if each.name == "train/more.jpg"]
    assert "'train/metadata.csv'" in beside.detail
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n1.jpg,a,b,c\n")
    with pytest.raises(DataError, match=r"^'train/metadata\.csv', line 2: expected 2 cells"):
        open_source(tmp_path)


def test_a_row_of_a_shard_is_named_with_its_folder(tmp_path: Path) -> None:
    """As the Hub keeps parts: files of one name in a folder for each."""
    for part in ("train", "test"):
        write_parquet(tmp_path / "default" / part / "0000.parquet", [(b"1", 0), (b"2", 1), (b"3", -1)])
    dataset = open_source(tmp_path)
    names = [sample.name for sample in dataset.samples]
    assert names == [f"default/{part}/0000.parquet#{row}" for part in ("test", "train") for row in (0, 1)]
    assert [each.name for each in dataset.problems] == [f"default/{p}/0000.parquet#2" for p in ("test", "train")]


def test_rows_of_two_tables_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("a", "b"):
        plant(tmp_path, f"{place}/new.csv", content=b"x,y\n1,2\n")
    names = [name for place in ("a", "b") for name in rows_to_predict(tmp_path / place / "new.csv", ["x", "y"]).names]
    assert names == [f"{tmp_path}/a/new.csv#2", f"{tmp_path}/b/new.csv#2"]


def test_images_that_were_opened_keep_the_name_of_their_file(photos: Path) -> None:
    files = [photos / "bars" / "0.png", photos / "discs" / "0.png"]
    with files[0].open("rb") as file:
        dataset = unlabelled_dataset([file, Image.open(files[1]), Image.new("RGB", (8, 8))])
    assert [sample.name for sample in dataset.samples] == [*map(str, files), "images[2]"]


def said_of(data: Path) -> dict[str, tuple[str, str]]:
    model = hs.fit(str(data), pixels=32, cache=False, progress=False)
    return {each.name: (each.kind, each.detail) for each in model.record.left_out}


def test_a_repeated_photo_names_the_other(photos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photos, tmp_path / "data")
    shutil.copy(data / "bars/3.png", data / "discs/3.png")  # of the same name
    shutil.copy(data / "waves/4.png", data / "waves/again.png")
    assert said_of(data) == {
        "bars/3.png": ("conflicting labels", "the same file as 'discs/3.png', labelled discs"),
        "discs/3.png": ("conflicting labels", "the same file as 'bars/3.png', labelled bars"),
        "waves/again.png": ("duplicate", "the same file as 'waves/4.png'"),
    }
    result = hs.fit(str(photos), pixels=32, cache=False, progress=False).evaluate(str(data), fitted_on_too=True)
    assert [(each.name, each.detail) for each in result.left_out or ()] == [
        ("bars/3.png", "the same file as 'discs/3.png', labelled discs"),
        ("discs/3.png", "the same file as 'bars/3.png', labelled bars"),
    ]


def test_what_may_not_be_trained_on_names_the_test_photo(tmp_path: Path) -> None:
    """A near copy, or a photo of the same patient."""
    folder(tmp_path / "train", 6, ("bars", "discs"))
    folder(tmp_path / "test", 3, ("bars", "discs"), start=50)
    Image.open(tmp_path / "test/discs/51.png").save(tmp_path / "train/discs/again.jpg", quality=90)
    assert said_of(tmp_path) == {
        "train/discs/again.jpg": ("copy of a test image", "nearly the same as 'test/discs/51.png'")
    }
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    patients = {"train/bars/1.png": "Ann", "test/bars/52.png": "Ann", "test/bars/50.png": "Bo"}
    rows = [f"{file},{file.split('/')[1]},{file.split('/')[0]},{patients.get(file, file)}" for file in files]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,split,group", *rows]))
    assert said_of(tmp_path)["train/bars/1.png"] == ("copy of a test image", "of one group with 'test/bars/52.png'")
