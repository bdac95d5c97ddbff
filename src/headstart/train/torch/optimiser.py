"""What changes weights in PyTorch: the recipe's optimiser, the clip before it, and the average after it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from headstart.train.recipe import Recipe
from headstart.train.weight_average import RunningAverage

MOMENTUM = 0.9  # of the optimiser "momentum"
FUSED = ("cpu", "cuda")  # devices that every PyTorch we take has fused optimisers for


def build_optimiser(parameters: Mapping[str, Tensor], shares: Mapping[str, float], recipe: Recipe) -> Any:
    """The recipe's optimiser; its groups each have a ``share`` of the learning rate, which is set before every step.

    Weight decay pulls at kernels, not at biases and norms, which have one axis.

    Args:
        parameters, shares: by name.
    """
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((shares[name], parameter.ndim > 1), []).append(parameter)
    decay = recipe.weight_decay
    options = [
        {"params": members, "share": share, "weight_decay": decay if kernels else 0.0}
        for (share, kernels), members in groups.items()
    ]
    fused = all(each.device.type in FUSED for each in parameters.values())  # one pass over the numbers, not a dozen
    match recipe.optimiser:
        case "adam":
            return _plain(torch.optim.Adam)(options, recipe.learning_rate, fused=fused)
        case "adamw":
            return _plain(torch.optim.AdamW)(options, recipe.learning_rate, fused=fused)
    momentum = MOMENTUM if recipe.optimiser == "momentum" else 0.0
    return _plain(torch.optim.SGD)(options, recipe.learning_rate, momentum)


def place_memory(optimiser: Any) -> None:
    """Put what the optimiser remembers where it wants it, after it was loaded or the parameters were moved.

    Averages belong beside their parameter. The number of steps belongs there too in a fused optimiser, whose kernel
    reads it; otherwise on the processor, where it is read in every step.
    """
    for group in optimiser.param_groups:
        beside = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            memory = optimiser.state.get(parameter, {})
            for key, value in memory.items():
                if isinstance(value, Tensor):
                    memory[key] = value.to("cpu" if key == "step" and not beside else parameter.device)


@functools.cache
def _plain(kind: Any) -> Any:
    """An optimiser without what PyTorch wraps around its methods for `torch.compile`, which nothing here is for.

    The first call of a wrapped one imports the whole compiler: 1.5 seconds.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad")}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


@torch.no_grad()  # type: ignore[untyped-decorator]
def clip(parameters: Iterable[Tensor], greatest: float) -> float:
    """Scale all gradients so that their norm, as one vector, is no greater; 0 leaves them. Returns what it was."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
    if 0 < greatest < norm:
        torch._foreach_mul_(gradients, greatest / norm)
    return norm


class Average(RunningAverage):
    """The average of the weights in PyTorch."""

    def __init__(self, recipe: Recipe, steps: int) -> None:
        super().__init__(recipe, steps)
        self._values = {}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def update(self, step: int, trained: Mapping[str, Tensor]) -> None:
        """Take in the weights after a step, counted from 0."""
        share = self._share(step)
        if not share:
            return
        floats = {name: value.detach() for name, value in trained.items() if value.is_floating_point()}
        if self._values:
            torch._foreach_lerp_(list(self._values.values()), list(floats.values()), share)
        else:
            self._values = {name: value.clone() for name, value in floats.items()}

    def load(self, values: Mapping[str, Tensor], mass: float) -> None:
        """Go on from other values."""
        self._values, self.mass = {**values}, mass
