"""What a network is on every engine, and the checks that all engines share."""

from __future__ import annotations

import copy
import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.ops import Shape
from headstart.backbones.weights import match
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.types import ImageSpec
from headstart.engines.memory import check_memory

PRECISIONS = ("auto", "bf16", "int8", "fp32")  # of the fast engine
LOW = ("bf16", "int8")  # those that are held against fp32 before they are used
TOLERANCE = 0.3  # of those against fp32, relative to the spread between images; up to there no accuracy was lost
MICRO_BATCH = {"cpu": 32, "cuda": 128, "mps": 64}  # images of 224 pixels or less
# prefixes of the source of a network without a full blueprint: of a library, or a live object
TIMM, LIVE = "timm/", "module:"
APPLICATIONS, LIVE_KERAS = "keras/", "keras-model:"

NO_INT8 = "Leave --precision out, or take: --precision fp32"

Array = NDArray[Any]
Weights = Mapping[str, NDArray[Any]]
Pullback = Callable[[Array], Array]


class Network(ABC):
    """A network on images: the interface between NumPy and the framework that runs it.

    Images are NHWC RGB of ``spec.size`` pixels, uint8 or floats in [0, 1]; normalisation happens inside. Logits, never
    probabilities; evaluation mode.
    """

    engine: str  # "fast", "torch", "keras"
    blueprint: Blueprint
    name: str  # of its blueprint
    spec: ImageSpec
    layers: tuple[str, ...]  # node names in order, "input" first, "logits" last
    precision: str  # what it computes in: one of `PRECISIONS`, "auto" resolved, or "fp64"
    device: str  # what it computes on: one of `DEVICES`, "auto" resolved
    micro_batch: int  # the best number of images at a time

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

    def compile_beside(self, count: int, at: Sequence[str]) -> None:  # noqa: B027 (most have nothing to compile)
        """Begin on a thread what the first `forward_many` of ``count`` images, see `for_images`, would wait for."""

    def vjp(self, images: Array, at: str = LOGITS, wrt: str = INPUT) -> tuple[Array, Pullback]:
        """The value of node ``at``, and a pullback that carries a cotangent of its shape to node ``wrt``.

        With ``wrt`` "input" the gradient is with respect to the pixels: NHWC, in [0, 1]. Images do not see each other.
        The pullback may be called again and again, and keeps the weights that it was made with. Never in bf16 or int8.

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

    def check_precision(self, images: NDArray[np.uint8], at: str = FEATURES) -> float:
        """Compare bf16 or int8 with fp32 on a few images; fall back to fp32 where it differs by more than `TOLERANCE`.

        Returns the difference, relative to how much the values vary between those images (0.0 in fp32).
        """
        if self.precision not in LOW or not len(images):
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

    def seeing_all(self) -> Self:
        """The same network for images of which nothing is cut away: a square of its own size goes in as it is."""
        other = copy.copy(self)
        other.spec = replace(self.spec, crop=1.0)
        return other

    def load(self, weights: Weights) -> None:
        """Take other weights of exactly these names and shapes.

        Raises:
            UsageError: some are missing, too many or misshapen.
        """
        self._take(fitting(weights, self.blueprint, self._float))

    def for_images(self, count: int) -> Self:
        """The network to run so many images on: a few may be faster on another. Its answers are the same, but for
        rounding.
        """
        return self

    def one_by_one(self) -> Self:
        """The network for one image at a time, where other threads run others."""
        return self

    @abstractmethod
    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out."""

    @abstractmethod
    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""

    @abstractmethod
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""

    @abstractmethod
    def release(self) -> None:
        """Free memory that can be allocated again when needed."""

    @abstractmethod
    def _forward(self, batches: Sequence[Array], at: Sequence[str]) -> list[list[Array]]:
        """The values of the nodes ``at``, for each batch."""

    @abstractmethod
    def _value_and_gradient(self, images: Array, at: str, wrt: str) -> tuple[Array, Pullback]:
        """As `vjp`, of known nodes."""

    @abstractmethod
    def _take(self, weights: Weights) -> None:
        """Take other, checked weights."""

    def _in_both_precisions(self, images: Array, at: str) -> tuple[Array, Array]:
        return self.forward(images, at), self.at_precision("fp32").forward(images, at)

    @property
    def _float(self) -> type[np.floating[Any]]:
        return np.float64 if self.precision == "fp64" else np.float32


