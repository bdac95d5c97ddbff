"""Data sets in class folders and split folders."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from headstart.core.types import ImageDataset, ImageSpec
from headstart.data import scan
from headstart.data.formats import has_heif
from headstart.data.load import decode
from headstart.data.sources import open_source
from making import picture
from source_files import contents, labels, names, plant, splits

JPEG = b"\xff\xd8\xff\xe0 a photo"  # enough for a source, which looks at names and at first bytes only


def problems(dataset: ImageDataset) -> dict[str, str]:
    return {problem.name: problem.kind for problem in dataset.problems}


class TestClassFolders:
    def test_labels_are_the_first_level(self, tmp_path: Path) -> None:
        plant(tmp_path, "dog/1.jpg", "cat/2.PNG", "cat/2020/may/3.webp", "cat/.hidden.jpg")
        (tmp_path / "empty").mkdir()
        dataset = open_source(tmp_path)
        assert labels(dataset) == {"cat/2.PNG": "cat", "cat/2020/may/3.webp": "cat", "dog/1.jpg": "dog"}
        assert names(dataset) == sorted(names(dataset))
        assert dataset.classes == ("cat", "dog")
        assert contents(dataset) == [name.encode() for name in names(dataset)]
        assert set(splits(dataset).values()) == {""}
        assert problems(dataset) == {"empty": "no image"}

    def test_what_is_no_class_and_no_image(self, tmp_path: Path) -> None:
        plant(tmp_path, "cat/1.jpg", ".git/2.jpg", "__MACOSX/3.jpg", "cat/.cache/4.jpg", "cat/@eaDir/5.jpg")
        plant(tmp_path, "cat/Thumbs.db", "cat/notes.txt", "cat/._1.jpg", "notes/a.txt", "cat/page", "LICENSE")
        plant(tmp_path, "cat/no suffix", content=JPEG)
        plant(tmp_path, "cat/photo.doc", content=JPEG)
        for name in ("$RECYCLE.BIN", "#recycle", "lost+found", "System Volume Information", "@Recycle"):
            plant(tmp_path, f"{name}/1.jpg")
        dataset = open_source(tmp_path)
        assert names(dataset) == ["cat/1.jpg", "cat/no suffix"]
        assert problems(dataset) == {"notes": "no image"}

    def test_content_decides_where_the_name_says_nothing(self, tmp_path: Path) -> None:
        strange = ("1.img", "2.jpg_large", "3.jpg~", "4.jpg.1", "5.jpg?width=300", "6.jpg.crdownload", "7.zip")
        plant(tmp_path, *(f"cat/{name}" for name in strange), content=JPEG)
        dataset = open_source(tmp_path)
        assert names(dataset) == sorted(f"cat/{name}" for name in strange)
        assert not dataset.problems

    def test_photos_that_cannot_be_read_are_named_with_the_remedy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        plant(tmp_path, "cat/1.jpg", "cat/2.HEIC", "cat/3.svg", "cat/4.CR2", "cat/5.mov", "cat/6.nii.gz", "loose.jpg")
        plant(tmp_path, "cat/7.blob", "cat/8", content=bytes(128) + b"DICM" + bytes(50))
        plant(tmp_path, "cat/9.blob", content=b"nothing")
        dataset = open_source(tmp_path)
        assert names(dataset) == ["cat/1.jpg"]
        remedies = {problem.name: problem.detail for problem in dataset.problems}
        for name, remedy in {
            "cat/2.HEIC": r"pip install 'headstart[heic]' (up to 30 MB on disk). Or save it as JPEG",
            "cat/3.svg": "save it as JPEG or PNG",
            "cat/4.CR2": "camera raw files are not read",
            "cat/5.mov": "it is a video: save its frames",
            "cat/6.nii.gz": "save its slices",
            "cat/7.blob": "save its slices",
            "cat/8": "save its slices",
            "cat/9.blob": ".blob files are not read",
        }.items():
            assert remedy in remedies[name]
        assert problems(dataset)["loose.jpg"] == "no label"

    def test_a_photo_of_a_phone_is_read_where_the_extra_is_installed(self, tmp_path: Path) -> None:
        has_heif()
        for kind in ("cat", "dog"):
            (tmp_path / kind).mkdir()
            Image.fromarray(picture("waves", len(kind), 64)).save(tmp_path / kind / "a.HEIC", "HEIF", quality=95)
            shutil.copy(tmp_path / kind / "a.HEIC", tmp_path / kind / "renamed.jpg")
        dataset = open_source(tmp_path)
        assert len(dataset) == 4
        for row in range(4):
            assert decode(dataset.read(row), ImageSpec(32)).std() > 20

    def test_a_folder_or_a_photo_that_may_not_be_read_costs_a_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a stand-in for the system call, since permissions do not bind who runs as root."""
        plant(tmp_path, "cat/1.jpg", "dog/2.jpg", "dog/private/3.jpg", "secret/4.jpg")
        scandir = os.scandir

        def guarded(path: str) -> Any:
            if os.path.basename(path.rstrip("/")) in ("private", "secret"):
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", guarded)
            dataset = open_source(tmp_path)
        assert names(dataset) == ["cat/1.jpg", "dog/2.jpg"]
        found = {problem.name: problem.detail for problem in dataset.problems if problem.kind == "unreadable"}
        assert found == {"dog/private": "permission denied", "secret": "permission denied"}

    @pytest.mark.parametrize("name", ["a b", 'it\'s "so"', "🐈", "two\nlines", "né", "%s{}", "-rf", "CON"])
    def test_any_name(self, tmp_path: Path, name: str) -> None:
        plant(tmp_path, f"{name}/{name}.jpg", "zzzz/1.jpg")
        dataset = open_source(str(tmp_path))
        assert dataset.classes == tuple(sorted({name, "zzzz"}))
        assert f"{name}/{name}.jpg".encode() in contents(dataset)

    @pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
    def test_a_name_that_is_not_utf8_can_be_printed_and_read(self, tmp_path: Path) -> None:
        plant(tmp_path, os.fsdecode(b"caf\xe9/1.jpg"))
        dataset = open_source(tmp_path)
        assert dataset.samples[0].label.encode() == rb"caf\xe9"
        assert dataset.read(0) == b"caf\xe9/1.jpg"

    def test_listing_order_does_not_matter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(tmp_path, *(f"{c}/{c}{i}.jpg" for c in "Bab" for i in range(5)))
        forwards = open_source(tmp_path)
        entries = scan._entries
        monkeypatch.setattr(scan, "_entries", lambda folder: reversed(list(entries(folder))))
        backwards = open_source(tmp_path)
        assert names(backwards) == names(forwards) == sorted(names(forwards))
        assert contents(backwards) == contents(forwards)

    def test_links_to_photos_and_classes_are_followed_but_no_loop(self, tmp_path: Path) -> None:
        album = plant(tmp_path / "album", "1.jpg", "deep/2.jpg")
        root = plant(tmp_path / "photos", "dog/3.jpg", "dog/a/b/4.jpg")
        (root / "dog" / "link.jpg").symlink_to(album / "1.jpg")
        (root / "dog" / "gone.jpg").symlink_to(album / "none.jpg")
        (root / "cat").symlink_to(album)
        (root / "dog" / "up").symlink_to(root)
        (root / "dog" / "a" / "b" / "far").symlink_to(album)
        (album / "deep" / "back").symlink_to(root)
        dataset = open_source(root)
        assert names(dataset) == ["cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg", "dog/a/b/4.jpg", "dog/link.jpg"]
        assert problems(dataset) == {
            "cat/deep/back": "left out",
            "dog/a/b/far": "left out",
            "dog/gone.jpg": "missing",
            "dog/up": "left out",
        }

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_pipe_is_no_photo(self, tmp_path: Path) -> None:
        plant(tmp_path, "cat/1.jpg")
        os.mkfifo(tmp_path / "cat" / "2.jpg")  # opening it would wait for ever
        os.mkfifo(tmp_path / "cat" / "3")
        dataset = open_source(tmp_path)
        assert names(dataset) == ["cat/1.jpg"]
        assert problems(dataset) == {"cat/2.jpg": "unreadable"}

    def test_many_classes(self, tmp_path: Path) -> None:
        plant(tmp_path, *(f"c{c:04}/{i}.jpg" for c in range(1000) for i in range(2)))
        dataset = open_source(tmp_path)
        assert (len(dataset), len(dataset.classes)) == (2000, 1000)

    def test_relative_paths_survive_a_change_of_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(tmp_path, "photos/cat/1.jpg")
        monkeypatch.chdir(tmp_path)
        dataset = open_source("photos")
        monkeypatch.chdir("/")
        assert contents(dataset) == [b"photos/cat/1.jpg"]


