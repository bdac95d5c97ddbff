"""Translates the names of weights between libraries (timm, torchvision and others) and blueprints."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.backbones.keras_names import blocks_of, from_keras, to_keras
from headstart.backbones.ops import Shape
from headstart.backbones.prefixes import fit_of, unwrapped
from headstart.backbones.weights import Weights
from headstart.core.errors import UsageError, did_you_mean

PARTS = {"running_mean": "mean", "running_var": "var"}  # PyTorch's name of a weight in its layer -> a blueprint's
KERAS = "keras"  # its arrays have other axes, too; its keys are "layer/variable"
COUNTER = ".num_batches_tracked"  # not in a blueprint
CHILDREN = (  # of networks, in order; "" has no weights
    ("conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4", "", "fc"),
    ("conv_stem", "bn1", "blocks", "conv_head", "bn2", "", "classifier"),
    ("features",),
)


@dataclass(frozen=True, eq=False)
class Translation:
    """The weights of a file under a blueprint's names."""

    weights: Weights  # unknown ones keep their names
    libraries: frozenset[str]  # that call them so; several where all of them have the same names
    fit: tuple[int, int]  # how many of the blueprint's weights are there: in the right size, and at all


def rename(weights: Mapping[str, NDArray[Any]], shapes: Mapping[str, Shape], names: str = "") -> Weights:
    """The same arrays under the names of the blueprint whose weights have these ``shapes``; see `translate`."""
    return translate(weights, shapes, names).weights


def translate(weights: Mapping[str, NDArray[Any]], shapes: Mapping[str, Shape], names: str = "") -> Translation:
    """The same arrays under the names of the blueprint whose weights have these ``shapes``, without prefixes.

    ``names`` is a key of `NAME_MAPS` or "keras"; where it is empty, the map that knows most keys is used. Unknown keys
    stay as they are; `match` reports them. The kernel of a convolution over its whole input, which is a dense layer in
    the blueprint, is flattened.

    Raises:
        UsageError: no such map, or two networks in the file fit; see `unwrapped`.
    """
    if names and names not in (*NAME_MAPS, KERAS):
        raise UsageError(f"Unknown name map '{names}'. {did_you_mean(names, (*NAME_MAPS, KERAS))}")
    if names == KERAS or (not names and any("/" in name for name in weights)):
        found = from_keras(weights, shapes)
        return Translation(found, frozenset({KERAS}), fit_of(found, shapes))
    nodes = {name.rpartition(".")[0] for name in shapes}
    kept = {name: array for name, array in weights.items() if not name.endswith(COUNTER)}
    tried = []
    for library in [names] if names else NAME_MAPS:
        plain = NAME_MAPS[library](nodes)
        for known in (plain, _numbered(nodes, plain)):
            translated = functools.partial(_translated, nodes=known)
            inner = unwrapped(kept, shapes, translated)
            tried.append((fit_of(inner, shapes, translated), library, inner, translated))
    most, _, inner, translated = max(tried, key=lambda each: each[0])
    found = {(new := translated(name)): _flattened(array, shapes.get(new)) for name, array in inner.items()}
    return Translation(found, _narrowed({library for fit, library, *_ in tried if fit == most}, nodes), most)


def _narrowed(libraries: set[str], nodes: Collection[str]) -> frozenset[str]:
    """Of libraries that explain a file equally well, those whose own names the blueprint has."""
    own = {"timm"} if "conv_stem" in nodes else {"timm", "torchvision"}
    return frozenset(libraries & own or libraries)


def _numbered(nodes: Collection[str], known: Mapping[str, str]) -> dict[str, str]:
    """The names in a `torch.nn.Sequential` of a network's children, as fastai cuts it; ``known``: those in the network.

    The features alone, too: "0.weight" for "features.0.weight".
    """
    found: dict[str, str] = {}
    for theirs, ours in {**{node: node for node in nodes}, **known}.items():
        first, dot, rest = theirs.partition(".")
        for children in CHILDREN:
            if first in children:
                found.setdefault(f"{children.index(first)}{dot}{rest}", ours)
        if first == "features":
            found.setdefault(rest, ours)
    return found


