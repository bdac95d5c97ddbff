"""Blueprint → an ordinary `torch.nn.Module` with the same node names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.backbones.blueprint import FEATURES, INPUT, Blueprint
from headstart.backbones.ops import SQRT_EPSILON, Node, Shape, padding_of
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines.protocol import Weights, check_module, foldable
from headstart.engines.torch.module_layers import InnerLayers, Taps, luma
from headstart.engines.torch.modules import build_module
from headstart.engines.wrapped import needed

Folds = Mapping[str, tuple[Tensor, Tensor]]  # convolution -> weight and bias
NORM_PARTS = {"mean": "running_mean", "var": "running_var"}  # blueprint's name -> torch's


class BlueprintModule(nn.Module):  # type: ignore[misc]  # torch has no types here
    """A network as a PyTorch module: pixels in, the last node out (logits, never probabilities).

    Images are (N, height, width, 3) or (N, 3, height, width), whichever has a 3 in its place (the former where both
    do); uint8, or floats in [0, 1]. They are normalised inside. Every node is a submodule of its name, dots making
    containers, so the keys of the state dict are the blueprint's names of weights, but for batch norm's running_mean
    and running_var. A name that `nn.Module` needs itself gets an underscore.
    """

    def __init__(
        self, blueprint: Blueprint, spec: ImageSpec, module: object | None = None, dtype: Any = torch.float32
    ) -> None:
        super().__init__()
        check_module(blueprint, module)
        self.blueprint = blueprint
        self.inside: InnerLayers | None = None
        self.register_buffer("pixel_mean", torch.tensor(spec.mean, dtype=dtype), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(spec.std, dtype=dtype), persistent=False)
        self.paths: dict[str, str] = {}  # node -> path of its submodule
        self.keys: dict[str, str] = {}  # weight -> key of the state dict
        self.layer_shapes: dict[str, Shape] = {}
        shapes = blueprint.shapes(spec.size)
        for node in blueprint.nodes[1:]:
            incoming = [shapes[name] for name in node.inputs]
            if node.op == "module":
                built = build_module(node, module)
                self.inside = InnerLayers(node, built, spec.size)
                built.requires_grad_(True)
            else:
                built = _submodule(node, incoming)
            self.paths[node.name] = _put(self, node.name, built)
        self.keys = {name: self._key(name, node) for name, node in blueprint.node_of_weight().items()}
        inner = self.inside.shapes if self.inside else {}
        inner = {path: shape for path, shape in inner.items() if path not in blueprint.layers}
        self.layer_shapes = {INPUT: shapes[INPUT]} | inner | shapes
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """The last node's value, (N, units), for images of either layout."""
        values = {INPUT: self.normalise(images)}
        last = self.blueprint.layers[-1]
        self.run(values, self.blueprint.nodes[1:], (last,), {}, {})
        return values[last]

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels of either layout to what the first layer takes, NCHW."""
        if images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
            raise UsageError(
                "Images are (N, height, width, 3) or (N, 3, height, width), uint8 or floats in [0, 1]. "
                f"Received: {tuple(images.shape)}."
            )
        if images.shape[3] != 3:
            images = images.permute(0, 2, 3, 1)
        pixels = images.to(self.pixel_mean.dtype)
        if not images.is_floating_point():
            pixels = pixels / 255
        x = ((pixels - self.pixel_mean) / self.pixel_std).permute(0, 3, 1, 2)
        return (
            x.contiguous() if self.inside else x
        )  # a foreign module may view its input; ours are faster channels last

    def run(
        self, values: dict[str, Tensor], nodes: Sequence[Node], at: Iterable[str], taps: Taps, folds: Folds
    ) -> None:
        """Compute ``nodes`` from and into ``values``, which in the end holds the earlier values and those of ``at``.

        ``taps`` are functions that replace the value of the layer of their name for later nodes. A convolution in
        ``folds`` whose own output is not wanted is computed together with its batch norm.
        """
        keep = {*at, *values}
        left = folds.keys() - keep - taps.keys()
        last_use = {name: step for step, node in enumerate(nodes) for name in (node.name, *node.inputs)}
        for step, node in enumerate(nodes):
            inputs = [values[name] for name in node.inputs]
            work = self.get_submodule(self.paths[node.name])
            if self.inside and node.op == "module":
                wanted = [name for name in at if name in self.inside.shapes and name not in self.paths]
                through = last_use[node.name] > step or node.name in keep
                values |= self.inside.run(work, inputs[0], wanted, taps, through=through)
            elif node.name in left:
                values[node.name] = inputs[0]
            elif node.inputs[0] in left:  # a batch norm and the convolution before it
                conv = self.get_submodule(self.paths[node.inputs[0]])
                values[node.name] = conv.convolve(inputs[0], *folds[node.inputs[0]])
            else:
                values[node.name] = work(*inputs)
            if node.name in taps and node.name in values:
                values[node.name] = taps[node.name](values[node.name])
            for name in (node.name, *node.inputs):
                if last_use[name] <= step and name not in keep:
                    values.pop(name, None)

    def needed(self, at: Iterable[str]) -> list[Node]:
        """The nodes that those ``at``, or layers inside a module, depend on, in order, without the input."""
        return needed(self.blueprint, at, self.inside.shapes if self.inside else ())

    def folded(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight and bias of each convolution that only a batch norm reads, with the batch norm folded in."""
        found, left = {}, foldable(self.blueprint)
        for norm in self.blueprint.nodes:
            if norm.op == "norm" and norm.inputs[0] in left:
                conv, after = (self.get_submodule(self.paths[name]) for name in (norm.inputs[0], norm.name))
                scale = after.weight / torch.sqrt(after.running_var + after.eps)
                bias = after.bias + ((0 if conv.bias is None else conv.bias) - after.running_mean) * scale
                found[norm.inputs[0]] = (conv.weight * scale[:, None, None, None], bias)
        return found

    def take(self, weights: Weights) -> None:
        """Copy weights, by the blueprint's names and of the right shapes, into the module."""
        state = self.state_dict()
        for name, key in self.keys.items():
            state[key].copy_(torch.tensor(weights[name]))

    def _key(self, weight: str, node: str) -> str:
        part = weight.removeprefix(f"{node}.")
        return f"{self.paths[node]}.{NORM_PARTS.get(part, part) if self.blueprint[node].op == 'norm' else part}"


