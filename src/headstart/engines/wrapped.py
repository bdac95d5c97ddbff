"""A network of another library as a trunk: what wrapping it gives, whichever framework it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, INPUT, LOGITS, Blueprint
from headstart.backbones.catalogue import LARGEST, SMALLEST, Backbone, Pretrained
from headstart.backbones.ops import Node, Shape
from headstart.backbones.weights import Weights, WeightsRecord
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec, Normalisation


@dataclass(frozen=True, eq=False)
class Wrapped:
    """A module as a trunk, and its own head."""

    trunk: Pretrained
    module: Any  # a copy, which the trunk is built from; None where the blueprint is enough
    head: tuple[NDArray[np.float32], NDArray[np.float32]] | None  # weight (K, D) and bias (K,), where it has them

    def whole(self) -> Pretrained:
        """The network with its own head for ImageNet's classes.

        Raises:
            UsageError: it has none, or one for other classes.
        """
        classes = len(self.trunk.backbone.classes())
        if self.head is None or len(self.head[0]) != classes:
            received = "none" if self.head is None else len(self.head[0])
            raise UsageError(
                f"'{self.trunk.blueprint.name}' alone is no classifier: expected a head for the {classes} classes of "
                f"ImageNet, received {received}. Fit one of your own: headstart fit PHOTOS"
            )
        weight, bias = self.head
        blueprint = self.trunk.blueprint.with_head(classes, sqrt=False)
        weights = self.trunk.weights | {f"{LOGITS}.weight": weight, f"{LOGITS}.bias": bias}
        return replace(self.trunk, blueprint=blueprint, weights=weights)


def make_trunk(
    source: str, arrays: Weights, attrs: Mapping[str, Any], spec: ImageSpec, record: WeightsRecord
) -> Pretrained:
    """A trunk of one node, a module with these weights, that gives the features.

    Args:
        attrs: of the node beside its weights: features, head, units, config, and statistics, the names of those
            weights that no optimiser changes.
    """
    shapes = {key: value.shape for key, value in arrays.items()}
    node = Node(FEATURES, "module", (INPUT,), {"source": source, "weights": shapes, **attrs})
    blueprint = Blueprint(source, (Node(INPUT, "input", (), {"channels": 3}), node), spec.size)
    backbone = Backbone(source, lambda: blueprint, spec, record, layers=(FEATURES,))
    return Pretrained(blueprint, {f"{FEATURES}.{key}": value for key, value in arrays.items()}, spec, backbone)


def assumed_pixels(name: str, spec: ImageSpec | Normalisation | None, assumed: ImageSpec, taken: str) -> str:
    """The sentence that says which pixels a network gets that does not say what it wants; "" where ``spec`` says it."""
    if spec is not None and spec.beside(assumed).mean is not assumed.mean:
        return ""
    return (
        f"'{name}' does not say which pixels it wants. It gets {taken}. Name others: --mean and --std, or "
        "spec=hs.ImageSpec(size, mean, std)."
    )


def needed(blueprint: Blueprint, at: Iterable[str], inner: Iterable[str]) -> list[Node]:
    """The nodes that those ``at``, or ``inner`` layers of a module, depend on, in order, without the input."""
    wanted, found = {*at}, list[Node]()
    for node in reversed(blueprint.nodes[1:]):
        if node.name in wanted or (node.op == "module" and not wanted.isdisjoint(inner)):
            found.append(node)
            wanted.update(node.inputs)
    return found[::-1]


def check_same(node: Node, found: Mapping[str, Shape]) -> None:
    """Refuse a live module with other weights than those of the node that stands for it."""
    for name, shape in node["weights"].items():
        if found.get(name) != tuple(shape):
            raise UsageError(
                f"The module given is not the one that the model was made of ({node['source']}): its weight '{name}' "
                f"expected {tuple(shape)}, received {found.get(name, 'none')}."
            )


def check_pixels(pixels: int | None) -> None:
    """Refuse a size out of range."""
    if pixels is not None and not SMALLEST <= pixels <= LARGEST:
        raise UsageError(f"--pixels: expected {SMALLEST} to {LARGEST}. Received: {pixels}.")


def attempt(problem: str, action: Callable[[], Any]) -> Any:
    """The result of foreign code; any error of it becomes a `UsageError` that begins with the ``problem``."""
    try:
        return action()
    except UsageError:
        raise
    except Exception as error:  # foreign code can raise anything
        raise UsageError(f"{problem}: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}") from error
