"""Units of work, shards of features, and the matrix of all shards: without a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import CheckError, DataError, UsageError
from headstart.core.types import Problem, Sample
from headstart.data.sources import open_source
from headstart.scale.image_list import write_list
from headstart.scale.matrix import ShardedMatrix, ShardFile
from headstart.scale.plan import Plan, Source, make_plan, plan_of_paths
from headstart.scale.shards import Rows, Shard, write_shard
from headstart.scale.whole import some_of
from making import packed, picture
from source_files import write_parquet

pytest.importorskip("pyarrow", reason="needs the extra 'ray'")
SPACE = {"backbone": "a", "precision": "bf16", "openvino": "1.0"}


def rows_of(count: int, seed: int = 0, width: int = 5) -> Rows:
    rng = np.random.default_rng(seed)
    found = Rows.of(
        [Sample(f"a/{k}\udcff.png", "a", "train", f"g{k}") for k in range(count)], width, [Problem("x", "empty", "no")]
    )
    found.keys[:] = rng.integers(0, 256, found.keys.shape)
    found.features[:] = rng.normal(size=found.features.shape)
    found.thumbnails[:] = rng.integers(0, 256, found.thumbnails.shape)
    found.formats[:] = ["PNG"] * count
    if count > 1:
        found.problems[1], found.details[1] = "truncated", "cut short"
        found.features[1] = 0
    return found


class TestShards:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        rows = rows_of(4)
        write_shard(tmp_path / "new" / "a.arrow", rows, SPACE)
        found = Shard(tmp_path / "new" / "a.arrow", SPACE)
        assert found.samples == rows.samples
        assert found.keys == [b"" if k == 1 else rows.keys[k].tobytes() for k in range(4)]
        assert found.usable.tolist() == [True, False, True, True]
        assert found.problems == [Problem("a/1\udcff.png", "truncated", "cut short")]
        assert found.left_out == rows.left_out
        assert found.texts("format") == rows.formats
        assert found.least == rows.features.min()
        np.testing.assert_array_equal(found.features, rows.features)
        np.testing.assert_array_equal(found.thumbnails, rows.thumbnails)
        assert os.listdir(tmp_path / "new") == ["a.arrow"]

    @given(data=st.data())
    def test_a_flipped_bit_is_found(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        path = tmp_path_factory.mktemp("shard") / "a.arrow"
        write_shard(path, rows_of(3), SPACE)
        content = bytearray(path.read_bytes())
        place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
        content[place] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(CheckError, match="is damaged"):
            Shard(path, SPACE)

    @pytest.mark.parametrize("size", [0, 1, 16, 17, 500])
    def test_a_shard_that_was_cut_is_found(self, tmp_path: Path, size: int) -> None:
        write_shard(tmp_path / "a.arrow", rows_of(3), SPACE)
        os.truncate(tmp_path / "a.arrow", size)
        with pytest.raises(CheckError, match="is damaged"):
            Shard(tmp_path / "a.arrow", SPACE)

    def test_features_of_another_kind_are_not_mixed_and_it_says_why(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a.arrow", rows_of(3), SPACE)
        with pytest.raises(
            CheckError, match=r"\(precision: bf16; this run: fp32\), which cannot be mixed.*--store|store"
        ):
            Shard(tmp_path / "a.arrow", SPACE | {"precision": "fp32"})
        with pytest.raises(CheckError, match=r"\(openvino: 1.0; this run: 2.0\)"):
            Shard(tmp_path / "a.arrow", SPACE | {"openvino": "2.0"})

    def test_a_failed_write_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            write_shard(tmp_path / "a.arrow", rows_of(3), SPACE)
        assert os.listdir(tmp_path) == []

    def test_of_no_images(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a.arrow", rows_of(0), SPACE)
        found = Shard(tmp_path / "a.arrow", SPACE)
        assert (len(found), found.least, found.samples) == (0, 0.0, [])

    def test_all_shards_are_one_matrix(self, tmp_path: Path) -> None:
        parts = [rows_of(count, seed) for seed, count in enumerate((3, 0, 1, 7))]
        for number, rows in enumerate(parts):
            write_shard(tmp_path / f"{number}.arrow", rows, SPACE)
        files = [ShardFile(tmp_path / f"{number}.arrow", len(rows.samples)) for number, rows in enumerate(parts)]
        whole, matrix = np.concatenate([rows.features for rows in parts]), ShardedMatrix(files, SPACE, 5)
        assert (len(matrix), matrix.shape, matrix.min()) == (11, (11, 5), whole.min())
        for some in (np.array([10, 0, 3, 3]), np.arange(11), np.array([], int)):
            np.testing.assert_array_equal(matrix[some], whole[some])
        np.testing.assert_array_equal(matrix[np.arange(11) % 2 == 0], whole[::2])


def plan_of(data: Path, lists: Path) -> Plan:
    return make_plan(Source(str(data)), lists)


def images_of(plan: Plan) -> list[tuple[Sample, object]]:
    parts = [plan.open(unit) for unit in plan.units]
    return [(sample, part.read(row)) for part in parts for row, sample in enumerate(part.samples)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of which the content does not matter, enough for several units."""
    root = tmp_path_factory.mktemp("many")
    for kind in ("a", "b"):
        (root / kind).mkdir()
        for number in range(600):
            (root / kind / f"{number}.png").write_bytes(f"{kind}{number}".encode())
    return root


