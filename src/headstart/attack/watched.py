"""A network that tells how far the work is before each of its runs, also within a single attack."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headstart.attack.goal import Array, Victim
from headstart.core.progress import Progress


class Watched:
    """A network whose runs are of few images, with what was told last told again before each.

    So whoever is told can end the work at any of them.
    """

    def __init__(self, network: Victim, progress: Progress | None) -> None:
        self._network, self._progress = network, progress
        self._last: tuple[str, int, int] | None = None
        self.micro_batch = network.micro_batch

    def tell(self, stage: str, done: int, count: int) -> None:
        """A `Progress`."""
        self._last = stage, done, count
        self._again()

    def forward(self, images: Array, at: str = "logits") -> Array:
        """The logits (N, K) of images."""
        found = []
        for start in range(0, max(len(images), 1), self.micro_batch):
            self._again()
            found.append(self._network.forward(images[start : start + self.micro_batch], at))
        return np.concatenate(found)

    def vjp(self, images: Array, at: str = "logits", wrt: str = "input") -> tuple[Array, Callable[[Array], Array]]:
        """The logits, and a function that carries a cotangent of them to the pixels."""
        self._again()
        return self._network.vjp(images, at, wrt)

    def _again(self) -> None:
        if self._progress and self._last:
            self._progress(*self._last)
