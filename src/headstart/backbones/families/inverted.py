"""Inverted residual networks: blocks that widen, filter each channel by itself, and narrow again.

MobileNetV2 (Sandler et al. 2018), MobileNetV3 (Howard et al. 2019) and EfficientNet-Lite (Liu 2020, after Tan & Le
2019). Node names are timm's module paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.backbones.builder import Builder

EPSILON = 1e-3  # batch norm's, as in the TensorFlow originals
SYMMETRIC = "symmetric"  # PyTorch's padding, equal on all edges; "same" is TensorFlow's


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the paper's table: ``repeats`` blocks, the first with the stride.

    A row with the channels of the one before it belongs to the same stage.
    """

    expand: float
    channels: int
    repeats: int
    stride: int
    kernel: int = 3
    act: str = "relu6"
    squeeze: bool = False  # squeeze-and-excitation (Hu et al. 2018), to a quarter of the widened channels


MOBILENET_V2 = (
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 32, 3, 2),
    Row(6, 64, 4, 2),
    Row(6, 96, 3, 1),
    Row(6, 160, 3, 2),
    Row(6, 320, 1, 1),
)
MOBILENET_V3_LARGE = (
    Row(1, 16, 1, 1, act="relu"),
    Row(4, 24, 1, 2, act="relu"),
    Row(3, 24, 1, 1, act="relu"),
    Row(3, 40, 3, 2, kernel=5, act="relu", squeeze=True),
    Row(6, 80, 1, 2, act="hard_swish"),
    Row(2.5, 80, 1, 1, act="hard_swish"),
    Row(2.3, 80, 2, 1, act="hard_swish"),
    Row(6, 112, 2, 1, act="hard_swish", squeeze=True),
    Row(6, 160, 3, 2, kernel=5, act="hard_swish", squeeze=True),
)
MOBILENET_V3_SMALL = (
    Row(1, 16, 1, 2, act="relu", squeeze=True),
    Row(4.5, 24, 1, 2, act="relu"),
    Row(11 / 3, 24, 1, 1, act="relu"),  # 88 channels
    Row(4, 40, 1, 2, kernel=5, act="hard_swish", squeeze=True),
    Row(6, 40, 2, 1, kernel=5, act="hard_swish", squeeze=True),
    Row(3, 48, 2, 1, kernel=5, act="hard_swish", squeeze=True),
    Row(6, 96, 3, 2, kernel=5, act="hard_swish", squeeze=True),
)
EFFICIENTNET_LITE = (
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 40, 2, 2, kernel=5),
    Row(6, 80, 3, 2),
    Row(6, 112, 3, 1, kernel=5),
    Row(6, 192, 4, 2, kernel=5),
    Row(6, 320, 1, 1),
)


def mobilenet_v2(
    name: str = "mobilenet_v2",
    size: int = 224,
    classes: int = 1000,
    *,
    width: float = 1.0,
    padding: str = "same",
    epsilon: float = EPSILON,
) -> Blueprint:
    """MobileNetV2 with ``width`` times the channels; where that is below 1, the last layer keeps its 1280."""
    b = MobileBuilder(padding, epsilon)
    x = b.conv_norm_act(INPUT, "conv_stem", "bn1", "relu6", round_channels(32 * width), 3, stride=2)
    x = b.blocks(x, MOBILENET_V2, width)
    x = b.conv_norm_act(x, "conv_head", "bn2", "relu6", max(1280, round_channels(1280 * width)), 1)
    b.classifier(x, classes, dropout=0.2)
    return b.build(name, size)


def mobilenet_v3(
    name: str,
    kind: str,
    size: int = 224,
    classes: int = 1000,
    *,
    padding: str = "same",
    epsilon: float = EPSILON,
) -> Blueprint:
    """MobileNetV3 of the ``kind`` "small" or "large"; a dense layer is between the average and the logits."""
    rows, hidden = {"small": (MOBILENET_V3_SMALL, 1024), "large": (MOBILENET_V3_LARGE, 1280)}[kind]
    b = MobileBuilder(padding, epsilon)
    x = b.conv_norm_act(INPUT, "conv_stem", "bn1", "hard_swish", 16, 3, stride=2)
    x = b.blocks(x, rows)
    last = f"blocks.{b.stages}.0."
    x = b.conv_norm_act(x, f"{last}conv", f"{last}bn1", "hard_swish", 6 * b.channels(x), 1)
    x = b.act(b.dense(b.average(x), "conv_head", hidden), "conv_head.act", "hard_swish")
    b.dense(b.dropout(x, "dropout", 0.2), LOGITS, classes)
    return b.build(name, size)