class TestSplitFolders:
    @pytest.mark.parametrize(
        ("given", "split"),
        [("val", "val"), ("Valid", "val"), ("VALIDATION", "val"), ("test", "test"), ("Testing", "test")],
    )
    @pytest.mark.parametrize("train", ["train", "Training"])
    def test_names(self, tmp_path: Path, train: str, given: str, split: str) -> None:
        plant(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/x/2.jpg", f"{given}/cat/3.jpg")
        dataset = open_source(tmp_path)
        assert splits(dataset) == {
            f"{train}/cat/1.jpg": "train",
            f"{train}/dog/x/2.jpg": "train",
            f"{given}/cat/3.jpg": split,
        }
        assert dataset.classes == ("cat", "dog")

    def test_other_folders_beside_them_are_passed_over_and_named(self, tmp_path: Path) -> None:
        plant(tmp_path, "train/cat/1.jpg", "test/cat/2.jpg", "raw/3.jpg", "raw/x/4.jpg", "train/5.jpg", "6.jpg")
        dataset = open_source(tmp_path)
        assert names(dataset) == ["test/cat/2.jpg", "train/cat/1.jpg"]
        assert problems(dataset) == {"raw": "no label", "train/5.jpg": "no label", "6.jpg": "no label"}
        assert "2 images" in next(problem.detail for problem in dataset.problems if problem.name == "raw")

    @pytest.mark.parametrize("others", [("bus", "car"), ("bus",)])
    def test_a_class_may_be_called_train(self, tmp_path: Path, others: Sequence[str]) -> None:
        plant(tmp_path, "train/1.jpg", *(f"{other}/2.jpg" for other in others))
        assert open_source(tmp_path).classes == tuple(sorted(("train", *others)))

    def test_test_and_val_without_train_are_classes_beside_others(self, tmp_path: Path) -> None:
        plant(tmp_path, "test/1.jpg", "val/1.jpg", "cat/2.jpg")
        assert open_source(tmp_path).classes == ("cat", "test", "val")

    def test_a_lone_split_is_none(self, tmp_path: Path) -> None:
        plant(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "test/readme.txt")
        assert splits(open_source(tmp_path)) == {"train/cat/1.jpg": "", "train/dog/2.jpg": ""}
