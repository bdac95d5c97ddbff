"""The layers of a network of another library, by the names, kinds and shapes that its own users know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.backbones.ops import Shape


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer."""

    name: str
    kind: str  # its class
    window: str  # "3×3 / 2" of a convolution or pooling with stride 2, else ""
    shape: Shape | None  # of its output for one image, axes as its library has them; None: it was not run
    parameters: int  # without running statistics
    # for one image, of convolutions and dense layers; None: it has matrices, and what it does with them is not known
    multiply_adds: int | None


@dataclass(frozen=True)
class Summary:
    """All layers in the order in which they are run."""

    name: str
    pixels: int
    layers: tuple[Layer, ...]
    library: str  # "timm" or "Keras"
    axes: str  # of a map's shape, in words
    headless: bool = False  # whether its own head was left out, because it fits images of another size only


def window_of(kernel: object, stride: object) -> str:
    """A kernel and a stride, each a number or one for each axis, as "3×3 / 2"; "" where there is no kernel."""
    sizes, steps = _both(kernel), _both(stride)
    if not sizes:
        return ""
    step = "×".join(map(str, steps if len(set(steps)) > 1 else steps[:1]))
    return "×".join(map(str, sizes)) + (f" / {step}" if step not in ("", "1") else "")


def _both(value: object) -> list[int]:
    if isinstance(value, int):
        return [value, value]
    return [*value] if isinstance(value, Sequence) and all(isinstance(each, int) for each in value) else []
