"""What is given in place of images and labels: each is told by what it is, with what to give instead."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headstart.core.errors import UsageError
from headstart.data.inputs import labelled_dataset, unlabelled_dataset
from making import folder


class Groups:
    """As pandas has a table that is grouped."""

    ngroups = 2


class Batches:
    """As PyTorch has a loader."""

    batch_size, dataset = 1, ()


class Stream:
    """As TensorFlow has a data set."""

    def as_numpy_iterator(self) -> None: ...


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return sorted(map(str, folder(tmp_path_factory.mktemp("mistaken"), 2).rglob("*.png")))


UNLABELLED: dict[str, tuple[Callable[[list[str]], Any], str]] = {
    "nothing": (lambda files: None, r"^Expected a folder with a folder for each class.*Received: None\.$"),
    "a number": (lambda files: 5, r"Received: 5\.$"),
    "a function": (lambda files: files.index, r"Received: the function index\.$"),
    "paths": (list, r"^Received 6 images without labels \(a list of 6\)\. Give labels=\[…\]"),
    "one path": (lambda files: files[:1], r"^Received 1 image without labels"),
    "arrays": (lambda files: np.zeros((4, 8, 8, 3)), r"4 images without labels \(ndarray of shape \(4, 8, 8, 3\)\)"),
    "a set": (set, "Received a set, which has no order. Give a list, and labels="),
    "two in one": (lambda files: (files, ["a"] * 6), "Give the images and the labels as two arguments"),
    "labels by path": (lambda files: dict.fromkeys(files, "a"), r"images = list\(data\), labels = list\(data\.values"),
    "photos by class": (lambda files: {"a": files[:3], "b": files[3:]}, "for name, photos in data.items"),
    "an empty dictionary": (lambda files: {}, "Received a dict of 0"),
    "groups": (lambda files: Groups(), r"groups of a table \(Groups\)\. Give the table itself"),
    "a loader": (lambda files: Batches(), r"Received a Batches, which gives batches.*loader\.dataset"),
    "TensorFlow's": (lambda files: Stream(), r"unbatch\(\)\.as_numpy_iterator"),
}


@pytest.mark.parametrize("name", UNLABELLED)
def test_data_without_labels_are_told_by_what_they_are(files: list[str], name: str) -> None:
    make, said = UNLABELLED[name]
    with pytest.raises(UsageError, match=said) as refused:
        labelled_dataset(make(files), None)
    assert "scored" not in str(refused.value)
    assert " at 0x" not in str(refused.value)


def test_what_has_no_order_is_refused_wherever_labels_stand_beside_it(files: list[str]) -> None:
    labels = ["a", "b", "c"] * 2
    for given in (set(files), frozenset(files)):
        with pytest.raises(UsageError, match="which has no order"):
            labelled_dataset(given, labels)
        with pytest.raises(UsageError, match="which has no order"):
            unlabelled_dataset(given)
    with pytest.raises(UsageError, match="Received a set, which has no order: give a list"):
        labelled_dataset(files, set(range(6)))


LABELS: dict[str, tuple[Any, str]] = {
    "a function": (len, r"Received: the function len\.$"),
    "one-hot rows": ([[0, 1, 0]] * 6, r"Label 0 is \[0, 1, 0\].*np\.argmax\(labels, axis=1\)"),
    "several": ([["a", "b"]] * 6, r"a word or a number\.$"),
    "words and numbers": ([1, "1", 2, 3, 4, 5], "Labels 0 and 1 are 1 and '1', a word and a number that read the same"),
    "one too few": (list("abcab"), r"received 6 paths and 5 labels\.$"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_none(files: list[str], name: str) -> None:
    labels, said = LABELS[name]
    with pytest.raises(UsageError, match=said):
        labelled_dataset(files, labels)


def test_words_and_numbers_that_read_otherwise_are_labels(files: list[str]) -> None:
    assert labelled_dataset(files, [1, "a", 1, "a", 1, "a"]).classes == ("1", "a")


def test_a_path_beside_labels(files: list[str]) -> None:
    with pytest.raises(UsageError, match="received 1 path and 2 labels"):
        labelled_dataset(files[0], ["a", "b"])
    with pytest.raises(UsageError, match=r"hs\.open_source\('rows\.csv', label_column='kind'\)"):
        labelled_dataset("rows.csv", "kind")
    with pytest.raises(UsageError, match=r"No such file or folder: 'none\.jpg'"):
        labelled_dataset("none.jpg", ["a"])


ARRAYS: list[tuple[Any, str]] = [
    (np.array(5), r"Received: int64 of shape \(\)\.$"),
    (np.ones(5), r"several of them: \(N, height, width, channels\)\. Received: float64 of shape \(5,\)"),
    (np.zeros((3, 8, 9), np.uint8), r"one photo with its channels first, or 3 grey ones\. Move the channels last"),
    (np.zeros((2, 0, 9, 3), np.uint8), r"received shape \(0, 9, 3\)\.$"),
    (np.full((2, 8, 8, 3), np.nan), r"received NaN, which is no number\.$"),
    (np.linspace(-1, 1, 192).reshape(1, 8, 8, 3), r"from -1 to 1: \(images \+ 1\) / 2\.$"),
    ([np.ones(64)], r"images\.reshape\(-1, 8, 8\); to learn from numbers: hs\.train_rows"),
]


@pytest.mark.parametrize(("array", "said"), ARRAYS)
def test_arrays_that_are_no_photos(array: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        unlabelled_dataset(array)


@pytest.mark.parametrize("shape", [(20, 21), (20, 21, 1), (20, 21, 2), (20, 21, 3), (20, 21, 4), (1, 20, 21)])
def test_one_array_is_one_photo(shape: tuple[int, ...]) -> None:
    assert len(unlabelled_dataset(np.zeros(shape, np.uint8))) == 1


def test_three_grey_photos_are_told_by_their_labels_or_their_channel() -> None:
    grey = np.zeros((3, 8, 9), np.uint8)
    assert len(labelled_dataset(grey, ["a", "b", "c"])) == len(unlabelled_dataset(grey[..., None])) == 3
    with pytest.raises(UsageError, match="expected height × width × channels"):
        labelled_dataset(np.zeros((20, 64)), ["a", "b", "c"])


def closed(file: str) -> Image.Image:
    image = Image.open(file)
    image.load()
    image.close()
    return image


def at_its_end(file: str) -> io.BytesIO:
    opened = io.BytesIO(Path(file).read_bytes())
    opened.read()
    return opened


def closed_file(file: str) -> Any:
    opened = io.BytesIO(Path(file).read_bytes())
    opened.close()
    return opened


FILES: dict[str, tuple[Callable[[str], Any], str]] = {
    "at its end": (at_its_end, r"read to its end\. Go back to its beginning: file\.seek\(0\)"),
    "closed": (closed_file, "the file is closed"),
    "a closed image": (closed, "Operation on closed image. Open it again"),
    "a path as bytes": (os.fsencode, r"received the path b'.*os\.fsdecode\(path\)"),
    "beside an image": (lambda file: [Image.open(file), "none.jpg"], r"No such file or folder: 'none\.jpg'"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_read(files: list[str], name: str) -> None:
    make, said = FILES[name]
    with pytest.raises(UsageError, match=said):
        unlabelled_dataset(make(files[0]))


def test_a_table_with_two_columns_of_a_name(files: list[str]) -> None:
    frame = pd.DataFrame([[file, "a", "b"] for file in files], columns=["path", "label", "label"])
    with pytest.raises(Exception, match="The table has two columns called 'label'"):
        labelled_dataset(frame, None)
