"""MobileNet (Howard et al. 2017): each channel filtered by itself, then all of them mixed by a 1×1 convolution.

Node names are timm's module paths. Its successors are in `inverted`.
"""

from __future__ import annotations

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.backbones.builder import Builder
from headstart.backbones.families.inverted import EPSILON, SYMMETRIC

STAGES = (
    (64, 1),
    (128, 2),
    (256, 2),
    (512, 6),
    (1024, 2),
)  # channels and blocks; all but the first begin with stride 2
AFTER = (0, 1, 0, 1)  # keras.applications' padding where a depthwise convolution strides: SAME's for even sizes alone


def mobilenet_v1(
    name: str = "mobilenet_v1",
    size: int = 224,
    classes: int = 1000,
    *,
    width: float = 1.0,
    padding: str = "same",
    epsilon: float = EPSILON,
) -> Blueprint:
    """MobileNet with ``width`` times the channels, rounded down as keras.applications does."""
    b = _Builder(padding, epsilon)
    x = b.conv_norm_act(INPUT, "conv_stem", "bn1", int(32 * width), 3, stride=2)
    for stage, (channels, blocks) in enumerate(STAGES):
        for place in range(blocks):
            at, stride = f"blocks.{stage}.{place}.", 2 if place == 0 < stage else 1
            x = b.conv_norm_act(x, f"{at}conv_dw", f"{at}bn1", b.channels(x), 3, stride, groups=b.channels(x))
            x = b.conv_norm_act(x, f"{at}conv_pw", f"{at}bn2", int(channels * width), 1)
    b.classifier(x, classes, dropout=0.001)
    return b.build(name, size)


class _Builder(Builder):
    """Adds convolutions with batch norm and ReLU6; epsilon and the kind of padding are the same throughout."""

    def __init__(self, padding: str, epsilon: float) -> None:
        super().__init__()
        self.padding, self.epsilon = padding, epsilon

    def conv_norm_act(
        self, x: str, conv: str, norm: str, filters: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> str:
        padding: object = kernel // 2 if self.padding == SYMMETRIC else self.padding
        if self.padding != SYMMETRIC and stride > 1 and groups > 1:
            padding = AFTER
        x = self.conv(x, conv, filters, kernel, stride, padding=padding, groups=groups)
        return self.act(self.norm(x, norm, self.epsilon), f"{norm}.act", "relu6")