def restore(weights: Mapping[str, NDArray[Any]], keys: Mapping[str, Shape], names: str) -> Weights:
    """The same arrays under a library's ``keys`` and in its shapes: the inverse of `rename`.

    ``names`` is a key of `NAME_MAPS` or "keras". Keys without a weight are left out; an array that does not fit keeps
    its shape.
    """
    if names == KERAS:
        return to_keras(weights, keys)
    nodes = {name.rpartition(".")[0] for name in weights}
    known = NAME_MAPS[names](nodes)
    return {
        key: weights[name].reshape(shape) if weights[name].size == math.prod(shape) else weights[name]
        for key, shape in keys.items()
        if (name := _translated(key, known)) in weights
    }


def _translated(name: str, nodes: Mapping[str, str]) -> str:
    node, dot, part = name.rpartition(".")
    return f"{nodes.get(node, node)}{dot}{PARTS.get(part, part)}"


def _flattened(array: NDArray[Any], shape: Shape | None) -> NDArray[Any]:
    if shape is not None and array.ndim == 4 and len(shape) == 2 and array.shape[0] == shape[0]:
        flat = array.reshape(len(array), -1)
        return flat if flat.shape == shape else array
    return array


def _timm(nodes: Collection[str]) -> dict[str, str]:
    """MobileNets and EfficientNets have timm's module paths as names; torchvision's networks have nearly the same."""
    head = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": LOGITS}
    return head | {"classifier": LOGITS, "fc": LOGITS}


def _akamaster(nodes: Collection[str]) -> dict[str, str]:
    """The CIFAR ResNets of akamaster/pytorch_resnet_cifar10."""
    return {"linear": LOGITS}


def _torchvision(nodes: Collection[str]) -> dict[str, str]:
    """VGG, ResNet and SqueezeNet have torchvision's module paths as names; it numbers all parts of a MobileNet."""
    if "conv_stem" not in nodes:
        return {"classifier.6": LOGITS, "fc": LOGITS}
    found, blocks = {"features.0.0": "conv_stem", "features.0.1": "bn1"}, blocks_of(nodes)
    for place, at in enumerate(blocks, 1):
        part = _block_v2 if "bn2" in nodes else _block_v3
        found |= {f"features.{place}.{theirs}": f"{at}.{ours}" for theirs, ours in part(nodes, at).items()}
    last = f"features.{len(blocks) + 1}"
    if "bn2" in nodes:
        return found | {f"{last}.0": "conv_head", f"{last}.1": "bn2", "classifier.1": LOGITS}
    stage = max((int(at.split(".")[1]) for at in blocks), default=-1) + 1
    found |= {f"{last}.0": f"blocks.{stage}.0.conv", f"{last}.1": f"blocks.{stage}.0.bn1"}
    return found | {"classifier.0": "conv_head", "classifier.3": LOGITS}


def _block_v2(nodes: Collection[str], at: str) -> dict[str, str]:
    *pairs, (project, norm) = _pairs(nodes, at)
    found: dict[str, str] = {}
    for step, pair in enumerate(pairs):
        found |= {f"conv.{step}.{each}": name for each, name in enumerate(pair)}
    return found | {f"conv.{len(pairs)}": project, f"conv.{len(pairs) + 1}": norm}


def _block_v3(nodes: Collection[str], at: str) -> dict[str, str]:
    steps = [{"0": conv, "1": norm} for conv, norm in _pairs(nodes, at)]
    if f"{at}.se.conv_reduce" in nodes:
        steps.insert(-1, {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"})
    return {f"block.{step}.{theirs}": ours for step, pair in enumerate(steps) for theirs, ours in pair.items()}


def _lukemelas(nodes: Collection[str]) -> dict[str, str]:
    """EfficientNets of lukemelas/EfficientNet-PyTorch: all blocks are numbered in one sequence, not by stage."""
    found = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": LOGITS}
    theirs = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for place, at in enumerate(blocks_of(nodes)):
        pairs = _pairs(nodes, at)
        for old, new in zip(theirs[-len(pairs) :], pairs, strict=True):
            found |= {f"_blocks.{place}.{a}": f"{at}.{b}" for a, b in zip(old, new, strict=True)}
    return found


def _pairs(nodes: Collection[str], at: str) -> list[tuple[str, str]]:
    """Convolutions and their norms in a block, in order."""
    if f"{at}.conv_pwl" in nodes:
        return [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
    return [("conv_dw", "bn1"), ("conv_pw", "bn2")]


# library -> function of a blueprint's nodes: the library's name of each -> the blueprint's, where they differ
NAME_MAPS: dict[str, Callable[[Collection[str]], dict[str, str]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "akamaster": _akamaster,
    "lukemelas": _lukemelas,
}