def head_of(blueprint: Blueprint) -> set[str]:
    """Names of the nodes after the features."""
    names = blueprint.layers
    return set(names[names.index(FEATURES) + 1 :]) if FEATURES in names else set()


class Convolution(nn.Conv2d):  # type: ignore[misc]
    """A convolution with the blueprint's padding: for each side, or "same" for the size of the input."""

    conv2d = staticmethod(functional.conv2d)  # training replaces it

    def __init__(self, node: Node, channels: int) -> None:
        super().__init__(
            channels, node["filters"], node["kernel"], node["stride"], groups=node["groups"], bias=node["bias"]
        )
        self.node = node

    def forward(self, x: Tensor) -> Tensor:
        """(N, filters, height, width)."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `forward`, with another weight and bias."""
        top, bottom, left, right = padding_of(self.node, *x.shape[2:])
        even = top == bottom and left == right
        if not even:
            x = functional.pad(x, (left, right, top, bottom))
        around = (top, left) if even else (0, 0)
        return self.conv2d(x, weight, bias, stride=self.stride, padding=around, groups=self.groups)

    def reset_parameters(self) -> None:
        """As torch does, but not in the constructor: random numbers that are then replaced take seconds."""
        if hasattr(self, "node"):
            super().reset_parameters()


class Dense(nn.Linear):  # type: ignore[misc]
    """A fully connected layer."""

    def __init__(self, node: Node, features: int) -> None:
        super().__init__(features, node["units"])
        self.node = node

    def reset_parameters(self) -> None:
        """As for a convolution."""
        if hasattr(self, "node"):
            super().reset_parameters()


class Operation(nn.Module):  # type: ignore[misc]
    """A node without weights."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node

    def forward(self, *inputs: Tensor) -> Tensor:
        """The node's value."""
        return _OPERATIONS[self.node.op](self.node, *inputs)

    def extra_repr(self) -> str:
        """Its line when the network is printed."""
        return ", ".join([self.node.op, *(f"{key}={value!r}" for key, value in self.node.attrs.items())])


def _max_pool(node: Node, x: Tensor) -> Tensor:
    top, bottom, left, right = padding_of(node, *x.shape[2:])
    if top or bottom or left or right:
        x = functional.pad(x, (left, right, top, bottom), value=-math.inf)
    return functional.max_pool2d(x, node["kernel"], node["stride"])


def _pad_channels(node: Node, x: Tensor) -> Tensor:
    return functional.pad(x, (0, 0, 0, 0, node["before"], node["after"]))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hard_sigmoid": lambda x: (
        functional.relu6(x + 3) / 6
    ),  # in the gradient of torch's own, 1/6 has only float32 precision
    "hard_swish": functional.hardswish,
    "sqrt": lambda x: torch.sqrt(functional.relu(x) + SQRT_EPSILON),
}
_OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "act": lambda node, x: _ACTIVATIONS[node["kind"]](x),
    "max_pool": _max_pool,
    "pool": lambda node, x: x.mean((2, 3)),
    "add": lambda node, x, y: x + y,
    "scale": lambda node, x, gate: x * gate[:, :, None, None],
    "concat": lambda node, *xs: torch.cat(xs, 1),
    "pad_channels": _pad_channels,
    "flatten": lambda node, x: x.flatten(1),
    "luma": lambda node, x: luma(x),
}


def _submodule(node: Node, incoming: Sequence[Shape]) -> Any:
    match node.op:
        case "conv":
            return Convolution(node, incoming[0][0])
        case "norm":
            kind = nn.BatchNorm2d if len(incoming[0]) == 3 else nn.BatchNorm1d
            return kind(incoming[0][0], eps=node["epsilon"])
        case "dense":
            return Dense(node, incoming[0][0])
        case "dropout":
            return nn.Dropout(node["rate"])
    if node.op not in _OPERATIONS or node.attrs.get("kind", "relu") not in (*_ACTIVATIONS, "global_average"):
        raise UsageError(f"The PyTorch engine does not support '{node.op}' of node '{node.name}'.")
    return Operation(node)


def _put(root: Any, name: str, submodule: Any) -> str:
    """Add a submodule at its dotted name; returns its path."""
    *containers, leaf = name.split(".")
    place, path = root, []
    for part in containers:
        path.append(_free(place, part, reuse=True))
        if path[-1] not in place._modules:
            place.add_module(path[-1], nn.Module())
        place = place._modules[path[-1]]
    path.append(_free(place, leaf, reuse=False))
    place.add_module(path[-1], submodule)
    return ".".join(path)


def _free(place: Any, part: str, *, reuse: bool) -> str:
    """A free name for a submodule at this place."""
    while not part or (hasattr(place, part) and not (reuse and part in place._modules)):
        part += "_"
    return part
