"""The protocol that every engine implements, and the checks that all of them share."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import Shape
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.types import ImageSpec

PRECISIONS = ("auto", "bf16", "fp32")
# what the source of a network begins with that no blueprint describes: a library's, or somebody's live one
TIMM, LIVE = "timm/", "module:"
APPLICATIONS, LIVE_KERAS = "keras/", "keras-model:"

Array = NDArray[Any]
Weights = Mapping[str, NDArray[Any]]
Pullback = Callable[[Array], Array]


class Network(Protocol):
    """A network on images: the narrow door between NumPy and whatever runs it.

    Images are NHWC RGB of ``spec.size`` pixels, uint8 or floats in [0, 1]; normalisation happens inside. Logits, never
    probabilities; evaluation mode.
    """

    engine: str  # "fast", "torch", "keras"
    name: str  # of its blueprint
    spec: ImageSpec
    layers: tuple[str, ...]  # node names in order, "input" first, "logits" last
    precision: str  # what it computes in: "fp32" or "bf16"
    micro_batch: int  # images that are best given at a time

    def forward(self, images: Array, at: str = "logits") -> Array:
        """The value of node ``at`` for a batch of any size, float32."""
        ...

    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out."""
        ...

    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""
        ...

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""
        ...

    def load(self, weights: Weights) -> None:
        """Take other weights of exactly these names and shapes."""
        ...

    def check_precision(self, images: NDArray[np.uint8], at: str = "features") -> float:
        """Hold bf16 against fp32 on a few images, and fall back to fp32 where it is too coarse."""
        ...

    def at_precision(self, precision: str) -> Self:
        """The same network, computing in another precision."""
        ...

    def release(self) -> None:
        """Give back what memory can be had again when it is wanted."""
        ...


class Differentiable(Network, Protocol):
    """A network with gradients."""

    def vjp(self, images: Array, at: str = "logits", wrt: str = "input") -> tuple[Array, Pullback]:
        """The value of node ``at``, and what carries a cotangent from there to node ``wrt``."""
        ...


def check_module(blueprint: Blueprint, module: object | None) -> None:
    """Refuse a network that needs a live ``module`` and has none, or has one and no place for it."""
    needed = (node for node in blueprint.nodes if node.op == "module" and not node["config"])
    if module is None and any(node["source"].startswith((LIVE, LIVE_KERAS)) for node in needed):
        raise UsageError(
            f"The network is a module of your own, {blueprint.source.partition(':')[2]}, of which a model's folder "
            "holds only the weights. Give the module, too: headstart.load(PATH, module=MODULE)"
        )
    if module is not None and not blueprint.source:
        raise UsageError(f"'{blueprint.name}' is built from its blueprint; it has no place for a module. Leave it out.")


def check_network(blueprint: Blueprint, precision: str, known: Sequence[str] = PRECISIONS) -> None:
    """Refuse what no engine can run: an unknown precision, images that are not of three colours."""
    if precision not in known:
        raise UsageError(f"There is no precision '{precision}'. {did_you_mean(precision, known)}")
    if blueprint.nodes[0]["channels"] != 3:
        raise UsageError(f"Images have 3 channels. '{blueprint.name}' takes {blueprint.nodes[0]['channels']}.")


def check_images(images: Array, size: int) -> None:
    """Refuse what is not uint8, or floats in [0, 1], of shape (N, size, size, 3)."""
    wanted = images.dtype == np.uint8 or images.dtype in (np.float32, np.float64)
    if not wanted or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise UsageError(
            f"The network expects uint8 images of shape (N, {size}, {size}, 3), or floats in [0, 1]. "
            f"Received: {images.dtype} {images.shape}."
        )
    if images.dtype != np.uint8 and images.size and not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):
        raise UsageError(
            "The network expects pixels from 0 to 1 where they are floats; it normalises them itself. "
            f"Received: {images.min():.4g} to {images.max():.4g}."
        )


def check_layers(name: str, at: Sequence[str], layers: Sequence[str]) -> None:
    """Refuse nodes that the network called ``name`` does not have."""
    for each in at:
        if each not in layers:
            raise UsageError(f"'{name}' has no layer '{each}'. {did_you_mean(each, layers)}")


def nearest(name: str, paths: Iterable[str]) -> str:
    """A sentence naming the paths most like ``name``, or the last few: a network has too many to name them all."""
    known = [path for path in paths if path]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"Among its layers: {', '.join(known[-6:]) or 'none'}."


def check_memory(blueprint: Blueprint, size: int, images: int, available: int | None = None) -> None:
    """Refuse a network whose weights and activations for so many ``images`` at a time cannot be held, in float32.

    ``available`` is in bytes, where it is not the machine's memory.
    """
    shapes = blueprint.shapes(size)
    last_use = {name: step for step, node in enumerate(blueprint.nodes) for name in (node.name, *node.inputs)}
    held: dict[str, int] = {}
    most = 0
    for step, node in enumerate(blueprint.nodes):
        held[node.name] = 4 * images * math.prod(shapes[node.name])
        most = max(most, sum(held.values()))
        held = {name: count for name, count in held.items() if last_use[name] > step}
    weights = 4 * sum(math.prod(shape) for shape in blueprint.weight_shapes().values())
    room = available_memory() if available is None else available
    if room is not None and weights + most > room:
        raise UsageError(
            f"'{blueprint.name}' at {size} pixels needs {(weights + most) / 1e9:.1f} GB of memory "
            f"({weights / 1e9:.1f} GB weights, {most / 1e9:.1f} GB activations of {images} image(s)), "
            f"{room / 1e9:.1f} GB are free. Take fewer pixels or a smaller network."
        )


def available_memory() -> int | None:
    """Bytes that this process may still take: what is free, no more than the container's limit. None if unknown."""
    known = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        try:
            known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (OSError, ValueError, AttributeError):
            return None
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit: "max"
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(known, default=None)


def foldable(blueprint: Blueprint) -> set[str]:
    """Convolutions whose only reader is a batch norm: where nobody asks for their output, one step does for both."""
    readers: dict[str, list[str]] = {}
    for node in blueprint.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.op)
    return {node.name for node in blueprint.nodes if node.op == "conv" and readers.get(node.name) == ["norm"]}


def coarseness(low: Array, exact: Array) -> float:
    """How far ``low`` is from ``exact``, (N, …), relative to how much the values vary between the images."""
    spread = np.linalg.norm(exact - exact.mean(axis=0)) if len(exact) > 1 else 0.0
    return float(np.linalg.norm(low - exact) / max(spread, 0.1 * float(np.linalg.norm(exact)), 1e-12))
