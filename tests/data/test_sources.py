"""What the user names, in every form and with every slip, becomes one table of samples or one clear sentence."""

from __future__ import annotations

import csv
import gzip
import json
import os
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.core.errors import DataError, MissingExtraError, UnreadableImageError, UsageError
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data import parquet, sources
from headstart.data.load import decode
from headstart.data.sources import from_arrays, from_pairs, open_source, unlabelled

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

JPEG = b"\xff\xd8\xff\xe0 a photo"  # enough for a source, which looks at names and at first bytes only


def plant(root: Path, *names: str, content: bytes | None = None) -> Path:
    """Files with their own name as content, or with the given one."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape") if content is None else content)
    return root


def labels(dataset: ImageDataset) -> dict[str, str]:
    return {sample.name: sample.label for sample in dataset.samples}


def splits(dataset: ImageDataset) -> dict[str, str]:
    return {sample.name: sample.split for sample in dataset.samples}


def problems(dataset: ImageDataset) -> dict[str, str]:
    return {problem.name: problem.kind for problem in dataset.problems}


def contents(dataset: ImageDataset) -> list[Any]:
    return [dataset.read(index) for index in range(len(dataset))]


def names(dataset: ImageDataset) -> list[str]:
    return [sample.name for sample in dataset.samples]


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
        assert not dataset.problems

    def test_what_is_no_class_and_no_image(self, tmp_path: Path) -> None:
        plant(tmp_path, "cat/1.jpg", ".git/2.jpg", "__MACOSX/3.jpg", "cat/.cache/4.jpg", "cat/@eaDir/5.jpg")
        plant(tmp_path, "cat/Thumbs.db", "cat/notes.txt", "cat/._1.jpg", "notes/a.txt", "cat/page", "LICENSE")
        plant(tmp_path, "cat/no suffix", content=JPEG)
        plant(tmp_path, "cat/photo.doc", content=JPEG)
        dataset = open_source(tmp_path)
        assert names(dataset) == ["cat/1.jpg", "cat/no suffix"]
        assert not dataset.problems

    def test_photos_that_cannot_be_read_are_named(self, tmp_path: Path) -> None:
        plant(tmp_path, "cat/1.jpg", "cat/2.HEIC", "cat/3.svg", "loose.jpg")
        assert problems(open_source(tmp_path)) == {
            "cat/2.HEIC": "unreadable",
            "cat/3.svg": "unreadable",
            "loose.jpg": "no label",
        }

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
        entries = sources._entries
        monkeypatch.setattr(sources, "_entries", lambda folder: reversed(list(entries(folder))))
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
        assert names(open_source(tmp_path)) == ["cat/1.jpg"]

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


def write_csv(path: Path, *rows: Sequence[str], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


class TestCsv:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize(
        "header", [("file_name", "label"), ("Path", "Class"), (" image ", "TARGET"), ("file", "category")]
    )
    def test_columns_and_delimiters(
        self, tmp_path: Path, delimiter: str, encoding: str, header: tuple[str, str]
    ) -> None:
        plant(tmp_path, "b.jpg", "sub/ä, b.jpg")
        rows = [(*header, "note"), ("sub/ä, b.jpg", "Käfer; blau", "x, y; z"), ("b.jpg", " cat ", "")]
        file = write_csv(tmp_path / "my table.csv", *rows, delimiter=delimiter, encoding=encoding)
        dataset = open_source(file)
        assert labels(dataset) == {"b.jpg": "cat", "sub/ä, b.jpg": "Käfer; blau"}
        assert contents(dataset) == [b"b.jpg", "sub/ä, b.jpg".encode()]

    def test_metadata_in_a_folder_with_split_and_group(self, tmp_path: Path) -> None:
        plant(tmp_path, "1.jpg", "2.jpg", "3.jpg")
        rows = ["1.jpg", "a", "train", "p1"], ["2.jpg", "b", "Validation", "p1"], ["3.jpg", "b", "", ""]
        write_csv(tmp_path / "metadata.csv", ["file_name", "label", "Split", "GROUP"], *rows)
        dataset = open_source(tmp_path)
        assert [(s.name, s.label, s.split, s.group) for s in dataset.samples] == [
            ("1.jpg", "a", "train", "p1"),
            ("2.jpg", "b", "val", "p1"),
            ("3.jpg", "b", "", ""),
        ]

    def test_metadata_in_split_folders(self, tmp_path: Path) -> None:
        plant(tmp_path, "train/1.jpg", "test/1.jpg")
        for split in ("train", "test"):
            write_csv(tmp_path / split / "metadata.csv", ["file_name", "label"], ["1.jpg", split[0]])
        dataset = open_source(tmp_path)
        assert splits(dataset) == {"test/1.jpg": "test", "train/1.jpg": "train"}
        assert labels(dataset) == {"test/1.jpg": "t", "train/1.jpg": "t"}

    def test_columns_of_ones_own(self, tmp_path: Path) -> None:
        plant(tmp_path, "1.jpg", "2.jpg")
        file = write_csv(tmp_path / "t.csv", ["path", "foto", "label", "breed"], ["1.jpg", "2.jpg", "dog", "pug"])
        assert labels(open_source(file)) == {"1.jpg": "dog"}
        assert labels(open_source(file, image_column="foto", label_column="breed")) == {"2.jpg": "pug"}

    def test_bad_rows_are_problems(self, tmp_path: Path) -> None:
        plant(tmp_path, "1.jpg", "2.jpg")
        (tmp_path / "folder").mkdir()
        rows = [
            ["1.jpg", "a"],
            [],
            ["gone.jpg", "a"],
            ["2.jpg", " "],
            ["2.jpg"],
            ["", "a"],
            ["folder", "a"],
            ["x" * 300, "b"],
        ]
        dataset = open_source(write_csv(tmp_path / "t.csv", ["file_name", "label"], *rows))
        assert labels(dataset) == {"1.jpg": "a"}
        details = [(problem.kind, problem.detail) for problem in dataset.problems]
        assert details[:5] == [
            ("missing", "'t.csv', line 4: no such file or directory"),
            ("no label", "'t.csv', line 5: the label is blank"),
            ("no label", "'t.csv', line 6: the label is blank"),
            ("missing", "'t.csv', line 7: names no file"),
            ("missing", "'t.csv', line 8: not a file"),
        ]
        assert dataset.problems[5].kind == "missing"

    def test_lines_are_counted_across_quoted_line_breaks(self, tmp_path: Path) -> None:
        plant(tmp_path, "1.jpg", "two\nlines.jpg")
        rows = ["two\nlines.jpg", "a"], ["gone.jpg", "b"]
        dataset = open_source(write_csv(tmp_path / "t.csv", ["file_name", "label"], *rows))
        assert labels(dataset) == {"two\nlines.jpg": "a"}
        assert "line 4" in dataset.problems[0].detail

    def test_paths_as_windows_writes_them(self, tmp_path: Path) -> None:
        plant(tmp_path, "cat/1.jpg")
        dataset = open_source(write_csv(tmp_path / "t.csv", ["path", "label"], [r"cat\1.jpg", "cat"]))
        assert labels(dataset) == {"cat/1.jpg": "cat"}

    @pytest.mark.parametrize(
        "escape",
        ["../out.jpg", "{out}", "in/../../out.jpg", "link.jpg", "folder/out.jpg", r"..\out.jpg", "..", "../none.jpg"],
    )
    def test_no_path_leads_out_of_the_folder(self, tmp_path: Path, escape: str) -> None:
        plant(tmp_path, "out.jpg")
        root = plant(tmp_path / "root", "1.jpg", "in/2.jpg")
        (root / "link.jpg").symlink_to(tmp_path / "out.jpg")
        (root / "folder").symlink_to(tmp_path)
        name = escape.format(out=tmp_path / "out.jpg")
        file = write_csv(root / "t.csv", ["path", "label"], ["1.jpg", "a"], [name, "a"])
        with pytest.raises(DataError, match=r"line 3: .* leads out of the folder"):
            open_source(file)

    def test_paths_and_links_within_the_folder_are_fine(self, tmp_path: Path) -> None:
        root = plant(tmp_path / "root", "1.jpg", "in/2.jpg", "..3.jpg")
        (root / "link.jpg").symlink_to(root / "1.jpg")
        paths = ["in/../1.jpg", "./in/2.jpg", str(root / "in" / "2.jpg"), "link.jpg", "..3.jpg"]
        dataset = open_source(write_csv(root / "t.csv", ["path", "label"], *([path, "a"] for path in paths)))
        assert names(dataset) == ["..3.jpg", "1.jpg", "in/2.jpg", "in/2.jpg", "link.jpg"]

    def test_missing_columns_are_named(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "t.csv", ["1.jpg", "cat"], ["2.jpg", "dog"])
        with pytest.raises(
            DataError, match=r"image: expected one of file_name, path.*received the columns '1.jpg', 'cat'"
        ):
            open_source(file)
        file = write_csv(tmp_path / "t.csv", ["path", "kind"], ["2.jpg", "dog"])
        with pytest.raises(DataError, match=r"label: expected one of label, class.*'path', 'kind'.*label_column"):
            open_source(file)
        with pytest.raises(DataError, match="expected 'breed'; received"):
            open_source(file, label_column="breed")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"\n\n", "is empty"),
            ("path,label\nä.jpg,a\n".encode("latin-1"), "not UTF-8"),
            ("path,label\n".encode("utf-16"), "not UTF-8"),
            (b"path,label\n", "names no labelled image"),
            (b"path,label\ngone.jpg,a\n", r"First of 1 problems: .*line 2: no such file"),
            (b"path,label,split\n1.jpg,a,fold3\n", "line 2: expected the split train, val or test, received 'fold3'"),
            (b'path,label\n"' + b"x" * 200_000, "field larger than field limit"),
            (b"path,label\n\0.jpg,a\n", "no file can have this name"),
        ],
    )
    def test_bad_tables(self, tmp_path: Path, content: bytes, message: str) -> None:
        plant(tmp_path, "1.jpg")
        plant(tmp_path, "t.csv", content=content)
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / "t.csv")

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.binary(max_size=80),
        st.sampled_from([b"", b"path,label\n", b"path;label;split;group\n", b"\xef\xbb\xbfpath\tlabel\n"]),
    )
    def test_any_bytes_are_a_table_or_a_data_error(self, tmp_path: Path, content: bytes, header: bytes) -> None:
        plant(tmp_path, "t.csv", content=header + content)
        try:
            named = set(names(open_source(tmp_path / "t.csv")))
        except DataError:
            named = set()
        assert named <= {"t.csv"}  # nothing else is there that it could name


def hub_schema(features: dict[str, Any] | None, label: Any = None) -> Any:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", label or pa.int64())])
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})} if features else None)


PETS = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def write_parquet(
    path: Path, rows: Sequence[tuple[bytes | None, Any]], schema: Any = None, group: int = 3, **options: Any
) -> Path:
    schema = schema or hub_schema(PETS)
    images = pa.array([{"bytes": content, "path": None} for content, _ in rows], schema.field("image").type)
    dataset = pa.table([images, pa.array([label for _, label in rows], schema.field("label").type)], schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(dataset, path, row_group_size=group, **options)
    return path


class TestParquet:
    def test_the_hubs_convention(self, tmp_path: Path) -> None:
        file = write_parquet(tmp_path / "pets.parquet", [(b"img%d" % row, row % 2) for row in range(8)])
        dataset = open_source(file)
        assert dataset.classes == ("cat", "dog")
        assert dataset.samples[3].name == "pets.parquet#3"
        assert [sample.label for sample in dataset.samples] == ["cat", "dog"] * 4
        assert contents(dataset) == [b"img%d" % row for row in range(8)]
        assert dataset.read(6) == b"img6"
        assert dataset.read(1) == b"img1"

    @pytest.mark.parametrize("folder", ["", "data"])
    def test_shards_with_splits(self, tmp_path: Path, folder: str) -> None:
        for shard in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test"):
            write_parquet(tmp_path / folder / f"{shard}.parquet", [(shard.encode(), 0), (b"2", 1)])
        dataset = open_source(tmp_path)
        assert Counter(sample.split for sample in dataset.samples) == {"train": 4, "val": 2, "test": 2}
        for index, sample in enumerate(dataset.samples):
            if sample.label == "cat":
                assert dataset.read(index).decode() == sample.name.split(".")[0]  # type: ignore[union-attr]

    def test_one_file_has_no_split(self, tmp_path: Path) -> None:
        assert set(splits(open_source(write_parquet(tmp_path / "test.parquet", [(b"1", 0), (b"2", 1)]))).values()) == {
            ""
        }

    @pytest.mark.parametrize(
        ("schema", "given", "expected"),
        [
            (hub_schema(PETS), [1, None, -1, 2, 0], ["dog", "cat"]),
            (hub_schema(None), [7, None, -1, 10, 0], ["7", "-1", "10", "0"]),
            (hub_schema({"label": "odd"}), [3], ["3"]),
            (hub_schema(None, pa.string()), ["a", "", None, " b "], ["a", "b"]),
            (hub_schema(None, pa.dictionary(pa.int8(), pa.string())), ["a", None, "b"], ["a", "b"]),
            (hub_schema(None, pa.bool_()), [True, None, False], ["True", "False"]),
        ],
    )
    def test_labels(self, tmp_path: Path, schema: Any, given: list[Any], expected: list[str]) -> None:
        file = write_parquet(tmp_path / "a.parquet", [(b"%d" % row, label) for row, label in enumerate(given)], schema)
        dataset = open_source(file)
        assert [sample.label for sample in dataset.samples] == expected
        assert len(dataset.problems) == len(given) - len(expected)
        assert {problem.kind for problem in dataset.problems} <= {"no label"}
        rows = [int(sample.name.split("#")[1]) for sample in dataset.samples]
        assert [given[row] if isinstance(given[row], str) else row for row in rows]
        assert [dataset.read(index) for index in range(len(dataset))] == [b"%d" % row for row in rows]

    def test_other_columns(self, tmp_path: Path) -> None:
        columns = {"img": [b"1", b"2"], "breed": ["a", "b"], "split": ["train", "test"], "group": [4, None]}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        dataset = open_source(tmp_path / "a.parquet", label_column="breed")
        assert [(s.label, s.split, s.group) for s in dataset.samples] == [("a", "train", "4"), ("b", "test", "")]
        assert contents(dataset) == [b"1", b"2"]
        assert contents(open_source(tmp_path / "a.parquet", image_column="img", label_column="breed")) == [b"1", b"2"]

    def test_no_bytes_is_an_error_of_that_image_only(self, tmp_path: Path) -> None:
        dataset = open_source(write_parquet(tmp_path / "a.parquet", [(b"1", 0), (None, 1), (b"3", 0)]))
        with pytest.raises(UnreadableImageError) as caught:
            dataset.read(1)
        assert caught.value.kind == "empty"
        assert dataset.read(2) == b"3"

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"label": [1]}, "no column for the image: .*received the columns 'label'"),
            ({"image": [b"1"]}, "no column for the label: .*received the columns 'image'"),
            ({"image": ["1.jpg"], "label": [1]}, "should hold images.*of type string"),
            ({"image": [b"1"], "label": [0.5]}, "text or a whole number, received float"),
            ({"image": [b"1"], "label": [1], "split": ["fold"]}, "expected the split train, val or test"),
        ],
    )
    def test_wrong_columns(self, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / "a.parquet")

    def test_not_parquet(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.parquet", "cut.parquet")
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            open_source(tmp_path / "a.parquet")

    def test_a_damaged_group_costs_its_own_images(self, tmp_path: Path) -> None:
        rows = [(b"%04d" % row * 500, 0) for row in range(9)]
        file = write_parquet(tmp_path / "a.parquet", rows, group=3, compression="snappy", use_dictionary=False)
        meta = pq.ParquetFile(file).metadata.row_group(1).column(0)
        raw = bytearray(file.read_bytes())
        start = meta.data_page_offset
        raw[start + 30 : start + meta.total_compressed_size] = b"\xff" * (meta.total_compressed_size - 30)
        file.write_bytes(raw)
        dataset = open_source(file)
        for index in (3, 5, 4, 3):
            with pytest.raises(UnreadableImageError, match="damaged"):
                dataset.read(index)
        assert [dataset.read(index) for index in (0, 2, 6, 8)] == [rows[row][0] for row in (0, 2, 6, 8)]

    def test_many_threads_and_any_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "_BATCH_BYTES", 50_000)
        monkeypatch.setattr(parquet, "_KEEP_BYTES", 100_000)
        rng = np.random.default_rng(0)
        rows = [(rng.bytes(int(rng.integers(1, 6000))), 0) for _ in range(600)]
        write_parquet(tmp_path / "train.parquet", rows[:400], group=250)
        write_parquet(tmp_path / "val.parquet", rows[400:], group=1000)
        dataset = open_source(tmp_path)
        order = [*range(600), *rng.permutation(600)[:150].tolist()]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(dataset.read, order)) == [rows[index][0] for index in order]

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One row group of 40 MB, as a careless writer leaves it, in order: a fraction of it is ever held."""
        monkeypatch.setattr(parquet, "_BATCH_BYTES", 500_000)
        monkeypatch.setattr(parquet, "_KEEP_BYTES", 2_000_000)
        content = np.random.default_rng(0).bytes(20_000)
        rows = [(content[row % 100 :], row % 2) for row in range(2000)]
        file = write_parquet(
            tmp_path / "a.parquet", rows, group=5000, use_dictionary=False, write_batch_size=16, compression="none"
        )
        assert pq.ParquetFile(file).metadata.num_row_groups == 1
        before, most = pa.total_allocated_bytes(), 0
        dataset = open_source(file)
        for index in range(len(dataset)):
            assert len(dataset.read(index)) == len(rows[index][0])
            most = max(most, pa.total_allocated_bytes() - before)
        assert most < 10_000_000

    def test_pyarrow_is_an_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingExtraError, match=r"headstart\[data\]"):
            open_source(write_parquet(tmp_path / "a.parquet", [(b"1", 0)]))


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

        monkeypatch.setattr("headstart.data.named_sets.distribution", absent)
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
            (["a", "b"], ["x"], "received 2 paths and 1 labels"),
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
            (np.full((1, 4, 4, 3), np.nan), r"received nan"),
            (np.full((1, 4, 4, 3), -0.1), r"received -0.1"),
            (np.full((1, 4, 4, 3), 256), r"in \[0, 255\], received 256"),
            (np.full((1, 4, 4, 3), "a"), "received <U1"),
            (np.zeros((2, 4, 4, 3), np.uint8), "received 2 images and 1 labels"),
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
            ("nowhere", "No such file or folder, and no data set of that name: 'nowhere'. Known: digits, elpv"),
            ("elvp", "Did you mean elpv"),
            ("digit", "Did you mean digits"),
            ("", "and no data set of that name: ''"),
            ("nul\0", "No such file or folder"),
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
            ([], r"has no images in it. Expected a folder for each class.*end in \.bmp"),
            (["cat/a.txt"], "has no images in it"),
            (["cat/a.heic", "cat/b.heic"], r"First of 2 files left out: .*\.heic is not read"),
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
        plant(tmp_path, "cat/1.jpg", "dog/2.jpg")
        scandir = os.scandir

        def guarded(path: str) -> Any:
            if os.path.basename(path.rstrip("/")) == "dog":
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", guarded)
        with pytest.raises(UsageError, match=r"dog/?' cannot be read: Permission denied"):
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
