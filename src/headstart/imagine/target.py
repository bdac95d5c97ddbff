"""What an ideal image is made for: a class, or a channel of a layer; found by name, and as a loss with its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT, LOGITS
from headstart.core.errors import UsageError, did_you_mean
from headstart.engines.protocol import Network, check_layers
from headstart.learn.calibrate import log_softmax


@dataclass(frozen=True)
class Target:
    """One output of a network: a class, which is a place among the logits, or a channel of another layer."""

    name: str  # of the class, or "LAYER channel K"
    layer: str
    channel: int

    @property
    def is_class(self) -> bool:
        """Whether it is one of the network's classes."""
        return self.layer == LOGITS


def class_target(name: object, classes: Sequence[str]) -> Target:
    """The class called ``name``: as it is written, else in other capitals; or of "tabby, tabby cat" the known name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    text = str(name)
    folded = {known.casefold(): known for known in reversed(classes)}
    synonyms = [part.strip().casefold() for part in text.split(",")]
    found = next((folded[word] for word in (text.casefold(), *synonyms) if word in folded), None)
    if text in classes or found is not None:
        known = text if text in classes else str(found)
        return Target(known, LOGITS, list(classes).index(known))
    raise UsageError(f"The model has no class '{text}'. {did_you_mean(text, classes)}")


def channel_target(layer: str, channel: int, network: Network) -> Target:
    """Channel ``channel``, from 0 on, of a layer of ``network``.

    Raises:
        UsageError: no such layer, or no such channel of it.
    """
    check_layers(network.name, (layer,), network.layers)
    if layer == INPUT:
        raise UsageError("'input' is the image itself. Choose a layer behind it: headstart show NAME lists them.")
    channels = network.shape(layer)[0]
    if not 0 <= channel < channels:
        raise UsageError(f"'{layer}' has the channels 0 to {channels - 1}. Received: {channel}.")
    return Target(f"{layer} channel {channel}", layer, channel)


def values_of(output: NDArray[np.floating], targets: Sequence[Target]) -> NDArray[np.floating]:
    """The value of each image's own target in the output (N, …) of their layer: of a map its mean."""
    chosen = output[np.arange(len(targets)), [target.channel for target in targets]]
    values: NDArray[np.floating] = chosen.reshape(len(targets), -1).mean(axis=1)
    return values


def cotangent_of(output: NDArray[np.floating], targets: Sequence[Target], others: float) -> NDArray[np.floating]:
    """The derivative of each image's objective with respect to the output (N, …) of the layer of all ``targets``.

    The objective of a class is its logit minus ``others`` times the logarithm of the sum of all exponentials; that of
    a channel is its mean.
    """
    rows, channels = np.arange(len(targets)), [target.channel for target in targets]
    slope = np.zeros_like(output)
    slope[rows, channels] = 1 / output[0, 0].size
    if targets[0].is_class:
        slope -= (others * np.exp(log_softmax(output))).astype(output.dtype)
    return slope
