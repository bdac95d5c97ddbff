"""Averages of weights in NumPy, with float64 sums: the referee of those that the trainers keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.train.recipe import Recipe
from headstart.train.schedule import snapshot_after
from headstart.train.weight_average import ema_decay

Weights = Mapping[str, NDArray[Any]]


class Averaging:
    """The weights that count: the last, their exponential moving average, or the mean of snapshots (Izmailov 2018).

    The moving average is corrected for its start at zero as in Adam (Kingma & Ba 2015), so that only weights after a
    step have a part in it. Sums are float64 for snapshots and moving averages alike.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self._recipe, self._steps = recipe, steps
        self._decay = ema_decay(steps)
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._mass = 0.0  # sum of the weights' factors

    def update(self, step: int, weights: Weights) -> None:
        """Take in the weights after a step, counted from 0."""
        if self._recipe.averaging == "ema":
            self._add(weights, self._decay)
        elif snapshot_after(self._recipe, step, self._steps):
            self._add(weights, 1.0)

    def weights(self, last: Weights) -> dict[str, NDArray[np.float32]]:
        """The average, or ``last`` as long as there is none; integers (counters of a module) are the last ones."""
        if not self._mass:
            return {name: np.array(array) for name, array in last.items()}
        return {
            name: (self._sums[name] / self._mass).astype(np.float32) if name in self._sums else np.array(array)
            for name, array in last.items()
        }

    def state(self) -> dict[str, NDArray[Any]]:
        """All that `load_state` needs to continue exactly."""
        return {"mass": np.array(self._mass), **{f"sum.{name}": a for name, a in self._sums.items()}}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""
        self._mass = float(state["mass"])
        self._sums = {name[4:]: np.array(array) for name, array in state.items() if name.startswith("sum.")}

    def _add(self, weights: Weights, keep: float) -> None:
        self._mass = keep * self._mass + 1
        for name, array in weights.items():
            if array.dtype.kind == "f":
                self._sums[name] = keep * self._sums.get(name, 0.0) + array.astype(np.float64)
