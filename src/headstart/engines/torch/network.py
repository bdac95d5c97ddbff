"""A network on PyTorch: forward at any node, gradients from any node to any before it, weights in and out."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.ops import Shape
from headstart.backbones.weights import match
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.types import ImageSpec
from headstart.engines.protocol import (
    PRECISIONS,
    TIMM,
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
from headstart.engines.torch.graph import BlueprintModule, head_of
from headstart.engines.torch.modules import wrap

__all__ = ["TorchNetwork", "to_module", "wrap"]

DEVICES = ("auto", "cpu", "cuda", "mps")
AT_A_TIME = {"cpu": 32, "cuda": 128, "mps": 64}  # images of 224 pixels or less
TOLERANCE = 0.3  # of bf16 against fp32, relative to the spread between images, as for the fast engine


class TorchNetwork:
    """A network on PyTorch, on the processor or an accelerator.

    ``precision`` "auto" is fp32; "bf16" computes forward passes under autocast, but for the fitted head, and gradients
    in fp32 all the same; "fp64" is for exact comparisons. ``module`` is the live module that the blueprint speaks of,
    if it does; it is copied. Threads may share a network; they take turns, for each pass uses all cores.
    """

    engine = "torch"

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
        if self.precision == "fp64" and self.device == "mps":
            raise UsageError("The accelerator (mps) does not compute in fp64. Take the processor: device='cpu'")
        self.blueprint, self.name, self.spec = blueprint, blueprint.name, spec
        self.micro_batch = max(1, round(AT_A_TIME[self.device] * min(1, (224 / spec.size) ** 2)))
        room = torch.cuda.mem_get_info()[0] if self.device == "cuda" else None
        check_memory(blueprint, spec.size, self.micro_batch, room)
        self._module = to_module(blueprint, weights, spec, module, self._dtype).requires_grad_(False).to(self.device)
        if not blueprint.source or blueprint.source.startswith(TIMM):  # a module of one's own may view its maps
            self._module.to(memory_format=torch.channels_last)
        self._folds = self._module.folded()
        self.layers = tuple(self._module.layer_shapes)
        self._lock = threading.Lock()

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
            return [self._zeros(name) for name in at]
        parts = []
        # somebody else's module may keep what it computed for later, when gradients are wanted
        still = torch.no_grad() if self.blueprint.source else torch.inference_mode()
        with self._lock, still, self._exactly():
            for start in range(0, len(images), self.micro_batch):
                x = self._tensor(images[start : start + self.micro_batch])
                values = self._values(x, at, {}, low=self.precision == "bf16")
                parts.append([values[name].to(self._dtype).cpu().numpy() for name in at])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out."""
        check_layers(self.name, at, self.layers)
        return lambda images: self.forward_many(images, at)

    def vjp(self, images: Array, at: str = LOGITS, wrt: str = INPUT) -> tuple[Array, Pullback]:
        """The value of node ``at``, and a pullback that carries a cotangent of its shape to node ``wrt``.

        With ``wrt`` "input" the gradient is with respect to the pixels: NHWC, in [0, 1]. Images do not see each other.
        The pullback may be called again and again; what it needs is kept as long as it is. Never in bf16.

        Raises:
            UsageError: an unknown node, or one that does not lie before ``at``.
        """
        check_images(images, self.spec.size)
        check_layers(self.name, (at, wrt), self.layers)
        leaves: list[Tensor] = []

        def cut(value: Tensor) -> Tensor:
            leaves.append(value.detach().requires_grad_())
            return leaves[0].clone()  # which what follows may change in place

        with self._lock, torch.enable_grad(), self._exactly():
            x = self._tensor(images)
            if wrt == INPUT:
                x = x.to(self._dtype).div_(255 if x.dtype == torch.uint8 else 1).requires_grad_()
                leaves.append(x)
            value = self._values(x, (at,), {} if wrt == INPUT else {wrt: cut}, low=False)[at]
        if not leaves or not value.requires_grad:
            turned = self.layers.index(wrt) > self.layers.index(at)
            before = [node.name for node in self._module.needed((at,)) if node.name != at]
            hint = f"Did you mean at='{wrt}', wrt='{at}'?" if turned else nearest(wrt, [INPUT, *before])
            raise UsageError(
                f"'{wrt}' does not lie before '{at}' in '{self.name}', so no gradient leads from there to it. {hint}"
            )
        shape, result = tuple(value.shape), value.detach().cpu().numpy().copy()

        def pullback(cotangent: Array) -> Array:
            """The gradient of Σ cotangent · value."""
            if np.shape(cotangent) != shape:
                raise UsageError(
                    f"Expected a cotangent of the shape of '{at}', {shape}. Received: {np.shape(cotangent)}."
                )
            with self._exactly():
                weight = torch.tensor(np.asarray(cotangent), dtype=value.dtype, device=value.device)
                (gradient,) = torch.autograd.grad(value, leaves[0], weight, retain_graph=True)
            found: Array = gradient.cpu().numpy()
            return found

        return result, pullback

    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""
        return self._module.layer_shapes[at]  # type: ignore[no-any-return]

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""
        state = self._module.state_dict()
        return {name: state[key].cpu().float().numpy().copy(order="C") for name, key in self._module.keys.items()}

    def load(self, weights: Weights) -> None:
        """Take other weights of exactly these names and shapes.

        Raises:
            UsageError: some are missing, too many or misshapen.
        """
        fitting = match(weights, self.blueprint.weight_shapes(), f"weights for {self.name}")
        with self._lock:
            self._module.take(fitting)
            self._folds.update(self._module.folded())

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

    def at_precision(self, precision: str) -> TorchNetwork:
        """The same network, computing in another precision; the weights are shared."""
        if "fp64" in (precision, self.precision) and precision != self.precision:
            raise UsageError(f"A network in {self.precision} cannot share its weights with one in {precision}.")
        other = copy.copy(self)
        other.precision = precision
        return other

    def release(self) -> None:
        """Give back what the accelerator keeps at hand."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _values(self, x: Tensor, at: Sequence[str], taps: Any, *, low: bool) -> dict[str, Tensor]:
        """The trunk, in bf16 if it is to be ``low``, then the head: its large weights nearly cancel each other."""
        module, behind = self._module, head_of(self.blueprint)
        nodes = module.needed(at)
        trunk = [node for node in nodes if node.name not in behind]
        head = [node for node in nodes if node.name in behind]
        between = {name for node in head for name in node.inputs} & {INPUT, *(node.name for node in trunk)}
        values = {INPUT: module.normalise(x)}
        with torch.autocast(self.device, torch.bfloat16, enabled=low):
            module.run(values, trunk, {*at, *between}, taps, self._folds)
        if low:
            values = {name: value.float() for name, value in values.items()}
        module.run(values, head, at, taps, {})
        return values

    def _tensor(self, images: Array) -> Tensor:
        array = np.ascontiguousarray(images)
        return torch.tensor(array, dtype=None if array.dtype == np.uint8 else self._dtype, device=self.device)

    @property
    def _dtype(self) -> Any:
        return torch.float64 if self.precision == "fp64" else torch.float32

    def _zeros(self, name: str) -> Array:
        return np.zeros((0, *self.shape(name)), np.float64 if self.precision == "fp64" else np.float32)

    def _exactly(self) -> AbstractContextManager[object]:
        """Without TF32, which cuDNN takes for fp32 unless it is told otherwise."""
        if self.device != "cuda":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # type: ignore[no-any-return]


def to_module(
    blueprint: Blueprint,
    weights: Weights,
    spec: ImageSpec,
    module: object | None = None,
    dtype: Any = torch.float32,
) -> BlueprintModule:
    """An ordinary `torch.nn.Module` with these weights, in evaluation mode, trainable."""
    built = BlueprintModule(blueprint, spec, module, dtype)
    built.take(match(weights, blueprint.weight_shapes(), f"weights for {blueprint.name}"))
    built.eval()
    return built


def choose_device(device: str) -> str:
    """ "auto" resolved for this machine.

    Raises:
        UsageError: no such device, or it is not there.
    """
    if device not in DEVICES:
        raise UsageError(f"There is no device '{device}'. {did_you_mean(device, DEVICES)}")
    with warnings.catch_warnings():  # it warns, where TensorFlow has looked for a GPU before it and found none
        warnings.simplefilter("ignore")
        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise UsageError(f"PyTorch finds no {device} on this machine. Take the processor: device='cpu'")
    return device
