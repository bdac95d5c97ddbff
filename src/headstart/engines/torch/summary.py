"""The layers of a model of timm, or of the module in a blueprint, as a list."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from headstart.backbones.ops import Node, Shape
from headstart.engines.summary import Layer, Summary, window_of
from headstart.engines.torch.module_layers import TRIED, Trace, tensors_in
from headstart.engines.torch.modules import IMAGENET, build_module, check_fixed_size, timm_model, timm_spec
from headstart.engines.wrapped import check_pixels


def summary_of(source: str | Node, pixels: int | None) -> Summary:
    """The layers of "timm/NAME" with its own head, or of the module that a node stands for. No weights are read.

    Listed is every submodule that holds no others, or has weights of its own.

    Raises:
        UsageError: no such model, or a size that it does not take.
        MissingExtraError: timm is not installed.
    """
    if isinstance(source, str):
        check_pixels(pixels)
        name, grey, model = source, False, timm_model(source)
        config = dict(model.pretrained_cfg)
        size = timm_spec(source, config).size
        check_fixed_size(source, config, size, pixels)
        size = pixels or size
    else:
        name, grey, model = source["source"], bool(source.attrs.get("grey")), build_module(source, None)
        size = pixels or IMAGENET.size
    return Summary(name, size, _layers(model, Trace(model, size, name, grey=grey)), "timm", "channels × height × width")


def _layers(model: Any, trace: Trace) -> tuple[Layer, ...]:
    submodules, counted = dict(model.named_modules()), set[int]()
    order = [*trace.outputs, *(path for path in submodules if path not in trace.outputs)]
    found = []
    for path in order:
        module = submodules[path]
        own = {key: each for key, each in module.named_parameters(recurse=False) if id(each) not in counted}
        if not own and next(module.children(), None) is not None:
            continue
        counted.update(map(id, own.values()))
        output = next(iter(tensors_in(trace.outputs.get(path))), None)
        parts = module.kernel_size if hasattr(module, "kernel_size") else None, getattr(module, "stride", 1)
        found.append(
            Layer(
                path or ", ".join(own) or "module",  # the whole one, such as a transformer with its class token
                type(module).__name__,
                window_of(*parts),
                None if output is None else _shape(output),
                sum(each.numel() for each in own.values()),
                0 if output is None else _multiply_adds(module, output.numel() // TRIED * trace.calls[path]),
            )
        )
    return tuple(found)


def _shape(output: Tensor) -> Shape:
    """For one image; windows, of which an image has several, count as an axis."""
    rows, *rest = output.shape or (1,)
    several, left = divmod(rows, TRIED)
    return (rows, *rest) if left else (*([several] if several > 1 else []), *rest)


def _multiply_adds(module: Any, values: int) -> int | None:
    """Of a module that gives so many ``values`` for an image."""
    if isinstance(module, nn.Linear):
        return values * int(module.in_features)
    if isinstance(module, _ConvNd) and not module.transposed:
        return values * math.prod(map(int, module.weight.shape[1:]))
    return None if any(each.ndim > 1 for each in module.parameters(recurse=False)) else 0
