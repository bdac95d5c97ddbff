"""The catalogue of backbones: finds one, and opens it with its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.download import at_hand, find_weights
from headstart.backbones.names import rename, translate
from headstart.backbones.not_names import why_no_name
from headstart.backbones.published import BACKBONES, Backbone
from headstart.backbones.weights import Weights, check_variances, hash_of, match, read_weights
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.progress import Progress, stage
from headstart.core.types import ImageSpec

__all__ = [
    "BACKBONES",
    "DEFAULT",
    "LARGEST",
    "SMALLEST",
    "Backbone",
    "Pretrained",
    "find_backbone",
    "load_pretrained",
]

DEFAULT = "efficientnet_lite0"
SMALLEST, LARGEST = 32, 1024  # pixels that an image may be scaled to


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A blueprint with its weights."""

    blueprint: Blueprint
    weights: dict[str, NDArray[np.float32]]
    spec: ImageSpec
    backbone: Backbone
    assumed: str = ""  # a sentence on what its weights or pixels were taken for, where nothing tells it


def find_backbone(name: str) -> Backbone:
    """The record called ``name``.

    Raises:
        UsageError: there is none; names the nearest.
    """
    if name not in BACKBONES:
        near = did_you_mean(name, BACKBONES, "headstart backbones")
        raise UsageError(why_no_name(name) or f"There is no backbone '{name}'. {near}")
    return BACKBONES[name]


def load_pretrained(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    pixels: int | None = None,
    *,
    head: bool = True,
    progress: Progress | None = None,
) -> Pretrained:
    """A catalogued network with its weights: of its package, its publisher, or a file.

    Args:
        name: a key of `BACKBONES`.
        weights: a file (.safetensors, .pth) in place of the usual ones.
        pixels: height and width to scale images to; fewer are faster and a little less accurate.
        head: whether to load its own head too. Without it, the file may have another head or none.
        progress: called with ("weights", bytes done, bytes) while they are downloaded.

    Raises:
        UsageError: an unknown name, a size out of range, weights that cannot be found or are of another network.
        CheckError: a file that is not the recorded one.
    """
    backbone = find_backbone(name)
    if pixels is not None and not SMALLEST <= pixels <= LARGEST:
        raise UsageError(f"--pixels: expected {SMALLEST} to {LARGEST}. Received: {pixels}.")
    network = backbone.blueprint()
    (network if head else network.trunk(backbone.layers)).shapes(pixels)  # checked before any file is read
    if (
        weights is None
        and not (backbone.weights.distribution or backbone.weights.url)
        and not at_hand(backbone.weights)
    ):
        raise UsageError(_of_one_s_own(backbone))
    path = os.fspath(find_weights(backbone.weights, stage(progress, "weights")) if weights is None else weights)
    arrays = read_weights(path)
    own, assumed = weights is not None, ""
    if own:
        backbone, assumed = _variant(path, arrays, backbone)
    blueprint = backbone.blueprint()
    shapes, trunk = blueprint.weight_shapes(), blueprint.trunk(backbone.layers)
    named = rename(arrays, shapes, "" if own else backbone.weights.names)
    of_head = set(blueprint.parameters()) - set(trunk.layers)
    fitting = match(named, shapes, path, ignore=of_head if own else None)
    check_variances(fitting, path)
    if not head:
        blueprint, fitting = trunk, {key: fitting[key] for key in trunk.weight_shapes()}
    elif lacking := [key for key in shapes if key not in fitting]:
        raise UsageError(_other_head(name, path, named.get(lacking[0]), shapes[lacking[0]][0]))
    spec = replace(backbone.spec, size=pixels or backbone.spec.size)
    return Pretrained(blueprint, fitting, spec, backbone, assumed)


def _is_published(backbone: Backbone) -> bool:
    return bool(backbone.weights.url or backbone.weights.distribution)


def _of_one_s_own(backbone: Backbone) -> str:
    """Which file a network needs that nobody publishes under an address, and which of its variants need none."""
    others = [
        other.name
        for other in BACKBONES.values()
        if other.architecture == backbone.architecture and _is_published(other)
    ]
    instead = f" Or take one whose weights are fetched by themselves: {', '.join(others)}." if others else ""
    return f"The weights of '{backbone.name}' come from a file of your own: --weights FILE.{instead}"


def _variant(path: str, weights: Weights, backbone: Backbone) -> tuple[Backbone, str]:
    """Whose network a file of one's own is, among those of the same architecture, and what had to be assumed.

    Its hash tells it, or the names of its weights: so each runs with its maker's preprocessing, padding and epsilon.
    """
    related = [other for other in BACKBONES.values() if other.architecture == backbone.architecture]
    if len(related) == 1:
        return backbone, ""
    for algorithm in ("sha256", "md5"):
        received = hash_of(path, algorithm)
        for other in related:
            if (digits := getattr(other.weights, algorithm)) and received.startswith(digits):
                return other, ""
    here = translate(weights, backbone.blueprint().weight_shapes())
    fitting = [
        other
        for other in related
        if not here.libraries.isdisjoint(other.libraries)
        and translate(weights, other.blueprint().weight_shapes()).fit >= here.fit
    ]
    named = backbone.name != backbone.architecture  # a variant's own name is a word on it
    taken = backbone if named or not fitting or _computes_as(backbone, fitting[0]) else fitting[0]
    others = [other.name for other in fitting if not _computes_as(taken, other)]
    if not others:
        return taken, ""
    return taken, (
        f"The names in '{path}' do not tell whose network it is. It is run as {taken.name}; "
        f"{' and '.join(others)} would have other padding or pixels."
    )


def _computes_as(one: Backbone, other: Backbone) -> bool:
    """Whether the same weights give the same answers in both, but for the crop."""
    same_pixels = (one.spec.mean, one.spec.std) == (other.spec.mean, other.spec.std)
    return same_pixels and one.blueprint().nodes == other.blueprint().nodes


def _other_head(name: str, path: str, weight: NDArray[Any] | None, classes: int) -> str:
    """Why a file of a fine-tuned network has no answer in the classes that its backbone knows."""
    received = "none of this form" if weight is None else f"one for {len(weight)}"
    return (
        f"'{path}': expected a head for the {classes} classes that {name} knows, received {received}. "
        f"Its other layers fit; fit a head of your own on them: headstart fit PHOTOS --backbone {name} --weights FILE"
    )
