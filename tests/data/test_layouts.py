"""Folders as people and archives leave them: what is a part, what is a class, and what may be either."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from headstart.core.errors import DataError, UsageError
from headstart.core.types import Sample
from headstart.data.class_folders import parts_of
from headstart.data.sources import open_source
from headstart.data.spelling import one_spelling
from source_files import labels, names, plant, splits


@pytest.mark.parametrize(
    ("tops", "expected"),
    [
        ("train test", {"train": "train", "test": "test"}),
        ("training_set test_set", {"training_set": "train", "test_set": "test"}),
        ("seg_train seg_test seg_pred", {"seg_train": "train", "seg_test": "test", "seg_pred": ""}),
        ("train_images test_images", {"train_images": "train", "test_images": "test"}),
        ("TrainSet ValSet", {"TrainSet": "train", "ValSet": "val"}),
        ("train dev", {"train": "train", "dev": "val"}),
        ("train validate", {"train": "train", "validate": "val"}),
        ("Training Validation", {"Training": "train", "Validation": "val"}),
        ("birds-train birds-eval", {"birds-train": "train", "birds-eval": "val"}),
        ("train unlabeled", {"train": "train", "unlabeled": ""}),
        ("train bus", {}),
        ("cats_train dogs_test", {}),  # two classes with odd names
        ("test_positive test_negative", {}),
        ("2022 2023", {}),
        ("dev prod", {}),
    ],
)
def test_parts(tops: str, expected: dict[str, str]) -> None:
    assert parts_of(tops.split()) == expected


@pytest.mark.parametrize("train", ["train/train", "seg_train/seg_train", "archive/train", "train", "a/b/train"])
def test_folders_that_hold_nothing_but_one_are_passed_through(tmp_path: Path, train: str) -> None:
    test = train.replace("train", "test")
    plant(tmp_path, *(f"{part}/{kind}/1.jpg" for part in (train, test) for kind in ("cat", "dog")))
    dataset = open_source(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert splits(dataset)[f"{train}/cat/1.jpg"] == "train"
    assert splits(dataset)[f"{test}/cat/1.jpg"] == "test"


def test_one_folder_too_high(tmp_path: Path) -> None:
    plant(tmp_path, "PetImages/Cat/1.jpg", "PetImages/Dog/2.jpg", "readme[1].txt")
    (tmp_path / "PetImages" / "empty").mkdir()
    dataset = open_source(tmp_path)
    assert labels(dataset) == {"PetImages/Cat/1.jpg": "Cat", "PetImages/Dog/2.jpg": "Dog"}
    assert [(problem.name, problem.kind) for problem in dataset.problems] == [("PetImages/empty", "no image")]


def test_photos_of_no_class_in_a_part_are_named(tmp_path: Path) -> None:
    plant(tmp_path, "seg_train/a/1.jpg", "seg_train/b/1.jpg", "seg_test/a/1.jpg", "seg_pred/1.jpg", "seg_pred/2.jpg")
    dataset = open_source(tmp_path)
    assert dataset.classes == ("a", "b")
    assert sorted(problem.name for problem in dataset.problems) == ["seg_pred/1.jpg", "seg_pred/2.jpg"]


def test_folders_that_may_be_read_in_two_ways_are_asked_about(tmp_path: Path) -> None:
    plant(tmp_path, *(f"{year}/{kind}/1.jpg" for year in (2022, 2023) for kind in ("cat", "dog")))
    with pytest.raises(DataError, match=r"two ways: 2022, 2023 have the same .* \(cat, dog\).*label_from"):
        open_source(tmp_path)
    assert open_source(tmp_path, label_from="^[^/]+/([^/]+)/").classes == ("cat", "dog")
    assert open_source(tmp_path, label_from="^([^/]+)/").classes == ("2022", "2023")
    plant(tmp_path, "2022/loose.jpg")  # so the outer folders are classes
    assert open_source(tmp_path).classes == ("2022", "2023")


def test_labels_from_file_names(tmp_path: Path) -> None:
    plant(tmp_path, "images/Abyssinian_1.jpg", "images/great_pyrenees_12.jpg", "images/README.jpg", "train/pug_3.jpg")
    with pytest.raises(DataError, match=r"If the file names say the class.*'Abyssinian_1.jpg' may: label_from"):
        open_source(tmp_path / "images")
    dataset = open_source(tmp_path, label_from=r"([A-Za-z_]+)_\d+\.jpg$")
    assert labels(dataset) == {
        "images/Abyssinian_1.jpg": "Abyssinian",
        "images/great_pyrenees_12.jpg": "great_pyrenees",
        "train/pug_3.jpg": "pug",
    }
    assert [(problem.name, problem.kind) for problem in dataset.problems] == [("images/README.jpg", "no label")]
    for wrong, said in (("(", "label_from: .*regular expression"), ("cat", "expected a group for the class")):
        with pytest.raises(UsageError, match=said):
            open_source(tmp_path, label_from=wrong)
    with pytest.raises(DataError, match="finds no class in any path"):
        open_source(tmp_path, label_from="(zebra)")
    with pytest.raises(UsageError, match="label_from is for a folder"):
        open_source(tmp_path / "images" / "README.jpg", label_from="(a)")


# --- spelling ---------------------------------------------------------------------------------------------------------


def spelt(*given: tuple[str, str]) -> tuple[list[str], list[str]]:
    samples, problems = one_spelling([Sample(str(n), label, part) for n, (label, part) in enumerate(given)])
    return [sample.label for sample in samples], [problem.name for problem in problems]


def test_one_word_in_two_forms_of_unicode_is_one_class(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    assert spelt((forms[0], ""), (forms[1], "")) == ([forms[0]] * 2, [])
    plant(tmp_path, f"train/{forms[0]}/1.jpg", f"test/{forms[1]}/2.jpg", "train/cat/3.jpg", "test/cat/4.jpg")
    dataset = open_source(tmp_path)
    assert dataset.classes == tuple(sorted((forms[0], "cat")))
    assert len({dataset.read(row) for row in range(4)}) == 4


def test_capitals_apart_are_one_class_where_no_part_has_both() -> None:
    apart = spelt(("cats", "train"), ("cats", "train"), ("Cats", "test"), ("dog", "train"))
    assert apart == (["cats", "cats", "cats", "dog"], ["Cats"])
    letters = spelt(("a", "train"), ("A", "train"), ("a", "test"))
    assert letters == (["a", "A", "a"], ["A"])


def test_several_labels_in_one_are_said() -> None:
    assert spelt(("cats", ""), ("cats indoor", ""), ("dogs", ""), ("dogs indoor", ""))[1] == ["cats indoor"]
    assert spelt(("hot dog", ""), ("dog", ""))[1] == []


def test_names_of_files_stay_as_they_are(tmp_path: Path) -> None:
    plant(tmp_path, "train/cats/1.jpg", "test/Cats/2.jpg", "train/dogs/1.jpg")
    dataset = open_source(tmp_path)
    assert dataset.classes == ("cats", "dogs")
    assert names(dataset) == ["test/Cats/2.jpg", "train/cats/1.jpg", "train/dogs/1.jpg"]


def test_labels_from_paths_have_one_spelling_too(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD")]
    plant(tmp_path, f"a/{forms[0]}_1.jpg", f"a/{forms[1]}_2.jpg", "a/cat_3.jpg")
    assert open_source(tmp_path, label_from=r"([^/]+)_\d").classes == tuple(sorted((forms[0], "cat")))
