"""What is unlike the training photos is called unknown, and few of their own kind are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.blueprint import LOGITS
from headstart.core.types import Prediction
from headstart.data.sources import unlabelled
from headstart.learn import unknown as module
from headstart.learn.calibrate import softmax
from headstart.learn.features import run_network
from headstart.learn.heads import HeadFit, fit_head
from headstart.learn.regularisation_path import Design, Labels
from headstart.learn.unknown import KEPT, NEAREST, Unknown, fit_unknown

Array = NDArray[np.float32]
WIDTH = 24


def photos(count: int, seed: int, classes: int = 3, of: int = 0) -> tuple[Array, Labels]:
    """Clusters around means that ``of`` decides, so that another ``of`` is another world."""
    means = 1.5 * np.random.default_rng(1000 + of).normal(size=(classes, WIDTH))
    r = np.random.default_rng(seed)
    labels = r.permutation(np.arange(count) % classes)
    return (means[labels] + r.normal(size=(count, WIDTH))).astype(np.float32), labels


def learn(x: Array, labels: Labels, groups: Labels | None = None) -> tuple[HeadFit, Unknown]:
    groups = np.arange(len(x)) if groups is None else groups
    fit = fit_head(x, labels, int(labels.max()) + 1, groups=groups)
    return fit, fit_unknown(Design(x), labels, groups, fit)[0]


def scores(fit: HeadFit, unknown: Unknown, x: Array) -> NDArray[np.float64]:
    return unknown.score(x, softmax(fit.head.logits(x)))


def auroc(known: NDArray[np.float64], foreign: NDArray[np.float64]) -> float:
    """How often a known photo scores above a foreign one; ties count half."""
    above = (known[:, None] > foreign).mean() + (known[:, None] == foreign).mean() / 2
    return float(above)


def plain_nearness(unknown: Unknown, x: Array, left_out: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Mean cosine to the nearest kept photos, one image at a time."""
    found = []
    for row, image in enumerate(x.astype(np.float64) - unknown.centre):
        directions = unknown.kept.astype(np.float64)
        if left_out is not None:
            directions = directions[~left_out[row]]
        found.append(np.sort(directions @ (image / np.linalg.norm(image)))[-NEAREST:].mean())
    return np.array(found)


@pytest.fixture(scope="module")
def learned() -> tuple[HeadFit, Unknown]:
    return learn(*photos(300, 0))


def test_few_known_photos_are_called_unknown(learned: tuple[HeadFit, Unknown]) -> None:
    fit, unknown = learned
    flagged = scores(fit, unknown, photos(4000, 1)[0]) < unknown.threshold
    assert 0.025 < flagged.mean() < 0.085


def test_foreign_photos_are_found(learned: tuple[HeadFit, Unknown]) -> None:
    fit, unknown = learned
    known, foreign = scores(fit, unknown, photos(2000, 2)[0]), scores(fit, unknown, photos(2000, 3, of=5)[0])
    assert auroc(known, foreign) > 0.95
    assert (foreign < unknown.threshold).mean() > 0.8


def test_both_ranks_are_needed(learned: tuple[HeadFit, Unknown]) -> None:
    """Between two classes the head is unsure while neighbours are near; far beyond one it is sure."""
    fit, unknown = learned
    x = photos(300, 0)[0]
    centre = np.stack([x[fit.head.logits(x).argmax(axis=1) == k].mean(axis=0) for k in range(3)])
    usual = np.median(scores(fit, unknown, x))
    between, beyond = (centre[0] + centre[1])[None] / 2, centre[:1] + 40 * np.eye(WIDTH, dtype=np.float32)[:1]
    assert softmax(fit.head.logits(beyond)).max() > 0.9
    assert scores(fit, unknown, between)[0] < usual
    assert scores(fit, unknown, beyond)[0] < unknown.threshold


def test_the_threshold_keeps_the_share_of_training_photos(learned: tuple[HeadFit, Unknown]) -> None:
    """Ranks among all training photos, each by its own left-out probability and its neighbours but itself."""
    fit, unknown = learned
    x, _ = photos(300, 0)
    itself = np.arange(300)[:, None] == unknown.rows
    sure, near = softmax(fit.logits).max(axis=1), plain_nearness(unknown, x, itself)
    np.testing.assert_allclose(unknown.sure, np.sort(sure), rtol=1e-6)
    np.testing.assert_allclose(unknown.near, np.sort(near), atol=1e-5)
    ranks = [(np.searchsorted(np.sort(v), v, side="right") + 1) / 301 for v in (sure, near)]
    flagged = np.log(ranks[0] * ranks[1]) < unknown.threshold
    assert flagged.mean() == pytest.approx(1 - KEPT, abs=0.01)


