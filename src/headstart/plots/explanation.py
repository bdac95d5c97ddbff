"""Explanations as pictures: a map over its photo, and the strongest channels of layers as a grid."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.explain.explain import Explanation, scaled
from headstart.explain.feature_maps import FeatureMaps, LayerChannels
from headstart.plots.pictures import Picture, Tile, coloured, laid_over, sheet

SIDE, SMALL = 224, 96  # pixels: the height of a map, and of one channel
ACROSS = 8  # channels in a row
GRAIN = 4  # pixels: the side of what is shown as one, of a map of single pixels


def draw_explanation(found: Explanation) -> Image.Image:
    """The photo as the network saw it, the map over it, and the maps of the layers where there are several.

    The colours of the map begin at 0: what speaks against the class is as dark as what says nothing. Those of a layer
    begin at its lowest value, for 0 means something for the sum only.
    """
    chance = f"{found.label} {found.probability:.1%}"
    answer = (chance,) if found.label == found.predicted else (chance, f"predicted: {found.predicted}")
    size = len(found.pixels)
    tiles = [
        Tile(found.pixels, answer),
        Tile(over_photo(found), (title_of(found), _about(found))),
    ]
    if len(found.layers) > 1:
        for layer in found.layers:
            above = _from_zero(scaled(layer.values - layer.values.min(), (size, size)))
            tiles.append(
                Tile(laid_over(found.pixels, above), (layer.layer, f"{layer.share:.0%}, from its lowest value"))
            )
    return sheet([tiles], side=SIDE)


def over_photo(found: Explanation) -> Picture:
    """The map over the photo as the network saw it, (size, size, 3); its colours begin at 0."""
    return laid_over(found.pixels, _from_zero(_to_be_seen(found)))


def draw_features(found: FeatureMaps) -> Image.Image:
    """The strongest channels of each layer, from the first to the last; the colours of each begin at its own 0."""
    rows, titles = [[Tile(found.pixels)]], [os.path.basename(found.name)]
    for layer in found.layers:
        tiles = [Tile(pixels, (f"channel {channel}",)) for channel, pixels in channels(layer)]
        height, width = layer.values.shape[1:]
        about = f"{layer.layer}: the strongest of {layer.count} channels, {height} x {width} places"
        for first in range(0, len(tiles), ACROSS):
            rows.append(tiles[first : first + ACROSS])
            titles.append("" if first else about)
    return sheet(rows, side=SMALL, titles=titles)


def channels(layer: LayerChannels) -> list[tuple[int, Picture]]:
    """The strongest channels of a layer by number, each as a picture whose colours begin at its own 0."""
    pictures = (coloured(_from_zero(values)) for values in layer.values)
    return list(zip(layer.channels, pictures, strict=True))


def title_of(found: Explanation) -> str:
    """The method in words."""
    names = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM", "gradient": "gradient x pixels"}
    return names.get(found.method, "integrated gradients")


def _to_be_seen(found: Explanation) -> NDArray[np.floating]:
    """The values; of single pixels means of a few of them, without the brightest hundredth, or only dots would show."""
    if found.layers:
        return found.at_size(len(found.pixels))
    side = max(1, len(found.values) // GRAIN)
    means = scaled(found.values, (side, side))
    return np.minimum(means, np.percentile(means, 99))


def _about(found: Explanation) -> str:
    if found.steps is not None:
        return f"{found.steps} steps, gap {found.gap:.1%}"
    if len(found.layers) == 1:
        return found.layers[0].layer
    return "sum of the layers, from 0" if found.layers else ""


def _from_zero(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Values above 0 relative to the largest; all 0 where there is none."""
    top = max(float(values.max()), 0.0)
    return np.asarray(np.maximum(values, 0) / (top or 1.0))
