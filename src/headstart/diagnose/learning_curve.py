"""The learning curve: the error of heads that were fitted on fewer images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted
from headstart.core.types import Accuracy, Z
from headstart.data.folds import random_folds
from headstart.data.threads import on_threads
from headstart.diagnose.forecast import Errors, forecast
from headstart.diagnose.records import CurvePoint, Forecast, LearningCurve
from headstart.diagnose.refits import Refits
from headstart.learn.evaluate import worth_of
from headstart.learn.regularisation_path import Labels

SIZES, DRAWS = 8, 5  # sizes at least, where there are images enough
SMALLEST = 128  # a training set that is so many times smaller is not tried
EACH = 2  # images of every class in the smallest training set
FEWEST = 3  # sizes below all images
WIDE = 0.05  # an interval of so much to either side is wide

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Images that heads of parts of the training set are judged on."""

    z: NDArray[np.float32]  # (M, r) in the subspace of `Refits`
    labels: Labels  # (M,)
    wrong: Values  # (M,) 1 where the head of all training images is wrong, NaN where it was not judged
    groups: Labels | None = None  # (M,) of images of the training set, which are held out in turn; None: a test set
    alike: Labels | None = None  # (M,) groups of a test set

    @property
    def is_test_set(self) -> bool:
        """Whether none of them is in the training set."""
        return self.groups is None

    @property
    def worth(self) -> float:
        """As how many independent images they count."""
        known, groups = np.isfinite(self.wrong), self.alike if self.groups is None else self.groups
        groups = np.arange(len(known)) if groups is None else groups
        return worth_of(self.wrong[known] == 0, groups[known])

    @property
    def error(self) -> float:
        """Of the head of all training images."""
        return float(np.nanmean(self.wrong))


@dataclass(frozen=True, eq=False)
class _Draw:
    """What heads of growing parts of the training set did."""

    train: Values  # (S,) errors on their own images
    held_out: Values  # (S,) and on others
    wrong: Values  # (M,) where the one of half of the images was wrong; NaN where it did not judge


def learning_curve(refits: Refits, held_out: HeldOut, train_error: float, seed: int = 0) -> LearningCurve | None:
    """Refit the head on nested parts of the training set, `DRAWS` times.

    Args:
        held_out: a test set; or the training set, of which each draw holds a fifth out.
        train_error: of the head of all training images.

    Returns:
        the curve; None where the training set is too small for it, or has too few groups.
    """
    rng, count = np.random.default_rng(seed), len(refits.labels)
    parts, known = _held_rows(held_out, rng), np.isfinite(held_out.wrong)
    rest = 1.0 if held_out.is_test_set else 1 - max(map(len, parts)) / count  # share that each draw has at least
    sizes = _sizes(count, refits.classes, rest)
    if len(sizes) < FEWEST or rest <= 0.5 or (rest < 1 and not all(known[rows].any() for rows in parts)):
        return None
    orders = [(rows, _order(refits.labels, rows, rng)) for rows in parts]
    draws = [*on_threads(lambda drawn: _draw(refits, sizes, held_out, *drawn), orders, refits.at_once)]
    held, worth = int(known.sum()), held_out.worth
    points = [_point(size, draws, place, worth) for place, size in enumerate(sizes)]
    points.append(CurvePoint(count, train_error, held_out.error, *_interval(held_out.error, worth)))
    gain = np.nanmean([draw.wrong[known] for draw in draws], axis=0) - held_out.wrong[known]
    standard_error = max(float(gain.std()) / len(gain) ** 0.5, 0.5 / len(gain))
    drawn = float(np.std([draw.held_out[-1] for draw in draws], ddof=1)) / len(draws) ** 0.5
    errors = Errors(np.array([each.images for each in points]), np.array([each.error for each in points]), held)
    expected, deviation = forecast(errors, 2 * count)
    low, high = _interval(expected, worth, deviation + drawn)
    twice = Forecast(2 * count, 1 - expected, 1 - high, 1 - low)
    return LearningCurve(
        points=tuple(points),
        draws=DRAWS,
        held_out=held,
        judged_on="test set" if held_out.is_test_set else "held out in turn",
        from_half=float(gain.mean()),
        from_half_z=float(gain.mean()) / standard_error,
        twice=twice,
        sentence=_sentence(points[-1], twice, held, held_out.is_test_set),
    )


