"""The images that a Keras model takes, and how it gets them from pixels of three channels."""

from __future__ import annotations

from typing import Any

import keras

from headstart.backbones.ops import LUMA
from headstart.core.errors import UsageError


def as_taken(pixels: Any, model: Any, policy: str) -> Any:
    """Pixels of three channels as a model takes them; the luma where it takes one channel, or has no axis for it."""
    shape = input_shape(model)
    if not (len(shape) == 3 or (len(shape) == 4 and shape[-1] == 1)):
        return pixels
    exact = "float64" if policy == "float64" else "float32"
    shares = keras.layers.Rescaling([*LUMA], name="luma_shares", dtype=exact)(pixels)
    luma = keras.ops.sum(shares, -1, keepdims=len(shape) == 4)
    luma._keras_history.operation.name = "luma"  # without Keras' counter
    return luma


def input_shape(model: Any) -> tuple[int | None, ...]:
    """The shape of the images that a model takes, the batch first; () where that is not known."""
    shapes = [tuple(each.shape) for each in getattr(model, "inputs", None) or ()] or [built_shape(model) or ()]
    return shapes[0] if len(shapes) == 1 else ()


def own_size(model: Any, name: str) -> int | None:
    """The image height of a model's input, where it is fixed.

    Raises:
        UsageError: its channels come first.
    """
    shape = input_shape(model)
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        channels, height, width = shape[1:]
        raise UsageError(
            f"'{name}' takes images of the shape {shape[1:]}: expected height, width, channels. Turn the axes inside: "
            f"keras.Sequential([keras.Input(({height}, {width}, {channels})), keras.layers.Permute((3, 1, 2)), MODEL])"
        )
    return shape[1] if len(shape) in (3, 4) else None


def built_shape(model: Any) -> tuple[int | None, ...] | None:
    """The shape that a model was built with, where it is recorded."""
    try:
        shape = (model.get_build_config() or {}).get("input_shape")
    except (AttributeError, NotImplementedError):
        return None
    return tuple(shape) if isinstance(shape, list | tuple) and all(type(each) is int for each in shape[1:]) else None
