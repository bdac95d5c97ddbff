"""Tables as Kaggle and the Hub have them: whatever their columns are called, and however they name the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.core.errors import DataError
from headstart.core.types import ImageDataset
from headstart.data.sources import open_source
from source_files import labels, names, plant, splits


def table(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def details(dataset: ImageDataset) -> str:
    return "; ".join(f"{problem.name} {problem.kind}: {problem.detail}" for problem in dataset.problems)


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["id,breed", "image_id,wish", "Image,Anything", "photo,label", "filename,target"])
def test_the_only_column_beside_the_image_is_the_label(tmp_path: Path, header: str) -> None:
    plant(tmp_path, "a.jpg", "b.jpg")
    assert labels(open_source(table(tmp_path / "t.csv", f"{header}\na.jpg,cat\nb.jpg,dog\n"))) == {
        "a.jpg": "cat",
        "b.jpg": "dog",
    }


def test_one_hot_columns_are_one_label(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = "image,MEL,NV,age\na.jpg,1.0,0.0,30\nb.jpg,0.0,1.0,40\nc.jpg,0.0,1.0,50\n"
    dataset = open_source(table(tmp_path / "t.csv", rows))
    assert labels(dataset) == {"a.jpg": "MEL", "b.jpg": "NV", "c.jpg": "NV"}
    assert "the column is not used: age" in details(dataset)
    twice = rows.replace("b.jpg,0.0", "b.jpg,1.0")
    with pytest.raises(DataError, match="no column for the label"):
        open_source(table(tmp_path / "t.csv", twice))


@pytest.mark.parametrize("column", ["group", "patient_id", "Subject", "lesion_id", "video"])
def test_groups_under_their_usual_names_keep_images_together(tmp_path: Path, column: str) -> None:
    plant(tmp_path, "a.jpg", "b.jpg")
    dataset = open_source(table(tmp_path / "t.csv", f"image,{column},label\na.jpg,p1,x\nb.jpg,p2,y\n"))
    assert [sample.group for sample in dataset.samples] == ["p1", "p2"]
    assert not dataset.problems


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("set", "train val test", ["train", "val", "test"]),
        ("Partition", "Training dev testing", ["train", "val", "test"]),
        ("is_valid", "False True 0", ["train", "val", "train"]),
        ("is_test", "no yes 1", ["train", "test", "test"]),
        ("subset", "red train test", ["", "", ""]),  # which says something else
    ],
)
def test_parts_under_their_usual_names(tmp_path: Path, column: str, cells: str, expected: list[str]) -> None:
    plant(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = zip("abc", "xyx", cells.split(), strict=True)
    text = f"image,label,{column}\n" + "".join(f"{name}.jpg,{label},{cell}\n" for name, label, cell in rows)
    dataset = open_source(table(tmp_path / "t.csv", text))
    assert [sample.split for sample in dataset.samples] == expected
    assert ("subset" in details(dataset)) == (column == "subset")


def test_columns_are_named_by_the_caller(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "b.jpg")
    file = table(tmp_path / "t.csv", "pic,kind,label,camera,phase\na.jpg,cat,1,k1,train\nb.jpg,dog,2,k2,test\n")
    dataset = open_source(file, image_column="pic", label_column="Kind", group_column="camera", split_column="phase")
    assert [(s.name, s.label, s.split, s.group) for s in dataset.samples] == [
        ("a.jpg", "cat", "train", "k1"),
        ("b.jpg", "dog", "test", "k2"),
    ]
    with pytest.raises(DataError, match=r"for the group: expected 'camra'.*Did you mean camera\?.*group_column=COLUMN"):
        open_source(file, image_column="pic", label_column="kind", group_column="camra")
    with pytest.raises(DataError, match="expected the split train, val or test, received 'k1'"):
        open_source(file, image_column="pic", split_column="camera")


def test_a_long_header_does_not_fill_the_screen(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", ",".join(f"column {n} {'x' * 100}" for n in range(900)) + "\n1\n")
    with pytest.raises(DataError) as caught:
        open_source(file)
    assert len(str(caught.value)) < 1200


def test_a_cell_too_many_is_refused_not_cut(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg")
    file = table(tmp_path / "t.csv", "image,label\na.jpg,cats, big ones\n")
    with pytest.raises(DataError, match=r"'t.csv', line 2: expected 2 cells, received 3 \(a\.jpg, cats, big ones\)"):
        open_source(file)
    assert len(open_source(table(tmp_path / "t.csv", "image,label,\na.jpg,cats,,,\n"))) == 1


# --- names of images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a.jpg", "A.JPG", "cat/a", "Cat/A.jpg", "train/cat/a.jpg", "cat\\a.jpg"])
def test_an_image_is_found_without_its_folder_or_ending_or_in_other_capitals(tmp_path: Path, name: str) -> None:
    plant(tmp_path, "train/cat/a.jpg", "train/cat/b.jpg", "other/c.png")
    dataset = open_source(table(tmp_path / "t.csv", f"image,label\n{name},x\nb,y\nc,y\n"))
    assert names(dataset) == ["other/c.png", "train/cat/a.jpg", "train/cat/b.jpg"]


def test_a_name_that_several_files_have_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, "left/a.jpg", "right/a.jpg", "b.jpg")
    with pytest.raises(DataError, match=r"line 2: 'a' may be several files: 'left/a.jpg', 'right/a.jpg'"):
        open_source(table(tmp_path / "t.csv", "image,label\na,x\nb,y\n"))


def test_the_part_in_a_table_s_name_says_which_of_several(tmp_path: Path) -> None:
    plant(tmp_path, "train/a.jpg", "test/a.jpg", "train/b.jpg")
    assert names(open_source(table(tmp_path / "train.csv", "id,breed\na,x\nb,y\n"))) == ["train/a.jpg", "train/b.jpg"]


@pytest.mark.parametrize("name", ["../a", "..", "/a", "a/../../b", "x/a"])
def test_no_name_leads_out_of_the_folder_or_to_another_one(tmp_path: Path, name: str) -> None:
    plant(tmp_path, "a.jpg", "in/a.jpg", "in/b.jpg")
    with pytest.raises(DataError, match=r"leads out of the folder|no such file|not a file"):
        open_source(table(tmp_path / "in" / "t.csv", f"image,label\n{name},x\n"))


def test_images_that_the_table_does_not_name_are_counted(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "b.jpg", "c.jpg", "sub/d.jpg", "sub/e.jpg", "elsewhere/f.jpg", "notes.txt")
    dataset = open_source(table(tmp_path / "metadata.csv", "file_name,label\na.jpg,x\nsub/d.jpg,y\n"))
    assert "b.jpg no label: 2 images, this one first, are not named in 'metadata.csv'" in details(dataset)
    assert "sub/e.jpg no label: this image is not named" in details(dataset)
    assert "elsewhere" not in details(dataset)


# --- a folder with its table beside -----------------------------------------------------------------------------------


def test_images_and_a_table_beside_them(tmp_path: Path) -> None:
    plant(tmp_path, "images/a.jpg", "images/b.jpg")
    table(tmp_path / "train.csv", "image,labels\na.jpg,x\nb.jpg,y\n")
    table(tmp_path / "sample_submission.csv", "image,labels\nz.jpg,x\n")
    assert labels(open_source(tmp_path)) == {"images/a.jpg": "x", "images/b.jpg": "y"}


def test_a_table_for_each_part(tmp_path: Path) -> None:
    plant(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg")
    for part, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        table(tmp_path / f"{part}.csv", f"filename,label\n{name}.jpg,{name}\n")
    assert splits(open_source(tmp_path)) == {"images/a.jpg": "train", "images/b.jpg": "val", "images/c.jpg": "test"}


def test_where_images_are_in_no_table_it_is_pointed_to(tmp_path: Path) -> None:
    plant(tmp_path, "train_images/a.jpg", "train_images/b.jpg", "test_images/c.jpg")
    table(tmp_path / "train.csv", "image_id,label\na.jpg,x\nb.jpg,y\n")
    with pytest.raises(DataError, match=r"If 'train.csv' has their labels, give that file instead"):
        open_source(tmp_path)
    assert labels(open_source(tmp_path / "train.csv")) == {"train_images/a.jpg": "x", "train_images/b.jpg": "y"}


def test_class_folders_come_before_a_table_which_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "cat/a.jpg", "dog/b.jpg")
    table(tmp_path / "labels.csv", "image,label\ncat/a.jpg,x\ndog/b.jpg,y\n")
    dataset = open_source(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert "labels.csv not used: the folders say the classes" in details(dataset)
