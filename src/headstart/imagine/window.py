"""What a network sees of a canvas: a window, scaled to its size; and gradients on the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.imagine.canvas import Planes
from headstart.imagine.preset import Preset


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a canvas as a picture: one matrix makes its rows of the canvas' rows, the other its columns."""

    rows: NDArray[np.float32]  # (height, height of the canvas)
    columns: NDArray[np.float32]  # (width, width of the canvas)

    def of(self, images: Planes) -> Planes:
        """The picture in the window."""
        found: Planes = self.rows @ images @ self.columns.T
        return found

    def back(self, gradient: Planes) -> Planes:
        """The gradient with respect to the canvas of one with respect to the picture."""
        found: Planes = self.rows.T @ np.ascontiguousarray(gradient) @ self.columns
        return found


def whole_window(canvas: int, size: int) -> Window:
    """All of a canvas, scaled to ``size`` pixels."""
    matrix = resampled(canvas, size, 0, canvas)
    return Window(matrix, matrix)


def random_window(preset: Preset, canvas: int, size: int, rng: np.random.Generator) -> Window:
    """A square of random size and place, that lies inside of the canvas."""
    side = min(rng.uniform(*preset.window) * size, canvas)
    top, left = rng.uniform(0, canvas - side, 2)
    return Window(resampled(canvas, size, top, side), resampled(canvas, size, left, side))


def resampled(canvas: int, size: int, start: float, length: float) -> NDArray[np.float32]:
    """The matrix (size, canvas) that makes ``size`` pixels of the ``length`` pixels from ``start`` on.

    Each new pixel is a weighted mean of those around its centre: their weights fall linearly, over one old pixel where
    the picture is enlarged, and over one new one where it is made smaller.
    """
    step = length / size
    centres = start + (np.arange(size) + 0.5) * step - 0.5
    distance = np.abs(centres[:, None] - np.arange(canvas))
    weights = np.maximum(0, 1 - distance / max(step, 1))
    found: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
