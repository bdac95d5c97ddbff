"""The learning rate of every step, and every node's share of it: closed forms, so a resumed run needs no state."""

from __future__ import annotations

import math
import re

from headstart.backbones.blueprint import Blueprint
from headstart.core.errors import UsageError, did_you_mean
from headstart.train.recipe import Recipe

DROPS, DROP = (0.5, 0.75), 0.1  # a step decay: at these shares of the training, by this factor (He et al. 2016)
START, END = 1 / 25, 1e-4  # one-cycle: the first rate as a share of the peak, and the last as a share of the first
CYCLES = 4  # of the cosine where snapshots are averaged; those of the second half of the training count
_STAGE = re.compile(r"(?:blocks\.|layer|stages?\.?)\d+(?=\.)")  # as the backbones name their stages


def rate(recipe: Recipe, step: int, steps: int, *, steps_per_epoch: int = 1) -> float:
    """The learning rate of a step, counted from 0 through all epochs.

    It rises linearly over the warm-up, then stays ("constant"), falls to a tenth at half and again at three quarters,
    at the start of an epoch ("step"), or along half a cosine ("cosine", Loshchilov & Hutter 2017; where the recipe
    averages snapshots in `CYCLES` parts, each from the peak). "one_cycle" (Smith 2018) rises and falls along half
    cosines.
    """
    if recipe.schedule == "one_cycle":
        return recipe.learning_rate * _one_cycle(step, steps, recipe.warm_up)
    warm = warm_up_steps(recipe, steps)
    if step < warm:
        return recipe.learning_rate * (step + 1) / (warm + 1)
    if recipe.schedule == "step":
        done = step // steps_per_epoch * steps_per_epoch / steps
        return recipe.learning_rate * math.prod(DROP for at in DROPS if done >= at)
    if recipe.schedule == "cosine":
        first, end = _cycle(recipe, step, steps)
        return recipe.learning_rate * (1 + math.cos(math.pi * (step - first) / (end - first))) / 2
    return recipe.learning_rate


def warm_up_steps(recipe: Recipe, steps: int) -> int:
    """Steps before the first one at the full rate."""
    return min(round(recipe.warm_up * steps), steps - 1)


def snapshot_after(recipe: Recipe, step: int, steps: int) -> bool:
    """Whether the weights after this step are one of the averaged snapshots: a cycle of the second half ends."""
    return recipe.averaging == "snapshots" and 2 * (step + 1) >= steps and _cycle(recipe, step, steps)[1] == step + 1


def _one_cycle(step: int, steps: int, warm_up: float) -> float:
    """The rate as a share of the peak."""
    peak, last = warm_up * steps - 1, steps - 1
    if steps == 1:
        return 1.0
    if step <= peak:
        return _between(START, 1.0, step / peak if peak else 1.0)
    return _between(1.0, START * END, (step - peak) / (last - peak))


def _between(start: float, end: float, share: float) -> float:
    """A value between, along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _cycle(recipe: Recipe, step: int, steps: int) -> tuple[int, int]:
    """The first step of the cosine that a step belongs to, and its end (exclusive)."""
    first = warm_up_steps(recipe, steps)
    cycles = min(CYCLES, recipe.epochs, steps - first) if recipe.averaging == "snapshots" else 1
    ends = [first + round((steps - first) * (place + 1) / cycles) for place in range(cycles)]
    place = next(place for place, end in enumerate(ends) if step < end)
    return ends[place - 1] if place else first, ends[place]


def rates_by_layer(blueprint: Blueprint, recipe: Recipe) -> dict[str, float]:
    """Each trained node's share of the learning rate: 1 for the head, ``layer_decay`` times as much a stage below.

    Of a batch norm, weight and bias are trained; for its statistics see ``recipe.batch_norm``.

    Raises:
        UsageError: ``recipe.unfreeze`` names no node or stage of this network, or one without weights above it.
    """
    levels = stages(blueprint)
    trained = _trained(blueprint, recipe.unfreeze, levels)
    return {
        node: recipe.layer_decay ** (len(levels) - 1 - level)
        for level, stage in enumerate(levels)
        for node in stage
        if node in trained
    }


def stages(blueprint: Blueprint) -> list[list[str]]:
    """Nodes with weights in groups from the lowest to the head, which is the last node with weights, by itself.

    The groups follow the node names (blocks.3, layer2), with the nodes before and after them; without such names each
    max pooling starts a new group, and so does each hidden dense layer.
    """
    *body, head = [node.name for node in blueprint.nodes if node.op in ("conv", "norm", "dense", "module")] or [""]
    if not head:
        raise UsageError(f"'{blueprint.name}' has no weights to train.")
    named = any(map(_STAGE.match, body))
    found: dict[str, list[str]] = {}
    last = part = ""
    for node in blueprint.nodes:
        if named:
            stage = _STAGE.match(node.name)
            last = stage[0] if stage else last
            part = last if stage else "after" if last else "before"
        elif node.op in ("max_pool", "dense", "module"):
            part = node.name
        if node.name in body:
            found.setdefault(part, []).append(node.name)
    return [*found.values(), [head]]


def _trained(blueprint: Blueprint, unfreeze: str, levels: list[list[str]]) -> set[str]:
    """Nodes with weights from the one named by ``unfreeze`` up."""
    *below, head = levels
    opaque = any(blueprint[name].op == "module" for stage in below for name in stage)
    if unfreeze == "head" or (unfreeze == "top" and opaque):  # the order of layers inside a module is not known
        return set(head)
    if unfreeze == "top":
        return {name for stage in levels[-1 - math.ceil(len(below) / 3) :] for name in stage}
    weighted = {name for stage in levels for name in stage}
    if unfreeze == "all":
        return weighted
    names = blueprint.layers
    lowest = next((place for place, name in enumerate(names) if f"{name}.".startswith(f"{unfreeze}.")), None)
    if lowest is None:
        known = {*names, "head", "top", "all"}
        raise UsageError(
            f"Recipe, unfreeze: '{blueprint.name}' has no layer or stage '{unfreeze}'. {did_you_mean(unfreeze, known)}"
        )
    if not weighted & set(names[lowest:]):
        raise UsageError(
            f"Recipe, unfreeze: nothing from '{unfreeze}' on has weights in '{blueprint.name}'. "
            f"Expected '{head[0]}' or a layer below it."
        )
    return weighted & set(names[lowest:])
