"""A model of rows is measured, shown and asked like one of photos; what it cannot do is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import headstart as hs
from headstart.data.named_sets import from_sklearn
from headstart.data.rows import open_rows
from headstart.model.tabular_classifier import TabularClassifier
from making import Shell

IRIS = from_sklearn("iris")
NAMES = np.array([str(IRIS.target_names[number]) for number in IRIS.target])


@pytest.fixture(scope="module")
def flowers() -> TabularClassifier:
    return hs.train_rows("iris")


@pytest.fixture(scope="module")
def folder(flowers: TabularClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flowers.save(tmp_path_factory.mktemp("rows") / "model")


@pytest.fixture(scope="module")
def table(flowers: TabularClassifier) -> pd.DataFrame:
    return pd.DataFrame(IRIS.data, columns=list(flowers.columns)).assign(species=NAMES)


def test_rows_are_counted(flowers: TabularClassifier, table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "a.csv", index=False)
    expected = float(np.mean(flowers.predict(IRIS.data) == NAMES))
    assert flowers.score(IRIS.data, NAMES) == expected > 0.9
    assert flowers.score(tmp_path / "a.csv") == flowers.score("iris") == expected
    result = flowers.evaluate("iris")
    assert result.accuracy.images == 150
    assert sum(each.images for each in result.confusions) == round(150 * (1 - expected))


def test_rows_of_other_classes_are_named_and_count_as_wrong_in_the_score(flowers: TabularClassifier) -> None:
    labels = np.where(np.arange(150) < 15, "tulip", NAMES)
    result = flowers.evaluate(IRIS.data, labels)
    assert result.accuracy.images == 135
    assert result.left_out is not None
    assert (len(result.left_out), result.left_out[0].name) == (15, "row 0")
    right = np.mean(flowers.predict(IRIS.data[15:]) == NAMES[15:])
    assert flowers.score(IRIS.data, labels) == pytest.approx(right * 135 / 150)
    with pytest.raises(hs.DataError, match=r"knows none of the labels, 'tulip' first\. It knows: setosa"):
        flowers.evaluate(IRIS.data, ["tulip"] * 150)
    with pytest.raises(hs.UsageError, match="Received: 150 rows, 3 labels"):
        flowers.evaluate(IRIS.data, ["setosa"] * 3)


def test_columns_of_a_table_are_taken_by_name(flowers: TabularClassifier, table: pd.DataFrame) -> None:
    turned = table[["species", *reversed(flowers.columns)]]
    np.testing.assert_array_equal(flowers.predict_proba(turned), flowers.predict_proba(IRIS.data))
    with pytest.raises(hs.UsageError, match="in this order: sepal length"):
        flowers.predict(IRIS.data[:, :2])


@pytest.mark.parametrize("form", ["pandas", "arrow", "datasets"])
def test_a_table_is_rows_with_their_labels(table: pd.DataFrame, form: str) -> None:
    given = {
        "pandas": lambda: table,
        "arrow": lambda: pa.Table.from_pandas(table),
        "datasets": lambda: pytest.importorskip("datasets").Dataset.from_pandas(table),
    }[form]()
    rows = open_rows(given)
    np.testing.assert_array_equal(rows.values, IRIS.data)
    assert (rows.labels, rows.names[7]) == (tuple(NAMES), "row 7")
    with pytest.raises(hs.DataError, match=r"The table has no column 'specis'\. Did you mean species\?"):
        hs.train_rows(given, label="specis")


def test_a_model_learns_from_a_table_and_is_held_against_one(table: pd.DataFrame) -> None:
    numbered = table.assign(species=IRIS.target)
    model = hs.train_rows(numbered, label="species", progress=False)
    assert model.classes_.dtype.kind == "i"
    assert model.columns == tuple(table.columns[:4])
    expected = model.score(IRIS.data, IRIS.target)
    assert expected == model.score(numbered) == model.evaluate(numbered, label="species").accuracy.value > 0.9
    assert model.score(table[list(model.columns)], IRIS.target) == expected
    by_name = hs.train_rows(table.drop(columns="species"), IRIS.target, progress=False)
    assert by_name.columns == model.columns
    np.testing.assert_array_equal(hs.train_rows(table, "species", progress=False).classes_, sorted(set(NAMES)))


def test_a_table_with_a_hole_says_where(table: pd.DataFrame) -> None:
    holed = table.copy()
    holed.loc[3, "petal width (cm)"] = np.nan
    with pytest.raises(hs.DataError, match=r"The table, row 3, column 'petal width \(cm\)': a value is missing"):
        hs.train_rows(holed)
    with pytest.raises(hs.DataError, match=r"The table, row 0: the label is blank"):
        hs.train_rows(table.assign(species=[None, *NAMES[1:]]))


ASKED = [
    ([["a"] * 4], r"Received: a list of 1, 'a' among them\. The columns, in this order: sepal length"),
    ("x.csv", r"No such file or folder: 'x\.csv'"),
    ({"a": 1}, "Received: a dict of 1"),
    (np.zeros((2, 8, 8, 3)), r"Received: shape \(2, 8, 8, 3\)"),
    (IRIS.data[0], r"Received: shape \(4,\)\. Of one row: values\[None\]"),
    ([], r"Received: shape \(0,\)"),
    (None, r"Received: None\."),
    ([[1, 2, 3, np.nan]], r"Row 0, petal width \(cm\): expected a finite number\. Received: nan"),
]


@pytest.mark.parametrize(("rows", "said"), ASKED)
def test_what_is_no_row_is_told_by_what_it_is(flowers: TabularClassifier, rows: object, said: str) -> None:
    with pytest.raises(hs.UsageError, match=said):
        flowers.predict(rows)


def test_a_named_set_is_predicted_on_as_it_is_evaluated(flowers: TabularClassifier, folder: Path, shell: Shell) -> None:
    np.testing.assert_array_equal(flowers.predict("iris"), flowers.predict(IRIS.data))
    assert len(shell("predict", folder, "iris", "--json").out.splitlines()) == 150


def test_the_commands(shell: Shell, folder: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    table.rename(columns={"species": "what"}).to_csv(file, index=False)
    said = shell("evaluate", folder, file, "--label", "what")
    assert said.code == 0
    assert "% of the rows" in said.out
    assert "150 (those that it was trained on count too" in said.out
    assert shell("evaluate", folder, file, "--json").json["images"] == 150
    assert "mlp of numbers: 131 parameters, 112 multiply-adds a row" in shell("show", folder).out
    refused = shell("export", folder, "--to", "onnx", "--out", tmp_path / "a.onnx")
    assert (refused.code, "What works for it: predict, evaluate and show" in refused.err) == (2, True)
    nowhere = shell("evaluate", folder, tmp_path)
    assert (nowhere.code, "is a folder. Expected a CSV file" in nowhere.err) == (2, True)


def test_labels_that_are_numbers_are_compared_as_numbers() -> None:
    model = hs.train_rows(IRIS.data, IRIS.target)
    assert model.score(IRIS.data, IRIS.target) == model.score(IRIS.data, IRIS.target.astype(float)) > 0.9


def test_the_card_says_what_was_measured_and_how(flowers: TabularClassifier, folder: Path, tmp_path: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "150 rows: training set 102, validation set 18, test set 30." in card
    assert "on 30 rows that were held out." in card
    assert "headstart train DATA --hidden 16 --holdout 0.2 --seed 0\n" in card
    in_folds = (hs.train_rows("iris", folds=3).save(tmp_path / "folds") / "README.md").read_text()
    assert "on 150 rows in 3-fold cross-validation." in in_folds
    assert "test set" not in in_folds
    without = (hs.train_rows("iris", holdout=0).save(tmp_path / "all") / "README.md").read_text()
    assert "Not measured: no row was held out." in without
    assert "test set" not in without
