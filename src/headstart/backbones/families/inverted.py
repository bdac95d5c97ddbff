"""Inverted residual networks: MobileNetV2 (Sandler et al. 2018) and EfficientNet-Lite (Liu 2020, after Tan & Le 2019).

Node names are timm's module paths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.backbones.builder import Builder

EPSILON = 1e-3  # batch norm's, as in the TensorFlow originals


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of the paper's table: ``repeats`` blocks, the first with the stride."""

    expand: int
    channels: int
    repeats: int
    stride: int
    kernel: int = 3


MOBILENET_V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
EFFICIENTNET_LITE = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 40, 2, 2, kernel=5),
    Stage(6, 80, 3, 2),
    Stage(6, 112, 3, 1, kernel=5),
    Stage(6, 192, 4, 2, kernel=5),
    Stage(6, 320, 1, 1),
)


def mobilenet_v2(name: str = "mobilenet_v2", size: int = 224, classes: int = 1000) -> Blueprint:
    """MobileNetV2 of width 1.0."""
    return _network(name, size, classes, MOBILENET_V2)


def efficientnet_lite(name: str, size: int, width: float, depth: float, classes: int = 1000) -> Blueprint:
    """EfficientNet-Lite: no squeeze-and-excitation, ReLU6, and stem, head and the outer stages' depth not scaled."""
    last = len(EFFICIENTNET_LITE) - 1
    scaled = [
        Stage(
            row.expand,
            round_channels(row.channels * width),
            row.repeats if place in (0, last) else math.ceil(row.repeats * depth),
            row.stride,
            row.kernel,
        )
        for place, row in enumerate(EFFICIENTNET_LITE)
    ]
    return _network(name, size, classes, scaled)


def round_channels(channels: float, divisor: int = 8) -> int:
    """To the nearest multiple of ``divisor``, but never more than a tenth down."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _network(name: str, size: int, classes: int, stages: Iterable[Stage]) -> Blueprint:
    b = Builder()
    x = _conv_norm_act(b, INPUT, "", "conv_stem", "bn1", 32, 3, stride=2)
    for i, stage in enumerate(stages):
        for j in range(stage.repeats):
            x = _block(b, x, f"blocks.{i}.{j}.", stage, stage.stride if j == 0 else 1)
    x = _conv_norm_act(b, x, "", "conv_head", "bn2", 1280, 1)
    b.classifier(x, classes, dropout=0.2)
    return b.build(name, size)


def _block(b: Builder, x: str, at: str, stage: Stage, stride: int) -> str:
    """Expand, filter each channel, project; a shortcut where shapes allow. Without expansion no first step."""
    incoming, y = b.channels(x), x
    if stage.expand == 1:
        y = _conv_norm_act(b, y, at, "conv_dw", "bn1", incoming, stage.kernel, stride, groups=incoming)
        y = b.norm(b.conv(y, f"{at}conv_pw", stage.channels, 1), f"{at}bn2", EPSILON)
    else:
        wide = incoming * stage.expand
        y = _conv_norm_act(b, y, at, "conv_pw", "bn1", wide, 1)
        y = _conv_norm_act(b, y, at, "conv_dw", "bn2", wide, stage.kernel, stride, groups=wide)
        y = b.norm(b.conv(y, f"{at}conv_pwl", stage.channels, 1), f"{at}bn3", EPSILON)
    return b.add(x, y, f"{at}add") if stride == 1 and incoming == stage.channels else y


def _conv_norm_act(
    b: Builder, x: str, at: str, conv: str, norm: str, filters: int, kernel: int, stride: int = 1, groups: int = 1
) -> str:
    x = b.conv(x, at + conv, filters, kernel, stride, groups=groups)
    return b.act(b.norm(x, at + norm, EPSILON), f"{at}{norm}.act", "relu6")
