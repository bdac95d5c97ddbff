"""The estimator of scikit-learn: its conventions, and its tools on photos."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.calibration import CalibrationDisplay
from sklearn.exceptions import NotFittedError
from sklearn.metrics import ConfusionMatrixDisplay, log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import SkipTestWarning, check_estimator, estimator_checks_generator
from sklearn.utils.validation import validate_data

import headstart as hs
from headstart.learn.features import Features
from headstart.sklearn import HeadstartClassifier
from headstart.workflows.backbone_features import FrozenBackbone
from making import SHAPES, picture

SIZE = 32


class OfRows(HeadstartClassifier):
    """The estimator on rows of numbers, each drawn as a picture: scikit-learn's own checks have no photos."""

    def fit(self, X: Any, y: Any) -> OfRows:
        X, y = validate_data(self, X, y, dtype="float64")
        super().fit(drawn(X), y)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        self._asked()
        return super().predict(drawn(validate_data(self, X, dtype="float64", reset=False)))

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        self._asked()
        return super().predict_proba(drawn(validate_data(self, X, dtype="float64", reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        return tags


def drawn(rows: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Bars (N, SIZE, SIZE, 3): a row's numbers as their brightness, in the lower half what is finer than that shows."""
    levels = np.stack([255 / (1 + np.exp(-rows / 2)), np.abs(rows) * 50 % 256], axis=1).astype(np.uint8)
    columns = np.repeat(levels, -(-SIZE // rows.shape[1]), axis=2)[:, :, :SIZE]
    return np.repeat(np.repeat(columns, SIZE // 2, axis=1)[..., None], 3, axis=3)


CHECKS = {
    check.func.__name__: (estimator, check)
    for estimator, check in estimator_checks_generator(OfRows(pixels=SIZE, precision="fp32", cache=False))
}


@pytest.mark.parametrize("name", [*CHECKS])
def test_the_conventions(name: str) -> None:
    estimator, check = CHECKS[name]
    check(estimator)


def test_scikit_learn_passes_over_what_takes_no_rows_of_numbers() -> None:
    with pytest.warns(SkipTestWarning, match="Can't test estimator HeadstartClassifier"):
        check_estimator(HeadstartClassifier())


FAST = HeadstartClassifier(pixels=SIZE, precision="fp32")


@pytest.fixture(scope="module")
def files(photos: Path) -> NDArray[np.str_]:
    return np.array(sorted(map(str, photos.rglob("*.png"))))


@pytest.fixture(scope="module")
def names(files: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.array([Path(file).parent.name for file in files])


def test_it_is_what_fit_makes(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    found = clone(FAST).fit(files, names)
    expected = hs.fit(files, names, pixels=SIZE, precision="fp32", holdout=0)
    np.testing.assert_array_equal(found.predict_proba(files), expected.predict_proba(files))
    np.testing.assert_array_equal(found.predict(files), expected.predict(files))
    assert found.score(files, names) == np.mean(expected.predict(files) == names)
    assert isinstance(found.classifier_, hs.Classifier)


def test_whole_numbers_stay_whole_numbers(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    numbers = np.unique(names, return_inverse=True)[1] * 10
    found = clone(FAST).fit(list(files), numbers)
    assert (found.classes_.dtype.kind, list(found.classes_)) == ("i", [0, 10, 20])
    assert found.predict(files).dtype.kind == "i"
    assert found.score(files, numbers) > 0.9


def test_cross_validation_computes_features_once(
    files: NDArray[np.str_], names: NDArray[np.str_], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    features = FrozenBackbone.features

    def counting(self: FrozenBackbone, *args: Any, **kwargs: Any) -> Features:
        found = features(self, *args, **kwargs)
        computed.append(found.computed)
        return found

    monkeypatch.setattr(FrozenBackbone, "features", counting)
    scores = cross_val_score(FAST, files, names, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.8
    assert sum(computed) == len(files)  # each fold trains on two thirds; the third fit meets nothing new
    assert computed[2] == 0


def test_probabilities_of_a_cross_validation(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    chances = cross_val_predict(FAST, files, names, cv=3, method="predict_proba")
    assert chances.shape == (len(files), 3)
    assert log_loss(names, chances) < 1


def test_groups_stay_together(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    scores = cross_val_score(FAST, files, names, groups=np.arange(len(files)) // 2, cv=GroupKFold(2))
    assert scores.shape == (2,)


def test_a_search_over_settings(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    search = GridSearchCV(FAST, {"pixels": [SIZE, 48], "head": ["lda", "ridge"]}, cv=2).fit(files, names)
    assert set(search.best_params_) == {"pixels", "head"}
    assert search.best_estimator_.classifier_.spec.size == search.best_params_["pixels"]
    assert search.score(files, names) > 0.9


def test_other_processes(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    scores = cross_val_score(FAST, files, names, cv=2, n_jobs=2)
    np.testing.assert_array_equal(scores, cross_val_score(FAST, files, names, cv=2))


def test_the_last_step_of_a_pipeline(files: NDArray[np.str_], names: NDArray[np.str_], photos: Path) -> None:
    """Which may make paths of names, open files, or crop."""
    short = [str(Path(file).relative_to(photos)) for file in files]
    steps = make_pipeline(FunctionTransformer(lambda names: [photos / name for name in names]), clone(FAST))
    assert steps.fit(short, names).score(short, names) > 0.9
    assert cross_val_score(steps, short, names, cv=2).shape == (2,)


def test_the_displays_take_it(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    found = clone(FAST).fit(files, names)
    display = ConfusionMatrixDisplay.from_estimator(found, files, names)
    assert display.confusion_matrix.sum() == len(files)
    two = clone(FAST).fit(files, names == "bars")
    assert CalibrationDisplay.from_estimator(two, files, names == "bars").y_prob.shape == (len(files),)


def test_arrays_and_pictures_are_images_too(names: NDArray[np.str_]) -> None:
    images = np.stack([picture(kind, seed, SIZE) for kind in SHAPES for seed in range(6)])
    labels = np.repeat(SHAPES, 6)
    assert cross_val_score(HeadstartClassifier(pixels=SIZE, cache=False), images, labels, cv=2).mean() > 0.5


def test_it_is_kept_by_pickle_and_shown_with_its_settings(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    found = clone(FAST).fit(files, names)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict_proba(files), found.predict_proba(files))
    assert "pixels=32" in repr(found)


def test_logarithms_of_probabilities(files: NDArray[np.str_], names: NDArray[np.str_]) -> None:
    found = clone(FAST).fit(files, names)
    np.testing.assert_allclose(np.exp(found.predict_log_proba(files)), found.predict_proba(files))
    found.classifier_.predict_proba = lambda images: np.array([[0.0, 1.0, 0.0]])
    assert np.isfinite(found.predict_log_proba(files)).all()
    assert cross_val_score(clone(FAST), files, names == "bars", cv=2, scoring="roc_auc").min() > 0.9


def test_before_fit_it_says_so() -> None:
    for ask in (FAST.predict, FAST.predict_proba, FAST.predict_log_proba):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            ask(["a.jpg"])


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (["nowhere.jpg"] * 4, [0, 0, 1, 1], "two readable images each"),
        ([np.zeros((8, 8, 3), np.uint8)] * 4, [0, 0, 1], "4 images and 3 labels"),
        (np.zeros((4, 5)), [0, 0, 1, 1], r"received shape \(5,\)"),
        ([np.zeros((8, 8, 3), np.uint8)] * 4, np.eye(4), "one-hot"),
    ],
)
def test_what_cannot_be_fitted_is_a_value_error(images: Any, labels: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        clone(FAST).fit(images, labels)


def test_a_random_state_of_numpy_is_drawn_from() -> None:
    images = [picture(kind, seed, SIZE) for kind in SHAPES for seed in range(3)]
    labels = np.repeat(SHAPES, 3)
    seeds = {
        clone(FAST).set_params(random_state=state, cache=False).fit(images, labels).classifier_.record.seed
        for state in (None, 7, np.int64(8), np.random.RandomState(3), np.random.RandomState(3))
    }
    assert {0, 7, 8} < seeds
    assert len(seeds) == 4


def test_without_scikit_learn_the_sentence_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in [name for name in sys.modules if name.startswith("sklearn.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "headstart.sklearn")
    with pytest.raises(hs.MissingExtraError, match="needs scikit-learn"):
        importlib.import_module("headstart.sklearn")
