"""The layers inside any `torch.nn.Module`: found by path, read and changed by hooks that are always removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from headstart.backbones.ops import LUMA, Node, Shape
from headstart.core.errors import UsageError
from headstart.engines.protocol import nearest
from headstart.engines.wrapped import attempt

TRIED = 2  # images in a trial pass: with one, a module that drops the batch axis would go unnoticed

Taps = Mapping[str, Callable[[Tensor], Tensor]]  # layer -> a function that replaces its value for later layers


class InnerLayers:
    """Every submodule, by path, whose output is one tensor with a row for each image, and the one with the features.

    Of a submodule that is called several times, the last call counts. A feature vector is a layer's output, averaged
    over height and width, or over tokens.

    Raises:
        UsageError: the module fails on images, or the layer of the features is not there or gives something else.
    """

    def __init__(self, node: Node, module: Any, size: int) -> None:
        source, features, self.grey = node["source"], node["features"], bool(node.attrs.get("grey"))
        trace = Trace(module, size, source, grey=self.grey)
        if features not in trace.outputs:
            raise UsageError(
                f"'{source}' has no layer '{features}' that could give the features. {nearest(features, trace.outputs)}"
            )
        output = trace.outputs[features]
        if not _is_batch(output):
            raise UsageError(
                f"'{source}' returns {_described(output)} from {repr(features) if features else 'its forward'}; "
                "expected one tensor with a row for each image. Name a layer that gives one: features='PATH'"
            )
        self.name = node.name
        self.units = int(pooled(output).shape[1])
        self.shapes: dict[str, Shape] = {
            path: tuple(value.shape[1:]) for path, value in trace.outputs.items() if path and _is_batch(value)
        }
        self._calls = trace.calls
        self._features = "" if output is trace.outputs.get("") else features  # "" needs no hook

    def run(self, module: Any, x: Tensor, at: Collection[str], taps: Taps, *, through: bool) -> dict[str, Tensor]:
        """Values of the layers ``at`` and, if it goes ``through``, of the node. Stops as soon as it has them."""
        x = luma(x) if self.grey else x
        changed = taps.keys() & self.shapes.keys()
        if through and not at and not changed and not self._features:
            return {self.name: pooled(module(x))}
        pending = {*at, *([self._features] if through else [])}
        whole = torch.compiler.is_compiling()  # a tracer needs the whole pass
        calls: Counter[str] = Counter()
        values: dict[str, Tensor] = {}

        def hook_for(path: str) -> Callable[..., Tensor | None]:
            def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
                calls[path] += 1
                if calls[path] != self._calls[path]:
                    return None
                value = taps[path](output) if path in changed else output
                if path in pending:
                    pending.discard(path)
                    values[path] = value.clone() if pending or whole else value  # later layers may change it in place
                    if not pending and not whole:
                        raise _Done
                return value

            return hook

        submodules = dict(module.named_modules())
        handles = []
        try:
            for path in pending | changed:
                handles.append(submodules[path].register_forward_hook(hook_for(path)))
            module(x)
        except _Done:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if pending:
            raise UsageError(
                f"Layer '{min(pending)}' was not reached with these images, though it was in a trial pass."
            )
        found = {path: values[path] for path in at}
        return found | {self.name: pooled(values[self._features])} if through else found


class _Done(Exception):  # noqa: N818  # no error: all wanted values are there
    pass


class Trace:
    """A trial pass through a module: outputs and calls by path, in order of completion."""

    def __init__(self, module: Any, size: int, name: str, *, grey: bool = False) -> None:
        self.outputs: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        self.last_weighted = ""  # the layer with own weights that was called last

        def ended(path: str) -> Callable[..., None]:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                self.outputs.pop(path, None)
                self.outputs[path] = output
                self.calls[path] += 1

            return hook

        def began(path: str) -> Callable[..., None]:
            def hook(_module: Any, _inputs: Any) -> None:
                self.last_weighted = path

            return hook

        handles = []
        x = torch.zeros(TRIED, 1 if grey else 3, size, size)
        try:
            for path, submodule in module.named_modules():
                handles.append(submodule.register_forward_hook(ended(path)))
                if next(submodule.parameters(recurse=False), None) is not None:
                    handles.append(submodule.register_forward_pre_hook(began(path)))
            with torch.no_grad():
                attempt(
                    f"'{name}' fails on images of {size} pixels, given as a tensor of shape {tuple(x.shape)}",
                    lambda: module(x),
                )
        finally:
            for handle in handles:
                handle.remove()


def given_images(module: Any, size: int, name: str, *, grey: bool) -> list[str]:
    """Paths of the submodules that a module gives its images to as they are, the outer before the inner."""
    images = torch.rand(TRIED, 1 if grey else 3, size, size, generator=torch.Generator().manual_seed(0))
    found: list[str] = []

    def began(path: str) -> Callable[..., None]:
        def hook(_module: Any, inputs: Any, named: Any) -> None:
            if path and any(torch.equal(each, images) for each in tensors_in((*inputs, *named.values()))):
                found.append(path)

        return hook

    handles = [
        submodule.register_forward_pre_hook(began(path), with_kwargs=True) for path, submodule in module.named_modules()
    ]
    try:
        with torch.no_grad():
            attempt(f"'{name}' fails on images of {size} pixels", lambda: module(images.clone()))
    finally:
        for handle in handles:
            handle.remove()
    return found


def luma(x: Tensor) -> Tensor:
    """One channel of three."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def takes_grey(module: Any, size: int, name: str) -> bool:
    """Whether a module fails on images of three channels, and takes those of one."""
    try:
        Trace(module, size, name)
    except UsageError:
        try:
            Trace(module, size, name, grey=True)
        except UsageError:
            return False  # what it says of three channels is to be heard
        return True
    return False


def alone_leads_to_output(module: Any, path: str, size: int, *, grey: bool) -> bool:
    """Whether what the module returns in the shape of this layer's output depends on the images through it alone.

    Of several such tensors one is enough. With two heads, of which a module returns the mean, it is not so.
    """
    shapes = []

    def still(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        shapes.append(output.shape)
        return torch.zeros_like(output)

    handle = module.get_submodule(path).register_forward_hook(still)
    try:
        with torch.no_grad():
            x = torch.rand(TRIED, 1 if grey else 3, size, size, generator=torch.Generator().manual_seed(0))
            answer = module(x)
    finally:
        handle.remove()
    answers = [each for each in tensors_in(answer) if each.shape in shapes]
    same = [bool(torch.equal(each[0], each[1])) for each in answers]
    return not answers or any(same)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in what a module returned."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def pooled(value: Tensor) -> Tensor:
    """(N, D): the average of a map over height and width, in either layout; of tokens; a vector unchanged."""
    if value.ndim == 4:
        _, first, second, last = value.shape
        return value.mean((1, 2) if first == second != last else (2, 3))
    return value.flatten(1, -2).mean(1) if value.ndim > 2 else value


def _is_batch(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1 and len(value) == TRIED
    )  # windows, for example, which mix the images, have other numbers of rows


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} for {TRIED} images"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(repr, list(value)[:5]))}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, tuple | list) else "")
