"""Translates weights between keras.applications and blueprints: names and axes.

Keras has kernels HWIO and dense layers (in, out), flattens row by row, and VGG and ResNet take BGR images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.backbones.ops import Shape
from headstart.backbones.weights import Weights

PARTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "var",
}
HEADS = ("predictions", "probs", "logits", "fc1000")  # in different versions of Keras
BLUE_FIRST = {"vgg": "features.0", "resnet": "conv1"}  # convolutions with input in BGR order
FLATTENED = "classifier.0"  # VGG's first dense layer


def from_keras(weights: Mapping[str, NDArray[Any]], shapes: Mapping[str, Shape]) -> Weights:
    """Keras's weights, as `hdf5.read_h5` gives them, for the blueprint whose weights have these ``shapes``.

    VGG, ResNet and MobileNets of keras.applications, with their head or without. Unknown keys, and arrays that do not
    fit, stay as they are; `match` reports them.
    """
    family, names = _names(weights, shapes)
    found: Weights = {}
    for key, array in weights.items():
        name = names[key]
        if name not in shapes:
            found[key] = array
            continue
        turned = _turned(array, shapes[name])
        if name == f"{BLUE_FIRST.get(family)}.weight" and turned.ndim == 4:
            turned = turned[:, ::-1]
        if name == f"{FLATTENED}.weight" and turned.shape == shapes[name]:
            turned = _swapped(turned, _last_filters(shapes), channels_last=True)
        found[name] = np.ascontiguousarray(turned) if turned.ndim else turned
    return found


def to_keras(weights: Mapping[str, NDArray[Any]], keys: Mapping[str, Shape]) -> Weights:
    """A blueprint's weights under Keras's ``keys`` and in its shapes: the inverse of `from_keras`.

    Keys without a weight are left out.
    """
    shapes = {name: array.shape for name, array in weights.items()}
    family, names = _names(keys, shapes)
    found: Weights = {}
    for key, name in names.items():
        if name not in weights:
            continue
        array = weights[name]
        if name == f"{BLUE_FIRST.get(family)}.weight":
            array = array[:, ::-1]
        if name == f"{FLATTENED}.weight":
            array = _swapped(array, _last_filters(shapes), channels_last=False)
        found[key] = np.ascontiguousarray(_returned(array, keys[key]))
    return found


def _names(keys: Iterable[str], shapes: Mapping[str, Shape]) -> tuple[str, dict[str, str]]:
    """The family of the blueprint, and its name for each of Keras's ``keys``."""
    nodes = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
    family = _family(nodes)
    layers = dict.fromkeys(HEADS, LOGITS) | dict(_LAYERS[family](nodes))
    parts = {key: key.rpartition("/") for key in keys}
    names = {key: f"{layers.get(_plain(layer))}.{PARTS.get(part)}" for key, (layer, _, part) in parts.items()}
    return family, names


def _plain(layer: str) -> str:
    """One spelling of a layer: in tf.keras ``expanded_conv_expand_bn`` was ``expanded_conv/expand/BatchNorm``."""
    return layer.lower().replace("/", "_").replace("batchnorm", "bn")


