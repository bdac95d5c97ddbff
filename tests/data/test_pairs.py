"""Images with their labels beside them: pairs, rows and batches of a table, data sets in the way of torchvision."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import headstart as hs
from headstart.data.inputs import labelled_dataset, unlabelled_dataset

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def files(photos: Path) -> list[str]:
    return sorted(map(str, photos.rglob("*.png")))


@pytest.fixture(scope="module")
def kinds(files: list[str]) -> list[str]:
    return [Path(file).parent.name for file in files]


def labels_of(dataset: hs.ImageDataset) -> list[str]:
    return [sample.label for sample in dataset.samples]


def opened(file: str) -> Image.Image:
    return Image.open(io.BytesIO(Path(file).read_bytes()))


PAIRS: dict[str, Callable[[list[str], list[str]], Any]] = {
    "zip": zip,
    "list of pairs": lambda files, kinds: list(zip(files, kinds, strict=True)),
    "items": lambda files, kinds: dict(zip(files, kinds, strict=True)).items(),
    "photos": lambda files, kinds: [(opened(file), kind) for file, kind in zip(files, kinds, strict=True)],
    "columns": lambda files, kinds: {"path": files, "label": kinds},
    "rows": lambda files, kinds: [{"path": a, "label": b} for a, b in zip(files, kinds, strict=True)],
    "rows with photos": lambda files, kinds: [
        {"image": opened(a), "label": b} for a, b in zip(files, kinds, strict=True)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_labels_beside_images_are_their_labels(files: list[str], kinds: list[str], name: str) -> None:
    found = labelled_dataset(PAIRS[name](files, kinds), None)
    assert labels_of(found) == kinds
    if "photos" not in name:
        assert found.read(5) == Path(files[5]).read_bytes()


def test_a_folder_of_torchvision_gives_its_files(photos: Path, files: list[str], kinds: list[str]) -> None:
    torchvision = pytest.importorskip("torchvision")
    whole = torchvision.datasets.ImageFolder(photos)
    found = labelled_dataset(whole, None)
    assert labels_of(found) == kinds
    assert found.read(0) == Path(files[0]).read_bytes()
    part = labelled_dataset(torch.utils.data.Subset(whole, [30, 2]), None)
    assert labels_of(part) == [kinds[30], kinds[2]]
    assert len(unlabelled_dataset(whole)) == len(files)
    with pytest.raises(hs.UsageError, match=r"loader\.dataset"):
        labelled_dataset(torch.utils.data.DataLoader(whole), None)


def test_tensors_with_labels() -> None:
    data = torch.utils.data.TensorDataset(torch.rand(6, 3, 8, 8), torch.arange(6))
    found = labelled_dataset(data, None)
    assert (found.classes, found.label_kind) == (tuple("012345"), "integer")
    assert np.shape(found.read(0)) == (8, 8, 3)


ROWS: dict[str, Callable[[list[str]], Any]] = {
    "a row of a table": lambda files: pd.DataFrame({"label": ["a"] * len(files), "path": files}).iloc[0],
    "a row": lambda files: {"path": files[0], "label": "a"},
    "a row with pixels": lambda files: {"image": np.zeros((96, 96, 3), np.uint8), "label": 1},
    "a row of a data set": lambda files: datasets.Dataset.from_dict({"path": files})[0],
    "as Hugging Face keeps it": lambda files: {"path": files[0], "bytes": Path(files[0]).read_bytes()},
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_its_image(files: list[str], name: str) -> None:
    found = unlabelled_dataset(ROWS[name](files))
    assert len(found) == 1
    given = found.read(0)
    assert given == Path(files[0]).read_bytes() if isinstance(given, bytes) else given.shape == (96, 96, 3)


def test_a_batch_is_its_images(files: list[str]) -> None:
    batch = datasets.Dataset.from_dict({"path": files, "label": [1] * len(files)})[:3]
    assert [sample.name for sample in unlabelled_dataset(batch).samples] == files[:3]


def test_pairs_are_no_images_to_predict_on(files: list[str]) -> None:
    with pytest.raises(hs.UsageError, match=r"Received pairs: give the images alone, \[image for image, _ in pairs\]"):
        unlabelled_dataset([(file, 1) for file in files])


def test_a_stream_is_to_be_read_whole(files: list[str]) -> None:
    stream = datasets.Dataset.from_dict({"path": files, "label": files}).to_iterable_dataset()
    said = r"IterableDataset, which is read once.*Dataset\.from_list\(list\(data\)"
    with pytest.raises(hs.UsageError, match=said):
        labelled_dataset(stream, None)
    with pytest.raises(hs.UsageError, match=said):
        unlabelled_dataset(stream)


def test_a_table_with_one_column_is_that_column(files: list[str], kinds: list[str]) -> None:
    frame = pd.DataFrame({"path": files, "label": kinds})
    assert labels_of(labelled_dataset(frame[["path"]], frame[["label"]])) == kinds


def test_a_table_of_arrow_has_the_names_of_its_classes(files: list[str]) -> None:
    features = datasets.Features({"path": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "dog"])})
    data = datasets.Dataset.from_dict({"path": files, "label": [0, 1] * (len(files) // 2)}, features=features)
    table = pa.table(data.data.table).replace_schema_metadata(features.arrow_schema.metadata)
    assert labelled_dataset(table, None).classes == labelled_dataset(data, None).classes == ("cat", "dog")


# --- patterns ---------------------------------------------------------------------------------------------------------


def test_a_pattern_is_filled_in_and_the_folders_say_the_classes(photos: Path, files: list[str]) -> None:
    found = labelled_dataset(f"{photos}/*/1*.png", None)
    expected = [file for file in files if Path(file).name.startswith("1")]
    assert [str(photos / sample.name) for sample in found.samples] == expected
    assert labels_of(found) == [Path(file).parent.name for file in expected]
    assert found.read(0) == Path(expected[0]).read_bytes()
    assert labelled_dataset(f"{photos}/[bw]*", None).classes == ("bars", "waves")  # folders, with all that is in them


def test_a_pattern_that_matches_no_image(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    with pytest.raises(hs.DataError, match=r"No image matches the pattern '.*/\*/\*'"):
        labelled_dataset(f"{tmp_path}/*/*", None)


def test_a_pattern_with_labels_is_filled_in_first(photos: Path, files: list[str], kinds: list[str]) -> None:
    pattern = f"{photos}/*/*.png"
    assert labels_of(labelled_dataset(pattern, kinds)) == labels_of(labelled_dataset([pattern], kinds)) == kinds
    with pytest.raises(hs.UsageError, match="received 36 paths and 4 labels"):
        labelled_dataset(pattern, kinds[:4])
    with pytest.raises(hs.UsageError, match="No file matches the pattern"):
        labelled_dataset(f"{photos}/*/*.jpg", kinds)
