"""Which pixels a Keras model wants: told by what it makes of them before its first weights, or by what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from headstart.core.types import ImageSpec
from headstart.engines.keras.applications import pixels_of
from headstart.engines.keras.start import tensors_before_weights

BYTES = ImageSpec(224, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), resample="bilinear")  # pixels from 0 to 255
GREYS = [(level,) * 3 for level in (0, 128, 255)]
COLOURS = np.array([*GREYS, (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.float32)
NEAR = 1.0  # of 255; resizing rounds, and batch norm adds its epsilon
MOST = 300.0  # no network takes larger values; they come of a scaling that is for pixels from 0 to 1


def wanted(flat: Any, models: Sequence[tuple[Any, Any]]) -> tuple[ImageSpec, bool] | None:
    """The pixels that a model wants, and whether it takes blue, green, red; None where nothing tells them.

    Images of one colour each are sent up to the first layers with weights. A model that gives them other values than
    0 to 255 scales its pixels itself, so it takes bytes, whatever it does so with. One that gives them unchanged to a
    network of `keras.applications` wants the pixels of that network.

    Args:
        flat: a copy that takes the images as they are, of `unroll`.
        models: the model and those within it, with what each is given in the copy.
    """
    before, first = tensors_before_weights(flat)
    reached = [(model, tensor) for model, tensor in models if any(tensor is each for each in before)]
    if not (reached and first):
        return None
    images, *values = _values(flat, [*(tensor for _, tensor in reached), *first])
    given, taken = [images, *values[: len(reached) - 1]], values[len(reached) - 1 :]
    scaled = {not _same_range(images, each) for each in taken}
    if scaled == {True}:
        return (BYTES, False) if max(float(np.abs(each).max()) for each in taken) <= MOST else None
    if scaled != {False}:
        return None  # one way scales them, another does not
    unchanged = [model for (model, _), value in zip(reached, given, strict=True) if _same_colours(images, value)]
    found = {pixels for model in unchanged if (pixels := pixels_of(model, BYTES.size))}
    return found.pop() if len(found) == 1 else None


def _values(flat: Any, tensors: Sequence[Any]) -> list[NDArray[np.float32]]:
    """What the images of one colour each become at these places."""
    entry = flat.inputs[0]
    images = np.ones((1, *entry.shape[1:]), np.float32) * COLOURS[:, None, None]
    inner = [each for each in tensors if each is not entry]
    found = iter(keras.tree.flatten(keras.Model(entry, inner)(images, training=False)) if inner else ())
    return [images if each is entry else np.array(next(found), np.float32) for each in tensors]


def _same_range(images: NDArray[np.float32], value: NDArray[np.float32]) -> bool:
    """Whether black, grey and white are as they were; zeros may be around them."""
    for before, after in zip(images[: len(GREYS)], value, strict=False):
        level = before.max()
        inside = (np.abs(after - level) <= NEAR) | (np.abs(after) <= NEAR)
        if not (inside.all() and np.abs(after - level).min() <= NEAR):
            return False
    return True


def _same_colours(images: NDArray[np.float32], value: NDArray[np.float32]) -> bool:
    """Whether every channel is as it was."""
    if value.ndim != images.ndim or value.shape[-1] != images.shape[-1]:
        return False
    axes = tuple(range(1, images.ndim - 1))
    return bool(np.abs(value.max(axes) - images.max(axes)).max() <= NEAR)
