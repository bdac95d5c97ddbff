"""What the networks of all engines have in common: checks, batches, precision, and the two halves of a gradient."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.ops import Shape
from headstart.backbones.weights import match
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.types import ImageSpec
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
    nearest,
)

TOLERANCE = 0.3  # of bf16 against fp32, relative to the spread between images; up to there no accuracy was lost
MICRO_BATCH = {"cpu": 32, "cuda": 128, "gpu": 128, "mps": 64}  # images of 224 pixels or less


class BaseNetwork(ABC):
    """A `Network` but for what its engine does."""

    blueprint: Blueprint
    name: str
    spec: ImageSpec
    layers: tuple[str, ...]
    precision: str
    micro_batch: int

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
            return [np.zeros((0, *self.shape(name)), self._float) for name in at]
        batches = [images[start : start + self.micro_batch] for start in range(0, len(images), self.micro_batch)]
        return [np.concatenate(column) for column in zip(*self._forward(batches, at), strict=True)]

    def check_precision(self, images: NDArray[np.uint8], at: str = FEATURES) -> float:
        """Compare bf16 with fp32 on a few images; fall back to fp32 where it differs by more than `TOLERANCE`.

        Returns the difference, relative to how much the values vary between those images (0.0 when not in bf16).
        """
        if self.precision != "bf16" or not len(images):
            return 0.0
        error = coarseness(*self._in_both_precisions(images, at))
        if not error <= TOLERANCE:  # a value that overflowed is not a number
            self.precision = "fp32"
        return error

    def at_precision(self, precision: str) -> Self:
        """The same network, computing in another precision; weights and compiled functions are shared."""
        other = copy.copy(self)
        other.precision = precision
        return other

    def load(self, weights: Weights) -> None:
        """Take other weights of exactly these names and shapes.

        Raises:
            UsageError: some are missing, too many or misshapen.
        """
        self._take(match(weights, self.blueprint.weight_shapes(), f"weights for {self.name}"))

    @abstractmethod
    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""

    @abstractmethod
    def _forward(self, batches: Sequence[Array], at: Sequence[str]) -> list[list[Array]]:
        """The values of the nodes ``at`` for each of the batches."""

    @abstractmethod
    def _take(self, weights: Weights) -> None:
        """Take other weights, which were checked."""

    def _in_both_precisions(self, images: Array, at: str) -> tuple[Array, Array]:
        return self.forward(images, at), self.at_precision("fp32").forward(images, at)

    @property
    def _float(self) -> type[np.floating[Any]]:
        return np.float64 if self.precision == "fp64" else np.float32


class FrameworkNetwork(BaseNetwork):
    """A network on a framework of automatic differentiation, on the processor or an accelerator.

    ``precision`` "auto" is fp32; "bf16" computes forward passes in it, but for the fitted head, and gradients in fp32
    all the same; "fp64" is for exact comparisons. ``module`` is the live network that the blueprint speaks of, if it
    does; it is copied. Threads may share a network; they take turns, for each pass uses all cores.
    """

    _shapes: Mapping[str, Shape]

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
        self.device = self._choose_device(device)
        self.blueprint, self.name, self.spec = blueprint, blueprint.name, spec
        self.micro_batch = max(1, round(MICRO_BATCH[self.device] * min(1, (224 / spec.size) ** 2)))
        check_memory(blueprint, spec.size, self.micro_batch, self._free_memory())
        self._shapes = self._build(weights, module)
        self.layers = tuple(self._shapes)

    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out."""
        check_layers(self.name, at, self.layers)
        return lambda images: self.forward_many(images, at)

    def vjp(self, images: Array, at: str = LOGITS, wrt: str = INPUT) -> tuple[Array, Pullback]:
        """The value of node ``at``, and a pullback that carries a cotangent of its shape to node ``wrt``.

        With ``wrt`` "input" the gradient is with respect to the pixels: NHWC, in [0, 1]. Images do not see each other.
        The pullback may be called again and again. Never in bf16.

        Raises:
            UsageError: an unknown node, or one that does not lie before ``at``.
        """
        check_images(images, self.spec.size)
        check_layers(self.name, (at, wrt), self.layers)
        value, gradient = self._value_and_gradient(images, at, wrt)
        shape = value.shape

        def pullback(cotangent: Array) -> Array:
            """The gradient of Σ cotangent · value."""
            if np.shape(cotangent) != shape:
                raise UsageError(
                    f"Expected a cotangent of the shape of '{at}', {shape}. Received: {np.shape(cotangent)}."
                )
            return gradient(np.asarray(cotangent))

        return value, pullback

    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""
        return self._shapes[at]

    @abstractmethod
    def _choose_device(self, device: str) -> str:
        """The device, "auto" resolved."""

    def _free_memory(self) -> int | None:
        """Bytes that are free on the device, where it is not the machine's memory."""
        return None

    @abstractmethod
    def _build(self, weights: Weights, module: object | None) -> Mapping[str, Shape]:
        """Build the network; returns the shape of every node, and of the layers inside a module."""

    @abstractmethod
    def _value_and_gradient(self, images: Array, at: str, wrt: str) -> tuple[Array, Pullback]:
        """As `vjp`, of what was checked."""


def not_before(name: str, at: str, wrt: str, layers: Sequence[str], before: Sequence[str]) -> UsageError:
    """What to say when node ``wrt`` of the network called ``name`` is not among the nodes ``before`` node ``at``."""
    swapped = layers.index(wrt) > layers.index(at)
    hint = f"Did you mean at='{wrt}', wrt='{at}'?" if swapped else nearest(wrt, before)
    return UsageError(f"'{wrt}' does not lie before '{at}' in '{name}', so no gradient leads from there to it. {hint}")


def find_device(device: str, present: Mapping[str, bool], framework: str) -> str:
    """The device, "auto" resolved: the first one that is present.

    Raises:
        UsageError: no such device, or the ``framework`` does not find it.
    """
    if device == "auto":
        return next(name for name, found in present.items() if found)
    if device not in present:
        raise UsageError(f"There is no device '{device}'. {did_you_mean(device, ('auto', *present))}")
    if not present[device]:
        raise UsageError(f"{framework} finds no {device} on this machine. Take the processor: device='cpu'")
    return device
