"""Data sets named by CSV files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.core.errors import DataError, UsageError
from headstart.data.sources import open_source
from source_files import contents, labels, names, plant, splits


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
        details = [(problem.kind, problem.detail.replace(f"{tmp_path}/", "")) for problem in dataset.problems]
        assert details[:5] == [
            ("missing", "'t.csv', line 4: no such file or directory (gone.jpg)"),
            ("no label", "'t.csv', line 5: the label is blank"),
            ("no label", "'t.csv', line 6: the label is blank"),
            ("missing", "'t.csv', line 7: names no file"),
            ("missing", "'t.csv', line 8: not a file (folder)"),
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
        file = write_csv(tmp_path / "t.csv", ["path", "kind", "age"], ["2.jpg", "dog", "3"])
        with pytest.raises(
            DataError, match=r"label: expected one of label, cl.*'path', 'kind', 'age'\. .*label_column=COLUMN"
        ):
            open_source(file)
        with pytest.raises(DataError, match="expected 'breed'; received"):
            open_source(file, label_column="breed")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"\n\n", "is empty"),
            ("path,label\nä.jpg,a\n".encode("latin-1"), "not UTF-8"),
            ("path,label\n".encode("utf-16"), "t.csv' is UTF-16, not UTF-8 text"),
            ("path,label\n".encode("utf-16-le"), "t.csv', line 1: a zero byte"),
            ("path,label\nä.jpg,a\nö.jpg,".encode() + b"\xe4", r"t.csv', line 3: not UTF-8 text \(byte 0xe4\)"),
            (b"path,label\n", "names no labelled image"),
            (b"path,label\ngone.jpg,a\n", r"First of 1 problem: .*line 2: no such file"),
            (b"path,label,split\n1.jpg,a,fold3\n", "line 2: expected the split train, val or test, received 'fold3'"),
            (b'path,label\n"' + b"x" * 200_000, "t.csv', line 2: a cell of more than 131,072 characters"),
            (b"x" * 200_000, "t.csv', line 1: a cell of more than 131,072 characters"),
            (b"path,label\n1.jpg," + b"x" * 140_000, "line 2: a cell of more than 131,072 characters"),
            (b'path,label\n1.jpg,a\n"1.jpg,b\n1.jpg,b\n', "line 3: a quote begins there that never ends"),
            (b'path,"label', "line 1: a quote begins there that never ends"),
            (b"path,label\n\0.jpg,a\n", "t.csv', line 2: a zero byte"),
            (b"path,label,Label\n1.jpg,a,b\n", "two columns called 'label'"),
            (b"path,a,b,a\n1.jpg,0,1,0\n", "two columns called 'a'"),
            (b"path,label\n1.jpg,a,b\n", "line 2: expected 2 cells, received 3"),
            (b'path,label\n1.jpg,a,"b\nc"\n', r"line 2: expected 2 cells, received 3 \(1\.jpg, a, b\\nc\)"),
        ],
    )
    def test_bad_tables(self, tmp_path: Path, content: bytes, message: str) -> None:
        plant(tmp_path, "1.jpg")
        plant(tmp_path, "t.csv", content=content)
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / "t.csv")

    def test_a_table_may_have_thousands_of_columns(self, tmp_path: Path) -> None:
        """Their names take more characters than a cell may have; with another separator they are one cell."""
        plant(tmp_path, "1.jpg")
        header = ["path", "label", *(f"measured-{number}" for number in range(17_000)), "note", "note"]
        for delimiter in ",\t":
            file = write_csv(tmp_path / "t.csv", header, ["1.jpg", "a"], delimiter=delimiter)
            assert labels(open_source(file)) == {"1.jpg": "a"}

    def test_a_table_beyond_any_size_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "t.csv").open("wb") as file:
            file.truncate(3 << 30)
        with pytest.raises(UsageError, match="3,221,225,472 bytes, and up to 1,000,000,000 are read"):
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
