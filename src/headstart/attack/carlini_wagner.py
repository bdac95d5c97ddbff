"""The attack of Carlini and Wagner in L2: Adam on the change itself, for several weights of the two aims."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.attack.goal import Array, Found, Goal, Victim, batches
from headstart.attack.norms import size, sizes

INSIDE = np.float32(0.999999)  # the hyperbolic tangent reaches 1 nowhere
SEARCHES = 4  # weights that are tried
FIRST, FASTEST = 1.5, 0.05  # norm of the first step, in distances from the boundary; the largest rate


def carlini_wagner(
    network: Victim,
    images: Array,
    goal: Goal,
    *,
    steps: int,
    searches: int = SEARCHES,
    rate: float | None = None,
    constant: float | None = None,
) -> Found:
    """The smallest change in L2 (Carlini and Wagner 2017): minimise ‖change‖² + c · margin, where it is positive.

    Pixels are tanh(w) / 2 + 1/2, so they stay in [0, 1] by themselves. Each image has a c of its own: ten times as
    large while the goal is not reached, then by bisection; of all points that reach it the nearest counts.

    Args:
        rate: of Adam; None: of each image as its distance from the boundary, if the network were linear, wants it.
        constant: the first c; None: that of each image whose solution lies on that boundary.
    """
    x = images.astype(np.float32)
    reached = np.zeros(len(x), bool)
    for rows in batches(network, np.arange(len(x))):
        search = _Search(network, images[rows], goal.part(rows))
        if rate is None or constant is None:
            search.make_linear()
        search.rates = search.rates if rate is None else np.full(len(rows), rate)
        search.constants = search.constants if constant is None else np.full(len(rows), constant)
        for _ in range(searches):
            search.run(steps)
        reached[rows] = search.nearest < np.inf
        x[rows] = search.best
    return Found(x, reached)


@dataclass(eq=False)
class _Search:
    """A batch of images, with the best that was found of each."""

    network: Victim
    images: Array
    goal: Goal
    nearest: NDArray[np.float64] = field(init=False)  # (N,) the smallest norm at which the goal was reached
    best: NDArray[np.float32] = field(init=False)  # the image there, else as it is

    def __post_init__(self) -> None:
        count = len(self.images)
        self.start = np.arctanh((2 * self.images.astype(np.float32) - 1) * INSIDE)
        self.middle = np.tanh(self.start) / 2 + np.float32(0.5)  # the images, as the tangent gives them
        self.best, self.nearest = self.images.astype(np.float32), np.full(count, np.inf)
        self.constants, self.rates = np.zeros(count), np.zeros(count)
        self.low, self.high = np.zeros(count), np.full(count, np.inf)

    def make_linear(self) -> None:
        """Rates and constants for a linear network.

        With c = 2 · margin / ‖its gradient‖², the margin is 0 where ‖change‖² + c · margin is least. Adam's first step
        changes every pixel by half its rate.
        """
        logits, pullback = self.network.vjp(self.images)
        steep = np.maximum(sizes(pullback(self.goal.narrowing(logits)), "l2"), 1e-12)
        far = np.abs(self.goal.margins(logits)) / steep
        self.constants = 2 * far / steep
        self.rates = np.minimum(2 * FIRST * far / self.images[0].size ** 0.5, FASTEST)

    def run(self, steps: int) -> None:
        """Minimise with these constants, then choose the next ones."""
        w, adam = self.start.copy(), _Adam(self.start.shape, self.rates)
        found = np.zeros(len(self.images), bool)
        for _ in range(steps):
            self._step(w, adam, found)
        self.high = np.where(found, self.constants, self.high)
        self.low = np.where(found, self.low, self.constants)
        halves = (self.low + np.where(np.isinf(self.high), 0, self.high)) / 2
        self.constants = np.where(np.isinf(self.high), 10 * self.constants, halves)

    def _step(self, w: Array, adam: _Adam, found: NDArray[np.bool_]) -> None:
        """One step of all; ``found`` tells of which a point with the goal was seen."""
        x = np.tanh(w)
        x *= np.float32(0.5)
        x += np.float32(0.5)
        logits, pullback = self.network.vjp(x)
        reached = self.goal.reached(logits)
        found |= reached
        weights = np.where(self.goal.margins(logits) > 0, self.constants, 0).astype(np.float32)
        slopes = pullback(-weights[:, None] * self.goal.narrowing(logits)) if weights.any() else None
        adam.time += 1
        for row, image in enumerate(x):
            if reached[row] and (norm := size(image - self.images[row], "l2")) < self.nearest[row]:
                self.nearest[row], self.best[row] = norm, image
            change = 2 * (image - self.middle[row])
            if slopes is not None:
                change += slopes[row]
            change *= 2 * image * (1 - image)  # the derivative of the tangent
            adam.move(w, row, change)


class _Adam:
    """Adam (Kingma and Ba 2015) of images that do not see each other."""

    FIRST, SECOND, LEAST = np.float32(0.9), np.float32(0.999), np.float32(1e-8)

    def __init__(self, shape: tuple[int, ...], rates: NDArray[np.float64]) -> None:
        self.mean, self.square = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.rates, self.time = rates, 0

    def move(self, w: Array, row: int, gradient: Array) -> None:
        """One step of one row of ``w``, in place; the gradient's memory is used up."""
        mean, square = self.mean[row], self.square[row]
        mean *= self.FIRST
        mean += (1 - self.FIRST) * gradient
        square *= self.SECOND
        np.square(gradient, out=gradient)
        gradient *= 1 - self.SECOND
        square += gradient
        np.divide(square, 1 - float(self.SECOND) ** self.time, out=gradient)
        np.sqrt(gradient, out=gradient)
        gradient += self.LEAST
        np.divide(mean, gradient, out=gradient)
        gradient *= self.rates[row] / (1 - float(self.FIRST) ** self.time)
        w[row] -= gradient
