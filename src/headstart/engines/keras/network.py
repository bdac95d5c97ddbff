"""A network on Keras: forward at any node, gradients from any node to any before it, weights in and out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT
from headstart.backbones.ops import Shape
from headstart.engines.devices import find_device
from headstart.engines.frameworks import check_keras_backend
from headstart.engines.keras.functions import CompiledNetwork
from headstart.engines.keras.graph import rename_without_dots, to_model, weights_of
from headstart.engines.keras.models import check_live, wrap
from headstart.engines.keras.summary import summary_of
from headstart.engines.protocol import Array, FrameworkNetwork, Pullback, Weights, fitting

__all__ = [
    "KerasNetwork",
    "check_backend",
    "check_live",
    "rename_without_dots",
    "summary_of",
    "to_model",
    "weights_of",
    "wrap",
]


class KerasNetwork(FrameworkNetwork):
    """A network on Keras with TensorFlow; see `FrameworkNetwork`.

    A pullback computes the forward pass anew, as part of one compiled function, which is faster than to keep the
    values of a backward pass.
    """

    engine = "keras"

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""
        return {name: np.array(array, np.float32) for name, array in self._built.weights.items()}

    def release(self) -> None:
        """Free what was compiled in this precision; it is compiled again when needed."""
        self._built.release(self.precision)

    def _choose_device(self, device: str) -> str:
        return choose_device(device)

    def _build(self, weights: Weights, module: object | None) -> Mapping[str, Shape]:
        own = fitting(weights, self.blueprint, self._float)
        self._built = CompiledNetwork(self.blueprint, own, self.spec, module, self.device)
        return self._built.shapes(self.precision)

    def _take(self, weights: Weights) -> None:
        self._built.load(weights)

    def _forward(self, batches: Sequence[Array], at: Sequence[str]) -> list[list[Array]]:
        uint8 = batches[0].dtype == np.uint8
        run = self._built.forward(self.precision, (*at,), uint8=uint8)
        return [run(batch if uint8 else batch.astype(self._float)) for batch in batches]

    def _value_and_gradient(self, images: Array, at: str, wrt: str) -> tuple[Array, Pullback]:
        exact = self if self.precision != "bf16" else self.at_precision("fp32")
        pixels = np.array(images, self._float)  # a copy: the caller may change the images before a pullback
        if images.dtype == np.uint8:
            pixels /= 255
        built = self._built
        weights = built.weights
        carry = built.backward(exact.precision, at, wrt)

        def gradient(cotangent: Array) -> Array:
            weight = np.asarray(cotangent, self._float)
            if not len(pixels):
                return pixels.copy() if wrt == INPUT else np.zeros((0, *self.shape(wrt)), self._float)
            nonlocal built, carry
            if built.weights is not weights:  # `load` has replaced them since
                built = built.with_weights(weights)
                carry = built.backward(exact.precision, at, wrt)
            parts = []
            for start in range(0, len(pixels), self.micro_batch):
                rows = slice(start, start + self.micro_batch)
                parts += carry(pixels[rows], weight[rows])
            return np.concatenate(parts)

        return exact.forward(pixels, at), gradient


def check_backend() -> None:
    """Refuse a Keras that was started on another framework than TensorFlow."""
    tf.config.list_physical_devices()  # it prints messages the first time
    check_keras_backend()


def choose_device(device: str) -> str:
    """The device, "auto" resolved for this machine.

    Raises:
        UsageError: no such device, or it is not there.
    """
    there = bool(tf.config.list_physical_devices("GPU"))  # its name for any accelerator
    apple = sys.platform == "darwin"
    return find_device(device, {"cuda": there and not apple, "mps": there and apple, "cpu": True}, "TensorFlow")
