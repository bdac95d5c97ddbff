"""The learning-rate finder (Smith 2017): a short training whose rate grows until the loss explodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from headstart.core.errors import DivergedError, UsageError
from headstart.train.protocol import Batch, Batches
from headstart.train.stepper import Stepper

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 60
SMOOTH = 0.8  # of the loss, from step to step
SETTLED = 5  # steps until the smoothed loss no longer depends on the first batches, 1 / (1 - SMOOTH)
EXPLODED = 4.0  # times the lowest loss so far
FLOOR = 0.05  # nats; lower losses are noise of the batch
MARGIN = 10.0  # the rate at which it explodes, divided by the highest that is proposed


@dataclass(frozen=True, slots=True)
class RateSearch:
    """The loss as the learning rate grew."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]  # smoothed, each before the step at its rate
    exploded: bool
    suggestion: float | None  # None where the loss never fell

    @property
    def sentence(self) -> str:
        """The result, in words."""
        if not self.rates:
            return "The loss was never a number. Look at the images and the weights that the training begins with."
        if self.suggestion is None:
            return (
                f"No learning rate between {self.rates[0]:.2g} and {self.rates[-1]:.2g} made the loss fall. "
                "Look at the labels, or search lower."
            )
        end = f"it exploded near {self.rates[-1]:.2g}" if self.exploded else "it never exploded"
        return f"Learning rate {self.suggestion:.2g}: the loss falls fastest about there, and {end}."


def find_rate(
    step: Callable[[float], float], *, lowest: float = LOWEST, highest: float = HIGHEST, steps: int = STEPS
) -> RateSearch:
    """Take ``steps`` steps at rates that grow geometrically, until the loss explodes.

    The proposal is where the smoothed loss falls fastest over the logarithm of the rate, but no more than a tenth of
    the rate at which it exploded.

    Args:
        step: takes one step at a rate and gives the loss before it.
    """
    if not (0 < lowest < highest < math.inf and steps >= 10):
        raise UsageError(
            f"Expected rates 0 < lowest < highest, and at least 10 steps. Received: {lowest}, {highest}, {steps}."
        )
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    exploded = False
    for number, rate in enumerate(np.geomspace(lowest, highest, steps).tolist()):
        try:
            loss = step(rate)
        except DivergedError:
            loss = math.inf
        mean = SMOOTH * mean + (1 - SMOOTH) * loss
        smooth = mean / (1 - SMOOTH ** (number + 1))
        exploded = not math.isfinite(smooth) or smooth > EXPLODED * max(FLOOR, min([smooth, *losses]))
        if math.isfinite(smooth):
            rates.append(rate)
            losses.append(smooth)
        if exploded:
            break
    return RateSearch(tuple(rates), tuple(losses), exploded, _suggest(rates, losses, exploded))


def find_learning_rate(
    stepper: Stepper, batches: Batches, *, lowest: float = LOWEST, highest: float = HIGHEST, steps: int = STEPS
) -> RateSearch:
    """As `find_rate`, with a stepper, whose state is restored afterwards."""
    before = stepper.state()
    endless: Iterator[Batch] = (batch for epoch in count() for batch in batches.epoch(epoch))
    try:
        return find_rate(lambda rate: stepper.step(next(endless), rate), lowest=lowest, highest=highest, steps=steps)
    finally:
        stepper.load_state(before)


def _suggest(rates: list[float], losses: list[float], exploded: bool) -> float | None:
    if len(losses) < 3:
        return None
    lowest = int(np.argmin(losses))
    slopes = np.gradient(np.array(losses), np.log(rates))[: lowest + 1]
    slopes[: min(SETTLED, lowest)] = 0
    steepest = int(np.argmin(slopes))
    if slopes[steepest] >= 0 or losses[lowest] >= losses[0]:
        return None
    return min(rates[steepest], rates[-1] / MARGIN) if exploded else rates[steepest]
