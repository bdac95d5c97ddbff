"""What an attack wants the network to answer, how far it is from that, and the gradients that lead there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.learn.calibrate import softmax

Array = NDArray[Any]
Rows = NDArray[np.intp]


class Victim(Protocol):
    """A network, as far as an attack needs it: pixels in [0, 1], logits, and gradients with respect to the pixels."""

    micro_batch: int

    def forward(self, images: Array, at: str = "logits") -> Array:
        """The logits (N, K) of images."""

    def vjp(self, images: Array, at: str = "logits", wrt: str = "input") -> tuple[Array, Callable[[Array], Array]]:
        """The logits, and a function that carries a cotangent of them to the pixels."""


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack made of images (N, size, size, 3)."""

    images: NDArray[np.float32]  # pixels from 0 to 1
    reached: NDArray[np.bool_]  # (N,) whether the network answers as the attack wanted


@dataclass(frozen=True, eq=False)
class Goal:
    """Of each image either one class that it shall be taken for, or one that it shall not be taken for."""

    classes: NDArray[np.intp]  # (N,)
    targeted: bool  # shall be taken for these

    def part(self, rows: Rows | NDArray[np.bool_]) -> Goal:
        """The goal of some of the images."""
        return Goal(self.classes[rows], self.targeted)

    def reached(self, logits: Array) -> NDArray[np.bool_]:
        """Whether each image (N, K) has its answer."""
        answers: NDArray[np.bool_] = logits.argmax(axis=1) == self.classes
        return answers if self.targeted else ~answers

    def margins(self, logits: Array) -> NDArray[np.float64]:
        """How much of a logit is missing (N,): positive until the goal is reached."""
        own, best = self._own_and_best(logits)
        return best - own if self.targeted else own - best

    def narrowing(self, logits: Array) -> NDArray[np.float32]:
        """The cotangent (N, K) along which the margins get smaller: +1 and -1 on the two logits of each."""
        rows, rivals = np.arange(len(logits)), self._rivals(logits)
        cotangent = np.zeros(logits.shape, np.float32)
        sign = 1 if self.targeted else -1
        cotangent[rows, self.classes], cotangent[rows, rivals] = sign, -sign
        return cotangent

    def likelier(self, logits: Array) -> NDArray[np.floating]:
        """The gradient (N, K) of the cross-entropy, in the direction of the goal.

        Sums of small probabilities in float64: 1 - p would be 0 where the network is sure.
        """
        rows = np.arange(len(logits))
        cotangent = softmax(logits)
        cotangent[rows, self.classes] = 0
        cotangent[rows, self.classes] = -cotangent.sum(axis=1)
        return -cotangent if self.targeted else cotangent

    def uphill(self, logits: Array) -> NDArray[np.float32]:
        """The same direction, the largest value of each row 1, for steps that do not ask how steep it is.

        So the gradient of a network that is nearly certain does not vanish in float32. Where even float64 has nothing
        left, the margin leads.
        """
        cotangent = self.likelier(logits)
        steep = np.abs(cotangent).max(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = cotangent / steep
        return np.where(steep > 0, scaled, self.narrowing(logits)).astype(np.float32)

    def _own_and_best(self, logits: Array) -> tuple[Array, Array]:
        rows = np.arange(len(logits))
        exact = logits.astype(np.float64)
        return exact[rows, self.classes], exact[rows, self._rivals(logits)]

    def _rivals(self, logits: Array) -> Rows:
        """The most probable of the other classes."""
        others = logits.copy()
        others[np.arange(len(logits)), self.classes] = -np.inf
        rivals: Rows = others.argmax(axis=1)
        return rivals


def batches(network: Victim, rows: Rows) -> Iterator[Rows]:
    """Rows a few at a time: a gradient keeps what every layer gave, so half as many as a forward pass takes."""
    together = max(1, network.micro_batch // 2)
    yield from (rows[start : start + together] for start in range(0, len(rows), together))


def own(gradient: Array) -> Array:
    """A gradient that may be written to."""
    return gradient if gradient.flags.writeable else gradient.copy()
