"""What is changed so that an image changes: its pixels, or the amplitudes of its frequencies.

Images are (N, 3, height, width) here, from 0 to 1: the transforms run along the last two axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from headstart.imagine.preset import Preset

Planes = NDArray[np.floating]  # (N, 3, height, width), float32

# Colours as three numbers that are independent of each other in photos: a root of the covariance of ImageNet's colours
# (Olah et al. 2017, "Feature visualization"), scaled so that its longest column has the length 1.
_COLOURS = np.array([(0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03)], np.float32)
COLOURS = _COLOURS / np.linalg.norm(_COLOURS, axis=0).max()
DECAY = 1.2  # the amplitude of a frequency f, in the start and in a step, is in proportion to f^-1.2
CONTRAST = 3.5  # standard deviation of the picture before the sigmoid where that of all amplitudes is 1
START = 0.01  # standard deviation of the amplitudes of the start
BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam
LEAST = 0.02  # of a pixel of a photo: no sigmoid gives 0 or 1


class Canvas(ABC):
    """N images of the same size that are changed together, each along its own gradient."""

    @abstractmethod
    def images(self) -> Planes:
        """The images as they are now."""

    @abstractmethod
    def step(self, gradient: Planes) -> None:
        """Change the images, of which this is the gradient of a loss, so that the loss gets smaller."""


class PixelCanvas(Canvas):
    """Pixels, changed by gradient descent: by ``rate`` in the mean of the squares, whatever the gradient's length."""

    def __init__(self, images: Planes, rate: float) -> None:
        self._images, self._rate = images, np.float32(rate)

    def images(self) -> Planes:
        """The images as they are now."""
        return self._images

    def step(self, gradient: Planes) -> None:
        """A step against the gradient; what leaves the range from 0 to 1 is brought back."""
        length = np.sqrt(np.mean(gradient**2, axis=(1, 2, 3), keepdims=True))
        self._images = np.clip(self._images - self._rate * gradient / np.maximum(length, EPSILON), 0, 1)


class FourierCanvas(Canvas):
    """Amplitudes of the frequencies of independent colours, behind a sigmoid, changed by Adam (Kingma & Ba 2015).

    Low frequencies weigh more, as in photos, so that a step draws shapes before it draws texture (Olah et al. 2017).
    """

    def __init__(self, amplitudes: NDArray[np.float32], size: int, rate: float) -> None:
        """``amplitudes``: (N, 3, size, size // 2 + 1, 2), real and imaginary parts."""
        self._amplitudes, self._size, self._rate = amplitudes, size, np.float32(rate)
        self._scale = spectrum(size)
        self._twice = np.full(self._scale.shape[1], 2, np.float32)  # most columns stand for two frequencies, ±f
        self._twice[[0, -1]] = 1
        self._mean, self._square, self._steps = np.zeros_like(amplitudes), np.zeros_like(amplitudes), 0
        self._images = self._drawn()

    def images(self) -> Planes:
        """The images as they are now."""
        return self._images

    def step(self, gradient: Planes) -> None:
        """A step of Adam on the amplitudes."""
        slope = self.pullback(gradient)
        first, second = (np.float32(beta) for beta in BETAS)
        self._steps += 1
        self._mean = first * self._mean + (1 - first) * slope
        self._square = second * self._square + (1 - second) * slope**2
        mean, square = self._mean / (1 - first**self._steps), self._square / (1 - second**self._steps)
        self._amplitudes = self._amplitudes - self._rate * mean / (np.sqrt(square) + np.float32(EPSILON))
        self._images = self._drawn()

    def pullback(self, gradient: Planes) -> NDArray[np.float32]:
        """The gradient with respect to the amplitudes of one with respect to the images."""
        planes = _in_colours(COLOURS.T, gradient * self._images * (1 - self._images))
        found = np.fft.rfft2(planes, norm="ortho") * (self._scale * self._twice)
        return np.stack([found.real, found.imag], axis=-1).astype(np.float32)

    def _drawn(self) -> Planes:
        planes = np.fft.irfft2(_complex(self._amplitudes) * self._scale, s=(self._size,) * 2, norm="ortho")
        found: Planes = 1 / (1 + np.exp(-_in_colours(COLOURS, planes)))
        return found


def spectrum(size: int) -> NDArray[np.float32]:
    """What the amplitude of each frequency is multiplied by, (size, size // 2 + 1)."""
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    scale = np.maximum(frequencies, 1 / size) ** -DECAY
    found: NDArray[np.float32] = (scale * CONTRAST / np.sqrt(np.mean(scale**2))).astype(np.float32)
    return found


def noise_canvas(preset: Preset, size: int, count: int, rng: np.random.Generator) -> Canvas:
    """``count`` times the same noise, so that an image depends on no other."""
    if preset.fourier:
        shape = (1, 3, size, size // 2 + 1, 2)
        amplitudes = START * rng.standard_normal(shape, np.float32)
        return FourierCanvas(np.repeat(amplitudes, count, axis=0), size, preset.rate)
    pixels = np.clip(0.5 + 0.1 * rng.standard_normal((1, 3, size, size), np.float32), 0, 1)
    return PixelCanvas(np.repeat(pixels, count, axis=0), preset.rate)


def photo_canvas(preset: Preset, photo: Planes, count: int) -> Canvas:
    """``count`` times a photo (1, 3, size, size) from 0 to 1."""
    if not preset.fourier:
        return PixelCanvas(np.repeat(photo, count, axis=0), preset.rate)
    size = photo.shape[-1]
    shown = np.clip(photo, LEAST, 1 - LEAST)
    planes = _in_colours(np.linalg.inv(COLOURS).astype(np.float32), np.log(shown / (1 - shown)))
    found = np.fft.rfft2(planes, norm="ortho") / spectrum(size)
    amplitudes = np.stack([found.real, found.imag], axis=-1).astype(np.float32)
    return FourierCanvas(np.repeat(amplitudes, count, axis=0), size, preset.rate)


def _complex(pairs: NDArray[np.float32]) -> NDArray[np.complex64]:
    """(…, 2) real and imaginary parts as complex numbers (…)."""
    return np.ascontiguousarray(pairs).view(np.complex64)[..., 0]


def _in_colours(matrix: NDArray[np.float32], planes: NDArray[np.floating]) -> Planes:
    """Each pixel's three numbers multiplied by a 3 × 3 matrix."""
    flat = planes.astype(np.float32, copy=False).reshape(len(planes), 3, -1)
    found: Planes = (matrix @ flat).reshape(planes.shape)
    return found
