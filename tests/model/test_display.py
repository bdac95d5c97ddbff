"""What `print` and a notebook show of the objects that people hold, and that those can be compared, copied, sent."""

from __future__ import annotations

import ast
import copy
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.model.tabular_classifier import TabularClassifier
from making import SHAPES, folder, picture

SOURCE = Path(hs.__file__).parent
ARRAYS = {"NDArray", "Array", "Arrays", "Matrix", "Weights"}


@pytest.fixture(scope="module")
def model(bundle: Path) -> hs.Classifier:
    return hs.load(bundle)


@pytest.fixture(scope="module")
def rows() -> TabularClassifier:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(60, 3)), np.repeat([0, 1], 30)
    values[labels == 1] += 3
    return hs.train_rows(values, labels)


def test_a_model_is_one_line(model: hs.Classifier) -> None:
    line = repr(model)
    assert line == str(model)
    assert line.startswith("<Classifier: 3 classes (bars, ")
    for part in ("efficientnet_lite0 at 64 pixels", "accuracy ", " images>"):
        assert part in line
    assert "\n" not in line
    assert len(line) < 200


def test_a_model_of_rows_is_one_line(rows: TabularClassifier) -> None:
    assert repr(rows).startswith("<TabularClassifier: 2 classes (0, 1); 3 columns; accuracy ")
    assert "<td" in rows._repr_html_()


def test_a_network_alone_has_not_been_measured() -> None:
    line = repr(hs.pretrained("efficientnet_lite0", pixels=64))
    assert "1000 classes (tench, goldfish, great white shark, tiger shark, …)" in line
    assert line.endswith("accuracy not measured>")


def test_a_notebook_gets_a_card(model: hs.Classifier) -> None:
    card = model._repr_html_()
    assert card.startswith("<table")
    assert card.count("<tr>") == 4
    assert len(card) < 2000


def test_class_names_do_nothing_to_a_page_or_a_terminal() -> None:
    nasty = ("<script>alert(1)</script>", "\x1b[31mred", "long " * 60)
    images = [picture(kind, seed, 32) for kind in SHAPES for seed in range(4)]
    model = hs.fit(images, [name for name in nasty for _ in range(4)], pixels=32, holdout=0, cache=False)
    assert "<script>" not in model._repr_html_()
    assert "\x1b" not in repr(model)
    assert len(repr(model)) < 250


def test_what_holds_many_images_is_one_line(tmp_path: Path) -> None:
    many = folder(tmp_path / "many", 3)
    (many / "bars" / "empty.png").write_bytes(b"")
    for thing, says in (
        (hs.open_source(str(many)), "images; 3 classes (bars, "),
        (hs.check(str(many)), "10 images; 3 classes (bars, "),
    ):
        assert says in repr(thing)
        assert len(repr(thing)) < 300


def test_an_evaluation_is_one_line(model: hs.Classifier, photos: Path) -> None:
    found = model.evaluate(photos, fitted_on_too=True)
    assert repr(found).startswith("<Evaluation: accuracy ")
    assert "calibration error" in repr(found)
    assert len(repr(found)) < 200


def test_what_a_model_has_is_one_line(model: hs.Classifier, rows: TabularClassifier, tmp_path: Path) -> None:
    exported = model.export("openvino", tmp_path / "there")
    for thing, says in (
        (model.record, "<FitRecord: efficientnet_lite0 at 64 pixels; 36 images; accuracy "),
        (rows.record, "<TabularRecord: 60 rows; 60 epochs; accuracy "),
        (model.unknown, "<Unknown: 30 training photos kept to compare with; threshold "),
        (exported, f"<Exported: openvino; {tmp_path}"),
    ):
        assert repr(thing).startswith(says)
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 400


def test_results_are_cards_in_a_notebook(model: hs.Classifier, photos: Path, tmp_path: Path) -> None:
    twice = folder(tmp_path / "twice", 3)
    (twice / "bars" / "<again>.png").write_bytes((twice / "bars" / "0.png").read_bytes())
    health = hs.check(twice, progress=False)
    assert "1 image repeated (bars/0.png = bars/<again>.png)" in repr(health)
    assert "bars/&lt;again&gt;.png" in health._repr_html_()
    assert "calibration error" in model.evaluate(photos, fitted_on_too=True)._repr_html_()
    compared = hs.compare(photos, backbones="efficientnet_lite0", pixels=[32, 48], progress=False)._repr_html_()
    assert compared.count("<tr>") == 3
    assert compared.count("← chosen") == 1
    assert compared.count("LogME") == 1
    assert "efficientnet_lite0 at 48 px" in compared


def test_models_are_compared_and_put_into_sets(model: hs.Classifier, rows: TabularClassifier, bundle: Path) -> None:
    """A model is itself alone, as scikit-learn's estimators are."""
    assert model == model
    assert model != hs.load(bundle)
    assert {model, model, rows} == {model, rows}


def test_no_record_with_arrays_compares_them() -> None:
    """`==` of two arrays is no answer, so such a dataclass is compared by identity: of all of them, not of some."""
    found = 0
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            made = [each for each in node.decorator_list if "dataclass" in ast.unparse(each)]
            names = {
                each.id
                for field in node.body if isinstance(field, ast.AnnAssign)
                for each in ast.walk(field.annotation) if isinstance(each, ast.Name)
            }  # fmt: skip
            if made and names & ARRAYS:
                found += 1
                assert "eq=False" in ast.unparse(made[0]), f"{file.name}: {node.name}"
    assert found > 20


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_copy_answers_alike_and_shares_nothing(copied: object, model: hs.Classifier, photos: Path) -> None:
    other = copied(model)  # type: ignore[operator]
    assert repr(other) == repr(model)
    np.testing.assert_array_equal(other.predict_proba(photos), model.predict_proba(photos))
    assert not any(np.shares_memory(other.weights[name], model.weights[name]) for name in model.weights)
    assert (other.engine, other.network.precision) == (model.engine, model.network.precision)


def _answer(given: tuple[hs.Classifier, str]) -> list[str]:
    model, photo = given
    return list(model.predict(photo))


def test_other_processes_take_a_model(model: hs.Classifier, photos: Path) -> None:
    files = sorted(map(str, photos.rglob("*.png")))[:2]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_answer, [(model, file) for file in files]) == [list(model.predict(file)) for file in files]


def test_a_copy_of_a_model_of_rows_answers_alike(rows: TabularClassifier) -> None:
    values = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows)).predict_proba(values), rows.predict_proba(values))
