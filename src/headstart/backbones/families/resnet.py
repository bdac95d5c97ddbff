"""Residual networks (He et al. 2016): for ImageNet in torchvision's and in keras.applications' form, and for CIFAR.

Node names are torchvision's module paths, or like them for CIFAR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.backbones.builder import Builder

BLOCKS = {  # depth -> blocks of each stage; from 50 on they are bottlenecks
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4  # how many times wider a bottleneck leaves than its middle
CIFAR_WIDTHS = (16, 32, 64)
EPSILON, KERAS_EPSILON = 1e-5, 1.001e-5  # batch norm's


def resnet(name: str, depth: int, size: int = 224, classes: int = 1000, *, keras: bool = False) -> Blueprint:
    """ResNet-18 to 152.

    In torchvision a bottleneck strides in its 3×3 convolution and none has a bias; in ``keras``.applications it strides
    in its first 1×1 and all have one.
    """
    b = _Builder(keras, KERAS_EPSILON if keras else EPSILON)
    x = b.act(b.conv_norm(INPUT, "conv1", "bn1", 64, 7, stride=2), "relu", "relu")
    x = b.max_pool(x, "maxpool", 3, 2, padding=1)
    for at, width, stride in _blocks(WIDTHS, BLOCKS[depth]):
        y = b.basic(x, at, width, stride) if depth < 50 else b.bottleneck(x, at, width, stride)
        if stride > 1 or b.channels(x) != b.channels(y):
            x = b.conv_norm(x, f"{at}downsample.0", f"{at}downsample.1", b.channels(y), 1, stride)
        x = b.act(b.add(x, y, f"{at}add"), f"{at}relu", "relu")
    b.dense(b.average(x), LOGITS, classes)
    return b.build(name, size)


def cifar_resnet(name: str, depth: int, size: int = 32, classes: int = 10) -> Blueprint:
    """ResNet-20 to 56 for CIFAR, with shortcuts of option A: every second pixel, and channels of zeros beside it."""
    b = _Builder(False, EPSILON)
    x = b.act(b.conv_norm(INPUT, "conv1", "bn1", 16, 3), "relu", "relu")
    for at, width, stride in _blocks(CIFAR_WIDTHS, [(depth - 2) // 6] * 3):
        y = b.basic(x, at, width, stride)
        if stride > 1:
            beside = (width - b.channels(x)) // 2
            x = b.pad_channels(b.max_pool(x, f"{at}every_second", 1, 2), f"{at}shortcut", beside, beside)
        x = b.act(b.add(x, y, f"{at}add"), f"{at}relu", "relu")
    b.dense(b.average(x), LOGITS, classes)
    return b.build(name, size)


def _blocks(widths: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """The beginning of the names, the width and the stride of each block; all stages but the first begin with 2."""
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True), 1):
        for place in range(count):
            yield f"layer{stage}.{place}.", width, 2 if place == 0 < stage - 1 else 1


class _Builder(Builder):
    """Adds the inside of a block; biases and batch norm's epsilon are the same in the whole network."""

    def __init__(self, keras: bool, epsilon: float) -> None:
        super().__init__()
        self.keras, self.epsilon = keras, epsilon

    def conv_norm(self, x: str, conv: str, norm: str, filters: int, kernel: int, stride: int = 1) -> str:
        x = self.conv(x, conv, filters, kernel, stride, padding=kernel // 2, bias=self.keras)
        return self.norm(x, norm, self.epsilon)

    def basic(self, x: str, at: str, width: int, stride: int) -> str:
        """Two 3×3 convolutions."""
        x = self.act(self.conv_norm(x, f"{at}conv1", f"{at}bn1", width, 3, stride), f"{at}relu1", "relu")
        return self.conv_norm(x, f"{at}conv2", f"{at}bn2", width, 3)

    def bottleneck(self, x: str, at: str, width: int, stride: int) -> str:
        """Narrow, filter, widen."""
        first, second = (stride, 1) if self.keras else (1, stride)
        x = self.act(self.conv_norm(x, f"{at}conv1", f"{at}bn1", width, 1, first), f"{at}relu1", "relu")
        x = self.act(self.conv_norm(x, f"{at}conv2", f"{at}bn2", width, 3, second), f"{at}relu2", "relu")
        return self.conv_norm(x, f"{at}conv3", f"{at}bn3", width * EXPANSION, 1)
