"""The layers of a network of `keras.applications`, of a ".keras" file, or of the model in a blueprint, as a list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv

from headstart.backbones.ops import Node
from headstart.core.errors import UsageError
from headstart.engines.keras.applications import USUAL, build_application
from headstart.engines.keras.files import open_file
from headstart.engines.keras.flat_model import unroll
from headstart.engines.keras.inputs import own_size
from headstart.engines.keras.models import build_model
from headstart.engines.keras.pixels import BYTES
from headstart.engines.protocol import APPLICATIONS
from headstart.engines.summary import Layer, Summary, window_of
from headstart.engines.wrapped import check_pixels


def summary_of(source: str | Node, pixels: int | None) -> Summary:
    """The layers of "keras/NAME" with its own head, of a ".keras" file, or of the model that a node stands for.

    No weights are fetched. The layers of models within a model are listed, not those models.

    Raises:
        UsageError: no such network or file, or a size that it does not take.
    """
    name, headless = source if isinstance(source, str) else source["source"], False
    if isinstance(source, Node):
        size = pixels or BYTES.size
        flat = unroll(build_model(source, None, size), size, name)
    elif name.startswith(APPLICATIONS):
        check_pixels(pixels)
        flat, size, headless = _application(name, pixels)
    else:
        check_pixels(pixels)
        model = open_file(name)
        size = pixels or own_size(model, name) or BYTES.size
        flat = unroll(model, size, name)
    listed = [  # a blueprint has an input of its own
        each for each in flat.operations if isinstance(source, str) or not isinstance(each, keras.layers.InputLayer)
    ]
    return Summary(name, size, tuple(map(_layer, listed)), "Keras", "height × width × channels", headless)


def _application(name: str, pixels: int | None) -> tuple[Any, int, bool]:
    """A network, its size, and whether it lost its head, which has a weight for every place of the native size."""
    whole = build_application(name)
    size = pixels or int(whole.input_shape[1] or USUAL)
    try:
        return unroll(whole, size, name), size, False
    except UsageError:
        if pixels is None:
            raise
    headless = build_application(name, include_top=False, input_shape=(size, size, 3))
    return unroll(headless, size, name), size, True


def _layer(layer: Any) -> Layer:
    outputs = keras.tree.flatten(layer._inbound_nodes[-1].outputs)
    shape = tuple(int(each or 0) for each in outputs[0].shape[1:])
    kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    return Layer(
        layer.name,
        type(layer).__name__,
        window_of(kernel, getattr(layer, "strides", 1)),
        shape,
        sum(math.prod(each.shape) for each in getattr(layer, "trainable_weights", ())),
        _multiply_adds(layer, math.prod(shape), len(layer._inbound_nodes)),
    )


def _multiply_adds(layer: Any, values: int, calls: int) -> int | None:
    """Of a layer that is called so often and gives so many ``values`` for an image each time."""
    weights = getattr(layer, "trainable_weights", ())
    if isinstance(layer, keras.layers.Dense | BaseConv):
        return values * calls * _product(layer.kernel.shape[:-1])
    if isinstance(layer, BaseDepthwiseConv):
        return values * calls * _product(layer.kernel.shape[:-2])
    if isinstance(layer, BaseSeparableConv):
        kernels = _product(layer.depthwise_kernel.shape) + _product(layer.pointwise_kernel.shape)
        return values // int(layer.filters) * calls * kernels
    return None if any(len(each.shape) > 1 for each in weights) else 0


def _product(sizes: Sequence[int]) -> int:
    return math.prod(map(int, sizes))