class TestPlans:
    def test_units_are_all_images_once_and_in_order(self, many: Path, tmp_path: Path) -> None:
        plan, dataset = plan_of(many, tmp_path), open_source(many)
        assert len(plan.units) > 3
        assert sum(unit.images for unit in plan.units) == 1200
        assert len({unit.name for unit in plan.units}) == len(plan.units)
        assert images_of(plan) == [(sample, dataset.read(row)) for row, sample in enumerate(dataset.samples)]
        assert plan_of(many, tmp_path) == plan

    def test_an_image_more_or_another_content_changes_one_unit(self, many: Path, tmp_path: Path) -> None:
        before = {unit.name for unit in plan_of(many, tmp_path).units}
        for name, content in (("a/30a.png", b"new"), ("b/599.png", b"changed")):
            (many / name).write_bytes(content)
            after = {unit.name for unit in plan_of(many, tmp_path).units}
            assert len(after - before) == 1
            before = after
        (many / "a" / "30a.png").unlink()

    def test_a_file_that_is_not_there_is_a_problem_of_its_image(self, many: Path, tmp_path: Path) -> None:
        dataset = open_source(many)
        os.rename(many / "a" / "0.png", many / "a" / "0.away")
        units = write_list(dataset, tmp_path)
        os.rename(many / "a" / "0.away", many / "a" / "0.png")
        assert sum(unit.images for unit in units) == 1200

    def test_parquet_files_are_cut_into_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [(packed(picture("bars", seed, 16)), seed % 2) for seed in range(10)]
        for part in ("train", "test"):
            write_parquet(tmp_path / "data" / f"{part}.parquet", rows)
        monkeypatch.setattr("headstart.scale.plan.MOST", 4)
        plan, dataset = plan_of(tmp_path / "data", tmp_path), open_source(tmp_path / "data")
        assert [(unit.number, unit.of) for unit in plan.units] == [(0, 3), (1, 3), (2, 3)] * 2
        assert images_of(plan) == [(sample, dataset.read(row)) for row, sample in enumerate(dataset.samples)]

    def test_some_images_are_spread_over_all(self, many: Path, tmp_path: Path) -> None:
        plan, dataset = plan_of(many, tmp_path), open_source(many)
        some = some_of(plan, 16)
        names = [sample.name for sample in dataset.samples]
        places = [names.index(sample.name) for sample in some.samples]
        assert len(places) == 16
        assert (places[0], int(np.diff(places).max())) == (0, 80)
        assert [some.read(row) for row in range(16)] == [dataset.read(place) for place in places]

    def test_what_has_no_files_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no image files that several processes could read"):
            make_plan(Source("digits"), tmp_path)

    def test_paths_to_predict_on(self, tmp_path: Path, photos: Path) -> None:
        write_parquet(tmp_path / "more.parquet", [(packed(picture("bars", 1, 16)), 0)])
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "x.png").write_bytes(b"")
        given = [
            str(photos / "bars"),
            str(tmp_path / "more.parquet"),
            str(tmp_path / "broken"),
            str(tmp_path / "no.png"),
        ]
        plan = plan_of_paths(given, tmp_path / "lists")
        names = [sample.name for unit in plan.units for sample in plan.open(unit).samples]
        assert names[:12] == [str(photos / "bars" / name) for name in sorted(os.listdir(photos / "bars"))]
        assert names[12:] == [f"{tmp_path}/more.parquet#0", f"{tmp_path}/broken/x.png", f"{tmp_path}/no.png"]
        assert {sample.label for unit in plan.units for sample in plan.open(unit).samples} == {""}
        with pytest.raises(UsageError, match="is an address"):
            plan_of_paths(["https://example.org/a.jpg"], tmp_path)

    def test_photos_and_shards_at_an_address(self, many: Path, tmp_path: Path, photos: Path) -> None:
        dataset, url = open_source(many), many.as_uri()
        plan = make_plan(Source(url), tmp_path / "lists")
        assert images_of(plan) == [(sample, dataset.read(row)) for row, sample in enumerate(dataset.samples)]
        shards = tmp_path / "shards"
        for part in ("train", "test"):
            write_parquet(shards / f"{part}.parquet", [(packed(picture("bars", k, 16)), k % 2) for k in range(3)])
        (found, wanted) = (make_plan(Source(url), tmp_path / "lists") for url in (shards.as_uri(), str(shards)))
        assert [unit.images for unit in found.units] == [0, 0]  # not known before a file was copied
        assert images_of(found) == images_of(wanted)
        both = plan_of_paths([photos.as_uri(), shards.as_uri()], tmp_path / "lists")
        names = [sample.name for unit in both.units for sample in both.open(unit).samples]
        assert len(names) == 36 + 6
        assert names[0] == f"{photos.as_uri()}/bars/0.png"

    def test_a_damaged_parquet_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(DataError, match=r"a\.parquet' cannot be read as Parquet"):
            plan_of(tmp_path / "a.parquet", tmp_path)
