"""Heads: the choice of the strength, invariance, and hard cases."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from head_data import PATHS, Array, close, everyone, photos, plain_lda, relative
from headstart.backbones.ops import SQRT_EPSILON
from headstart.core.errors import DataError, UsageError
from headstart.learn import heads
from headstart.learn import regularisation_path as paths
from headstart.learn.calibrate import fit_inverse_temperature, log_softmax, softmax
from headstart.learn.heads import FEWER, HEADS, STRENGTHS, HeadFit, fit_head
from headstart.learn.regularisation_path import (
    Design,
    Labels,
    LdaRegularisationPath,
    RegularisationPath,
)


def loss_of(logits: NDArray[np.floating], labels: Labels) -> float:
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("prior", heads.PRIORS)
def test_the_strength_is_the_best_of_the_path_and_the_head_its_solution(kind: str, prior: str) -> None:
    x, labels = photos((40, 10, 25), 50, apart=0.2)
    fit = fit_head(x, labels, 3, kind=kind, prior=prior)
    path: RegularisationPath = PATHS[kind](Design(x), labels, 3)
    offset = np.log(np.array([40, 10, 25]) / 75) if (kind, prior) == ("lda", "empirical") else np.zeros(3)

    assert [strength for strength, _ in fit.path] == STRENGTHS.tolist()
    for (_, loss), scores in zip(fit.path, path.left_out(everyone(labels), STRENGTHS), strict=True):
        assert loss == pytest.approx(fit_inverse_temperature(scores, labels, offset)[1], rel=1e-6)
    assert fit.strength == min(fit.path, key=lambda point: point[1])[0]
    assert STRENGTHS[0] < fit.strength < STRENGTHS[-1]  # so that the choice is one
    assert loss_of(fit.logits, labels[fit.rows]) == pytest.approx(min(loss for _, loss in fit.path))

    weight, bias = path.solve(fit.strength)
    np.testing.assert_allclose(fit.head.weight, weight / fit.temperature, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.head.bias, bias / fit.temperature + offset, rtol=1e-5)
    np.testing.assert_allclose(fit.head.logits(x), x @ fit.head.weight.T + fit.head.bias, rtol=1e-3, atol=1e-3)


def test_calibrated_probabilities_are_right_as_often_as_they_say() -> None:
    x, labels = photos((700, 700, 700), 10, apart=0.25)
    fit = fit_head(x[:300], labels[:300], 3)
    probabilities = softmax(fit.head.logits(x[300:]))
    right = probabilities.argmax(axis=1) == labels[300:]
    assert 0.5 < right.mean() < 0.98
    assert probabilities.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.04)


def test_no_row_shares_a_group_with_another_where_most_stand_alone() -> None:
    x, labels = photos((30, 30), 8)
    groups = np.arange(60)
    groups[20:30] = groups[10:20]
    fit = fit_head(x, labels, 2, groups=groups)
    assert fit.rows.tolist() == [*range(10), *range(30, 60)]
    close(fit.logits, (fit_head(x, labels, 2).logits * fit_head(x, labels, 2).temperature / fit.temperature)[fit.rows])


def copies(seed: int) -> tuple[Array, Labels, Labels, Array, Labels]:
    """Sixty scenes that hardly tell their class, each photographed four times; and other scenes of the same classes."""
    scenes, labels = photos((2030, 2030), 60, seed, apart=0.1)
    x = np.repeat(scenes[:60], 4, axis=0) + np.random.default_rng(seed).normal(0, 0.02, (240, 60))
    return x, np.repeat(labels[:60], 4), np.repeat(np.arange(60), 4), scenes[60:], labels[60:]


@pytest.mark.parametrize("kind", HEADS)
def test_copies_do_not_make_it_overconfident(kind: str) -> None:
    x, labels, groups, fresh, truth = copies(1)

    def losses(fit: HeadFit) -> tuple[float, float]:
        return loss_of(fit.logits, labels[fit.rows]), loss_of(fit.head.logits(fresh), truth)

    said, came = losses(fit_head(x, labels, 2, kind=kind))
    assert said < 0.1
    assert came > said + 1  # alone, each row is found again in its copies
    said, came = losses(fit_head(x, labels, 2, kind=kind, groups=groups))
    assert abs(said - came) < 0.15
    assert came < 0.5


def test_whole_groups_are_held_out_where_most_rows_share() -> None:
    x, labels, groups, *_ = copies(2)
    fit = fit_head(x, labels, 2, groups=groups)
    assert sorted(fit.rows.tolist()) == list(range(240))
    # The same folds by hand: every row of a group is scored by a head that saw none of them.
    fold = np.random.default_rng(0).permutation(60)[groups] % heads.FOLDS
    for k in range(heads.FOLDS):
        rest, out = fold != k, np.flatnonzero(fold == k)
        path = LdaRegularisationPath(Design(x[rest]), labels[rest], 2)
        freedom = int(rest.sum()) - 2
        plain = plain_lda(x[rest], labels[rest], 2, fit.strength * path.scale, freedom, x[out])
        close(relative(fit.logits[np.isin(fit.rows, out)]), relative(plain / fit.temperature))


def test_groups_that_cannot_be_held_out_are_left_in() -> None:
    """Each class one group: without it nothing of the class is left."""
    x, labels = photos((10, 12), 5)
    fit = fit_head(x, labels, 2, groups=labels)
    alone = fit_head(x, labels, 2)
    assert np.array_equal(fit.rows, alone.rows)
    assert fit.strength == alone.strength


@pytest.mark.parametrize("grouped", [False, True])
def test_the_choice_is_made_on_some_of_many_rows_of_every_class(grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = photos((300, 300, 300), 6)
    order = np.argsort(labels, kind="stable")  # as a folder of class folders comes
    x, labels = x[order], labels[order]
    monkeypatch.setattr(heads, "SCORES", 100 * 3)
    fit = fit_head(x, labels, 3, groups=np.arange(900) // 2 if grouped else None)
    assert len(fit.rows) == len(set(fit.rows.tolist())) == 100
    assert np.bincount(labels[fit.rows], minlength=3).min() > 15
    assert fit.logits.shape == (100, 3)


@pytest.mark.parametrize("kind", HEADS)
def test_rows_that_the_choice_does_not_need_are_held_out_when_they_are_asked_for(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = photos((90, 80, 70), 12, apart=0.3)
    everything = fit_head(x, labels, 3, kind=kind)
    assert np.array_equal(everything.held_out()[0], everything.rows)
    monkeypatch.setattr(heads, "ROWS", 60)
    fit = fit_head(x, labels, 3, kind=kind)
    assert len(fit.rows) == len(fit.logits) == fit.right.shape[1] == 60
    rows, logits = fit.held_out()
    assert np.array_equal(rows, everyone(labels))
    assert np.array_equal(logits[fit.rows], fit.logits)
    path: RegularisationPath = PATHS[kind](Design(x), labels, 3)
    close(logits, path.left_out(rows, np.array([fit.strength]))[0] / fit.temperature, 1e-9)


def test_copies_are_not_held_out_beyond_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = photos((30, 30), 8)
    groups = np.arange(60)
    groups[20:30] = groups[10:20]
    monkeypatch.setattr(heads, "ROWS", 25)
    assert fit_head(x, labels, 2, groups=groups).held_out()[0].tolist() == [*range(10), *range(30, 60)]
    groups = np.arange(60) // 2
    fit = fit_head(x, labels, 2, groups=groups)
    assert np.array_equal(fit.held_out()[0], np.sort(fit.rows))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_direction_that_outweighs_all_others_wants_little_regularisation(kind: str, dtype: Any) -> None:
    """Strengths are relative to the mean eigenvalue, which one direction decides here; float32 is as good."""
    x, labels = photos((200, 200, 200), 60, apart=0.08)
    r = np.random.default_rng(1)
    x += 20 * r.normal(size=(600, 1)) * r.normal(size=60)
    exact = fit_head(x, labels, 3, kind=kind)
    assert exact.strength < 1e-3
    fit = fit_head(x.astype(dtype), labels, 3, kind=kind)
    for (_, loss), (_, exact_loss) in zip(fit.path, exact.path, strict=True):
        assert loss == pytest.approx(exact_loss, rel=5e-3)


@pytest.mark.parametrize("kind", HEADS)
def test_scores_do_not_depend_on_how_many_strengths_go_together(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = photos((20, 30, 25), 8)
    path: RegularisationPath = PATHS[kind](Design(x), labels, 3)
    together = path.left_out(everyone(labels), STRENGTHS)
    for columns in (1, 7):
        monkeypatch.setattr(paths, "COLUMNS", columns)
        close(path.left_out(everyone(labels), STRENGTHS), together, 1e-12)


@pytest.mark.parametrize(("classes", "each"), [(2000, 3), (8000, 2)])
def test_many_classes_fit_into_bounded_memory(classes: int, each: int) -> None:
    r = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    x = (r.normal(size=(classes, 64))[labels] + 0.4 * r.normal(size=(len(labels), 64))).astype(np.float32)
    tracemalloc.start()
    try:
        fit = fit_head(x, labels, classes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(fit.rows) == max(heads.SCORES // classes, 100)
    assert peak < 200e6  # a table of all pairs of 8000 classes is 256 MB
    assert (fit.head.logits(x).argmax(axis=1) == labels).mean() > 0.98
    assert (fit.logits.argmax(axis=1) == labels[fit.rows]).mean() > 0.75


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("width", [10, 80])
def test_neither_place_nor_size_nor_order_matters(kind: str, width: int) -> None:
    x, labels = photos((25, 12, 18), width, apart=0.4)
    fit = fit_head(x, labels, 3, kind=kind)
    order = np.random.default_rng(8).permutation(len(x))
    shifted = fit_head(x + 1000, labels, 3, kind=kind)
    shuffled = fit_head(x[order], labels[order], 3, kind=kind)
    larger = fit_head(x * 50, labels, 3, kind=kind)
    assert fit.strength == shifted.strength == shuffled.strength == larger.strength
    close(shifted.logits, fit.logits)
    close(shuffled.logits, fit.logits[order])
    close(larger.logits, fit.logits)
    for other, weight in ((shifted, fit.head.weight), (shuffled, fit.head.weight), (larger, fit.head.weight / 50)):
        close(other.head.weight, weight, 1e-5)
    close(relative(shuffled.head.bias), relative(fit.head.bias), 1e-5)


@pytest.mark.parametrize("width", [10, 80])
def test_what_all_photos_share_costs_no_digits(width: int) -> None:
    """In float32 the distance to the origin, large beside that between the classes, must not drown it."""
    x, labels = photos((25, 12, 18), width, apart=0.4)
    exact = fit_head(x, labels, 3)
    far = fit_head((x + 200).astype(np.float32), labels, 3)
    np.testing.assert_allclose(softmax(far.logits), softmax(exact.logits), atol=5e-3)
    logits = (x + 200) @ far.head.weight.T.astype(np.float64) + far.head.bias
    np.testing.assert_allclose(softmax(logits), softmax(exact.head.logits(x)), atol=5e-3)
    assert np.abs(far.head.weight.sum(axis=0)).max() < 1e-3 * np.abs(far.head.weight).max()


@pytest.mark.parametrize("kind", HEADS)
def test_a_design_is_the_matrix_that_it_stands_for(kind: str) -> None:
    r = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], 30)
    stored = np.maximum(r.normal(0.3, 1, (200, 12)), 0).astype(np.float16)
    rows = r.permutation(200)[:90]
    stored[rows] += (labels[:, None] == np.arange(12) // 4).astype(np.float16)
    plain = np.sqrt(stored[rows].astype(np.float32) + np.float32(SQRT_EPSILON))

    design = Design(stored, rows, sqrt=True)
    some = np.array([5, 2, 80])
    assert design.shape == (90, 12)
    assert design[some].dtype == design.dtype == np.float32
    assert np.array_equal(design[some], plain[some])
    assert np.array_equal(design.of(some)[np.array([2, 0])], plain[some[[2, 0]]])
    close(design.sum(labels, 4), np.stack([*(plain[labels == k].sum(axis=0) for k in range(3)), np.zeros(12)]), 1e-6)
    assert Design(stored.astype(np.float64)).dtype == np.float64

    fit = fit_head(stored, labels, 3, rows=rows, sqrt=True, kind=kind)
    expected = fit_head(plain, labels, 3, kind=kind)
    assert fit.head.sqrt
    assert not expected.head.sqrt
    assert np.array_equal(fit.head.weight, expected.head.weight)
    assert np.array_equal(fit.logits, expected.logits)
    assert np.array_equal(fit.head.logits(stored[rows]), expected.head.logits(plain))


def test_sums_of_classes_that_are_spread_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "BLOCK", 4)
    x, labels = photos((5, 9, 3, 2), 3)
    close(Design(x).sum(labels, 5), np.stack([x[labels == k].sum(axis=0) for k in range(5)]), 1e-12)
    for kind in PATHS:
        solved = PATHS[kind](Design(x), labels, 4).solve(0.1)[0]
        monkeypatch.setattr(paths, "BLOCK", 100)
        close(solved, PATHS[kind](Design(x), labels, 4).solve(0.1)[0], 1e-9)
        monkeypatch.setattr(paths, "BLOCK", 4)


@pytest.mark.parametrize("width", [3, 50])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classes_of_equal_photos_are_told_apart(kind: str, width: int, dtype: Any) -> None:
    """No scatter within the classes at all: flat colours, or one photo copied."""
    labels = np.repeat([0, 1, 2], 6)
    x = np.random.default_rng(1).random((3, width)).astype(dtype)[labels]
    fit = fit_head(x, labels, 3, kind=kind)
    assert np.isfinite(fit.head.weight).all()
    assert np.isfinite(fit.logits).all()
    assert np.array_equal(fit.head.logits(x).argmax(axis=1), labels)
    assert np.isfinite(fit.temperature)


@pytest.mark.parametrize("width", [3, 50])
@pytest.mark.parametrize("kind", HEADS)
def test_photos_that_are_all_alike_leave_every_class_possible(kind: str, width: int) -> None:
    labels = np.repeat([0, 1], 5)
    fit = fit_head(np.ones((10, width), np.float32), labels, 2, kind=kind)
    np.testing.assert_allclose(softmax(fit.head.logits(np.ones((1, width)))), 0.5, atol=1e-3)
    assert np.isfinite(fit.temperature)


@pytest.mark.parametrize("kind", HEADS)
def test_classes_far_apart_keep_finite_probabilities(kind: str) -> None:
    x, labels = photos((20, 20), 5, apart=100)
    fit = fit_head(x, labels, 2, kind=kind)
    assert np.isfinite(fit.head.weight).all()
    assert 0 < loss_of(fit.logits, labels) < 0.05


def test_a_head_needs_two_classes_of_two() -> None:
    x, labels = photos((4, 4), 3)
    with pytest.raises(DataError, match=r"two classes with two images each\. Received: 1 class,"):
        fit_head(x, np.zeros(8, int), 1)
    with pytest.raises(DataError, match=r"Received: 3 classes, the smallest 1"):
        fit_head(np.vstack([x, x[:1]]), np.append(labels, 2), 3)
    with pytest.raises(DataError, match=r"the smallest 0"):
        fit_head(x, labels, 3)


def test_unknown_names_are_answered_with_near_ones() -> None:
    x, labels = photos((4, 4), 3)
    with pytest.raises(UsageError, match=r"no head 'rigde'\. Did you mean ridge\?"):
        fit_head(x, labels, 2, kind="rigde")
    with pytest.raises(UsageError, match=r"no prior 'emprical'\. Did you mean empirical\?"):
        fit_head(x, labels, 2, prior="emprical")


@pytest.mark.parametrize(("rows", "least"), [(40, STRENGTHS[FEWER]), (41, STRENGTHS[0])])
def test_the_least_strengths_are_for_more_rows_than_features(rows: int, least: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    fit = fit_head(rng.normal(labels[:, None], 1, (rows, 40)), labels, 2)
    assert fit.path[0][0] == least
    assert np.isclose(STRENGTHS[FEWER], 1e-3)
