"""A network on Keras: forward at any node, gradients from any node to any before it, weights in and out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.ops import Shape
from headstart.backbones.weights import match
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.types import ImageSpec
from headstart.engines.keras.functions import Built
from headstart.engines.keras.graph import to_model, weights_of
from headstart.engines.keras.models import wrap
from headstart.engines.protocol import (
    PRECISIONS,
    Array,
    Pullback,
    Weights,
    check_images,
    check_layers,
    check_memory,
    check_network,
    coarseness,
)

__all__ = ["KerasNetwork", "check_backend", "to_model", "weights_of", "wrap"]

DEVICES = ("auto", "cpu", "gpu")
AT_A_TIME = {"cpu": 32, "gpu": 128}  # images of 224 pixels or less
TOLERANCE = 0.3  # of bf16 against fp32, relative to the spread between images, as for the fast engine


class KerasNetwork:
    """A network on Keras with TensorFlow, on the processor or a GPU.

    ``precision`` "auto" is fp32; "bf16" computes forward passes in it, but for the fitted head, and gradients in fp32
    all the same; "fp64" is for exact comparisons. ``module`` is the live model that the blueprint speaks of, if it
    does; it is copied. Threads may share a network; they take turns, for each pass uses all cores.
    """

    engine = "keras"

    def __init__(
        self,
        blueprint: Blueprint,
        weights: Weights,
        spec: ImageSpec,
        precision: str = "fp32",
        device: str = "auto",
        *,
        module: object | None = None,
    ) -> None:
        check_network(blueprint, precision, (*PRECISIONS, "fp64"))
        self.precision = "fp32" if precision == "auto" else precision
        self.device = choose_device(device)
        self.blueprint, self.name, self.spec = blueprint, blueprint.name, spec
        self.micro_batch = max(1, round(AT_A_TIME[self.device] * min(1, (224 / spec.size) ** 2)))
        check_memory(blueprint, spec.size, self.micro_batch)
        fitting = match(weights, blueprint.weight_shapes(), f"weights for {blueprint.name}")
        self._built = Built(blueprint, fitting, spec, module, self.device)
        self._shapes = self._built.shapes(self.precision)
        self.layers = tuple(self._shapes)

    def forward(self, images: Array, at: str = LOGITS) -> Array:
        """The value of node ``at`` for images (N, size, size, 3), uint8 or floats in [0, 1], any N.

        Float32; float64 from a network in fp64.
        """
        return self.forward_many(images, (at,))[0]

    def forward_many(self, images: Array, at: Sequence[str]) -> list[Array]:
        """As `forward`, for several nodes in one pass."""
        check_images(images, self.spec.size)
        check_layers(self.name, at, self.layers)
        if not len(images):
            return [np.zeros((0, *self.shape(name)), self._dtype) for name in at]
        run = self._built.forward(self.precision, (*at,), uint8=images.dtype == np.uint8)
        parts = []
        for start in range(0, len(images), self.micro_batch):
            batch = images[start : start + self.micro_batch]
            parts.append(run(batch if batch.dtype == np.uint8 else batch.astype(self._dtype)))
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out."""
        check_layers(self.name, at, self.layers)
        return lambda images: self.forward_many(images, at)

    def vjp(self, images: Array, at: str = LOGITS, wrt: str = INPUT) -> tuple[Array, Pullback]:
        """The value of node ``at``, and a pullback that carries a cotangent of its shape to node ``wrt``.

        With ``wrt`` "input" the gradient is with respect to the pixels: NHWC, in [0, 1]. Images do not see each other.
        The pullback may be called again and again; each time it computes the forward pass anew, as part of one
        compiled function, which is faster than to keep what a backward pass needs. Never in bf16.

        Raises:
            UsageError: an unknown node, or one that does not lie before ``at``.
        """
        check_images(images, self.spec.size)
        check_layers(self.name, (at, wrt), self.layers)
        exact = self if self.precision != "bf16" else self.at_precision("fp32")
        pixels = np.array(images, self._dtype)  # a copy: the pullback is not to see what becomes of the images
        if images.dtype == np.uint8:
            pixels /= 255
        carry = self._built.backward(exact.precision, at, wrt)
        value = exact.forward(pixels, at)

        def pullback(cotangent: Array) -> Array:
            """The gradient of Σ cotangent · value."""
            if np.shape(cotangent) != value_shape:
                raise UsageError(
                    f"Expected a cotangent of the shape of '{at}', {value_shape}. Received: {np.shape(cotangent)}."
                )
            weight = np.asarray(cotangent, self._dtype)
            if not len(pixels):
                return pixels.copy() if wrt == INPUT else np.zeros((0, *self.shape(wrt)), self._dtype)
            parts = []
            for start in range(0, len(pixels), self.micro_batch):
                rows = slice(start, start + self.micro_batch)
                parts += carry(pixels[rows], weight[rows])
            return np.concatenate(parts)

        value_shape = value.shape
        return value, pullback

    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""
        return self._shapes[at]

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""
        return {name: np.array(array, np.float32) for name, array in self._built.weights.items()}

    def load(self, weights: Weights) -> None:
        """Take other weights of exactly these names and shapes; nothing is compiled again.

        Raises:
            UsageError: some are missing, too many or misshapen.
        """
        self._built.load(match(weights, self.blueprint.weight_shapes(), f"weights for {self.name}"))

    def check_precision(self, images: NDArray[np.uint8], at: str = FEATURES) -> float:
        """Hold bf16 against fp32 on a few images; fall back to fp32 where it differs by more than `TOLERANCE`.

        Returns the difference, relative to how much the values vary between those images (0.0 when not in bf16).
        """
        if self.precision != "bf16" or not len(images):
            return 0.0
        error = coarseness(self.forward(images, at), self.at_precision("fp32").forward(images, at))
        if not error <= TOLERANCE:  # what overflowed is not a number
            self.precision = "fp32"
        return error

    def at_precision(self, precision: str) -> KerasNetwork:
        """The same network, computing in another precision; the weights are shared."""
        other = copy.copy(self)
        other.precision = precision
        return other

    def release(self) -> None:
        """Give back the memory of what was compiled in this precision; it is compiled again when it is wanted."""
        self._built.release(self.precision)

    @property
    def _dtype(self) -> type[Any]:
        return np.float64 if self.precision == "fp64" else np.float32


def check_backend() -> None:
    """Refuse a Keras that was started on another framework than TensorFlow."""
    tf.config.list_physical_devices()  # which it comments upon the first time
    if (running := keras.backend.backend()) != "tensorflow":
        raise UsageError(
            f"Keras runs on {running} in this process; the Keras engine needs TensorFlow. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported."
        )


def choose_device(device: str) -> str:
    """ "auto" resolved for this machine.

    Raises:
        UsageError: no such device, or it is not there.
    """
    if device not in DEVICES:
        raise UsageError(f"There is no device '{device}'. {did_you_mean(device, DEVICES)}")
    there = bool(tf.config.list_physical_devices("GPU"))
    if device == "gpu" and not there:
        raise UsageError("TensorFlow finds no gpu on this machine. Take the processor: device='cpu'")
    return ("gpu" if there else "cpu") if device == "auto" else device
