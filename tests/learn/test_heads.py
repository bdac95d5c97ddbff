"""Heads: leave-one-out scores and solutions against plain computations and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from head_data import PATHS, Array, close, everyone, photos, plain_lda, relative
from headstart.learn import regularisation_path as paths
from headstart.learn.calibrate import softmax
from headstart.learn.heads import HEADS, STRENGTHS, fit_head
from headstart.learn.regularisation_path import (
    Design,
    Labels,
    LdaRegularisationPath,
    RegularisationPath,
    RidgeRegularisationPath,
)

SOME = STRENGTHS[::5]  # the weakest, the strongest and two between


SHAPES = {  # images of each class, features
    "two classes, more rows": ((9, 14), 5),
    "two classes, fewer rows": ((6, 9), 40),
    "a pair beside many": ((2, 17), 7),
    "five unequal classes": ((2, 11, 3, 8, 5), 6),
    "five unequal classes, fewer rows": ((2, 11, 3, 8, 5), 90),
    "pairs only": ((2, 2, 2), 30),
    "one row more than features": ((6, 7), 12),
    "rows as features": ((6, 7), 13),
    "one row fewer than features": ((6, 7), 14),
}


def plain_ridge(x: Array, labels: Labels, classes: int, a: float, freedom: float, query: Array) -> Array:
    targets = np.eye(classes)[labels]
    centre, base = x.mean(axis=0), targets.mean(axis=0)
    weight = np.linalg.solve((x - centre).T @ (x - centre) + a * np.eye(x.shape[1]), (x - centre).T @ (targets - base))
    scores: Array = (query - centre) @ weight + base
    return scores


PLAIN: dict[str, Any] = {"lda": plain_lda, "ridge": plain_ridge}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_leave_one_out_equals_refits(kind: str, shape: str) -> None:
    counts, width = SHAPES[shape]
    x, labels = photos(counts, width)
    path: RegularisationPath = PATHS[kind](Design(x), labels, len(counts))
    freedom = max(len(x) - len(counts), 1)
    got = path.left_out(everyone(labels), SOME)
    assert got.shape == (len(SOME), len(x), len(counts))
    for scores, strength in zip(got, SOME, strict=True):
        a = strength * path.scale
        for row in range(len(x)):
            rest = np.delete(everyone(labels), row)
            refit = PLAIN[kind](x[rest], labels[rest], len(counts), a, freedom, x[row : row + 1])[0]
            close(scores[row], refit)


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_solved_heads_score_as_plain_ones(kind: str, shape: str) -> None:
    counts, width = SHAPES[shape]
    x, labels = photos(counts, width)
    path: RegularisationPath = PATHS[kind](Design(x), labels, len(counts))
    freedom = max(len(x) - len(counts), 1)
    query = np.random.default_rng(5).normal(3, 2, (20, width))  # also outside the span of the rows
    for strength in SOME:
        weight, bias = path.solve(float(strength))
        plain = PLAIN[kind](x, labels, len(counts), strength * path.scale, freedom, query)
        close(relative(query @ weight.T + bias), relative(plain))


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(sorted(PATHS)),
    counts=st.lists(st.integers(2, 9), min_size=2, max_size=6).map(tuple),
    width=st.integers(1, 30),
    seed=st.integers(0, 10**6),
)
def test_leave_one_out_equals_refits_whatever_the_shape(
    kind: str, counts: tuple[int, ...], width: int, seed: int
) -> None:
    x, labels = photos(counts, width, seed)
    path: RegularisationPath = PATHS[kind](Design(x), labels, len(counts))
    row = seed % len(x)
    rest = np.delete(everyone(labels), row)
    got = path.left_out(np.array([row]), np.array([0.1]))[0]
    freedom = max(len(x) - len(counts), 1)
    close(got, PLAIN[kind](x[rest], labels[rest], len(counts), 0.1 * path.scale, freedom, x[row : row + 1]))


@pytest.mark.parametrize("kind", PATHS)
def test_features_that_say_nothing_change_nothing(kind: str) -> None:
    """Columns of zeros turn the one form into the other: more rows than features into fewer."""
    x, labels = photos((8, 5, 9), 10)
    padded = np.hstack([x, np.zeros((len(x), 30))])
    tall, wide = PATHS[kind](Design(x), labels, 3), PATHS[kind](Design(padded), labels, 3)
    assert wide.scale * 40 == pytest.approx(tall.scale * 10)
    close(tall.left_out(everyone(labels), SOME), wide.left_out(everyone(labels), SOME * 4), 1e-8)
    for strength in SOME.tolist():
        (weight, bias), (padded_weight, padded_bias) = tall.solve(strength), wide.solve(strength * 4)
        close(padded_weight[:, :10], weight, 1e-8)
        close(padded_bias, bias, 1e-8)
        assert np.abs(padded_weight[:, 10:]).max() < 1e-9 * np.abs(weight).max()


@pytest.mark.parametrize("kind", PATHS)
def test_some_rows_score_as_they_do_among_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = photos((20, 30, 25), 8)
    whole = PATHS[kind](Design(x), labels, 3).left_out(everyone(labels), SOME)
    monkeypatch.setattr(paths, "BLOCK", 7)
    path = PATHS[kind](Design(x), labels, 3)
    some = np.array([3, 70, 11])
    close(path.left_out(some, SOME), whole[:, some], 1e-9)
    assert fit_head(x, labels, 3, kind=kind).logits.shape == (75, 3)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("shape", [((60, 45, 80), 40), ((12, 9, 20), 300)])
def test_single_precision_gives_the_same_head(kind: str, shape: tuple[tuple[int, ...], int]) -> None:
    x, labels = photos(*shape, apart=0.5)
    double = fit_head(x, labels, 3, kind=kind)
    single = fit_head(x.astype(np.float32), labels, 3, kind=kind)
    assert single.strength == double.strength
    assert single.temperature == pytest.approx(double.temperature, rel=1e-3)
    np.testing.assert_allclose(softmax(single.logits), softmax(double.logits), atol=2e-3)
    np.testing.assert_allclose(softmax(single.head.logits(x)), softmax(double.head.logits(x)), atol=2e-3)


def test_ridge_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn (extra data) is not installed")
    x, labels = photos((12, 30, 7), 15)
    path = RidgeRegularisationPath(Design(x), labels, 3)
    for strength in SOME.tolist():
        theirs = linear.Ridge(alpha=strength * path.scale).fit(x, np.eye(3)[labels])
        weight, bias = path.solve(strength)
        close(weight, theirs.coef_, 1e-8)
        close(bias, theirs.intercept_, 1e-8)


@pytest.mark.parametrize("shrinkage", [1e-9, 0.3, 0.9])
def test_lda_is_scikit_learns(shrinkage: float) -> None:
    """Theirs is (1 − s)·S + s·(mean eigenvalue)·I with S = S_w / N, ours S_w + aI: a = s/(1 − s), times a factor."""
    theirs = pytest.importorskip(
        "sklearn.discriminant_analysis", reason="scikit-learn (extra data) is not installed"
    ).LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3)
    x, labels = photos((20, 20, 20), 8)
    theirs.fit(x, labels)
    weight, bias = LdaRegularisationPath(Design(x), labels, 3).solve(shrinkage / (1 - shrinkage))
    query = np.random.default_rng(3).normal(3, 1, (50, 8))
    factor = 60 / (60 - 3) / (1 - shrinkage)
    close(relative(query @ weight.T + bias) * factor, relative(theirs.decision_function(query)))
