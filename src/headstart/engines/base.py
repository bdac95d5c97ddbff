"""The protocol that every engine keeps, and the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.errors import UsageError, did_you_mean
from headstart.types import ImageSpec

ENGINES = ("fast",)
PRECISIONS = ("auto", "bf16", "fp32")


class Network(Protocol):
    """A network on images: the narrow door between NumPy and whatever runs it.

    Images are uint8 NHWC RGB of ``spec.size`` pixels; normalisation happens inside. Logits, never probabilities;
    evaluation mode.
    """

    spec: ImageSpec
    layers: tuple[str, ...]  # node names in order, "input" first, "logits" last
    precision: str  # what it computes in: "fp32" or "bf16"
    micro_batch: int  # images that are best given at a time

    def forward(self, images: NDArray[np.uint8], at: str = "logits") -> NDArray[np.float32]:
        """The value of node ``at`` for a batch of any size, float32."""
        ...

    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out."""
        ...


def get_engine(
    name: str,
    blueprint: Blueprint,
    weights: Mapping[str, NDArray[np.float32]],
    spec: ImageSpec,
    precision: str = "auto",
) -> Network:
    """Build the network on the engine called ``name``."""
    if name not in ENGINES:
        raise UsageError(f"There is no engine '{name}'. {did_you_mean(name, ENGINES)}")
    from headstart.engines.fast import FastNetwork

    return FastNetwork(blueprint, weights, spec, precision)
