"""Images and labels as Python users have them in hand."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import UsageError
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data.check import check
from headstart.data.inputs import labelled_dataset, unlabelled_dataset
from headstart.data.load import decode
from making import folder, packed, picture

SPEC = ImageSpec(32)


class Column:
    """As pandas has one: its numbers say nothing about its order, and no 0 is among them."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.values, dtype=object)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return iter(self.values)

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return sorted(map(str, folder(tmp_path_factory.mktemp("inputs"), 3).rglob("*.png")))


def squares(dataset: ImageDataset) -> np.ndarray[Any, Any]:
    return np.stack([decode(dataset.read(row), SPEC) for row in range(len(dataset))])


PATHS: dict[str, Callable[[list[str]], Any]] = {
    "tuple of paths": lambda files: tuple(map(Path, files)),
    "column": Column,
    "array of text": np.array,
    "array of objects": lambda files: np.array(files, dtype=object),
    "generator": lambda files: (file for file in files),
    "map": lambda files: map(Path, files),
    "dictionary's keys": lambda files: dict.fromkeys(files).keys(),
}
CONTENTS: dict[str, Callable[[list[str]], Any]] = {
    "bytes": lambda files: [Path(file).read_bytes() for file in files],
    "open files": lambda files: [io.BytesIO(Path(file).read_bytes()) for file in files],
    "Pillow's images": lambda files: [Image.open(file) for file in files],
    "arrays": lambda files: [np.asarray(Image.open(file)) for file in files],
    "one array": lambda files: np.stack([np.asarray(Image.open(file)) for file in files]),
    "all kinds": lambda files: [files[0], Image.open(files[1]), *(Path(file).read_bytes() for file in files[2:])],
}


@pytest.mark.parametrize("name", [*PATHS, *CONTENTS])
def test_images_of_every_kind_are_the_same_images(files: list[str], name: str) -> None:
    expected, given = squares(unlabelled_dataset(files)), {**PATHS, **CONTENTS}[name]
    np.testing.assert_array_equal(squares(unlabelled_dataset(given(files))), expected)
    labels = [Path(file).parent.name for file in files]
    for each in (labels, tuple(labels), np.array(labels), Column(labels)):
        dataset = labelled_dataset(given(files), each)
        assert [sample.label for sample in dataset.samples] == labels
        np.testing.assert_array_equal(squares(dataset), expected)
    assert check(given(files), labels=labels).images == len(files)


@pytest.mark.parametrize(
    "convert",
    [
        lambda file: file,
        Path,
        lambda file: Path(file).read_bytes(),
        Image.open,
        lambda file: np.asarray(Image.open(file)),
        lambda file: np.asarray(Image.open(file).convert("L")),
    ],
    ids=["text", "path", "bytes", "Pillow", "colours", "grey"],
)
def test_one_image_is_one(files: list[str], convert: Any) -> None:
    assert len(unlabelled_dataset(convert(files[0]))) == 1


def test_a_tensor_is_an_array(files: list[str]) -> None:
    import torch

    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    tensor = torch.from_numpy(pixels).requires_grad_(False)
    np.testing.assert_array_equal(squares(unlabelled_dataset(tensor)), squares(unlabelled_dataset(pixels)))
    assert len(unlabelled_dataset(list(tensor))) == len(files)
    first = tensor.permute(0, 3, 1, 2)  # as PyTorch has images; an array so may be anything
    np.testing.assert_array_equal(squares(unlabelled_dataset(first)), squares(unlabelled_dataset(pixels)))
    np.testing.assert_array_equal(squares(unlabelled_dataset(list(first))), squares(unlabelled_dataset(pixels)))
    assert len(unlabelled_dataset(first[0])) == 1
    with pytest.raises(UsageError, match="Move the channels last"):
        unlabelled_dataset(first.numpy())


def test_a_photo_that_is_turned_or_of_another_mode(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(picture("bars", 1)).save(path, exif=exif, quality=95)
    apart = squares(unlabelled_dataset(Image.open(path))).astype(int) - squares(unlabelled_dataset(path))
    assert np.abs(apart).mean() < 10
    grey = Image.open(io.BytesIO(packed(picture("bars", 1)))).convert("LA")
    assert squares(unlabelled_dataset([grey])).shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a"], "as many labels as paths: received 9 paths and 1 label"),
        (np.arange(9)[:, None], r"Received a column, \(9, 1\): labels\.ravel\(\)"),
        ([b"a"] * 9, r"Label 0 is b'a'\. Expected one label for each image, a word or a number"),
        ("abcdefghi", "one label for each image. Received: 'abcdefghi'"),
        ({"x": "a"}, "in the order of the images. Received a dictionary"),
        (np.eye(9), r"array of shape \(9, 9\); of one-hot rows take labels\.argmax\(axis=1\)"),
        ([["a"]] * 9, r"Label 0 is \['a'\]\. Expected one label"),
        ([np.zeros(2)] * 9, "Label 0 is array"),
        ([None] * 9, "Label 0 is blank"),
        (5, "one label for each image. Received: 5"),
    ],
)
def test_labels_that_are_not_one_for_each_image_are_refused(files: list[str], labels: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        labelled_dataset(files, labels)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({"a.jpg": 1}, "give one column of it, or a list"),
        (5, r"Expected a path, a list or a column.*Received: 5\."),
        ([5], r"Image 0: expected a path.*Received: 5\."),
        ([io.StringIO("a")], r"Received: a file opened as text \(StringIO\)\. Open it with \"rb\""),
    ],
)
def test_what_is_no_image_is_refused(images: Any, said: str) -> None:
    for call in (unlabelled_dataset, lambda given: labelled_dataset(given, ["a"] * len(getattr(given, "a", [1])))):
        with pytest.raises(UsageError, match=said):
            call(images)


def test_labels_beside_a_data_set_are_its_labels(files: list[str]) -> None:
    dataset = labelled_dataset(files, ["x"] * 9)
    again = labelled_dataset(dataset, [1, 2, 3] * 3)
    assert again.classes == ("1", "2", "3")
    np.testing.assert_array_equal(squares(again), squares(dataset))
    with pytest.raises(UsageError, match="received 9 images and 2 labels"):
        labelled_dataset(dataset, ["a", "b"])
