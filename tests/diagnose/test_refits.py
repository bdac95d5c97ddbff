"""Heads of parts of a training set: those of `fit_head` where nothing of the features is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from head_data import PATHS, Array, close, photos, relative
from headstart.diagnose import refits as module
from headstart.diagnose.refits import Refits, Sums
from headstart.learn import regularisation_path
from headstart.learn.heads import HeadFit, fit_head
from headstart.learn.regularisation_path import Design, Labels

pytestmark = pytest.mark.usefixtures("half_of_the_cores")

SHAPES = {  # images of each class, features
    "few rows": ((12, 20, 9), 60),
    "few features": ((40, 60, 30), 25),
    "two features": ((5, 7, 6), 2),
    "rows as features": ((10, 12, 8), 30),
    "many rows": ((300, 250, 200), 80),
}


def refitted(
    x: Array, labels: Labels, *, kind: str = "lda", prior: str = "flat", sqrt: bool = False
) -> tuple[Refits, HeadFit, NDArray[np.float32]]:
    """With the features that were fitted on."""
    features = (x - x.min() if sqrt else x).astype(np.float32)
    classes = int(labels.max()) + 1
    fit = fit_head(features, labels, classes, kind=kind, prior=prior, sqrt=sqrt)
    return Refits(Design(features, sqrt=sqrt), labels, classes, fit), fit, features


def everything(refits: Refits) -> Sums:
    return refits.sums(np.arange(len(refits.labels)))


@pytest.mark.parametrize("kind", ["lda", "ridge"])
@pytest.mark.parametrize("prior", ["flat", "empirical"])
@pytest.mark.parametrize("sqrt", [False, True], ids=["plain", "sqrt"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_head_of_all_rows_is_that_of_fit_head(
    kind: str, prior: str, sqrt: bool, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST", 0.0)
    counts, width = SHAPES[shape]
    refits, fit, features = refitted(*photos(counts, width, apart=0.6), kind=kind, prior=prior, sqrt=sqrt)
    expected = relative(fit.head.logits(features))
    close(relative(refits.head(everything(refits)).logits(refits.z)), expected, 2e-3)


def test_every_direction_is_kept_where_there_are_few() -> None:
    for shape, kept in (("few rows", 40), ("few features", 25), ("two features", 2), ("many rows", 80)):
        counts, width = SHAPES[shape]
        refits, _, features = refitted(*photos(counts, width))
        assert refits.z.shape == (sum(counts), kept)
        centred = features - features.mean(axis=0)
        np.testing.assert_allclose(refits.z @ refits.z[:9].T, centred @ centred[:9].T, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("shape", ["few rows", "many rows"])
def test_the_first_directions_have_the_largest_variance(shape: str) -> None:
    """So that some of them are the best part of the features."""
    counts, width = SHAPES[shape]
    refits, _, _ = refitted(*photos(counts, width))
    variance = refits.z.var(axis=0)
    tenth = len(variance) // 10
    assert variance[:tenth].mean() > 3 * variance[-tenth:].mean()
    assert variance[:tenth].sum() > 2 * variance.sum() / 10


def test_between_few_and_plenty_the_subspace_is_of_some_rows() -> None:
    x, labels = photos((150, 150, 150), 400)
    refits, fit, features = refitted(x, labels)
    assert refits.z.shape == (450, 255)  # of 256 rows, from their centre
    answers = refits.head(everything(refits)).logits(refits.z).argmax(axis=1)
    assert (answers == fit.head.logits(features).argmax(axis=1)).mean() > 0.97


def test_with_plenty_of_rows_every_direction_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NARROW", 8)
    monkeypatch.setattr(module, "WIDE", 16)
    assert refitted(*photos((50, 60, 50), 20))[0].z.shape[1] == 15  # 8 rows for each feature: not yet plenty
    x, labels = photos((51, 60, 50), 20, apart=0.6)
    refits, fit, features = refitted(x, labels)
    assert refits.z.shape[1] == 20
    close(relative(refits.head(everything(refits)).logits(refits.z)), relative(fit.head.logits(features)), 2e-3)


def test_other_rows_are_projected_as_the_training_rows() -> None:
    for counts, width in SHAPES.values():
        refits, _, features = refitted(*photos(counts, width))
        np.testing.assert_allclose(refits.project(Design(features)), refits.z, atol=1e-5)
        some = np.array([3, 1, 11])
        np.testing.assert_allclose(refits.project(Design(features, some)), refits.z[some], atol=1e-5)
        assert refits.project(Design(features, some[:0])).shape == (0, refits.z.shape[1])


def test_sums_of_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    refits, _, _ = refitted(*photos((12, 20, 9), 15))
    parts = np.split(np.random.default_rng(0).permutation(41), [5, 20])
    added, whole = refits.sums(parts[2], onto=refits.sums(parts[1], onto=refits.sums(parts[0]))), everything(refits)
    assert added.counts.tolist() == whole.counts.tolist() == [12, 20, 9]
    close(added.sums, whole.sums, 1e-4)
    close(added.gram, whole.gram, 1e-5)
    monkeypatch.setattr(module, "SUMMED", 7)
    weights = np.arange(41) % 3
    few = refits.sums(np.arange(41), weights)
    monkeypatch.undo()
    close(few.gram, refits.sums(np.arange(41), weights).gram, 1e-5)


def test_the_error_is_the_share_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = photos((120, 200, 90), 15, apart=0.1)
    refits, _, _ = refitted(x, labels)
    head, rows = refits.head(everything(refits)), np.arange(0, 410, 3)
    wrong = (head.logits(refits.z[rows]).argmax(axis=1) != labels[rows]).mean()
    assert 0 < wrong < 1
    for size in (512, 16):
        monkeypatch.setattr(regularisation_path, "BLOCK", size)
        assert refits.error(head, rows) == pytest.approx(wrong)


@pytest.mark.parametrize("kind", ["lda", "ridge"])
def test_a_weight_is_as_many_rows(kind: str) -> None:
    refits, _, _ = refitted(*photos((12, 20, 9), 15), kind=kind)
    rows, weights = np.arange(0, 41, 2), np.random.default_rng(1).integers(1, 4, 21)
    weighted, repeated = refits.sums(rows, weights), refits.sums(np.repeat(rows, weights))
    assert weighted.counts.tolist() == repeated.counts.tolist()
    close(weighted.sums, repeated.sums, 1e-4)
    close(weighted.gram, repeated.gram, 1e-4)
    close(refits.head(weighted).logits(refits.z), refits.head(repeated).logits(refits.z), 1e-3)


def test_labels_and_width_in_place_of_their_own() -> None:
    refits, _, _ = refitted(*photos((12, 20, 9), 15))
    rows = np.arange(0, 41, 3)
    turned = (refits.labels[rows] + 1) % 3
    narrow = refits.sums(rows, labels=turned, width=4)
    z = refits.z[rows, :4].astype(float)
    close(narrow.sums, np.stack([z[turned == k].sum(axis=0) for k in range(3)]), 1e-4)
    close(narrow.gram, z.T @ z, 1e-4)


@pytest.mark.parametrize("kind", ["lda", "ridge"])
def test_a_class_without_rows_gets_no_answer(kind: str) -> None:
    refits, _, _ = refitted(*photos((12, 20, 9), 15), kind=kind)
    head = refits.head(refits.sums(np.flatnonzero(refits.labels != 1)))
    logits = head.logits(refits.z)
    assert np.isneginf(logits[:, 1]).all()
    assert np.isfinite(logits[:, [0, 2]]).all()
    assert {*logits.argmax(axis=1).tolist()} == {0, 2}


def test_parts_are_not_fitted_with_the_little_regularisation_of_many_rows() -> None:
    x, labels = photos((40, 60, 30), 25, apart=0.6)
    _, fit, features = refitted(x, labels)
    refits = Refits(Design(features), labels, 3, replace(fit, strength=module.LEAST / 10))
    least, less = refits.along(everything(refits), [module.LEAST, module.LEAST / 10])
    used = refits.head(everything(refits)).logits(refits.z)
    close(used, least.logits(refits.z), 1e-5)
    assert np.abs(used - less.logits(refits.z)).max() > 1e-4 * np.abs(used).max()


@pytest.mark.parametrize("kind", ["lda", "ridge"])
def test_another_strength_is_on_the_scale_of_the_fit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 0.0)
    x, labels = photos((40, 60, 30), 25, apart=0.6)
    refits, fit, features = refitted(x, labels, kind=kind)
    weight, bias = PATHS[kind](Design(features), labels, 3).solve(7.0)
    expected = relative(features @ weight.T + bias) / fit.temperature
    again, other = refits.along(everything(refits), [fit.strength, 7.0])
    close(relative(other.logits(refits.z)), expected, 2e-3)
    close(again.logits(refits.z), refits.head(everything(refits)).logits(refits.z), 1e-5)