def test_a_score_is_the_product_of_two_ranks(learned: tuple[HeadFit, Unknown]) -> None:
    fit, unknown = learned
    x = photos(50, 7)[0]
    probabilities = softmax(fit.head.logits(x))
    near = plain_nearness(unknown, x)
    by_hand = [
        np.log(((unknown.sure <= sure).sum() + 1) / 301) + np.log(((unknown.near <= nearness).sum() + 1) / 301)
        for sure, nearness in zip(probabilities.max(axis=1).astype(np.float32), near, strict=True)
    ]
    np.testing.assert_allclose(unknown.score(x, probabilities), by_hand, atol=0.02)  # one rank, by rounding
    assert np.array_equal(unknown.score(x[3:4], probabilities[3:4]), unknown.score(x, probabilities)[3:4])


def test_scores_stay_in_their_bounds(learned: tuple[HeadFit, Unknown]) -> None:
    _, unknown = learned
    assert unknown.near[0] > 0  # so that an image without a direction is further away than any
    x = np.vstack([unknown.kept[:40].astype(np.float32) * 5 + unknown.centre, unknown.centre])
    least = 2 * np.log(1 / 301)
    for sure in (1.0, 0.5, 1 / 3):
        found = unknown.score(x, np.tile([sure, (1 - sure) / 2, (1 - sure) / 2], (41, 1)))
        assert (found <= 0).all()
        assert (found >= least - 1e-9).all()
        assert found[-1] == found.min()
    assert found[-1] == pytest.approx(least)
    assert least <= unknown.threshold < 0


def test_where_the_head_is_always_sure_only_nearness_counts(learned: tuple[HeadFit, Unknown]) -> None:
    _, unknown = learned
    always = replace(unknown, sure=np.ones(300, np.float32))
    x = photos(50, 7)[0]
    found = always.score(x, np.tile([1.0, 0, 0], (50, 1)))
    nearness = np.searchsorted(unknown.near, plain_nearness(unknown, x))
    np.testing.assert_allclose(found, np.log((nearness + 1) / 301), atol=0.02)
    assert (always.score(x, np.tile([0.99, 0.01, 0], (50, 1))) < found - 5).all()


@settings(deadline=None)
@given(low=st.floats(0.34, 1), high=st.floats(0.34, 1), seed=st.integers(0, 100))
def test_surer_is_never_stranger(learned: tuple[HeadFit, Unknown], low: float, high: float, seed: int) -> None:
    _, unknown = learned
    low, high = sorted((low, high))
    x = photos(3, seed)[0]
    rows = [np.tile([p, (1 - p) / 2, (1 - p) / 2], (3, 1)) for p in (low, high)]
    assert (unknown.score(x, rows[0]) <= unknown.score(x, rows[1])).all()


def test_nearer_is_never_stranger(learned: tuple[HeadFit, Unknown]) -> None:
    _, unknown = learned
    away = photos(1, 1, of=9)[0] - unknown.centre
    goal = unknown.kept[0].astype(np.float32) * 5
    path = unknown.centre + np.linspace(0, 1, 30, dtype=np.float32)[:, None] * (goal - away) + away
    near = np.sort(unknown.similarities(path), axis=1)[:, -NEAREST:].mean(axis=1)
    order = np.argsort(near)
    found = unknown.score(path, np.tile([0.9, 0.05, 0.05], (30, 1)))[order]
    assert (np.diff(found) >= 0).all()
    assert found[-1] > found[0]


def test_similarities_are_cosines_from_the_centre(learned: tuple[HeadFit, Unknown]) -> None:
    _, unknown = learned
    x = photos(300, 0)[0]
    np.testing.assert_allclose(unknown.centre, x.mean(axis=0), atol=1e-5)
    own = unknown.similarities(x)[unknown.rows, np.arange(len(unknown.rows))]
    np.testing.assert_allclose(own, 1, atol=2e-3)
    assert (np.abs(unknown.similarities(100 * x)) <= 1.001).all()
    assert np.isfinite(unknown.similarities(unknown.centre[None])).all()  # an image without a direction


# --- which photos are kept, and who counts as a neighbour ---


