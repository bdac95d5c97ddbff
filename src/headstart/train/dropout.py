"""Dropout masks, drawn here so that all trainers drop the same values (Srivastava et al. 2014).

A mask is drawn from (seed, step, node), for the whole batch: a resumed training, a batch taken in parts and a batch
shared by several devices get the same masks.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.ops import Shape
from headstart.train.batches import draw
from headstart.train.recipe import Recipe

DROPOUT = 4  # purpose of `batches.draw`, beside those there


def dropped(blueprint: Blueprint) -> tuple[str, ...]:
    """Nodes that dropout is applied to: the blueprint's dropout nodes, else the input of the last node."""
    own = tuple(node.name for node in blueprint.nodes if node.op == "dropout")
    if own or FEATURES not in blueprint.layers or blueprint.layers[-1] == FEATURES:
        return own
    return blueprint.nodes[-1].inputs[:1]


def dropout_mask(recipe: Recipe, step: int, node: str, shape: Shape) -> NDArray[np.float32]:
    """The factor of each value of a node: 0, or 1 / (1 - the recipe's dropout). ``shape`` is the whole batch's."""
    generator = draw(DROPOUT, recipe.seed, step, zlib.crc32(node.encode()))
    kept = generator.random(shape, np.float32) >= recipe.dropout
    return np.where(kept, np.float32(1 / (1 - recipe.dropout)), np.float32(0))
