"""Small networks to train from random weights: a perceptron for tables or tiny images, and a convolutional one."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.backbones.builder import Builder

EPSILON = 1e-5  # batch norm's


def mlp(
    inputs: int,
    hidden: Sequence[int],
    classes: int,
    *,
    size: int = 1,
    act: str = "relu",
    dropout: float = 0.0,
    grey: bool = False,
    name: str = "mlp",
) -> Blueprint:
    """A perceptron with ``hidden`` layers. A row of a table with ``inputs`` columns is an image of one pixel.

    Of images of ``size`` pixels, ``inputs`` is the number of channels; with ``grey`` only their luma is seen.
    """
    b = Builder(inputs)
    x = b.flatten(b.luma(INPUT) if grey else INPUT)
    for place, units in enumerate(hidden, 1):
        x = b.act(b.dense(x, f"dense{place}", units), f"act{place}", act)
        if dropout:
            x = b.dropout(x, f"dropout{place}", dropout)
    b.dense(x, LOGITS, classes)
    return b.build(name, size)


def small_cnn(
    size: int,
    classes: int,
    *,
    channels: int = 3,
    grey: bool = False,
    widths: Sequence[int] = (32, 64, 128),
    dropout: float = 0.2,
    name: str = "small_cnn",
) -> Blueprint:
    """A 3×3 convolution, batch norm, ReLU and a halving for each of ``widths``; then the average and a dense layer.

    With ``grey`` only the luma of the images is seen.
    """
    b = Builder(channels)
    x = b.luma(INPUT) if grey else INPUT
    for place, width in enumerate(widths, 1):
        x = b.norm(b.conv(x, f"conv{place}", width, 3, padding=1), f"bn{place}", EPSILON)
        x = b.max_pool(b.act(x, f"act{place}", "relu"), f"pool{place}", 2, 2, ceil=True)
    b.classifier(x, classes, dropout)
    return b.build(name, size)


def sees_luma(blueprint: Blueprint) -> bool:
    """Whether a network sees one channel of its images, the luma."""
    return any(node.op == "luma" for node in blueprint.nodes)
