"""Which network to take: the fastest that is nearly as accurate as the best, as they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted
from headstart.core.types import Accuracy
from headstart.learn.evaluate import accuracy_of
from headstart.learn.significance import mcnemar, pareto

NOISE = 0.05  # a difference with a larger p may be one
WITHIN = 1.0  # percentage points that the choice may lie below the most accurate candidate


@dataclass(frozen=True, eq=False)
class Trial:
    """One network at one size, not yet held against the others."""

    backbone: str
    pixels: int
    right: NDArray[np.bool_]  # (T,) of the images that all are judged on
    groups: NDArray[np.int_]  # (T,) as for `accuracy_of`
    images_per_second: float
    parameters: int
    megabytes: float
    seconds: float  # of a first fit; until the speed is known, of the head alone
    train_error: float
    logme: float  # see `learn.transferability`
    assumed: str = ""  # on its weights or pixels, where nothing tells it

    def at_speed(self, speed: float, images: int) -> Trial:
        """The same, with the speed (images a second), and the time that the features of so many images take."""
        return replace(self, images_per_second=speed, seconds=self.seconds + images / speed)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One network at one size, and how it did."""

    backbone: str
    pixels: int
    accuracy: Accuracy
    difference: float  # of the accuracy from the best one's: zero or less
    p: float  # McNemar's mid-p of that difference
    images_per_second: float  # decoding and network together, nothing kept
    parameters: int  # of the network and the new head
    megabytes: float  # of their weights
    seconds: float  # of a first fit: features at that speed, and the head
    pareto: bool  # none of the others is both as fast and as accurate
    train_error: float  # of the training set itself; the difference to the accuracy tells how flexible a network is
    logme: float  # nats an image: what the features promise without a fit, see `learn.transferability`
    assumed: str = ""  # on its weights or pixels, where nothing tells it

    @property
    def may_be_noise(self) -> bool:
        """Whether so large a difference is to be expected of networks that are equally good."""
        return self.p >= NOISE

    @property
    def title(self) -> str:
        """What a sentence calls it."""
        return f"{self.backbone} at {self.pixels} px"

    def as_json(self) -> dict[str, Any]:
        """Plain values; the accuracy as a number and its interval."""
        accuracy = {"accuracy": self.accuracy.value, "interval": [self.accuracy.low, self.accuracy.high]}
        return {"backbone": self.backbone, "pixels": self.pixels, **accuracy} | {
            name: value for name, value in asdict(self).items() if name != "accuracy"
        }


def rank(trials: Sequence[Trial]) -> list[Candidate]:
    """Each held against the most accurate (of equals the fastest), that one first."""
    order = sorted(trials, key=lambda one: (-one.right.sum(), -one.images_per_second))
    best = order[0].right
    accuracies = [accuracy_of(one.right, one.groups) for one in order]
    front = pareto([one.images_per_second for one in order], [accuracy.value for accuracy in accuracies])
    return [
        Candidate(
            one.backbone,
            one.pixels,
            accuracy,
            accuracy.value - accuracies[0].value,
            mcnemar(int((best & ~one.right).sum()), int((one.right & ~best).sum())),
            one.images_per_second,
            one.parameters,
            one.megabytes,
            one.seconds,
            on_front,
            one.train_error,
            one.logme,
            one.assumed,
        )
        for one, accuracy, on_front in zip(order, accuracies, front, strict=True)
    ]


def choose(
    rows: Sequence[Candidate], budget: float | None = None, within: float | None = None
) -> tuple[Candidate | None, str]:
    """The candidate to take, and a sentence that says why; ``rows`` with the most accurate first.

    With ``budget`` (images a second) the most accurate of those that manage as many, or None; else `lightest`.
    """
    if budget is None:
        return lightest(rows, WITHIN if within is None else within)
    met = [row for row in rows if row.images_per_second >= budget]
    if not met:
        first = max(rows, key=_speed)
        speed = f"{first.title} with {first.images_per_second:.0f}"
        return None, f"None manages {_a_second(budget)}: the fastest is {speed}."
    chosen = max(met, key=lambda row: (row.accuracy.value, row.images_per_second))
    why = f"the most accurate with {_a_second(budget)} or more"
    return chosen, f"{chosen.title}: {why}; {_beside(chosen, rows)}."


def lightest(rows: Sequence[Candidate], within: float = WITHIN) -> tuple[Candidate, str]:
    """The fastest candidate at most ``within`` percentage points below the most accurate (the first), and a sentence.

    That a difference may be noise does not show that it is none: with few images nearly every difference may be.
    """
    chosen = max((row for row in rows if -100 * row.difference <= within + 1e-9), key=_speed)
    points = "1 point" if within == 1 else f"{within:g} points"
    if chosen is rows[0]:
        slower = (
            "" if len(rows) == 1 or chosen is max(rows, key=_speed) else f"; no faster one is within {points} of it"
        )
        return chosen, f"{chosen.title}: {_beside(chosen, rows)}{slower}."
    return chosen, f"{chosen.title}: the fastest within {points} of the most accurate; {_beside(chosen, rows)}."


def _a_second(images: float) -> str:
    return f"{images:g} image{'' if images == 1 else 's'} a second"


def _speed(row: Candidate) -> float:
    return row.images_per_second


def _beside(row: Candidate, rows: Sequence[Candidate]) -> str:
    """What a candidate is beside the most accurate one."""
    best = rows[0]
    figures = f"{row.accuracy.value:.1%} right, {_a_second(round(row.images_per_second))}"
    if len(rows) == 1:
        return f"{figures}, the only one"
    if row is best:
        return f"{figures}, the most accurate{' and the fastest' if row is max(rows, key=_speed) else ''} of all"
    faster = f"{row.images_per_second / best.images_per_second:.1f} times as fast"
    if not row.difference:
        return f"as often right as {best.title}, {faster}"
    points = -100 * row.difference
    noise = f"within noise on {counted(row.accuracy.images, 'photo')}" if row.may_be_noise else "more than noise"
    return f"{points:.1f} points below {best.title}, the most accurate ({noise}, p = {row.p:.2g}); {faster}"
