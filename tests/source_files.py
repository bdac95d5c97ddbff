"""Data sets made for tests: folders, CSV, Parquet and IDX files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart.core.types import ImageDataset

pa = pytest.importorskip("pyarrow")


pq = pytest.importorskip("pyarrow.parquet")


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


def contents(dataset: ImageDataset) -> list[Any]:
    return [dataset.read(index) for index in range(len(dataset))]


def names(dataset: ImageDataset) -> list[str]:
    return [sample.name for sample in dataset.samples]


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
