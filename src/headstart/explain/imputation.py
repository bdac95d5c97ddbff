"""Pixels taken away without a trace: noisy linear imputation (Rong et al. 2022).

Each pixel that is taken away becomes the weighted mean of its eight neighbours, kept or taken away alike, which is one
linear equation for each; then noise is added. A patch of one colour would tell the network the shape of what is gone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NOISE = 0.01  # standard deviation, of pixels from 0 to 1
TOLERANCE = 1e-5  # of the equations, relative to their right-hand side
MOST = 500  # steps; some dozens are enough
DAMPING = 0.7  # of the Jacobi steps
TINY = 1e-300

Array = NDArray[np.float64]


class Normal(Protocol):
    """Where noise comes from: `numpy.random.Generator` or `RandomState`."""

    def standard_normal(self, size: tuple[int, ...]) -> NDArray[np.float64]:
        """Numbers with mean 0 and standard deviation 1."""


def imputed(
    image: NDArray[np.floating],
    order: NDArray[np.intp],
    random: Normal,
    *,
    noise: float = NOISE,
    tolerance: float = TOLERANCE,
) -> NDArray[np.float64]:
    """An image (height, width, colours) in [0, 1] without the pixels ``order``, numbered row by row.

    ``order`` must leave a pixel. The noise goes to the pixels in their order, all of one colour first. Values that it
    carries out of [0, 1] are cut.
    """
    height, width, colours = image.shape
    known = np.ones(height * width)
    known[order] = 0
    found = smooth(np.moveaxis(image, -1, 0).astype(np.float64), known.reshape(height, width), tolerance)
    flat = found.reshape(colours, -1)
    flat[:, order] += noise * random.standard_normal((colours, len(order)))
    return np.moveaxis(np.clip(found, 0, 1), 0, -1)


def smooth(image: Array, known: Array, tolerance: float = TOLERANCE) -> Array:
    """The image (colours, height, width) with each pixel where ``known`` (height, width) is 0 the mean of its
    neighbours, 1/6 for those beside it and 1/12 for those at its corners; at the border those that there are.

    The equations are symmetric and positive definite: conjugate gradients solve them, with a cycle over coarser and
    coarser grids as preconditioner, for a large hole would take them hundreds of steps without.
    """
    free = 1 - known
    total = _neighbours(np.ones_like(known))  # of the weights, below 1 at the border
    kept = image * known
    x = np.zeros_like(image)
    residual = free * _neighbours(kept)
    goal = tolerance * np.sqrt(np.maximum(free.sum(), 1))  # pixels are from 0 to 1
    direction, size = np.zeros_like(x), np.ones((len(image), 1, 1))
    for _ in range(MOST):
        if (np.sqrt(_dots(residual, residual)) <= goal).all():
            break
        corrected = _cycle(residual, free)
        before, size = size, _dots(residual, corrected)
        direction = corrected + size / np.maximum(before, TINY) * direction
        along = total * direction - free * _neighbours(direction)
        step = size / np.maximum(_dots(direction, along), TINY)
        x += step * direction
        residual -= step * along
    return kept + x


def _cycle(residual: Array, free: Array) -> Array:
    """Roughly what solves the equations for ``residual``: one V-cycle of multigrid, damped Jacobi on every grid."""
    total = _neighbours(np.ones_like(free))
    height, width = free.shape
    x = DAMPING * free * residual / total
    if min(height, width) < 4 or not free.any():
        return x
    left = free * (residual - total * x + _neighbours(x))
    odd = (0, height % 2), (0, width % 2)
    coarse = _cycle(_halved(np.pad(left, ((0, 0), *odd))), np.floor(_halved(np.pad(free, odd)) / 4))
    x += free * coarse.repeat(2, 1).repeat(2, 2)[:, :height, :width]
    return x + DAMPING * free * (residual - total * x + _neighbours(x)) / total


def _neighbours(x: Array) -> Array:
    """The weighted sum of the eight neighbours, of which there are fewer at the border."""
    down = 2 * x
    down[..., 1:, :] += x[..., :-1, :]
    down[..., :-1, :] += x[..., 1:, :]
    both = 2 * down
    both[..., 1:] += down[..., :-1]
    both[..., :-1] += down[..., 1:]
    both -= 4 * x
    both /= 12
    return both


def _dots(one: Array, other: Array) -> Array:
    return np.asarray(np.einsum("chw,chw->c", one, other)[:, None, None])


def _halved(x: Array) -> Array:
    return np.asarray(x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2])
