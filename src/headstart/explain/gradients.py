"""Evidence for a class by gradients of its logit with respect to a layer or the pixels; over `Network.vjp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT, LOGITS
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines.protocol import Network

Array = NDArray[np.floating]
Pixels = NDArray[np.uint8] | NDArray[np.floating]  # 0 to 255, or 0 to 1

FEWEST, MOST = 8, 128  # steps of integrated gradients
GAP = 0.05  # of integrated gradients: with this gap there are steps enough
TOGETHER = 8  # images in one pass


class WithGradients(Protocol):
    """A network, as far as gradients need it."""

    spec: ImageSpec

    def forward(self, images: Pixels, at: str = LOGITS) -> Array:
        """The value of a node."""

    def vjp(self, images: Pixels, at: str = LOGITS, wrt: str = INPUT) -> tuple[Array, Callable[[Array], Array]]:
        """The value of a node, and a function that carries a cotangent of it to another node."""


def with_gradients(network: Network) -> WithGradients:
    """The same network.

    Raises:
        UsageError: its engine computes no gradients.
    """
    if not hasattr(network, "vjp"):
        raise UsageError(
            f"This needs gradients of '{network.name}', which the engine '{network.engine}' does not compute. "
            "Take another: --engine torch"
        )
    return cast("WithGradients", network)


def layer_evidence(network: WithGradients, pixels: Pixels, index: int, at: str, *, averaged: bool) -> Array:
    """The map (height, width) of layer ``at`` for one image (size, size, 3): gradient of the logit times activation.

    HiResCAM (Draelos & Carin 2020); with the gradient ``averaged`` over the places Grad-CAM (Selvaraju et al. 2017).
    """
    gradient = _gradient(network, pixels[None], index, at)[1][0]
    values = network.forward(pixels[None], at)[0]
    if averaged:
        gradient = gradient.mean((1, 2), keepdims=True)
    return np.asarray((gradient * values).sum(0))


def gradient_times_input(network: WithGradients, pixels: Pixels, index: int) -> Array:
    """The map (size, size) for one image: gradient of the logit times the normalised pixels, summed over colours."""
    x = as_floats(pixels)
    return np.asarray((_gradient(network, x[None], index, INPUT)[1][0] * (x - mean_of(network))).sum(-1))


def integrated_gradients(
    network: WithGradients, pixels: Pixels, index: int, *, gap: float = GAP, most: int = MOST
) -> tuple[Array, int, float]:
    """The map (size, size) for one image, the number of steps, and the completeness gap that is left.

    Integrated gradients (Sundararajan et al. 2017) along the line from the mean colour to the image, by the trapezoid
    rule. The attributions should add up to the difference of the logits at both ends; the gap is how far they are from
    it, relative to it. The number of steps is doubled until the gap is at most ``gap``, or ``most`` is reached.
    """
    x, start = as_floats(pixels), np.broadcast_to(mean_of(network), np.shape(pixels))
    ends, total = _along(network, start, x, index, np.array([0.0, 1.0]))
    wanted = float(ends[1] - ends[0])
    steps, total = 1, total / 2  # of all gradients so far, the ends at half weight
    while True:
        inner = (np.arange(steps) + 0.5) / steps  # halves every step; the gradients so far are used again
        total = total + _along(network, start, x, index, inner)[1]
        steps *= 2
        found = ((x - start) * total / steps).sum(-1)
        left = abs(float(found.sum()) - wanted) / max(abs(wanted), 1e-12)
        if steps >= most or (steps >= FEWEST and left <= gap):
            return found, steps, left


def as_floats(pixels: Pixels) -> Array:
    """Pixels in [0, 1]."""
    return np.asarray(pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels)


def mean_of(network: WithGradients) -> NDArray[np.float32]:
    """The colour that normalisation turns into zero."""
    return np.asarray(network.spec.mean, np.float32)


def _along(
    network: WithGradients, start: Array, end: Array, index: int, places: NDArray[np.float64]
) -> tuple[Array, Array]:
    """The logits at places between two images, from 0 to 1, and the sum of the gradients there."""
    logits, total = [], np.zeros_like(end)
    for first in range(0, len(places), TOGETHER):
        t = places[first : first + TOGETHER].astype(np.float32)[:, None, None, None]
        value, gradient = _gradient(network, start + t * (end - start), index, INPUT)
        logits.append(value)
        total = total + gradient.sum(0)
    return np.concatenate(logits), total


def _gradient(network: WithGradients, images: Pixels, index: int, wrt: str) -> tuple[Array, Array]:
    """One logit of each image (N,), and its gradient."""
    value, pullback = network.vjp(images, LOGITS, wrt)
    cotangent = np.zeros_like(value)
    cotangent[:, index] = 1
    return value[:, index], pullback(cotangent)
