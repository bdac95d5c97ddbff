"""Weights averaged over the steps, in the tensors of either framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from headstart.train.recipe import Recipe
from headstart.train.schedule import snapshot_after

WINDOW = 0.1  # of a moving average, as a share of the steps
SLOWEST = 0.999  # decay, however many steps there are


def ema_decay(steps: int) -> float:
    """The decay of a moving average for a training of so many steps."""
    return min(1 - 1 / max(WINDOW * steps, 1), SLOWEST)


class RunningAverage(ABC):
    """The weights that count: the last, their exponential moving average, or the mean of snapshots (Izmailov 2018).

    The moving average is corrected for its start at zero as in Adam (Kingma & Ba 2015), so that only weights after a
    step have a part in it. It is kept as an average throughout, so that fp32 is enough. Statistics of batch norm follow
    the moving average; for the mean of snapshots they are measured anew, see `Stepper.measure_statistics`.
    """

    _values: dict[str, Any]

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self._recipe, self._steps = recipe, steps
        self.mass = 0.0  # sum of the weights' factors

    @property
    def values(self) -> dict[str, Any]:
        """The averaged weights; none as long as the last ones count."""
        return self._values if self.mass else {}

    @abstractmethod
    def load(self, values: Mapping[str, Any], mass: float) -> None:
        """Go on from other values."""

    def _share(self, step: int) -> float:
        """The share of the weights after a step, counted from 0, in the average with them; 0: they have no part."""
        if self._recipe.averaging == "ema":
            keep, added = ema_decay(self._steps), 1 - ema_decay(self._steps)
        elif snapshot_after(self._recipe, step, self._steps):
            keep, added = 1.0, 1.0
        else:
            return 0.0
        self.mass = keep * self.mass + added
        return added / self.mass
