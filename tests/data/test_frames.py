"""Whole tables as data: DataFrames, tables of Arrow, data sets of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import headstart as hs
from headstart.data.columns import Columns
from headstart.data.frames import frame_dataset
from headstart.data.inputs import labelled_dataset, unlabelled_dataset
from making import SHAPES, packed, picture

datasets = pytest.importorskip("datasets")
FEW: dict[str, Any] = {"pixels": 32, "cache": False, "holdout": 0, "progress": False}


@pytest.fixture(scope="module")
def table(photos: Path) -> pd.DataFrame:
    files = sorted(map(str, photos.rglob("*.png")))
    return pd.DataFrame({"file": files, "kind": [Path(file).parent.name for file in files], "label": range(len(files))})


@pytest.fixture(scope="module")
def plain(table: pd.DataFrame) -> pd.DataFrame:
    return table[["file", "kind"]].rename(columns={"kind": "label"})


def pairs(dataset: hs.ImageDataset) -> list[tuple[str, str]]:
    return [(sample.name, sample.label) for sample in dataset.samples]


@pytest.mark.parametrize("form", [lambda frame: frame, pa.Table.from_pandas, datasets.Dataset.from_pandas])
def test_columns_of_the_usual_names_are_found(plain: pd.DataFrame, form: Any) -> None:
    found = labelled_dataset(form(plain), None)
    assert [label for _, label in pairs(found)] == plain["label"].tolist()
    for row in (0, 5):
        assert found.read(row) == Path(plain["file"][row]).read_bytes()


def test_a_column_is_named(table: pd.DataFrame) -> None:
    """As the labels; "label" is there too, and is not meant."""
    found = labelled_dataset(table, "kind")
    assert pairs(found) == list(zip(table["file"], table["kind"], strict=True))
    with pytest.raises(
        hs.DataError, match=r"the label: expected 'breed'; received the columns 'file'.*labels='COLUMN'"
    ):
        labelled_dataset(table, "breed")


def test_any_index_will_do_and_numbers_stay_numbers(table: pd.DataFrame) -> None:
    part = table.sample(20, random_state=0).rename(index=lambda row: f"r{row}")
    part["label"] = pd.factorize(part["kind"])[0]
    model = hs.fit(part[["file", "label"]], **FEW)
    assert model.classes_.dtype.kind == "i"
    assert model.score(part[["file", "label"]], part["label"]) == model.score(part["file"], part["label"]) > 0.8
    np.testing.assert_array_equal(model.predict(part), model.predict(part["file"]))


def test_parts_groups_and_blank_labels(plain: pd.DataFrame) -> None:
    rows = range(len(plain))
    frame = plain.assign(split=["train" if row % 3 else "test" for row in rows], patient=rows)
    frame.loc[4, "label"] = None
    found = labelled_dataset(frame, None)
    assert len(found) == len(frame) - 1
    assert [sample.split for sample in found.samples[:4]] == ["test", "train", "train", "test"]
    assert found.samples[3].group == "3"
    assert [(each.name, each.kind) for each in found.problems] == [("row 4", "no label")]


def test_paths_are_from_the_working_directory_also_later(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    found = labelled_dataset(pd.DataFrame({"path": ["bars/0.png", "waves/0.png"], "label": ["a", "b"]}), None)
    monkeypatch.chdir(tmp_path)
    assert found.read(0) == (photos / "bars/0.png").read_bytes()


def test_cells_may_hold_the_images() -> None:
    images = [picture(kind, seed, 32) for kind in SHAPES for seed in range(4)]
    cells = [Image.fromarray(images[0]), packed(images[1]), images[2], *map(packed, images[3:])]
    frame = pd.DataFrame({"image": pd.Series(cells, dtype=object), "label": np.repeat(SHAPES, 4)})
    found = hs.fit(frame, **FEW)
    expected = hs.fit(images, np.repeat(SHAPES, 4), **FEW)
    np.testing.assert_allclose(found.predict_proba(images), expected.predict_proba(images), atol=1e-6)


def hugging_face(decode: bool = True) -> Any:
    """Images packed as files, and classes by number."""
    kinds = {"image": datasets.Image(decode=decode), "label": datasets.ClassLabel(names=list(SHAPES))}
    rows = [(packed(picture(kind, seed, 32)), kind) for kind in SHAPES for seed in range(4)]
    return datasets.Dataset.from_dict(
        {"image": [{"bytes": content, "path": None} for content, _ in rows], "label": [kind for _, kind in rows]},
        features=datasets.Features(kinds),
    )


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("kind", [None, "torch"])
def test_a_data_set_of_hugging_face(decode: bool, kind: str | None) -> None:
    """The files as they are, so that each has its own key and depth; and the names of the classes."""
    data = hugging_face(decode).with_format(kind)
    found = labelled_dataset(data, None)
    assert found.classes == SHAPES
    assert found.read(1) == packed(picture(SHAPES[0], 1, 32))
    model = hs.fit(data, **FEW)
    assert list(model.classes_) == sorted(SHAPES)
    with pytest.raises(hs.DataError, match="knows none of the 3 classes of the images, '0' first"):
        model.score(data, data["label"])  # the numbers alone
    assert model.score(data, [SHAPES[number] for number in hugging_face()["label"]]) > 0.8
    np.testing.assert_array_equal(model.predict(data), model.predict(hugging_face()["image"]))


def test_several_by_name_are_the_parts() -> None:
    whole = hugging_face()
    both = datasets.DatasetDict(train=whole.select(range(0, 12, 2)), test=whole.select(range(1, 12, 2)))
    found = labelled_dataset(both, None)
    assert [sample.split for sample in found.samples] == ["train"] * 6 + ["test"] * 6
    assert found.samples[6].name == "test/row 0"
    assert found.read(6) == packed(picture(SHAPES[0], 1, 32))
    model = hs.fit(both, pixels=32, cache=False)
    assert model.record.test == 6
    with pytest.raises(hs.DataError, match="Expected data sets called train, validation and test"):
        labelled_dataset({"a": whole, "b": whole}, None)
    with pytest.raises(hs.UsageError, match="Received several tables: train, test"):
        unlabelled_dataset(both)


def test_what_names_no_images_is_a_sentence() -> None:
    with pytest.raises(
        hs.DataError, match=r"The table has no column for the image.*table\.rename\(columns={'COLUMN': 'file_name'}\)"
    ):
        frame_dataset(pd.DataFrame({"a": [1], "b": [2]}), Columns())
    with pytest.raises(hs.UsageError, match=r"Row 0: expected a path.*Received: 1.5"):
        labelled_dataset(pd.DataFrame({"image": [1.5, 2.5], "label": ["a", "b"]}), None).read(0)
