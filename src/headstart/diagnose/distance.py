"""How far images are from those that a pretrained network was trained on, by the statistics that the network keeps.

A batch norm keeps mean and variance of each channel over all images of the training, which for the catalogued networks
are ImageNet's. So no image of ImageNet is needed to compare with: the distance is the Kullback-Leibler divergence of
two normal distributions, with the mean and variance of each channel on these images and in training, in nats, averaged
over the channels and over layers from first to last. It is 0 for images like those of the training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset
from headstart.diagnose.records import ImageNetDistance
from headstart.engines.protocol import Network
from headstart.learn.features import run_network

IMAGES = 64
LAYERS = 8
ALIKE = 0.2  # share of a distance within which another is about the same
LEAST = 4  # images; of fewer the spread is unknown
# by network, at its own pixels; the nearest first. Measured with: python benchmarks/distance.py
REFERENCES = {
    "efficientnet_lite0": {
        "other photos of ImageNet's classes": 0.014,
        "Caltech-101's objects": 0.026,
        "photos of clutter": 0.046,
        "photos of cats and dogs": 0.058,
        "leaves on black": 0.189,
        "CIFAR-10's pictures of 32 pixels": 0.269,
        "handwritten digits": 0.463,
        "noise": 0.771,
    }
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What a layer saw of N images: for each the mean and the mean square of each channel (N, C)."""

    mean: Floats
    square: Floats


def distance_to_imagenet(dataset: ImageDataset, rows: NDArray[np.int_], network: Network) -> ImageNetDistance | None:
    """The distance of the images ``rows`` of a data set, of which at most 64 are looked at, evenly spread.

    Args:
        network: pretrained on ImageNet, and not trained further.

    Returns:
        None where the network has no batch norm, or there are fewer than four images that can be read.
    """
    norms = norms_of(network.blueprint)
    if not norms:
        return None
    seen: list[list[tuple[Floats, Floats]]] = []  # by image and layer
    for _, values in run_network(dataset, network, list(norms.values()), evenly_spread(rows, IMAGES)):
        if values is not None:
            seen.append([_moments(each) for each in values])
    if len(seen) < LEAST:
        return None
    layers = [Moments(*(np.stack(part) for part in zip(*layer, strict=True))) for layer in zip(*seen, strict=True)]
    weights, blueprint = network.weights(), network.blueprint
    found = [
        layer_distance(moments, weights[f"{name}.mean"], weights[f"{name}.var"], blueprint[name]["epsilon"])
        for name, moments in zip(norms, layers, strict=True)
    ]
    distance = float(np.mean(found))
    own_pixels = network.spec.size == network.blueprint.size
    known = REFERENCES.get(network.name, {}) if own_pixels else {}
    return ImageNetDistance(distance, len(seen), in_words(distance, known))


def norms_of(blueprint: Blueprint) -> dict[str, str]:
    """A few batch norms from the first to the last, each with the node that it normalises."""
    found = {node.name: node.inputs[0] for node in blueprint.nodes if node.op == "norm"}
    places = evenly_spread(range(len(found)), LAYERS)
    return {name: below for place, (name, below) in enumerate(found.items()) if place in places}


def layer_distance(moments: Moments, mean: NDArray[np.float32], var: NDArray[np.float32], epsilon: float) -> float:
    """The divergence at one layer, averaged over its channels.

    Few images vary by chance, which alone is some distance. The jackknife takes that off (Quenouille 1956), so it may
    be a little below 0.
    """
    count, old = len(moments.mean), var.astype(np.float64) + epsilon

    def divergence(first: Floats, second: Floats) -> Floats:
        """Of mean and mean square, over the last axis."""
        new = np.maximum(second - first**2, 0) + epsilon
        terms = new / old + (first - mean) ** 2 / old - 1 - np.log(new / old)
        return np.asarray(terms.mean(axis=-1) / 2)

    total = moments.mean.sum(axis=0), moments.square.sum(axis=0)
    whole = divergence(total[0] / count, total[1] / count)
    without_one = divergence((total[0] - moments.mean) / (count - 1), (total[1] - moments.square) / (count - 1))
    return float(count * whole - (count - 1) * without_one.mean())


def in_words(distance: float, known: dict[str, float]) -> str:
    """The distance between those of well-known images, or alone where none are known."""
    said = f"{max(distance, 0):.2f}"
    if not known:
        return f"{said}, where 0 is as near as ImageNet's own photos."
    alike = min(known, key=lambda name: abs(known[name] - distance))
    if abs(known[alike] - distance) < ALIKE * known[alike]:
        return f"{said}: about as far from ImageNet's photos as {alike}."
    nearer = [name for name, value in known.items() if value <= distance]
    farther = [name for name, value in known.items() if value > distance]
    if not nearer:
        return f"{said}: nearer to ImageNet's photos than {farther[0]} ({known[farther[0]]:.2f})."
    below = f"farther from ImageNet's photos than {nearer[-1]} ({known[nearer[-1]]:.2f})"
    return f"{said}: {below}" + (f", nearer than {farther[0]} ({known[farther[0]]:.2f})." if farther else ".")


def _moments(value: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Mean and mean square of each channel (C,) of one image."""
    flat = value.reshape(len(value), -1).astype(np.float64)
    return flat.mean(axis=1), (flat**2).mean(axis=1)
