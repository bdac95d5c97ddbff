"""Gradient ascent on images: look through a window, ask the network for the gradient, take a step, again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.imagine.canvas import Canvas, Planes
from headstart.imagine.preset import Preset
from headstart.imagine.target import Target, cotangent_of
from headstart.imagine.window import random_window


def ascend(
    network: Any, canvas: Canvas, targets: Sequence[Target], preset: Preset, rng: np.random.Generator
) -> Iterator[Planes]:
    """Change the images of a canvas, one for each target, all of one layer; yields them after each step.

    Window and noise of a step are the same for all images, so that an image depends on no other.
    """
    for step in range(preset.steps):
        images = canvas.images()
        window = random_window(preset, images.shape[-1], network.spec.size, rng)
        seen = window.of(images)
        if preset.noise:
            noise = rng.standard_normal((1, *seen.shape[1:]), np.float32)
            seen = seen + np.float32(preset.noise * (1 - step / preset.steps)) * noise
        gradient = window.back(loss_gradient(network, seen, targets, preset.others))
        if preset.variation:
            gradient = gradient + np.float32(preset.variation) * variation_gradient(images)
        canvas.step(gradient)
        yield canvas.images()


def loss_gradient(network: Any, images: Planes, targets: Sequence[Target], others: float) -> Planes:
    """The gradient of the loss, the negative objective of `cotangent_of`, with respect to the pixels.

    It is 0 where a pixel lies outside of the range from 0 to 1, in which the network sees it at the end of the range.
    """
    shown = np.clip(images, 0, 1)
    output, pullback = network.vjp(np.ascontiguousarray(shown.transpose(0, 2, 3, 1)), at=targets[0].layer)
    gradient = pullback(-cotangent_of(output, targets, others)).transpose(0, 3, 1, 2)
    found: Planes = np.where(images == shown, gradient, 0).astype(np.float32, copy=False)
    return found


def variation(images: Planes) -> NDArray[np.floating]:
    """The total variation of each image (N,): the mean absolute difference of neighbouring pixels."""
    down, across = np.abs(np.diff(images, axis=2)), np.abs(np.diff(images, axis=3))
    found: NDArray[np.floating] = (down.sum(axis=(1, 2, 3)) + across.sum(axis=(1, 2, 3))) / images[0].size
    return found


def variation_gradient(images: Planes) -> Planes:
    """The gradient of `variation` with respect to the pixels."""
    down, across = np.sign(np.diff(images, axis=2)), np.sign(np.diff(images, axis=3))
    gradient = np.zeros_like(images)
    gradient[:, :, 1:] += down
    gradient[:, :, :-1] -= down
    gradient[..., 1:] += across
    gradient[..., :-1] -= across
    found: Planes = gradient / np.float32(images[0].size)
    return found