def test_copies_are_no_neighbours_of_each_other() -> None:
    """A set of copies would find every photo that has none strange."""
    scenes, classes = photos(80, 0)
    x = np.repeat(scenes, 8, axis=0) + np.random.default_rng(1).normal(0, 0.01, (640, WIDTH)).astype(np.float32)
    labels, groups = np.repeat(classes, 8), np.repeat(np.arange(80), 8)
    (fit, apart), (_, alike) = learn(x, labels, groups), learn(x, labels)
    fresh = photos(2000, 1)[0]
    assert (alike.near > 0.99).mean() > 0.9
    assert apart.near.max() < 0.95
    shares = groups[fit.rows][:, None] == groups[apart.rows]
    np.testing.assert_allclose(apart.near, np.sort(plain_nearness(apart, x[fit.rows], shares)), atol=1e-5)
    assert (scores(fit, alike, fresh) < alike.threshold).mean() > 0.9
    assert (scores(fit, apart, fresh) < apart.threshold).mean() < 0.15


@pytest.mark.parametrize("in_all", [90, 30, 2])
def test_so_many_photos_of_each_class_are_kept(in_all: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PER_CLASS", 20)
    monkeypatch.setattr(module, "IN_ALL", in_all)
    x, labels = photos(300, 0)
    kept = np.concatenate([np.flatnonzero(labels == 0)[:12], np.flatnonzero(labels > 0)])
    x, labels = x[kept], labels[kept]
    fit, unknown = learn(x, labels)
    each = max(1, min(20, in_all // 3))
    assert np.bincount(labels[unknown.rows]).tolist() == [min(each, 12), each, each]
    assert (np.diff(unknown.rows) > 0).all()
    assert unknown.kept.shape == (len(unknown.rows), WIDTH)
    assert unknown.kept.dtype == np.float16
    assert len(unknown.sure) == len(unknown.near) == len(x)  # ranks among all of them
    again, _ = fit_unknown(Design(x), labels, np.arange(len(x)), fit)
    other, _ = fit_unknown(Design(x), labels, np.arange(len(x)), fit, seed=1)
    assert np.array_equal(again.rows, unknown.rows)
    assert not np.array_equal(other.rows, unknown.rows)


@pytest.mark.parametrize("count", [4, 5, 7])
def test_a_handful_of_photos_is_enough(count: int) -> None:
    x, _ = photos(count, 0)
    labels = np.arange(count) % 2
    fit, unknown = learn(x, labels)
    found = scores(fit, unknown, photos(20, 1)[0])
    assert np.isfinite(found).all()
    assert np.isfinite(unknown.threshold)


def test_only_the_rows_of_the_choice_have_ranks() -> None:
    """Where some rows have copies, the head's left-out logits are of the others; so are the ranks."""
    x, labels = photos(60, 0)
    groups = np.arange(60)
    groups[50:] = groups[40:50]
    fit, unknown = learn(x, labels, groups)
    assert len(unknown.near) == len(unknown.sure) == len(fit.rows) == 40
    assert len(unknown.rows) == 60


# --- real photos ---


@pytest.mark.slow
def test_leaves_and_things_are_no_cats_and_dogs(shared: Path) -> None:
    def some(folder: str, count: int, start: int = 0) -> list[Path]:
        found = sorted((shared / "data" / folder).glob("*.jpg"), key=lambda path: path.name)
        return found[start :: max((len(found) - start) // count, 1)][:count]

    train = [(path, name) for name in ("cats", "dogs") for path in some(f"cats_dogs/train/{name}", 60)]
    model = hs.fit([path for path, _ in train], [name for _, name in train], holdout=0, cache=False)
    known = [path for name in ("cats", "dogs") for path in some(f"cats_dogs/test/{name}", 50)]
    leaves = sorted((shared / "data" / "apple_leaves").iterdir())
    foreign = some("caltech101_background", 40) + [
        path for kind in leaves for path in some(f"apple_leaves/{kind.name}", 10)
    ]
    assert len(train) + len(known) + len(foreign) <= 300

    assert model.unknown is not None
    values = []
    for item, seen in run_network(
        unlabelled([*known, *foreign]), model.network, (LOGITS, model.blueprint[LOGITS].inputs[0])
    ):
        assert seen is not None, item
        values.append(seen)
    logits, x = (np.stack(column) for column in zip(*values, strict=True))
    found = model.unknown.score(x, softmax(logits))
    assert auroc(found[: len(known)], found[len(known) :]) >= 0.9

    flags = [item.unknown for item in model.predictions([*known, *foreign]) if isinstance(item, Prediction)]
    assert flags == (found < model.unknown.threshold).tolist()
    assert np.mean(flags[: len(known)]) <= 0.12
    assert np.mean(flags[len(known) :]) >= 0.8
