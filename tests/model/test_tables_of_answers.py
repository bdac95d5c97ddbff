"""Tables of answers: what is written is what is read back, in both formats, and whole or not there."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.core.errors import UsageError
from headstart.model import answers as module
from headstart.model.answers import Answer, write_answers
from making import SHAPES, Shell

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra data) is not installed")

CLASSES = ("ape", "bat", "cat")


def some(count: int, classes: int = 3) -> list[Answer]:
    chances = np.random.default_rng(0).dirichlet(np.ones(classes), count)
    return [Answer(f"{row}.jpg", each, row % 5 == 0) for row, each in enumerate(chances)]


def as_text(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{name: str(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("top", [1, 2, 9])
def test_parquet_has_what_csv_has(tmp_path: Path, top: int, every: bool) -> None:
    for name in ("a.csv", "a.parquet"):
        write_answers(iter(some(30)), CLASSES, tmp_path / name, top=top, every=every)
    found = pq.read_table(tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as opened:
        assert as_text(found.to_pylist()) == list(csv.DictReader(opened))
    assert len(found) == 30
    others = [f"{word}_{k}" for k in range(2, min(top, 3) + 1) for word in ("label", "probability")]
    assert found.column_names == ["path", "label", "probability", "unknown", *others, *(CLASSES if every else ())]
    kinds = dict(zip(found.column_names, map(str, found.schema.types), strict=True))
    assert {kinds[name] for name in found.column_names if name.startswith(("path", "label"))} == {"string"}
    assert {kinds[name] for name in found.column_names if name.startswith("probability") or name in CLASSES} == {
        "double"
    }
    assert kinds["unknown"] == "bool"


def test_groups_of_rows_are_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a further group is asked for, the one before is no longer held."""
    monkeypatch.setattr(module, "CELLS", 70)  # ten rows of seven columns
    held: list[int] = []
    file = tmp_path / "a.parquet"

    def watched() -> Iterator[Answer]:
        for row, each in enumerate(some(95)):
            if row and row % 10 == 0:
                (made,) = tmp_path.glob(".headstart-*/a.parquet")
                held.append(made.stat().st_size)
            yield each

    write_answers(watched(), CLASSES, file, every=True)
    meta = pq.ParquetFile(file).metadata
    assert [meta.row_group(k).num_rows for k in range(meta.num_row_groups)] == [10] * 9 + [5]
    assert held == sorted(set(held))  # each group is on disk when the next begins
    assert pq.read_table(file)["path"].to_pylist() == [f"{row}.jpg" for row in range(95)]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_is_whole_or_not_there(tmp_path: Path, name: str) -> None:
    def broken() -> Iterator[Answer]:
        yield from some(5)
        raise KeyboardInterrupt

    for before in (None, b"of before"):
        if before:
            (tmp_path / name).write_bytes(before)
        with pytest.raises(KeyboardInterrupt):
            write_answers(broken(), CLASSES, tmp_path / name)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="cannot be written"):
        write_answers(some(1), CLASSES, tmp_path / "file" / name)


def test_no_answers_are_a_table_without_rows(tmp_path: Path) -> None:
    write_answers([], CLASSES, tmp_path / "a.parquet", every=True)
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["path", "label", "probability", "unknown", *CLASSES]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_class_or_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    """A class may be called as another column, and the name of a file may be no text."""
    strange = Answer("caf\udce9.jpg", np.array([0.25, 0.75]), False)
    write_answers([strange], ("label", "päth, 2"), tmp_path / name, every=True)
    if name == "a.csv":
        with (tmp_path / name).open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    else:
        rows = as_text(pq.read_table(tmp_path / name).to_pylist())
    assert rows == [
        {
            "path": "caf\\udce9.jpg", "label": "päth, 2", "probability": "0.75", "unknown": "False",
            "probability of label": "0.25", "päth, 2": "0.75",
        }
    ]  # fmt: skip


def test_the_command_writes_parquet_too(shell: Shell, bundle: Path, photos: Path, tmp_path: Path) -> None:
    file, model = tmp_path / "new" / "answers.PARQUET", hs.load(bundle)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    given = ("predict", bundle, photos, tmp_path / "broken.jpg", "--out", file, "--top", 2, "--all-probabilities")
    done = shell(*given)
    assert (done.code, "broken.jpg" in done.err) == (3, True)
    assert f"wrote          {file}" in done.out
    found = pq.read_table(file).to_pydict()
    assert [*found] == ["path", "label", "probability", "unknown", "error", "label_2", "probability_2", *SHAPES]
    last = {name: values.pop() for name, values in found.items()}
    assert last["error"].startswith("unreadable: it is text")
    assert (last["path"], last["label"], last["waves"], last["unknown"]) == (
        str(tmp_path / "broken.jpg"),
        None,
        None,
        False,
    )
    assert found["error"] == [None] * 36
    assert found["label"] == model.predict(found["path"]).tolist()
    chances = np.stack([found[name] for name in SHAPES], axis=1)
    np.testing.assert_allclose(chances, model.predict_proba(found["path"]))
    refused = shell(*given)
    assert (refused.code, "exists already" in refused.err) == (2, True)


def test_without_pyarrow_it_is_said_first(
    shell: Shell, bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = shell("predict", bundle, photos, "--out", tmp_path / "a.parquet")
    assert done.code != 0
    assert "Writing Parquet files needs pyarrow" in done.err
    assert "headstart[data]" in done.err
    assert not (tmp_path / "a.parquet").exists()
    assert shell("predict", bundle, photos / "bars", "--out", tmp_path / "a.csv").code == 0
