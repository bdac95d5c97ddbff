"""Tables of numbers: what is read of them, what is refused and where, folds, and a model that comes back as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import headstart
from altered_models import config_of, put_config, reseal
from headstart.backbones.families.small import mlp, small_cnn
from headstart.core.errors import CheckError, DataError, HeadstartError, UsageError
from headstart.core.types import ImageSpec
from headstart.data.folds import folds_of
from headstart.data.named_sets import from_sklearn
from headstart.data.rows import Rows, is_rows, open_rows, rows_from_arrays, rows_to_predict
from headstart.model.records import PartCounts, TabularRecord
from headstart.model.stored import is_tabular_model
from headstart.model.tabular_classifier import Scale, TabularClassifier, forward, load_rows
from headstart.train.initialisation import initial_weights
from headstart.train.overfitting_watch import Verdict
from headstart.train.training_run import TrainingRun
from headstart.workflows.train_tables import train_rows
from making import Shell
from referee import slow_forward

FLOWERS = """length,width,species
5.1,3.5,setosa
6.2,2.9,versicolor

"7.0",3.2,versicolor
4.9,3.0,setosa
"""


def table(folder: Path, text: str, name: str = "flowers.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


UNTRAINED = TabularRecord(
    trainer="", recipe={}, rate=0.0, epochs=(), best=-1, stopped="", verdict=Verdict("", ""), moving=0,
    parts=PartCounts(0, 0), temperature=1.0,
)  # fmt: skip


def perceptron(hidden: tuple[int, ...] = (5,)) -> TabularClassifier:
    """One that nobody trained, on columns of which the second did not vary."""
    blueprint = mlp(3, hidden, 2, dropout=0.5)
    values = np.array([[1.0, 7, -2], [3, 7, 4], [2, 7, 1]])
    weights = {name: array + np.float32(0.1) for name, array in initial_weights(blueprint).items()}
    return TabularClassifier(blueprint, weights, Scale.of(values), ("a", "b", "c"), ("no", "yes"), UNTRAINED)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_table_is_read(tmp_path: Path) -> None:
    rows = open_rows(table(tmp_path, FLOWERS))
    assert rows.columns == ("length", "width")
    np.testing.assert_array_equal(rows.values, [[5.1, 3.5], [6.2, 2.9], [7.0, 3.2], [4.9, 3.0]])
    assert rows.labels == ("setosa", "versicolor", "versicolor", "setosa")
    assert rows.classes == ("setosa", "versicolor")
    assert rows.names == tuple(f"{tmp_path / 'flowers.csv'}#{line}" for line in (2, 3, 5, 6))


@pytest.mark.parametrize(
    ("column", "cells", "why"),
    [
        ("", "7 5 9 2", "a column without a name is not used"),  # pandas' index
        ("Unnamed: 0", "7 5 9 2", "the column 'Unnamed: 0' is not used"),
        ("Id", "1 2 3 4", "the column 'Id' is not used: it counts the rows"),
        ("row", "3 0 1 2", "the column 'row' is not used: it counts the rows"),  # of a table that was shuffled
        ("zoo", "5 5 5 5", "the column 'zoo' is not used: it is 5 in every row"),
        ("word", "a a a a", "the column 'word' is not used: it is a in every row"),
        ("age", "1 2 3 5", ""),
        ("grade", "1 2 2 3", ""),
    ],
)
def test_nothing_is_learned_from_a_column_that_counts_or_never_changes(
    column: str, cells: str, why: str, tmp_path: Path
) -> None:
    lines = [f"{cell},{x},{kind}" for cell, x, kind in zip(cells.split(), (0.5, 2.5, 1.5, 3), "abab", strict=True)]
    path = table(tmp_path, f"{column},x,label\n" + "\n".join(lines) + "\n")
    assert is_rows(path)
    rows = open_rows(path)
    assert rows.not_used == ((why,) if why else ())
    assert rows.columns == (("x",) if why else (column, "x"))
    said: list[str] = []
    if why:
        with pytest.raises(DataError, match="Expected 4 at least"):
            train_rows(rows, trainer=TrainingRun(say=said.append))
        assert said == [f"{why[0].upper()}{why[1:]}."]


def test_an_id_of_images_makes_no_table_of_numbers(tmp_path: Path) -> None:
    assert not is_rows(table(tmp_path, "id,breed\n000bec180eb18c76,boxer\n001513dfcb2ffafc,pug\n"))


@pytest.mark.parametrize("header", ["x;y;Class", "x;y;kind"])
def test_the_label_is_the_column_of_that_name_or_the_only_text(header: str, tmp_path: Path) -> None:
    rows = open_rows(table(tmp_path, f"{header}\n1;2;a\n3;4;b\n"))
    assert (rows.columns, rows.labels) == (("x", "y"), ("a", "b"))


def test_the_label_may_be_named_and_may_be_numbers(tmp_path: Path) -> None:
    path = table(tmp_path, "cultivar,x\n1,0.5\n2,0.6\n")
    assert open_rows(path, "Cultivar").labels == ("1", "2")
    with pytest.raises(DataError, match=r"which column holds the labels\?.*none holds text.*label=NAME"):
        open_rows(path)
    with pytest.raises(DataError, match=r"no column 'cultivr'. Did you mean cultivar"):
        open_rows(path, "cultivr")


def test_a_table_may_have_thousands_of_columns(tmp_path: Path) -> None:
    """As of genes: a search of each name among all others would take minutes."""
    names = [f"measured-{number}" for number in range(17_000)]
    lines = [
        ",".join([kind, *(str(number * (row + 2) ** 2 % 7) for number in range(17_000))])
        for row, kind in enumerate("abab")
    ]
    path = table(tmp_path, "\n".join([",".join(["label", *names]), *lines]))
    assert is_rows(path)
    rows = open_rows(path)
    assert len(rows.columns) == 17_000 - 2429
    assert rows.not_used[0] == "the column 'measured-0' is not used: it is 0 in every row"
    assert rows.not_used[-1] == "nor are 2406 more columns"
    assert rows_to_predict(path, rows.columns[::-1]).values.shape == (4, len(rows.columns))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x,label\n1,a\n,b\n", r"/flowers.csv', line 3, column 'x': a value is missing \(''\)"),
        ("x,label\n1,a\nNA,b\n", r"line 3, column 'x': a value is missing \('NA'\)"),
        ("x,label\n1,a\nnan,b\n", r"line 3, column 'x': a value is missing \('nan'\)"),
        ("x,label\n1,a\ninf,b\n", r"line 3, column 'x': expected a number. Received: 'inf'"),
        ("x,label\n1,a\nred,b\n", r"line 3, column 'x': expected a number. Received: 'red'. Write words as numbers"),
        ("x;label\n1;a\n1,5;b\n", r"line 3, column 'x': expected a number with a decimal point. Received: '1,5'"),
        ("x,label\n1,a\n2,\n", "line 3: the label is blank"),
        ("x,label\n1,a\n2\n", "line 3: expected 2 values. Received: 1"),
        ("x,label\n1,a\n2,b,c\n", "line 3: expected 2 values. Received: 3"),
        ("x,label\n5,a\n5,b\n", "no column to learn from: the column 'x' is not used: it is 5 in every row"),
        ("x,label\n1,a\n2,a\n", "expected two classes or more. Received: 2 rows of 'a'"),
        ("x,x,label\n1,1,a\n2,2,b\n", "two columns called 'x'"),
        ("label\na\nb\n", "no column beside the label"),
        ("x,label\n", "has no rows"),
        ("", "has no rows"),
        ("x,y\na,b\nc,d\n", r"which column holds the labels\?.*2 hold text"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_with_its_place(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=complaint):
        open_rows(table(tmp_path, text))


def test_what_is_a_table_of_numbers(tmp_path: Path) -> None:
    assert is_rows("iris")
    assert is_rows(table(tmp_path, FLOWERS))
    assert not is_rows(table(tmp_path, "File_Name,label\na.jpg,cat\n", "photos.csv"))
    assert not is_rows("digits")
    assert not is_rows(tmp_path)
    assert not is_rows(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match=r"No such file or folder: 'irs'. Did you mean iris"):
        open_rows("irs")


def test_columns_are_found_by_name_when_predicting(tmp_path: Path) -> None:
    path = table(tmp_path, "note,width,length\nx,1,2\ny,3,4\n")
    rows = rows_to_predict(path, ("length", "width"))
    np.testing.assert_array_equal(rows.values, [[2, 1], [4, 3]])
    assert rows.labels == ()
    with pytest.raises(DataError, match=r"no column 'lenght', which the model was trained on. Did you mean length"):
        rows_to_predict(path, ("lenght",))


def test_rows_in_memory() -> None:
    rows = rows_from_arrays([[1, 2], [3, 4]], ["a", "b"])
    assert rows.columns == ("column 1", "column 2")
    assert rows.values.dtype == np.float64
    for values, labels, complaint in (
        ([[1, 2]], ["a", "b"], "a label for each row"),
        ([["x", "y"]], ["a"], "Expected numbers"),
        ([[1, 2], [3, np.nan]], ["a", "b"], "Row 1, column 2: expected a finite number"),
        ([[1, 2], [1, 2]], ["a", "b"], "'rows': no column to learn from"),
        ([[1, 2], [3, 4]], ["a", " "], "a blank one"),
    ):
        with pytest.raises(DataError, match=complaint):
            rows_from_arrays(values, labels)
    with pytest.raises(UsageError, match=r"one-hot rows take labels\.argmax"):
        rows_from_arrays([[1, 2], [3, 4]], np.eye(2))
    with pytest.raises(DataError, match="a name for each of 2 columns"):
        rows_from_arrays([[1, 2], [3, 4]], ["a", "b"], ["x"])


def test_a_column_of_an_array_that_never_changes_stays_and_is_said() -> None:
    """The others keep their places: predictions are asked with the same columns."""
    digits = from_sklearn("digits")
    said: list[str] = []
    model = train_rows(digits.data[:400], digits.target[:400], trainer=TrainingRun(say=said.append), progress=False)
    expected = "Column 1, column 17, column 32 and 5 more are the same in every row: nothing is learned from that."
    assert said[0] == expected
    assert float(np.mean(model.predict(digits.data[400:]) == digits.target[400:])) > 0.7


GIVEN: list[tuple[Any, Any, str]] = [
    (None, None, r"labels\. Received: None\.$"),
    (5, None, r"labels\. Received: 5\.$"),
    (([[1, 2]], ["a"]), None, "Received a tuple of two. Give the numbers and the labels as two arguments"),
    (np.zeros((4, 2)), None, r"Received rows without labels \(ndarray of shape \(4, 2\)\)"),
    ({"data": 1, "target": 2}, None, r"give data\['data'\] and data\['target'\]"),
    (["a", "b"], ["a", "b"], r"Received: a list of 2, 'a' among them\."),
    (None, ["a", "b"], r"Received: None\.$"),
    (np.zeros((4, 8, 8)), [0, 1] * 2, r"Received: shape \(4, 8, 8\)\. Of images as rows: values\.reshape"),
    (np.zeros(4), [0, 1] * 2, r"Received: shape \(4,\)\. Of one row: values\[None\]"),
    ([[1, 2], [3]], ["a", "b"], "rows of several lengths"),
]


@pytest.mark.parametrize(("data", "labels", "said"), GIVEN)
def test_what_is_no_table_of_numbers_is_told_by_what_it_is(data: Any, labels: Any, said: str) -> None:
    with pytest.raises(HeadstartError, match=said):
        train_rows(data, labels)


def test_iris_comes_by_name() -> None:
    pytest.importorskip("sklearn")
    rows = open_rows("iris")
    assert rows.values.shape == (150, 4)
    assert [rows.labels.count(name) for name in rows.classes] == [50, 50, 50]


# --- folds ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2), min_size=30, max_size=80), st.integers(2, 4), st.integers(0, 5), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_folds_hold_every_class_alike_and_tear_no_group(
    labels: list[int], count: int, seed: int, together: int
) -> None:
    labels = [0, 1, 2] * 12 + labels
    groups = [place // together for place in range(len(labels))]
    keys = [bytes([place]) for place in range(len(labels))]
    fold = folds_of(labels, keys, groups, count, seed, ("a", "b", "c"))
    assert all(len({int(fold[p]) for p in range(len(labels)) if groups[p] == g}) == 1 for g in set(groups))
    if together == 1:
        for label in range(3):
            sizes = np.bincount(fold[np.array(labels) == label], minlength=count)
            assert sizes.max() - sizes.min() <= 1
    backwards = folds_of(labels[::-1], keys[::-1], groups[::-1], count, seed, ("a", "b", "c"))
    if together == 1:
        np.testing.assert_array_equal(backwards[::-1], fold)  # content decides, not the order of a listing


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(DataError, match=r"folds=3: class 'rare' has only 2 .* Take 2 folds or fewer"):
        folds_of([0, 0, 0, 1, 1], [b"%d" % k for k in range(5)], range(5), 3, 0, ("usual", "rare"))
    with pytest.raises(UsageError, match="2 or more"):
        folds_of([0, 1], [b"a", b"b"], [0, 1], 1, 0, ("a", "b"))


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (5,), (6, 4)])
def test_numpy_computes_what_the_blueprint_says(hidden: tuple[int, ...]) -> None:
    model = perceptron(hidden)
    x = np.random.default_rng(0).standard_normal((4, 3))
    plain = ImageSpec(1, mean=(0, 0, 0), std=(1, 1, 1))
    expected = slow_forward(model.blueprint, dict(model.weights), plain, 255 * x[:, None, None, :])["logits"]
    np.testing.assert_allclose(forward(model.blueprint, model.weights, x), expected, rtol=1e-6, atol=1e-9)


def test_what_is_no_perceptron_is_refused() -> None:
    blueprint = small_cnn(8, 2)
    with pytest.raises(UsageError, match="is no perceptron"):
        forward(blueprint, initial_weights(blueprint), np.zeros((1, 3)))


def test_columns_are_scaled_and_strange_rows_are_unknown() -> None:
    model = perceptron()
    scaled = model.scale(np.array([[1.0, 7, -2], [3, 7, 4], [2, 7, 1]]))
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 0, 1], atol=1e-6)  # a column that did not vary stays finite
    rows = np.array([[1.0, 7, -2], [0.1, 7, -2], [-0.1, 7, -2], [1, 7, 7.1]])  # ranges 1 to 3 and -2 to 4
    assert model.scale.beyond(rows).tolist() == [False, False, True, True]


def test_a_saved_model_says_the_same(tmp_path: Path) -> None:
    model = perceptron()
    where = model.save(tmp_path / "model")
    assert sorted(path.name for path in where.iterdir()) == [
        "README.md", "config.json", "golden.safetensors", "model.safetensors",
    ]  # fmt: skip
    assert is_tabular_model(where)
    x = np.random.default_rng(1).uniform(0, 5, (6, 3))
    with pytest.raises(UsageError, match=r"rows of numbers, not of photos.*hs\.load_rows\(MODEL\)\.predict_file"):
        headstart.load(where)
    again = load_rows(where)
    for name, array in model.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    np.testing.assert_allclose(again.predict_proba(x), model.predict_proba(x), atol=1e-6)  # where arrays lie may round
    np.testing.assert_array_equal(again.scale.beyond(x), model.scale.beyond(x))
    assert (again.columns, again.classes, again.blueprint) == (model.columns, model.classes, model.blueprint)
    np.testing.assert_allclose(again.predict_proba(x).sum(axis=1), 1)
    model.save(where, overwrite=True)
    with pytest.raises(UsageError, match=r"of shape \(rows, 3\)\. Received: shape \(6, 2\)\. .*: a, b, c"):
        again.predict_proba(x[:, :2])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        model.save(tmp_path / "mine")


def test_classes_that_are_numbers_stay_numbers(tmp_path: Path) -> None:
    model = replace(perceptron(), classes=("2", "10"), label_kind="integer")
    where = model.save(tmp_path / "model")
    x = np.random.default_rng(1).uniform(0, 5, (6, 3))
    for each in (model, load_rows(where)):
        assert each.classes_.tolist() == [2, 10]
        assert each.predict(x).dtype == np.int64
    change(where, label_kind="bool")
    with pytest.raises(CheckError, match="kind 'bool'"):
        load_rows(where)


def change(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    put_config(file.parent, config_of(file.parent) | values)


def test_an_altered_model_is_refused(tmp_path: Path) -> None:
    whole = perceptron().save(tmp_path / "whole")

    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    bytes_of = copy("bytes")
    content = bytearray((bytes_of / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (bytes_of / "model.safetensors").write_bytes(content)
    (missing := copy("missing")).joinpath("model.safetensors").unlink()
    change(columns := copy("columns"), columns=["a", "b"])
    change(classes := copy("classes"), id2label={"0": "no"})
    cnn = small_cnn(8, 2)
    change(other := copy("other"), blueprint=cnn.to_json())
    answers = copy("answers")
    arrays = load_file(answers / "model.safetensors")
    arrays["scale.mean"] = arrays["scale.mean"] + 1
    save_file(arrays, answers / "model.safetensors")
    reseal(answers)
    (link := copy("link")).joinpath("model.safetensors").unlink()
    link.joinpath("model.safetensors").symlink_to(whole / "model.safetensors")
    for folder, complaint in (
        (bytes_of, "was altered"),
        (missing, "is missing"),
        (answers, "golden rows get other answers"),
        (columns, "do not fit the network"),
        (classes, "do not fit the network"),
        (other, "model.safetensors"),
        (link, "leads out of the model's folder"),
    ):
        with pytest.raises(HeadstartError, match=complaint) as refused:
            load_rows(folder)
        assert isinstance(refused.value, CheckError | UsageError)
    change(newer := copy("newer"), format=99)
    with pytest.raises(UsageError, match="newer one"):
        load_rows(newer)
    with pytest.raises(UsageError, match="no model"):
        load_rows(tmp_path / "nothing")


def test_predictions_name_the_line(tmp_path: Path, shell: Shell) -> None:
    model = perceptron()
    model.save(tmp_path / "model")
    path = table(tmp_path, "c,b,a\n1,7,2\n1,7,99\n", "new.csv")
    rows = [json.loads(line) for line in shell("predict", tmp_path / "model", path, "--json").out.splitlines()]
    expected = model.predict_proba(np.array([[2.0, 7, 1], [99, 7, 1]]))
    assert [row["path"] for row in rows] == [f"{path}#2", f"{path}#3"]
    assert [row["unknown"] for row in rows] == [False, True]
    np.testing.assert_allclose([row["probability"] for row in rows], expected.max(axis=1))
    assert [row["label"] for row in rows] == [model.classes[k] for k in expected.argmax(axis=1)]
    bad = shell("predict", tmp_path / "model", table(tmp_path, "a,b\n1,2\n", "short.csv"))
    assert bad.code == 3
    assert "no column 'c'" in bad.err


def test_rows_know_their_classes() -> None:
    rows = Rows("x", ("a",), np.zeros((3, 1)), ("b", "a", "b"), ("1", "2", "3"))
    assert rows.classes == ("a", "b")
    assert replace(rows, labels=("c", "c", "c")).classes == ("c",)
