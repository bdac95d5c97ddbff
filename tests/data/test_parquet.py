"""Data sets in Parquet files."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import DataError, MissingExtraError, UnreadableImageError
from headstart.core.processors import CHUNK
from headstart.data import parquet
from headstart.data.columns import Columns
from headstart.data.sources import open_source
from source_files import PETS, contents, hub_schema, pa, plant, pq, splits, write_parquet


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

    def test_rows_in_any_order_cost_no_more_than_a_few_passes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
    ) -> None:
        """Of a row group with many batches that are forgotten at once, as a shuffled epoch reads it."""
        monkeypatch.setattr(parquet, "_BATCH_BYTES", 1)
        monkeypatch.setattr(parquet, "_KEEP_BYTES", 1)
        monkeypatch.setattr(parquet, "_KEEP_ROWS", 1)
        count = 20 * CHUNK
        rows = [(b"" if row == 7 else b"img%d" % row, row % 2) for row in range(count)]
        dataset = open_source(write_parquet(tmp_path / "pets.parquet", rows, group=count))
        passes: list[int] = []
        batches_of = parquet._Images._batches_of

        def spy(self: Any, at: int) -> Any:
            passes.append(at)
            return batches_of(self, at)

        monkeypatch.setattr(parquet._Images, "_batches_of", spy)
        order = np.random.default_rng(0).permutation(count).tolist()
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(dataset.read, order))
        assert found == [rows[row][0] for row in order]
        assert len(passes) <= parquet.OFTEN + 1
        assert [dataset.read(row) for row in order] == found
        assert len(passes) <= parquet.OFTEN + 1

    def test_where_the_disk_has_no_room_rows_are_read_in_any_order_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parquet, "_KEEP_BYTES", 1)
        monkeypatch.setattr(parquet, "_KEEP_ROWS", 1)
        monkeypatch.setattr(parquet, "_BATCH_BYTES", 1)
        rows = [(b"img%d" % row, row % 2) for row in range(6 * CHUNK)]
        order = list(range(len(rows)))[::-5]

        def full(items: Any) -> Any:
            raise OSError(28, "No space left on device")

        for name, value in (("free_disk", lambda: 0), ("Unpacked", full)):
            dataset = open_source(write_parquet(tmp_path / f"{name}.parquet", rows, group=len(rows)))
            monkeypatch.setattr(parquet, name, value)
            assert [dataset.read(row) for row in order] == [rows[row][0] for row in order]

    def test_text_that_is_none(self, tmp_path: Path) -> None:
        """As damage leaves it: of a label it is refused, and of a path it does not matter."""
        ends = pa.array([0, 1, 3], pa.int32()).buffers()[1]
        damaged = pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b"a\xff\xfe")])
        images = pa.array([b"1", b"2"])
        pq.write_table(pa.table({"image": images, "label": damaged}), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=r"t\.parquet' cannot be read as Parquet: 'utf-8' codec"):
            open_source(tmp_path / "t.parquet")
        both = pa.StructArray.from_arrays([images, damaged], names=["bytes", "path"])
        pq.write_table(pa.table({"image": both, "label": [0, 1]}), tmp_path / "t.parquet")
        dataset = open_source(tmp_path / "t.parquet")
        for _ in range(parquet.OFTEN + 1):  # it is unpacked at last
            assert [dataset.read(row) for row in (1, 0)] == [b"2", b"1"]

    @pytest.mark.parametrize("twice", ["image", "label", "group"])
    def test_two_columns_of_a_name(self, tmp_path: Path, twice: str) -> None:
        columns = {"image": pa.array([b"1", b"2"]), "label": pa.array(["a", "b"]), "group": pa.array([1, 2])}
        table = pa.table(columns).append_column(twice, columns[twice])
        pq.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(DataError, match=rf"'t\.parquet' has two columns called '{twice}'"):
            open_source(tmp_path / "t.parquet")

    def test_rows_that_a_damaged_header_loses(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "t.parquet", [(b"1", 0)] * 5)
        with pq.ParquetFile(path) as file:
            header = SimpleNamespace(num_rows=9, num_row_groups=2, row_group=file.metadata.row_group)
            damaged = SimpleNamespace(schema_arrow=file.schema_arrow, read=file.read, metadata=header)
            described = parquet._described(damaged, str(path), "t.parquet", "image", Columns())
            with pytest.raises(DataError, match="promises 9 rows, and has 5"):
                list(described)

    def test_damage_is_said_in_a_line(self, tmp_path: Path) -> None:
        content = write_parquet(tmp_path / "t.parquet", [(b"1", 0)] * 5).read_bytes()
        (tmp_path / "t.parquet").write_bytes(content[:-60] + b"\xff" * 52 + content[-8:])
        with pytest.raises(DataError, match=r"cannot be read as Parquet: [^\n]+[^.]\.$"):
            open_source(tmp_path / "t.parquet")

    def test_a_path_that_no_file_can_have(self, tmp_path: Path) -> None:
        paths = pa.StructArray.from_arrays(
            [pa.array([None], pa.binary()), pa.array(["\0.png"])], names=["bytes", "path"]
        )
        pq.write_table(pa.table({"image": paths, "label": ["a"]}), tmp_path / "t.parquet")
        with pytest.raises(UnreadableImageError, match="no file can have this name"):
            open_source(tmp_path / "t.parquet").read(0)

    @pytest.mark.parametrize("folder", ["", "data"])
    def test_shards_with_splits(self, tmp_path: Path, folder: str) -> None:
        for shard in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test"):
            write_parquet(tmp_path / folder / f"{shard}.parquet", [(shard.encode(), 0), (b"2", 1)])
        dataset = open_source(tmp_path)
        assert Counter(sample.split for sample in dataset.samples) == {"train": 4, "val": 2, "test": 2}
        for index, sample in enumerate(dataset.samples):
            if sample.label == "cat":
                shard = dataset.read(index).decode()  # type: ignore[union-attr]
                assert sample.name == f"{folder}/{shard}.parquet#0".removeprefix("/")

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

    def test_columns_are_found_or_named_as_in_other_tables(self, tmp_path: Path) -> None:
        columns = {"image": [b"1", b"2"], "wish": ["a", "b"], "patient_id": ["p", "q"]}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        dataset = open_source(tmp_path / "a.parquet")
        assert [(s.label, s.group) for s in dataset.samples] == [("a", "p"), ("b", "q")]
        named = open_source(tmp_path / "a.parquet", label_column="patient_id", group_column="wish")
        assert [(s.label, s.group) for s in named.samples] == [("p", "a"), ("q", "b")]
        for what in ("group", "split"):  # not passed over in silence
            with pytest.raises(DataError, match=f"no column for the {what}: expected 'camera'.*{what}_column=COLUMN"):
                open_source(tmp_path / "a.parquet", **{f"{what}_column": "camera"})

    def test_images_that_are_named_instead_of_held(self, tmp_path: Path) -> None:
        plant(tmp_path, "images/1.jpg", "images/2.jpg")
        for place, name in enumerate(("images/1.jpg", "images/2.jpg", "../out.jpg")):
            plant(tmp_path.parent, "out.jpg")
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            images = pa.array([{"bytes": None, "path": name}], kind)
            pq.write_table(pa.table({"image": images, "label": ["a"]}), tmp_path / f"{place}.parquet")
        dataset = open_source(tmp_path)
        assert [dataset.read(0), dataset.read(1)] == [b"images/1.jpg", b"images/2.jpg"]
        with pytest.raises(UnreadableImageError, match="leads out of the folder"):
            dataset.read(2)

    def test_where_the_hub_puts_its_files(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            write_parquet(tmp_path / "default" / part / "0000.parquet", [(b"1", 0), (b"2", 1)])
        assert [s.split for s in open_source(tmp_path).samples] == ["test", "test", "train", "train"]

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
