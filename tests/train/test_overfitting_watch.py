"""The watch flags real overfitting, the published run among it, and is quiet where all goes well."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.train.overfitting_watch import FLAT, FLOOR, PATIENCE, noise_of, selection_losses, watch
from headstart.train.protocol import Epoch

Curve = NDArray[np.float64]


def epochs(train: Any, val: Any, train_error: Any = None, val_error: Any = None) -> list[Epoch]:
    """Errors are a quarter of the losses where none are given."""
    train, val = np.asarray(train, float), np.asarray(val, float)
    columns = train, train / 4 if train_error is None else train_error, val, val / 4 if val_error is None else val_error
    rows = np.stack(np.broadcast_arrays(*columns), axis=-1).tolist()
    return [Epoch(number, a, b, c, d, 1e-4, 1.0) for number, (a, b, c, d) in enumerate(rows)]


def live(history: list[Epoch], **about: Any) -> list[str]:
    """What is said after each epoch."""
    return [watch(history[: count + 1], **about).kind for count in range(len(history))]


# VGG-16 on cats and dogs with its last layers unfrozen, as published: validation loss 0.82 in its first epoch and 1.41
# in its last, training accuracy 95.1 to 97.8 %. Between them a straight line.
LESSON = epochs(
    np.linspace(0.16, 0.07, 30),
    np.linspace(0.82, 1.41, 30),
    np.linspace(0.049, 0.022, 30),
    np.linspace(0.10, 0.098, 30),
)


def test_the_published_run_is_flagged_in_words() -> None:
    said = live(LESSON)
    first = said.index("overfitting")
    assert said[:PATIENCE] == ["too early to say"] * PATIENCE
    assert LESSON[first].val_loss < 0.95  # long before 1.41
    assert set(said[first:]) == {"overfitting"}
    verdict = watch(LESSON)
    assert verdict.since == 1
    assert verdict.sentence == (
        "Overfitting since epoch 2: validation loss rose from 0.82 to 1.41 while training error still fell from 4.9% "
        "to 2.2%."
    )


def test_a_training_that_knows_all_by_heart_is_flagged_by_its_loss() -> None:
    t = np.arange(20)
    history = epochs(np.exp(-t / 4), 0.5 * np.exp(-t / 2) + 0.2 + 0.02 * t, np.where(t < 5, 0.02, 0.0))
    verdict = watch(history)
    assert (verdict.kind, verdict.since) == ("overfitting", 6)
    assert verdict.sentence == (
        "Overfitting since epoch 7: validation loss rose from 0.341 to 0.58 while training loss still fell from 0.287 "
        "to 0.00865."
    )


# Two trainings as they went. A network pretrained on ImageNet, all of it unfrozen on 100 photos of solar cells; and a
# small CNN from scratch on 500 photos of CIFAR-10 without regularisation, its training loss from 2.3 to 0.27.
LEAP = "1.245 .643 .622 .591 .605 .563 .661 .669 .625 .615 .596 .956 .962 .89 .789 .898"
SLOW = (
    "2.33 1.94 1.86 1.83 1.84 1.79 1.8 1.81 1.82 1.9 1.83 1.88 1.78 1.83 1.74 1.93 1.77 1.82 2.18 1.8 "
    "1.77 1.9 1.84 1.91 1.85 1.9 2.06 1.92 1.98 1.86 1.89 1.93 1.92 2.04 2.03 2.16 1.98 1.97 1.96 2.02 "
    "2.03 1.94 2.09 2.0 2.28 2.06 2.19 1.98"
)


def test_a_rise_in_one_leap_is_no_noise() -> None:
    val = [float(word) for word in LEAP.split()]
    history = epochs(np.linspace(1.24, 0.04, 16), val)
    assert set(live(history[:11], images=150)) == {"too early to say", "healthy"}
    assert live(history, images=150)[-3:] == ["overfitting"] * 3
    assert "since epoch 7: validation loss rose from 0.563 to 0.898" in watch(history, images=150).sentence


def test_a_slow_rise_in_noise_is_seen() -> None:
    val = [float(word) for word in SLOW.split()]
    said = live(epochs(np.linspace(2.3, 0.27, 48), val), images=500, classes=10)
    assert "overfitting" not in said[:30]
    assert said.count("overfitting") >= 8
    assert said[-1] == "overfitting"


def falling(rng: np.random.Generator, count: int, noise: float, plateau: bool) -> list[Epoch]:
    """Both losses fall towards a floor, in noise; on a plateau the validation loss has long arrived there."""
    t = np.arange(count)
    tau, floor, height = rng.uniform(1, 10), rng.uniform(0.02, 0.8), rng.uniform(0.2, 2)
    train = (0.3 * floor + height * np.exp(-t / tau)) * np.exp(-t / 30)
    val = floor + height * np.exp(-t / (tau * (0.2 if plateau else 1)))
    return epochs(
        train * (1 + noise / 2 * rng.standard_normal(count)), np.abs(val * (1 + noise * rng.standard_normal(count)))
    )


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("plateau", [False, True])
def test_it_is_quiet_on_healthy_runs(noise: float, plateau: bool) -> None:
    """Asked after every epoch of 150 runs."""
    rng = np.random.default_rng(int(1000 * noise) + plateau)
    runs = [live(falling(rng, int(rng.integers(4, 31)), noise, plateau)) for _ in range(150)]
    assert sum("overfitting" in said for said in runs) <= (3 if noise else 0)
    assert sum({"underfitting", "diverging"} & set(said) != set() for said in runs) <= (3 if noise else 0)
    assert sum(said[-1] in ("healthy", "too early to say") for said in runs) >= 147


@pytest.mark.parametrize(("noise", "least"), [(0.0, 100), (0.03, 99), (0.1, 80)])
def test_it_flags_runs_that_overfit(noise: float, least: int) -> None:
    rng = np.random.default_rng(int(1000 * noise))
    found = 0
    for _ in range(100):
        t, turn = np.arange(20), int(rng.integers(0, 8))
        train = 0.02 + np.exp(-t / 5)
        val = 0.3 + np.exp(-np.minimum(t, turn) / 3)
        val *= (1 + np.maximum(0, t - turn) * rng.uniform(0.04, 0.1)) * (1 + noise * rng.standard_normal(20))
        said = live(epochs(train, val))
        assert "overfitting" not in said[: turn + 2]
        found += "overfitting" in said
    assert found >= least


@settings(deadline=None, max_examples=60)
@given(
    falls=st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), max_size=30),
    bump=st.tuples(st.integers(0, 30), st.floats(1, 5)),
)
def test_one_bump_is_no_turn(falls: list[tuple[float, float]], bump: tuple[int, float]) -> None:
    train, val = (np.exp(-np.cumsum([0.0, *column])) for column in ([a for a, _ in falls], [b for _, b in falls]))
    place, height = bump
    if place < len(val):
        val[place] *= height
    assert "overfitting" not in live(epochs(train, val))


def test_few_images_make_a_turn_uncertain() -> None:
    t = np.arange(12)
    history = epochs(np.exp(-t / 4), 0.4 + 0.006 * t)
    assert watch(history).kind == "overfitting"
    assert watch(history, images=2000).kind == "overfitting"
    assert watch(history, images=25).kind == "healthy"


def test_validation_that_rises_with_the_training_is_not_overfitting() -> None:
    t = np.arange(10)
    verdict = watch(epochs(0.3 + 0.05 * t, 0.5 + 0.05 * t))
    assert verdict.kind == "diverging"
    assert verdict.sentence.startswith("Diverging since epoch 2: training loss rose from 0.3 to 0.75.")
    flat = watch(epochs(np.full(10, 0.3), 0.5 + 0.05 * t))
    assert flat.kind == "diverging"
    assert "validation loss rose from 0.5 to 0.95, and the training loss no longer falls" in flat.sentence
    bad = watch(epochs([1.0, float("nan")], [1.0, 1.0]))
    assert (bad.kind, bad.since) == ("diverging", 1)
    assert "not a number in epoch 2" in bad.sentence


def test_many_errors_and_no_fewer_to_come_is_underfitting() -> None:
    flat = epochs([0.69] * 8, [0.69] * 8, [0.45] * 8, [0.46] * 8)
    verdict = watch(flat)
    assert verdict.kind == "underfitting"
    assert "training error stays at 45.0%, validation error at 46.0%" in verdict.sentence
    assert watch(flat[:5]).kind == "healthy"
    assert watch(epochs([2.0] * 8, [2.0] * 8, [0.45] * 8, [0.46] * 8), classes=100).kind == "healthy"
    still = np.linspace(0.69, 0.5, 8)
    assert watch(epochs(still, still, [0.45] * 8, [0.46] * 8)).kind == "healthy"


def test_without_validation_it_judges_the_training_alone() -> None:
    nan = [float("nan")] * 6
    assert watch(epochs(np.linspace(1, 0.1, 6), nan)).sentence.endswith("unvalidated.")
    assert watch(epochs(np.linspace(0.1, 1, 6), nan)).kind == "diverging"
    assert watch([]).kind == "too early to say"


def test_noise_is_measured_where_there_is_a_slope() -> None:
    rng = np.random.default_rng(0)
    for slope in (0.0, 5.0):
        noisy = slope * np.arange(2000) + rng.normal(0, 0.1, 2000)
        assert 0.05 < noise_of(noisy) < 0.2
    assert noise_of(np.arange(50.0)) < 1e-9


# --- what epochs are chosen by ----------------------------------------------------------------------------------------


def calibrated(val: list[float], losses: list[float]) -> list[Epoch]:
    return [replace(epoch, val_calibrated=loss) for epoch, loss in zip(epochs(1, val), losses, strict=True)]


def test_epochs_are_chosen_by_the_calibrated_loss_until_the_plain_one_has_risen() -> None:
    assert selection_losses(calibrated([0.5, 0.4, 0.405, 0.43, 0.4], [0.45, 0.4, 0.38, 0.3, 0.35])) == [
        0.45, 0.4, 0.38, inf, 0.35
    ]  # fmt: skip
    assert selection_losses(epochs(1, [0.5, 0.4, 0.405])) == [0.5, 0.4, 0.405]  # of a run that somebody else recorded
    assert selection_losses(calibrated([0.01, 0.018], [0.01, 0.009])) == [0.01, 0.009]  # next to nothing has not risen
    assert all(isnan(each) for each in selection_losses(epochs(1, [nan, nan])))


@given(st.lists(st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)), min_size=1, max_size=8))
def test_the_chosen_epoch_has_hardly_more_than_the_lowest_loss_before_it(losses: list[tuple[float, float]]) -> None:
    found = selection_losses(calibrated([val for val, _ in losses], [loss for _, loss in losses]))
    best = int(np.argmin(found))
    lowest = min(val for val, _ in losses[: best + 1])
    assert losses[best][0] <= lowest + max(FLAT * lowest, FLOOR)
    assert found[best] == losses[best][1]


# --- what is said of a training that did not go wrong -----------------------------------------------------------------


def test_the_loss_is_said_at_first_at_its_lowest_and_in_the_last_epoch() -> None:
    history = epochs([0.5, 0.3, 0.2, 0.15], [0.104, 0.098, 0.12, 0.195], val_error=0)
    assert watch(history, images=6).sentence == (
        "No clear overfitting, though validation rose in the end: training loss went from 0.5 to 0.15, validation loss "
        "from 0.104 to 0.098 in epoch 2, to 0.195 in the last."
    )
    history = epochs([0.5, 0.3, 0.2, 0.15], [0.104, 0.12, 0.13, 0.195], val_error=0)
    assert "validation loss from 0.104 to 0.195 in the last." in watch(history, images=6).sentence
    history = epochs([0.5, 0.3, 0.2, 0.15], [0.5, 0.3, 0.25, 0.2])
    assert watch(history).sentence == (
        "Healthy: training loss went from 0.5 to 0.15, validation loss from 0.5 to 0.2, its lowest."
    )


def test_an_error_that_rises_is_said_though_the_loss_falls() -> None:
    history = epochs([0.5, 0.3, 0.2, 0.15], [0.5, 0.3, 0.25, 0.2], val_error=[0.0, 0.0, 0.006, 0.012])
    assert watch(history).sentence.startswith("No clear overfitting, though validation rose in the end")
    assert watch(history).sentence.endswith("its lowest; validation error 0.0% at its lowest, 1.2% in the last.")
