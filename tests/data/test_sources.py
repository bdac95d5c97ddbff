"""IDX files, named sets, paths, arrays, and wrong input."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.core.errors import DataError, MissingExtraError, UsageError
from headstart.core.types import ImageSpec
from headstart.data.load import decode
from headstart.data.sources import from_arrays, from_pairs, open_source, unlabelled
from source_files import contents, labels, names, plant, splits, write_parquet


def idx(values: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def plant_idx(root: Path, stem: str, count: int = 5, dot: str = "-", packed: bool = False) -> NDArray[np.uint8]:
    images = np.random.default_rng(count).integers(0, 256, (count, 4, 6), np.uint8)
    for what, dims, values in (("images", 3, images), ("labels", 1, np.arange(count, dtype=np.uint8) % 3)):
        content = idx(values)
        name = f"{stem}-{what}{dot}idx{dims}-ubyte" + (".gz" if packed else "")
        plant(root, name, content=gzip.compress(content) if packed else content)
    return images


class TestIdx:
    @pytest.mark.parametrize("dot", ["-", "."])
    @pytest.mark.parametrize("packed", [False, True])
    def test_both_parts(self, tmp_path: Path, dot: str, packed: bool) -> None:
        train, test = plant_idx(tmp_path, "train", 7, dot, packed), plant_idx(tmp_path, "t10k", 4, dot, packed)
        dataset = open_source(tmp_path)
        assert Counter(sample.split for sample in dataset.samples) == {"train": 7, "test": 4}
        assert dataset.classes == ("0", "1", "2")
        assert [sample.label for sample in dataset.samples[:5]] == ["0", "1", "2", "0", "0"]
        assert (np.stack(contents(dataset)) == np.concatenate([test, train])).all()
        assert dataset.samples[0].name.startswith(f"t10k-images{dot}idx3-ubyte")
        assert dataset.samples[0].name.endswith("#0")
        assert decode(dataset.read(3), ImageSpec(8)).shape == (8, 8, 3)

    def test_one_part_has_no_split_and_either_file_names_it(self, tmp_path: Path) -> None:
        images = plant_idx(tmp_path, "t10k")
        plant_idx(tmp_path, "train", 9)
        for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
            dataset = open_source(tmp_path / name)
            assert (np.stack(contents(dataset)) == images).all()
            assert set(splits(dataset).values()) == {""}

    def test_an_unpacked_file_beside_its_gz_counts_once(self, tmp_path: Path) -> None:
        plant_idx(tmp_path, "train", 9, packed=True)
        plant_idx(tmp_path, "train", 5)
        assert len(open_source(tmp_path)) == 5

    def test_a_gz_that_a_browser_unpacked(self, tmp_path: Path) -> None:
        plant_idx(tmp_path, "train")
        for name in os.listdir(tmp_path):
            (tmp_path / name).rename(tmp_path / f"{name}.gz")
        assert len(open_source(tmp_path)) == 5

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda raw: raw[:-1], "promises 120 bytes, 119 came"),
            (lambda raw: raw + b"x", "promises 120 bytes, 121 came"),
            (lambda raw: raw[:9], "promises 0 bytes"),
            (lambda raw: b"", "it begins b''"),
            (lambda raw: b"\0\0\x0d\3" + raw[4:], "no IDX file of bytes in 3"),
            (lambda raw: b"\0\0\x08\1" + raw[4:], "no IDX file of bytes in 3"),
            (lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "promises 79228162458924105385300197375 bytes"),
            (lambda raw: idx(np.zeros((4, 4, 6), np.uint8)), "holds 4 images, but .* 5 labels"),
        ],
    )
    def test_damage(self, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str, packed: bool) -> None:
        plant_idx(tmp_path, "train", packed=packed)
        (file,) = tmp_path.glob("*images*")
        raw = spoil(gzip.decompress(file.read_bytes()) if packed else file.read_bytes())
        file.write_bytes(gzip.compress(raw) if packed else raw)
        with pytest.raises(DataError, match=message):
            open_source(tmp_path)

    def test_a_gz_cut_short(self, tmp_path: Path) -> None:
        plant_idx(tmp_path, "train", packed=True)
        (file,) = tmp_path.glob("*images*")
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(DataError, match="damaged or truncated"):
            open_source(tmp_path)

    def test_half_a_pair(self, tmp_path: Path) -> None:
        plant_idx(tmp_path, "train")
        (tmp_path / "train-labels-idx1-ubyte").unlink()
        with pytest.raises(DataError, match=r"no labels beside it\. Expected train-labels-idx1-ubyte"):
            open_source(tmp_path)


class TestNamed:
    def test_elpv(self) -> None:
        distribution("elpv-dataset")  # in the extra that tests install
        dataset = open_source("elpv")
        assert Counter(sample.label for sample in dataset.samples) == {"functional": 1803, "defective": 821}
        assert decode(dataset.read(0), ImageSpec(32)).std() > 1
        assert "elpv_dataset" not in sys.modules

    def test_elpv_is_an_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(name: str) -> None:
            raise PackageNotFoundError(name)

        monkeypatch.setattr("importlib.metadata.distribution", absent)
        with pytest.raises(MissingExtraError, match=r"headstart\[demo\]"):
            open_source("elpv")

    def test_digits(self) -> None:
        pytest.importorskip("sklearn")
        dataset = open_source("digits")
        images = np.stack(contents(dataset))
        assert images.shape == (1797, 8, 8)
        assert images.dtype == np.uint8
        assert (images.min(), images.max()) == (0, 255)
        assert dataset.classes == tuple("0123456789")
        assert [sample.label for sample in dataset.samples[:3]] == ["0", "1", "2"]

    def test_mnist_of_torchvision(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
        for stem in ("train", "t10k"):
            plant_idx(tmp_path / "data" / "MNIST" / "raw", stem)
        dataset = open_source("mnist")
        assert dataset.root == "mnist"
        assert {sample.split for sample in dataset.samples} == {"", "test"} or dataset.own_test == "test"

    def test_mnist_of_keras(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "mnist.npz"
        monkeypatch.setattr("headstart.data.named_sets.KERAS_FILE", str(file))
        monkeypatch.chdir(tmp_path)
        images = np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8)
        labels = np.array([3, 1, 2, 1, 2, 3, 1, 2, 3], np.uint8)
        np.savez(file, x_train=images[:6], y_train=labels[:6], x_test=images[6:], y_test=labels[6:])
        dataset = open_source("mnist")
        assert np.array_equal(np.stack(contents(dataset)), images)
        assert [sample.label for sample in dataset.samples] == [str(label) for label in labels]
        assert [sample.split for sample in dataset.samples] == ["train"] * 6 + ["test"] * 3
        file.write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(DataError, match=r"damaged or not Keras' file of MNIST"):
            open_source("mnist")

    def test_mnist_is_never_downloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("headstart.data.named_sets.KERAS_FILE", str(tmp_path / "none.npz"))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=r"nothing is downloaded\. Looked for torchvision's in MNIST"):
            open_source("mnist")

    def test_digits_is_an_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(MissingExtraError, match=r"headstart\[data\]"):
            open_source("digits")

    def test_a_local_folder_of_that_name_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(tmp_path, "digits/one/1.jpg", "digits/two/2.jpg")
        monkeypatch.chdir(tmp_path)
        assert open_source("digits").classes == ("one", "two")


class TestPairs:
    def test_in_the_order_given(self, tmp_path: Path) -> None:
        plant(tmp_path, "b.jpg", "a.jpg")
        dataset = from_pairs([tmp_path / "b.jpg", str(tmp_path / "a.jpg")], np.array([3, 1]))
        assert labels(dataset) == {str(tmp_path / "b.jpg"): "3", str(tmp_path / "a.jpg"): "1"}
        assert contents(dataset) == [b"b.jpg", b"a.jpg"]

    def test_a_missing_file_is_found_out_on_reading(self, tmp_path: Path) -> None:
        dataset = from_pairs([tmp_path / "gone.jpg"], ["a"])
        with pytest.raises(FileNotFoundError):
            dataset.read(0)

    @pytest.mark.parametrize(
        ("paths", "given", "message"),
        [
            (["a", "b"], ["x"], "received 2 paths and 1 label"),
            (["a"], [None], "Label 0 is blank"),
            (["a", "b"], ["x", float("nan")], "Label 1 is blank"),
            ([], [], "at least one"),
            ("a.jpg", ["x"], "single path 'a.jpg'"),
        ],
    )
    def test_slips(self, paths: Any, given: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            from_pairs(paths, given)


class TestArrays:
    @pytest.mark.parametrize(
        "convert",
        [
            lambda pixels: pixels,
            list,
            lambda pixels: pixels / np.float32(255),
            lambda pixels: pixels / 255,
            lambda pixels: pixels.astype(np.int64),
        ],
    )
    def test_types(self, convert: Callable[[NDArray[Any]], Any]) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
        dataset = from_arrays(convert(pixels), list("abcab"))
        assert dataset.classes == ("a", "b", "c")
        read = np.stack(contents(dataset))
        assert read.dtype == np.uint8
        assert (read == pixels).all()

    def test_floats_are_rounded(self) -> None:
        read = from_arrays([np.array([[0.0, 0.499 / 255, 0.501 / 255, 0.999, 1.0]])]).read(0)
        assert np.asarray(read).tolist() == [[0, 0, 1, 255, 255]]

    def test_grey_deep_binary_and_unlabelled(self) -> None:
        dataset = from_arrays([np.full((4, 5), 300, np.uint16), np.eye(3, dtype=bool), np.ones((2, 2, 1), np.uint8)])
        assert dataset.classes == ("",)
        deep, binary, _ = contents(dataset)
        assert deep.dtype == np.uint16
        assert set(np.unique(binary)) == {0, 255}
        for index in range(3):
            assert decode(dataset.read(index), ImageSpec(8)).shape == (8, 8, 3)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.zeros((1, 3, 32, 32), np.uint8), r"received shape \(3, 32, 32\). Move the channels last"),
            (np.zeros((1, 0, 32, 3), np.uint8), r"received shape \(0, 32, 3\)"),
            (np.zeros((1, 5), np.uint8), r"received shape \(5,\)"),
            (np.full((1, 4, 4, 3), 200.0), r"in \[0, 1\], received 200.0 to 200.0. Divide by 255"),
            (np.full((1, 4, 4, 3), np.nan), r"received NaN, which is no number"),
            (np.full((1, 4, 4, 3), -0.1), r"received -0.1"),
            (np.full((1, 4, 4, 3), 256), r"in \[0, 255\], received 256"),
            (np.full((1, 4, 4, 3), "a"), "received <U1"),
            (np.zeros((2, 4, 4, 3), np.uint8), "received 2 images and 1 label"),
        ],
    )
    def test_slips(self, images: NDArray[Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            from_arrays(images, ["a"])


class TestUnlabelled:
    def test_files_and_folders(self, tmp_path: Path) -> None:
        plant(tmp_path, "z.jpg", "odd.bin", "album/b.png", "album/sub/a.jpg", "album/.trash/c.jpg", "album/d.txt")
        dataset = unlabelled([tmp_path / "z.jpg", tmp_path / "album", tmp_path / "odd.bin"])
        assert [os.path.relpath(name, tmp_path) for name in names(dataset)] == [
            "z.jpg",
            "album/b.png",
            "album/sub/a.jpg",
            "odd.bin",
        ]
        assert contents(dataset) == [b"z.jpg", b"album/b.png", b"album/sub/a.jpg", b"odd.bin"]
        assert dataset.classes == ("",)
        assert len(unlabelled(tmp_path / "album")) == 2

    def test_names_are_as_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(tmp_path, "a.jpg", "b/c.jpg")
        monkeypatch.chdir(tmp_path)
        assert names(unlabelled(["a.jpg", "b"])) == ["a.jpg", os.path.join("b", "c.jpg")]

    def test_slips(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"No such file or folder: '.*gone\.jpg'"):
            unlabelled([tmp_path / "gone.jpg"])
        with pytest.raises(DataError, match="has no images in it"):
            unlabelled([plant(tmp_path, "x/a.txt") / "x"])
        with pytest.raises(UsageError, match="No images given"):
            unlabelled([])


class TestSlips:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nowhere", "No such file or folder: 'nowhere'. Known: digits, elpv"),
            ("elvp", "Did you mean elpv"),
            ("digit", "Did you mean digits"),
            ("", "data: expected a path. Received: ''"),
            ("nul\0", "cannot be read: embedded null"),
            ("1.jpg", "is a single image, not a folder"),
            ("a.zip", "Unpack it first"),
            ("notes", r"is a file, not a folder.*photos/cat/1\.jpg"),
        ],
    )
    def test_usage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
        plant(tmp_path, "1.jpg", "a.zip", "notes")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=message) as caught:
            open_source(name)
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ([], r"has no images in it. Expected a folder for each class"),
            (["cat/a.txt"], "has no images in it"),
            (
                ["cat/a.svg", "cat/b.svg", "x.mp4"],
                r"Left out: 3 \('cat/a\.svg' …: it is not read: save it.*; 'x\.mp4': ",
            ),
            (["1.jpg", "2.jpg"], "2 images are directly in .*photos/cat/1.jpg"),
            (["1.jpg", "list.csv"], "If 'list.csv' has their labels, give that file"),
            (["train/1.jpg", "test/2.jpg"], "2 images are directly in .*(train|test)"),
        ],
    )
    def test_no_labels(self, tmp_path: Path, files: list[str], message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            open_source(plant(tmp_path, *files))
        assert caught.value.exit_code == 3

    def test_a_folder_that_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By a stand-in for the system call, since permissions do not bind who runs as root."""

        def guarded(path: str) -> Any:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(os, "scandir", guarded)
        with pytest.raises(UsageError, match=r"' cannot be read: Permission denied"):
            open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "images", "classes", "parts"),
    [
        ("cats_dogs", 820, 2, {"train": 540, "test": 280}),
        ("apple_leaves", 1120, 4, {"": 1120}),
        ("caltech101", 3914, 101, {"": 3914}),
        ("cifar10", 60_000, 10, {"train": 50_000, "test": 10_000}),
        ("mnist", 10_000, 10, {"": 10_000}),
    ],
)
def test_real_sets(shared: Path, name: str, images: int, classes: int, parts: dict[str, int]) -> None:
    dataset = open_source(shared / "data" / name)
    assert len(dataset) == images
    assert len(dataset.classes) == classes
    assert Counter(sample.split for sample in dataset.samples) == parts
    assert not dataset.problems
    for index in range(0, images, images // 5):
        assert decode(dataset.read(index), ImageSpec(32)).std() > 5


def test_reading_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    contents(open_source(write_parquet(tmp_path / "a.parquet", [(b"1", 0)] * 9)))
    assert threading.active_count() == before


class TestFiles:
    def test_of_sources_with_a_file_for_each_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(tmp_path, "b/2.jpg", "a/1.jpg", "a/0.jpg")
        plant(tmp_path / "csv", "z.jpg", "y.jpg")
        plant(tmp_path / "csv", "metadata.csv", content=b"file_name,label\nz.jpg,c\ny.jpg,d\n")
        monkeypatch.chdir(tmp_path)
        paths = ["b/2.jpg", "a/1.jpg"]
        for dataset in (open_source("."), open_source("csv"), from_pairs(paths, ["b", "a"]), unlabelled(paths)):
            for each in (dataset, dataset.part([1]), dataset.part([1, 0]).part([1])):
                assert each.files is not None
                assert [Path(file).read_bytes() for file in each.files] == contents(each)
                assert all(map(os.path.isabs, each.files))

    def test_none_where_images_lie_in_other_files_or_in_none(self, tmp_path: Path) -> None:
        plant_idx(tmp_path, "train")
        parquet = open_source(write_parquet(tmp_path / "a.parquet", [(b"1", 0), (b"2", 1)]))
        arrays = from_arrays(np.zeros((2, 3, 3, 3), np.uint8), ["a", "b"])
        for dataset in (parquet, arrays, open_source(tmp_path / "train-images-idx3-ubyte")):
            assert dataset.files is None
            assert dataset.part([0]).files is None

    def test_a_copy_with_other_samples_has_none(self, tmp_path: Path) -> None:
        dataset = open_source(plant(tmp_path, "b/2.jpg", "a/1.jpg"))
        assert replace(dataset, samples=[*dataset.samples]).files == dataset.files
        assert replace(dataset, samples=dataset.samples[:1]).files is None
