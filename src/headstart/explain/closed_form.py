"""The evidence for a class from one forward pass: where the head is linear, the gradient is a row of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.backbones.ops import SQRT_EPSILON

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LinearHead:
    """A head whose logits are linear in the averages of some layers, or in the square roots of these averages."""

    layers: tuple[str, ...]  # in the order of the features
    dense: str | None  # the node that has the weights; None: each logit is the average of one channel
    root: str | None  # the node whose square root is taken


def linear_head(blueprint: Blueprint) -> LinearHead | None:
    """The head of a network; None where it is not linear in averages of layers with more than one place."""
    node, dense, root = blueprint[LOGITS], None, None
    while node.op not in ("concat", "pool"):
        if node.op == "dense" and dense is None:
            dense = node.name
        elif node.op == "act" and node["kind"] == "sqrt" and dense and root is None:
            root = node.inputs[0]
        elif node.op != "dropout":
            return None
        node = blueprint[node.inputs[0]]
    pools = [blueprint[name] for name in node.inputs] if node.op == "concat" else [node]
    layers = tuple(pool.inputs[0] for pool in pools if pool.op == "pool")
    shapes = blueprint.shapes()
    if len(layers) < len(pools) or any(shapes[layer][1] * shapes[layer][2] == 1 for layer in layers):
        return None
    return LinearHead(layers, dense, root)


def evidence(
    head: LinearHead, weights: Mapping[str, Array], values: Sequence[Array], index: int
) -> tuple[list[Array], float]:
    """For one class the map of each layer (height, width): gradient of the logit times activation, over all channels.

    This is HiResCAM (Draelos & Carin 2020), and with averages as features the same as Grad-CAM (Selvaraju et al. 2017).
    The second value is the part of the evidence that lies in no place: the bias, less its mean over the classes, on
    which no probability depends. A fitted head measures from the middle between its classes, so without it the zero of
    a map would mean nothing. Under a square root gradient times average is half of what an average gives, so it is
    halved, too.

    Args:
        weights: of the network.
        values: the averages (D,) if the head takes their square root, and each layer (C, height, width).
    """
    averages, layers = (values[0], values[1:]) if head.root else (None, values)
    width = sum(map(len, layers))
    rest = 0.0
    if head.dense is None:
        gradient: Array = np.eye(1, width, index, dtype=np.float32)[0]
    else:
        gradient, bias = weights[f"{head.dense}.weight"][index], weights[f"{head.dense}.bias"]
        rest = float(bias[index] - bias.mean()) * (1 if averages is None else 0.5)
    if averages is not None:  # the root of a negative average is constant
        slope = 0.5 / np.sqrt(np.maximum(averages, 0) + np.float32(SQRT_EPSILON))
        gradient = np.where(averages > 0, gradient * slope, np.float32(0))
    parts = np.split(gradient, np.cumsum([len(layer) for layer in layers])[:-1])
    maps = [np.tensordot(part, layer, 1) / np.float32(layer[0].size) for part, layer in zip(parts, layers, strict=True)]
    return maps, rest
