"""Small networks in NumPy whose attacks are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SHAPE = (4, 4, 3)


class Linear:
    """Logits = pixels · weights + bias; it counts the images that it computes gradients of."""

    micro_batch = 8

    def __init__(self, weights: Array, bias: Array) -> None:
        self.weights, self.bias, self.seen = weights, bias, 0  # (K, pixels), (K,)

    @classmethod
    def random(cls, classes: int = 2, seed: int = 0) -> Linear:
        """With weights of a size that small changes matter."""
        rng = np.random.default_rng(seed)
        return cls(rng.standard_normal((classes, int(np.prod(SHAPE)))), rng.standard_normal(classes))

    def forward(self, images: Array, at: str = "logits") -> Array:
        logits: Array = (images.reshape(len(images), -1) @ self.weights.T + self.bias).astype(np.float32)
        return logits

    def vjp(self, images: Array, at: str = "logits", wrt: str = "input") -> tuple[Array, Callable[[Array], Array]]:
        self.seen += len(images)
        return self.forward(images), lambda cotangent: self.slope(images, cotangent)

    def slope(self, images: Array, cotangent: Array) -> Array:
        gradient: Array = (cotangent @ self.weights).reshape(images.shape).astype(np.float32)
        gradient.flags.writeable = False  # as some frameworks return them
        return gradient


class Masked(Linear):
    """The same answers, with a gradient that says nothing: what a defence that breaks the attack looks like."""

    def slope(self, images: Array, cotangent: Array) -> Array:
        return np.zeros(images.shape, np.float32)


class Bowl(Linear):
    """Class 0 near a grey, class 1 far from it: at that grey itself the gradient vanishes, and nowhere else."""

    def __init__(self, radius: float, grey: float = 0.5) -> None:
        super().__init__(np.zeros((2, int(np.prod(SHAPE)))), np.zeros(2))
        self.radius, self.grey = radius, np.float32(grey)

    def forward(self, images: Array, at: str = "logits") -> Array:
        far = ((images - self.grey) ** 2).sum(axis=(1, 2, 3))
        return np.stack([np.full_like(far, self.radius**2), far], axis=1).astype(np.float32)

    def slope(self, images: Array, cotangent: Array) -> Array:
        return (2 * (images - self.grey) * cotangent[:, 1, None, None, None]).astype(np.float32)


def greys(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Images (count, 4, 4, 3) near grey, so that no small change meets black or white."""
    return np.random.default_rng(seed).uniform(0.45, 0.55, (count, *SHAPE)).astype(np.float32)
