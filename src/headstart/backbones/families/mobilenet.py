"""MobileNet (Howard et al. 2017): each channel filtered by itself, then all of them mixed by a 1×1 convolution.

Node names are timm's module paths. Its successors are in `inverted`.
"""

from __future__ import annotations

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.backbones.families.inverted import EPSILON, SYMMETRIC, MobileBuilder

STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))  # channels, blocks; all but the first begin with stride 2
AFTER = (0, 1, 0, 1)  # keras.applications' padding of depthwise convolutions with stride 2; "same" for even sizes only


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
    x = b.conv_norm_act(INPUT, "conv_stem", "bn1", "relu6", int(32 * width), 3, stride=2)
    for stage, (channels, blocks) in enumerate(STAGES):
        for place in range(blocks):
            at, stride = f"blocks.{stage}.{place}.", 2 if place == 0 < stage else 1
            x = b.conv_norm_act(x, f"{at}conv_dw", f"{at}bn1", "relu6", b.channels(x), 3, stride, groups=b.channels(x))
            x = b.conv_norm_act(x, f"{at}conv_pw", f"{at}bn2", "relu6", int(channels * width), 1)
    b.classifier(x, classes, dropout=0.001)
    return b.build(name, size)


class _Builder(MobileBuilder):
    def edges(self, kernel: int, stride: int = 1, groups: int = 1) -> object:
        return AFTER if self.padding != SYMMETRIC and stride > 1 and groups > 1 else super().edges(kernel)
