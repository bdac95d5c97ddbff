"""VGG (Simonyan & Zisserman 2015): 3×3 convolutions in five groups, each with a max pool, and three dense layers.

Node names are torchvision's module paths.
"""

from __future__ import annotations

from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.backbones.builder import Builder

EPSILON = 1e-5  # batch norm's
WIDTHS = (64, 128, 256, 512, 512)  # filters of each group
CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # depth -> how many in each group


def vgg(name: str, depth: int, size: int = 224, classes: int = 1000, *, norm: bool = False) -> Blueprint:
    """VGG-16 or VGG-19, with batch norm or without; its head takes images of ``size`` pixels only, its trunk any."""
    b, x, place = Builder(), INPUT, 0
    for filters, count in zip(WIDTHS, CONVOLUTIONS[depth], strict=True):
        for _ in range(count):
            x = b.conv(x, f"features.{place}", filters, 3, padding=1, bias=True)
            if norm:
                place += 1
                x = b.norm(x, f"features.{place}", EPSILON)
            x = b.act(x, f"features.{place + 1}", "relu")
            place += 2
        x = b.max_pool(x, f"features.{place}", 2, 2)
        place += 1
    x = b.flatten(x)
    for place in (0, 3):
        x = b.act(b.dense(x, f"classifier.{place}", 4096), f"classifier.{place + 1}", "relu")
        x = b.dropout(x, f"classifier.{place + 2}", 0.5)
    b.dense(x, LOGITS, classes)
    return b.build(name, size)
