"""What the channels of a layer answer to on a photo: edges in the first layers, parts of things in the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import TEXT, YES_NO, checks, several, whole
from headstart.core.errors import DataError, UsageError
from headstart.core.types import Problem
from headstart.data.inputs import Images, unlabelled_dataset
from headstart.engines.protocol import Network
from headstart.explain.request import check_spatial, spatial_layers
from headstart.learn.features import run_network
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER

CHANNELS = 8  # of each layer that are kept


@dataclass(frozen=True, eq=False)
class LayerChannels:
    """The strongest channels of one layer, the strongest first."""

    layer: str
    count: int  # how many channels the layer has
    channels: tuple[int, ...]  # their numbers, from 0
    values: NDArray[np.float32]  # (channels, height, width)


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """What the layers of a network answer to one photo."""

    name: str  # of the photo
    pixels: NDArray[np.uint8]  # (size, size, 3), as the network saw it
    layers: tuple[LayerChannels, ...]  # from the first to the last


@checks(
    classifier=CLASSIFIER,
    layers=several(TEXT, "names of layers, one or more, or auto", least=1),
    channels=whole(1),
    crop=YES_NO,
)
def feature_maps(
    classifier: Classifier,
    images: Images,
    layers: Sequence[str] | str = "auto",
    *,
    channels: int = CHANNELS,
    crop: bool = True,
) -> list[FeatureMaps]:
    """The strongest channels of layers on each photo: those whose output differs most from place to place.

    Args:
        layers: names, or one; or "auto", the last activation of each stage: of the layers of one height and width.
        channels: how many of each layer.
        crop: as for `Classifier.predict`.

    Raises:
        UsageError: a layer that is not there or has no places, a network that has none with places, or no channels
            asked for.
        DataError: an image that cannot be read; `maps_of_photos` goes on past those.
    """
    found = []
    for item in maps_of_photos(classifier, images, layers, channels=channels, crop=crop):
        if isinstance(item, Problem):
            raise DataError(f"'{item.name}' cannot be read: {item.detail}.")
        found.append(item)
    return found


def maps_of_photos(
    classifier: Classifier,
    images: Images,
    layers: Sequence[str] | str = "auto",
    *,
    channels: int = CHANNELS,
    crop: bool = True,
) -> Iterator[FeatureMaps | Problem]:
    """As `feature_maps`, photo by photo; what is wrong with one that cannot be read."""
    names = layers_of(classifier, layers)
    if not names:
        raise UsageError(
            f"'{classifier.network.name}' has no layer with places on the photo (height × width), so there are no "
            "feature maps."
        )
    dataset = unlabelled_dataset(images)
    network = classifier.network.for_images(len(dataset))
    if not crop:
        network = network.seeing_all()
    for item, values in run_network(dataset, network, names):
        name = dataset.samples[item.index].name
        if item.error is not None:
            yield Problem(name, item.error.kind, item.error.detail)
        elif values is not None and item.pixels is not None:
            parts = (_strongest(layer, value, channels) for layer, value in zip(names, values, strict=True))
            yield FeatureMaps(name, item.pixels, tuple(parts))


def layers_of(classifier: Classifier, layers: Sequence[str] | str) -> list[str]:
    """The layers by name, checked; of "auto" one a stage, none where the network has no layer with places.

    Raises:
        UsageError: see `feature_maps`.
    """
    network = classifier.network
    names = [layers] if isinstance(layers, str) else list(layers)
    if names == ["auto"]:
        return stages_of(network)
    for name in names:
        check_spatial(network, name)
    return list(dict.fromkeys(names))


def stages_of(network: Network) -> list[str]:
    """The last activation of each height and width; where there is none, the last layer."""
    kinds = {node.name: node.op for node in network.blueprint.nodes}
    chosen: dict[tuple[int, ...], str] = {}
    for name in spatial_layers(network):
        stage = network.shape(name)[1:]
        if kinds.get(name) == "act" or kinds.get(chosen.get(stage, "")) != "act":
            chosen[stage] = name
    return [name for name in network.layers if name in chosen.values()]


def _strongest(layer: str, values: NDArray[np.float32], count: int) -> LayerChannels:
    strength = values.std((1, 2), dtype=np.float64)
    best = np.argsort(-strength, kind="stable")[:count]
    return LayerChannels(layer, len(values), tuple(best.tolist()), values[best])
