"""A network on PyTorch: forward at any node, gradients from any node to any before it, weights in and out."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.backbones.ops import Shape
from headstart.core.errors import UsageError
from headstart.core.shared_change import SharedChange, ignored_warnings
from headstart.core.types import ImageSpec
from headstart.engines.devices import find_device
from headstart.engines.protocol import TIMM, Array, FrameworkNetwork, Pullback, Weights, fitting, not_before
from headstart.engines.torch.graph import BlueprintModule, head_of
from headstart.engines.torch.modules import check_live, wrap
from headstart.engines.torch.summary import summary_of

__all__ = ["TorchNetwork", "check_live", "summary_of", "to_module", "wrap"]


@dataclass
class _Shared:
    """What a network and its copies in other precisions have in common."""

    module: BlueprintModule
    lent: bool = False  # whether a pullback may refer to its tensors


class TorchNetwork(FrameworkNetwork):
    """A network on PyTorch; see `FrameworkNetwork`. A pullback keeps the values that it needs."""

    engine = "torch"

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""
        state = self._module.state_dict()
        return {name: state[key].cpu().float().numpy().copy(order="C") for name, key in self._module.keys.items()}

    def at_precision(self, precision: str) -> Self:
        """The same network, computing in another precision; the weights are shared."""
        if "fp64" in (precision, self.precision) and precision != self.precision:
            raise UsageError(f"A network in {self.precision} cannot share its weights with one in {precision}.")
        return super().at_precision(precision)

    def release(self) -> None:
        """Free the accelerator memory that PyTorch caches."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _choose_device(self, device: str) -> str:
        chosen = choose_device(device)
        if self.precision == "fp64" and chosen == "mps":
            raise UsageError("The accelerator (mps) does not compute in fp64. Take the processor: device='cpu'")
        return chosen

    def _free_memory(self) -> int | None:
        return torch.cuda.mem_get_info()[0] if self.device == "cuda" else None

    def _build(self, weights: Weights, module: object | None) -> Mapping[str, Shape]:
        built = to_module(self.blueprint, weights, self.spec, module, self._dtype)
        built.requires_grad_(False).to(self.device)
        if takes_channels_last(self.blueprint):
            built.to(memory_format=torch.channels_last)
        self._shared = _Shared(built)
        self._folds = built.folded()
        self._lock = threading.Lock()
        return built.layer_shapes

    def _take(self, weights: Weights) -> None:
        with self._lock:
            if self._shared.lent:  # a pullback keeps the tensors that it was made with
                self._shared.module, self._shared.lent = copy.deepcopy(self._module), False
            self._module.take(weights)
            self._folds.update(self._module.folded())

    @property
    def _module(self) -> BlueprintModule:
        return self._shared.module

    def _forward(self, batches: Sequence[Array], at: Sequence[str]) -> list[list[Array]]:
        # a foreign module may keep values for a later pass with gradients
        still = torch.no_grad() if self.blueprint.source else torch.inference_mode()
        parts = []
        with self._lock, still, in_fp32(self.device):
            for batch in batches:
                values = self._values(self._tensor(batch), at, {}, low=self.precision == "bf16")
                parts.append([values[name].to(self._dtype).cpu().numpy() for name in at])
        return parts

    def _value_and_gradient(self, images: Array, at: str, wrt: str) -> tuple[Array, Pullback]:
        leaves: list[Tensor] = []

        def cut(value: Tensor) -> Tensor:
            leaves.append(value.detach().requires_grad_())
            return leaves[0].clone()  # which the layers after it may change in place

        with self._lock, torch.enable_grad(), in_fp32(self.device):
            self._shared.lent = True
            x = self._tensor(images)
            if wrt == INPUT:
                x = x.to(self._dtype).div_(255 if x.dtype == torch.uint8 else 1).requires_grad_()
                leaves.append(x)
            value = self._values(x, (at,), {} if wrt == INPUT else {wrt: cut}, low=False)[at]
        if not leaves or not value.requires_grad:
            before = [INPUT, *(node.name for node in self._module.needed((at,)) if node.name != at)]
            raise not_before(self.name, at, wrt, self.layers, before)

        def gradient(cotangent: Array) -> Array:
            with in_fp32(self.device):
                weight = torch.tensor(cotangent, dtype=value.dtype, device=value.device)
                (found,) = torch.autograd.grad(value, leaves[0], weight, retain_graph=True)
            return np.asarray(found.cpu().numpy())

        return value.detach().cpu().numpy().copy(), gradient

    def _values(self, x: Tensor, at: Sequence[str], taps: Any, *, low: bool) -> dict[str, Tensor]:
        """The trunk, in bf16 if ``low``, then the head in fp32: its large weights nearly cancel each other."""
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


def to_module(
    blueprint: Blueprint,
    weights: Weights,
    spec: ImageSpec,
    module: object | None = None,
    dtype: Any = torch.float32,
) -> BlueprintModule:
    """An ordinary `torch.nn.Module` with these weights, in evaluation mode, trainable."""
    built = BlueprintModule(blueprint, spec, module, dtype)
    built.take(fitting(weights, blueprint, np.float64 if dtype == torch.float64 else np.float32))
    built.eval()
    return built


def choose_device(device: str) -> str:
    """The device, "auto" resolved for this machine.

    Raises:
        UsageError: no such device, or it is not there.
    """
    with ignored_warnings():  # it warns where TensorFlow has found no GPU before
        present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return find_device(device, present, "PyTorch")


def takes_channels_last(blueprint: Blueprint) -> bool:
    """Whether the weights can be laid out channels last: a module of one's own may view its maps."""
    return not blueprint.source or blueprint.source.startswith(TIMM)


def in_fp32(device: str) -> AbstractContextManager[object]:
    """Without TF32, which cuDNN takes for fp32 unless it is told otherwise."""
    return _EXACT if device == "cuda" else nullcontext()


_EXACT = SharedChange(lambda: torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
