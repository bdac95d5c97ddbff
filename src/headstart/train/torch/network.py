"""A network in training on PyTorch: what of it is trained, in which precision, and the passes through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.core.types import ImageSpec
from headstart.engines.torch.graph import head_of
from headstart.engines.torch.network import takes_channels_last, to_module
from headstart.train.protocol import Array, Task
from headstart.train.recipe import Recipe
from headstart.train.torch.depthwise import depthwise
from headstart.train.trainable_network import BaseTrainableNetwork

Masks = Mapping[str, NDArray[np.float32]]  # node -> the factors of its values, for each image


class TrainableNetwork(BaseTrainableNetwork):
    """The task's network as a `BlueprintModule`.

    A batch norm with fixed statistics is folded into its convolution in every pass: the same function of the same
    weights, with the same gradients, but computed on kernels instead of maps.
    """

    def __init__(self, task: Task, recipe: Recipe, device: str) -> None:
        super().__init__(task, recipe)
        blueprint, spec = task.blueprint, task.spec or ImageSpec(task.blueprint.size)
        self.module = to_module(blueprint, task.weights, spec, task.module).requires_grad_(False).to(device)
        if takes_channels_last(blueprint):
            self.module.to(memory_format=torch.channels_last)
        self.low = recipe.precision == "bf16" or (recipe.precision == "auto" and bf16_helps(blueprint, device))
        behind = head_of(blueprint) or {blueprint.layers[-1]}
        self._trunk = [node for node in blueprint.nodes[1:] if node.name not in behind]
        self._head = [node for node in blueprint.nodes[1:] if node.name in behind]
        self._between = {name for node in self._head for name in node.inputs} - behind
        self._norms = [norm for name in self._updated for norm in self._norms_of(name)]
        self._unfolded = {
            node.inputs[0] for node in blueprint.nodes if node.op == "norm" and node.name in self._updated
        }
        if self.low and device == "cpu":
            for node in self._trunk:
                if node.op == "conv" and node["groups"] > 1:
                    convolution = self.module.get_submodule(self.module.paths[node.name])
                    each_its_own = convolution.groups == convolution.in_channels == convolution.out_channels
                    convolution.conv2d = depthwise if each_its_own else _in_fp32
        self.nodes = blueprint.node_of_weight()
        trained = {name: self.module.keys[name] for name, node in self.nodes.items() if node in task.rates}
        parameters, statistics = dict(self.module.named_parameters()), self._keys_of_statistics()
        self.parameters: dict[str, Tensor] = {
            name: parameters[key].requires_grad_() for name, key in trained.items() if key in parameters
        }
        self._statistics = {name: key for name, key in trained.items() if key in statistics}

    @property
    def device(self) -> Any:
        """Its device now: a trainer may have changed it."""
        return self.module.pixel_mean.device

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Means and variances that training changes; they are new tensors once the network is on another device."""
        return {name: self.module.get_buffer(key) for name, key in self._statistics.items()}

    def logits(self, x: Array | Tensor, masks: Masks | None = None) -> Tensor:
        """Logits, (N, classes) in fp32, of as many images; in training where there are ``masks``, even empty ones."""
        training = masks is not None
        if self.module.training:  # Lightning sets it
            self.module.eval()
        for norm in self._norms:
            norm.train(training)
        taps = {name: _times(torch.tensor(mask, device=self.device)) for name, mask in (masks or {}).items()}
        folds = {
            name: fold for name, fold in self.module.folded().items() if not training or name not in self._unfolded
        }
        values = {INPUT: self._tensor(x)}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            self.module.run(values, self._trunk, self._between, taps, folds)
        if self.low:
            values = {name: value.float() for name, value in values.items()}
        last = self.task.blueprint.layers[-1]
        self.module.run(values, self._head, (last,), taps, {})
        return values[last]

    def weights(self, instead: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """A copy of all weights by their names in the blueprint, with some others ``instead``."""
        state = self.module.state_dict()
        found = {name: instead.get(name, state[key]) for name, key in self.module.keys.items()}
        return {name: value.detach().cpu().float().numpy().copy(order="C") for name, value in found.items()}

    @contextmanager
    def only_last_batch_counts(self) -> Iterator[None]:
        """See `BaseTrainableNetwork`."""
        before = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = 1.0
        try:
            yield
        finally:
            for norm, momentum in zip(self._norms, before, strict=True):
                norm.momentum = momentum

    def copies(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies that `put` takes back."""
        return {name: value.detach().clone() for name, value in values.items()}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Copy values over those that are trained."""
        trained = self.trained
        for name, value in values.items():
            trained[name].copy_(value)

    def outward(self, name: str, value: Tensor) -> Array:
        """A copy of a value as an array."""
        return np.array(value.detach().cpu().numpy(), order="C")

    def inward(self, name: str, array: Array) -> Tensor:
        """An array as a tensor; if of that weight's shape, in its memory layout, so that sums stay the same."""
        key = self._statistics.get(name)
        weight = self.module.get_buffer(key) if key else self.parameters[name]
        if array.shape != weight.shape:
            return torch.tensor(array)
        return torch.empty_like(weight, requires_grad=False).copy_(torch.tensor(array))

    def _tensor(self, x: Array | Tensor) -> Tensor:
        tensor = x if isinstance(x, Tensor) else torch.tensor(np.ascontiguousarray(x)).to(self.device)
        if self.task.spec:
            return self.module.normalise(tensor)
        tensor = tensor.float()
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _keys_of_statistics(self) -> set[str]:
        found = {id(buffer) for norm in self._norms for buffer in norm.buffers()}
        return {key for key, buffer in self.module.named_buffers() if id(buffer) in found}

    def _norms_of(self, node: str) -> list[Any]:
        """The node, if it is a batch norm, or those inside it, if it is a module."""
        inside = self.module.get_submodule(self.module.paths[node]).modules() if node != INPUT else ()
        return [each for each in inside if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]


def bf16_helps(blueprint: Blueprint, device: str) -> bool:
    """Whether the device has instructions for bf16; on a processor, only convolutions gain from them."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    fast = device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(fast and any(node.op == "conv" for node in blueprint.nodes))


def _in_fp32(x: Tensor, weight: Tensor, bias: Tensor | None, **settings: Any) -> Tensor:
    """Also under autocast: gradients of grouped convolutions take processors many times longer in bf16."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.nn.functional.conv2d(x.float(), weight, bias, **settings)


def _times(mask: Tensor) -> Any:
    return lambda value: value * mask