def _turned(array: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Channels before height and width, outputs before inputs."""
    if array.ndim == 4:
        depthwise = shape[:2] == (array.shape[2], 1) and array.shape[3] == 1
        turned = array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        return turned[:, :, 0, 0] if len(shape) == 2 and turned.shape[2:] == (1, 1) else turned
    return array.T


def _returned(array: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Height and width before channels, inputs before outputs, to Keras's ``shape``: the inverse of `_turned`."""
    if len(shape) == 4:
        kernel = array[:, :, None, None] if array.ndim == 2 else array
        depthwise = shape[2:] == (len(kernel), 1)
        return kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return array.T


def _last_filters(shapes: Mapping[str, Shape]) -> int:
    """The channels of the last convolution, whose output VGG flattens."""
    return [shape[0] for name, shape in shapes.items() if name.startswith("features.") and len(shape) == 4][-1]


def _swapped(dense: NDArray[Any], channels: int, *, channels_last: bool) -> NDArray[Any]:
    """The weights (out, in) of a dense layer on a flattened square map, for the other order of its axes.

    ``channels_last`` is whether the map has its channels last now.
    """
    units, inputs = dense.shape
    side = math.isqrt(inputs // channels)
    shape, order = ((side, side, channels), (0, 3, 1, 2)) if channels_last else ((channels, side, side), (0, 2, 3, 1))
    return dense.reshape(units, *shape).transpose(order).reshape(units, inputs)


def _family(nodes: Collection[str]) -> str:
    if "conv_stem" in nodes:
        if not any(node.endswith(".conv_pwl") for node in nodes):
            return "mobilenet_v1"
        return "mobilenet_v3" if any(re.fullmatch(r"blocks\.\d+\.0\.conv", node) for node in nodes) else "mobilenet_v2"
    return "resnet" if "layer1.0.conv1" in nodes else "vgg"


def _vgg(nodes: Collection[str]) -> Iterator[tuple[str, str]]:
    """Keras numbers convolutions in their group; in the blueprint max pools between groups have a number too."""
    places = sorted(int(found[1]) for node in nodes if (found := re.fullmatch(r"features\.(\d+)", node)))
    group, within = 1, 0
    for before, place in zip([-2, *places], places, strict=False):
        group, within = (group, within + 1) if place - before == 2 else (group + 1, 1)
        yield f"block{group}_conv{within}", f"features.{place}"
    yield "fc1", FLATTENED
    yield "fc2", "classifier.3"


def _resnet(nodes: Collection[str]) -> Iterator[tuple[str, str]]:
    yield "conv1_conv", "conv1"
    yield "conv1_bn", "bn1"
    for node in nodes:
        if found := re.fullmatch(r"layer(\d+)\.(\d+)\.(conv|bn)(\d)", node):
            yield f"conv{int(found[1]) + 1}_block{int(found[2]) + 1}_{found[4]}_{found[3]}", node
        elif found := re.fullmatch(r"layer(\d+)\.(\d+)\.downsample\.([01])", node):
            kind = ("conv", "bn")[int(found[3])]
            yield f"conv{int(found[1]) + 1}_block{int(found[2]) + 1}_0_{kind}", node


def _mobilenet_v1(nodes: Collection[str]) -> Iterator[tuple[str, str]]:
    yield from (("conv1", "conv_stem"), ("conv1_bn", "bn1"), ("conv_preds", LOGITS))
    for number, at in enumerate(blocks_of(nodes), 1):
        for step, conv in enumerate(("conv_dw", "conv_pw"), 1):
            yield f"{conv}_{number}", f"{at}.{conv}"
            yield f"{conv}_{number}_bn", f"{at}.bn{step}"


def _mobilenet_v2(nodes: Collection[str]) -> Iterator[tuple[str, str]]:
    yield from (("conv1", "conv_stem"), ("bn_conv1", "bn1"), ("conv_1", "conv_head"), ("conv_1_bn", "bn2"))
    yield from _inverted(nodes, "block")


def _mobilenet_v3(nodes: Collection[str]) -> Iterator[tuple[str, str]]:
    last = next(node for node in nodes if re.fullmatch(r"blocks\.\d+\.0\.conv", node))
    yield from (("conv", "conv_stem"), ("conv_bn", "bn1"), ("conv_1", last), ("conv_1_bn", last[:-4] + "bn1"))
    yield "conv_2", "conv_head"
    yield from _inverted(nodes, "expanded_conv")


def _inverted(nodes: Collection[str], prefix: str) -> Iterator[tuple[str, str]]:
    """Keras numbers all blocks in one sequence, the blueprint by stage; Keras's first block has no number."""
    for number, at in enumerate(blocks_of(nodes)):
        ours, theirs = f"{at}.", f"{prefix}_{number}_" if number else "expanded_conv_"
        steps = [("expand", "conv_pw"), ("depthwise", "conv_dw"), ("project", "conv_pwl")]
        if f"{ours}conv_pwl" not in nodes:
            steps = [("depthwise", "conv_dw"), ("project", "conv_pw")]
        for step, (name, conv) in enumerate(steps, 1):
            yield f"{theirs}{name}", f"{ours}{conv}"
            yield f"{theirs}{name}_bn", f"{ours}bn{step}"
        yield f"{theirs}squeeze_excite_conv", f"{ours}se.conv_reduce"
        yield f"{theirs}squeeze_excite_conv_1", f"{ours}se.conv_expand"


def blocks_of(nodes: Collection[str]) -> list[str]:
    """Blocks with a depthwise convolution, in order."""
    found = (re.fullmatch(r"blocks\.(\d+)\.(\d+)\.conv_dw", node) for node in nodes)
    return [
        f"blocks.{stage}.{place}" for stage, place in sorted((int(each[1]), int(each[2])) for each in found if each)
    ]


_LAYERS = {
    "vgg": _vgg,
    "resnet": _resnet,
    "mobilenet_v1": _mobilenet_v1,
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3": _mobilenet_v3,
}