def efficientnet_lite(
    name: str,
    size: int,
    width: float,
    depth: float,
    classes: int = 1000,
    *,
    padding: str = "same",
    epsilon: float = EPSILON,
) -> Blueprint:
    """EfficientNet-Lite: no squeeze-and-excitation, ReLU6, and stem, head and the outer stages' depth not scaled."""
    last = len(EFFICIENTNET_LITE) - 1
    rows = [
        row if place in (0, last) else replace(row, repeats=math.ceil(row.repeats * depth))
        for place, row in enumerate(EFFICIENTNET_LITE)
    ]
    b = MobileBuilder(padding, epsilon)
    x = b.conv_norm_act(INPUT, "conv_stem", "bn1", "relu6", 32, 3, stride=2)
    x = b.conv_norm_act(b.blocks(x, rows, width), "conv_head", "bn2", "relu6", 1280, 1)
    b.classifier(x, classes, dropout=0.2)
    return b.build(name, size)


def round_channels(channels: float, divisor: int = 8) -> int:
    """To the nearest multiple of ``divisor``, but never more than a tenth down."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class MobileBuilder(Builder):
    """Adds blocks; batch norm's epsilon and the kind of padding are the same in the whole network."""

    def __init__(self, padding: str, epsilon: float) -> None:
        super().__init__()
        self.padding, self.epsilon, self.stages = padding, epsilon, 0

    def blocks(self, x: str, rows: Sequence[Row], width: float = 1.0) -> str:
        """Every block of a table."""
        before, place = 0, 0
        for row in rows:
            if row.channels != before:
                self.stages, before, place = self.stages + 1, row.channels, 0
            for repeat in range(row.repeats):
                at, stride = f"blocks.{self.stages - 1}.{place}.", row.stride if repeat == 0 else 1
                x = self._block(x, at, row, round_channels(row.channels * width), stride)
                place += 1
        return x

    def conv_norm_act(
        self, x: str, conv: str, norm: str, act: str, filters: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> str:
        """A convolution with batch norm and an activation."""
        x = self.conv(x, conv, filters, kernel, stride, padding=self.edges(kernel, stride, groups), groups=groups)
        return self.act(self.norm(x, norm, self.epsilon), f"{norm}.act", act)

    def _block(self, x: str, at: str, row: Row, channels: int, stride: int) -> str:
        """Widen, filter each channel, project; a shortcut where shapes allow. Without expansion no first step."""
        incoming, y, (first, second, project) = self.channels(x), x, ("bn1", "bn2", "conv_pw")
        wide = round_channels(incoming * row.expand)
        if row.expand != 1:
            y = self.conv_norm_act(y, f"{at}conv_pw", f"{at}bn1", row.act, wide, 1)
            first, second, project = "bn2", "bn3", "conv_pwl"
        y = self.conv_norm_act(y, f"{at}conv_dw", f"{at}{first}", row.act, wide, row.kernel, stride, groups=wide)
        if row.squeeze:
            y = self._squeeze(y, f"{at}se.", round_channels(wide / 4))
        y = self.conv(y, f"{at}{project}", channels, 1, padding=self.edges(1))
        y = self.norm(y, f"{at}{second}", self.epsilon)
        return self.add(x, y, f"{at}add") if stride == 1 and incoming == channels else y

    def _squeeze(self, x: str, at: str, narrow: int) -> str:
        """A factor for each channel, from the averages of all."""
        y = self.act(self.dense(self.average(x, f"{at}pool"), f"{at}conv_reduce", narrow), f"{at}act1", "relu")
        y = self.act(self.dense(y, f"{at}conv_expand", self.channels(x)), f"{at}gate", "hard_sigmoid")
        return self.scale(x, y, f"{at}scale")

    def edges(self, kernel: int, stride: int = 1, groups: int = 1) -> object:
        """The padding of a convolution."""
        return kernel // 2 if self.padding == SYMMETRIC else self.padding