def _sizes(count: int, classes: int, share: float) -> list[int]:
    """Halves of halves, and as many between them as make `SIZES`; the largest is below ``share`` of all images."""
    least = max(EACH * classes, count / SMALLEST, 8)
    octaves = np.log2(count / least)
    if octaves < 1:
        return []
    between = max(1, int(np.ceil((SIZES - 1) / octaves)))
    found = count * 2.0 ** -(np.arange(1, int(octaves * between) + 1) / between)
    return sorted({round(size) for size in found if least <= size <= share * count})


def _held_rows(held_out: HeldOut, rng: np.random.Generator) -> list[Labels]:
    """For each draw the training rows that are held out: none, or whole groups, each in one draw."""
    if held_out.groups is None:
        return [np.zeros(0, int)] * DRAWS
    fold = random_folds(held_out.groups, DRAWS, rng)
    return [np.flatnonzero(fold == k) for k in range(DRAWS)]


def _order(labels: Labels, rows: Labels, rng: np.random.Generator) -> Labels:
    """An order of the training images without those that are held out."""
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    return rest[nested(labels[rest], rng)]


def _draw(refits: Refits, sizes: list[int], held_out: HeldOut, rows: Labels, order: Labels) -> _Draw:
    """Heads of the beginnings of one order: the sums of each go on from those of the one before."""
    judged = np.arange(len(held_out.labels)) if held_out.is_test_set else rows[np.isfinite(held_out.wrong[rows])]
    train, errors, wrong = [], [], np.full(len(held_out.labels), np.nan)
    sums, begun = None, 0
    for size in sizes:
        sums, begun = refits.sums(order[begun:size], onto=sums), size
        head, used = refits.head(sums), order[:size]
        train.append(refits.error(head, used))
        mistaken = head.wrong(held_out.z, held_out.labels, judged)
        errors.append(float(mistaken.mean()))
        if 2 * size <= len(refits.labels) + 1:
            wrong[judged] = mistaken
    return _Draw(np.array(train), np.array(errors), wrong)


def nested(labels: Labels, rng: np.random.Generator) -> Labels:
    """An order of the rows whose every beginning has all classes in nearly their shares, and `EACH` rows of each."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
        place[rows[:EACH]] -= 2
    return np.argsort(place, kind="stable")


def _point(size: int, draws: list[_Draw], place: int, worth: float) -> CurvePoint:
    errors = np.array([draw.held_out[place] for draw in draws])
    low, high = _interval(float(errors.mean()), worth, float(errors.std(ddof=1)) / len(draws) ** 0.5)
    return CurvePoint(size, float(np.mean([draw.train[place] for draw in draws])), float(errors.mean()), low, high)


def _interval(error: float, worth: float, deviation: float = 0.0) -> tuple[float, float]:
    """Wilson's 95 % interval of an error on images that are worth so many independent ones, made wider by a standard
    deviation of another kind."""
    whole = max(1, round(worth))
    wilson, right = Accuracy.of(round(error * whole), whole, worth), round(error * whole) / whole
    return (
        max(0.0, error - float(np.hypot(right - wilson.low, Z * deviation))),
        min(1.0, error + float(np.hypot(wilson.high - right, Z * deviation))),
    )


def _sentence(last: CurvePoint, twice: Forecast, held: int, tested: bool) -> str:
    """What more images would bring; and, where the accuracy is not well known, how many would make it so."""
    text = (
        f"With twice the images ({twice.images}) expect an accuracy of {twice.accuracy:.1%} ({100 * twice.low:.1f} to "
        f"{100 * twice.high:.1f}); now {1 - last.error:.1%}."
    )
    if max(last.high - last.error, last.error - last.low) < WIDE:
        return text
    more = counted(3 * held, "more test image" if tested else "more image")  # the width falls with the root
    return f"{text} It was measured on {counted(held, 'image')}: {more} would make its interval half as wide."