class FrameworkNetwork(Network):
    """A network on PyTorch or Keras, on the processor or an accelerator.

    ``precision`` "auto" is fp32; "bf16" computes forward passes in it, but for the fitted head, and gradients in fp32
    all the same; "fp64" is for exact comparisons. ``module`` is the live network that the blueprint refers to, if it
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
        check_network(blueprint, precision, ("auto", "bf16", "fp32", "fp64"))
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


def fitting(weights: Weights, blueprint: Blueprint, dtype: type[np.floating[Any]] = np.float32) -> dict[str, Array]:
    """The weights of a network in ``dtype``, whatever floats they are given in.

    Raises:
        UsageError: they are another network's, no floats, or not finite in ``dtype``.
    """
    with np.errstate(over="ignore"):  # what is beyond its range becomes infinite, which `match` refuses
        floats = {
            name: array.astype(dtype, copy=False) if array.dtype.kind == "f" else array
            for name, array in weights.items()
        }
    return match(floats, blueprint.weight_shapes(), f"weights for {blueprint.name}")


def check_module(blueprint: Blueprint, module: object | None) -> None:
    """Refuse a network that needs a live ``module`` and has none, or has no use for one."""
    needed = (node for node in blueprint.nodes if node.op == "module" and not node["config"])
    if module is None and any(node["source"].startswith((LIVE, LIVE_KERAS)) for node in needed):
        raise UsageError(
            f"The network is a module of your own, {blueprint.source.partition(':')[2]}, of which a model's folder "
            "holds only the weights. Give the module, too: headstart.load(PATH, module=MODULE)"
        )
    if module is not None and not blueprint.source:
        raise UsageError(f"'{blueprint.name}' is built from its blueprint; it takes no module. Leave it out.")


def check_network(blueprint: Blueprint, precision: str, known: Sequence[str]) -> None:
    """Refuse an unknown precision, and images without three channels."""
    if precision == "int8" and precision not in known:
        raise UsageError(f"Only the fast engine computes in int8. '{blueprint.name}' runs on another. {NO_INT8}")
    check_known("precision", precision, known)
    if blueprint.nodes[0]["channels"] != 3:
        raise UsageError(f"Images have 3 channels. '{blueprint.name}' takes {blueprint.nodes[0]['channels']}.")


def check_images(images: Array, size: int) -> None:
    """Refuse images that are not uint8, or floats in [0, 1], of shape (N, size, size, 3)."""
    wanted = images.dtype == np.uint8 or images.dtype in (np.float32, np.float64)
    if not wanted or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise UsageError(
            f"The network expects uint8 images of shape (N, {size}, {size}, 3), or floats in [0, 1]. "
            f"Received: {images.dtype} {images.shape}."
        )
    if images.dtype != np.uint8 and images.size and not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):
        raise UsageError(
            "The network expects pixels from 0 to 1 where they are floats; it normalises them itself. "
            f"Received: {images.min():.4g} to {images.max():.4g}."
        )


def check_layers(name: str, at: Sequence[str], layers: Sequence[str]) -> None:
    """Refuse nodes that the network called ``name`` does not have."""
    for each in at:
        if each not in layers:
            raise UsageError(f"'{name}' has no layer '{each}'. {did_you_mean(each, layers)}")


def nearest(name: str, paths: Iterable[str]) -> str:
    """A sentence with the paths most like ``name``, or the last few: a network has too many to list all."""
    known = [path for path in paths if path]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"Among its layers: {', '.join(known[-6:]) or 'none'}."


def foldable(blueprint: Blueprint) -> set[str]:
    """Convolutions whose only reader is a batch norm: the two can be one step, if their own output is not wanted."""
    readers: dict[str, list[str]] = {}
    for node in blueprint.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.op)
    return {node.name for node in blueprint.nodes if node.op == "conv" and readers.get(node.name) == ["norm"]}


def coarseness(low: Array, exact: Array) -> float:
    """How far ``low`` is from ``exact``, (N, …), relative to how much the values vary between the images."""
    with np.errstate(invalid="ignore"):  # values that are not finite are refused by whoever takes them
        spread = np.linalg.norm(exact - exact.mean(axis=0)) if len(exact) > 1 else 0.0
        return float(np.linalg.norm(low - exact) / max(spread, 0.1 * float(np.linalg.norm(exact)), 1e-12))


def not_before(name: str, at: str, wrt: str, layers: Sequence[str], before: Sequence[str]) -> UsageError:
    """The error where node ``wrt`` of the network ``name`` is not among the nodes ``before`` node ``at``."""
    swapped = layers.index(wrt) > layers.index(at)
    hint = f"Did you mean at='{wrt}', wrt='{at}'?" if swapped else nearest(wrt, before)
    return UsageError(f"'{wrt}' does not lie before '{at}' in '{name}', so no gradient leads from there to it. {hint}")


def check_known(what: str, name: str, known: Sequence[str]) -> None:
    """Refuse an unknown name of an engine or a precision."""
    if name not in known:
        raise UsageError(f"There is no {what} '{name}'. {did_you_mean(name, known)}")
