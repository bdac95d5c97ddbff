"""Where a network is cut: nothing below is trained, so its activations depend on the image alone."""

from __future__ import annotations

from collections.abc import Collection

from headstart.backbones.blueprint import FEATURES, INPUT, Blueprint
from headstart.backbones.ops import Node


def cut_at(blueprint: Blueprint, trained: Collection[str]) -> str:
    """The highest node with all ``trained`` nodes above it, which get their input through it alone.

    It is "input" where no weights are below the trained nodes; and never above the features, which dropout and the
    precision of the head depend on.
    """
    names, weighted = blueprint.layers, blueprint.weights_by_node().keys()
    for name in reversed(names[1 : names.index(FEATURES) + 1 if FEATURES in names else len(names)]):
        below = set(blueprint.upto(name).layers)
        if below & weighted and not below & set(trained) and _all_pass(blueprint, name, below):
            return name
    return INPUT


def above(blueprint: Blueprint, at: str, size: int) -> Blueprint:
    """The part above node ``at``, as a network that takes its values: (C, H, W), or (D, 1, 1) where they are (D,).

    Args:
        size: of the whole network's images, pixels.
    """
    below = set(blueprint.upto(at).layers)
    shape = blueprint.shapes(size)[at]
    first = [Node(INPUT, "input", (), {"channels": shape[0]})]
    if len(shape) == 1:
        first.append(Node(at, "flatten", (INPUT,), {}))
    renamed = {} if len(shape) == 1 else {at: INPUT}
    rest = [
        Node(node.name, node.op, tuple(renamed.get(name, name) for name in node.inputs), node.attrs)
        for node in blueprint.nodes
        if node.name not in below
    ]
    return Blueprint(blueprint.name, (*first, *rest), shape[1] if len(shape) == 3 else 1)


def _all_pass(blueprint: Blueprint, at: str, below: Collection[str]) -> bool:
    """Whether the nodes above take values from below only through ``at``."""
    rest = [node for node in blueprint.nodes if node.name not in below]
    return bool(rest) and all(name == at or name not in below for node in rest for name in node.inputs)
