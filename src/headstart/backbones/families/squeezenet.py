"""SqueezeNet (Iandola et al. 2016): fire modules squeeze with 1×1 convolutions and expand with 1×1 and 3×3.

Node names are torchvision's module paths.
"""

from __future__ import annotations

from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.backbones.builder import Builder

POOL = 0  # in place of a fire module
FIRES = {  # version -> filters of the stem, its kernel, and what each module squeezes to; it expands that eightfold
    "1.0": (96, 7, (POOL, 16, 16, 32, POOL, 32, 48, 48, 64, POOL, 64)),
    "1.1": (64, 3, (POOL, 16, 16, POOL, 32, 32, POOL, 48, 48, 64, 64)),
}


def squeezenet(name: str, version: str, size: int = 224, classes: int = 1000) -> Blueprint:
    """SqueezeNet 1.0 or 1.1; the head is a convolution, and the average of each of its channels is a class."""
    filters, kernel, fires = FIRES[version]
    b = Builder()
    x = b.act(b.conv(INPUT, "features.0", filters, kernel, 2, padding=0, bias=True), "features.1", "relu")
    for place, squeeze in enumerate(fires, 2):
        at = f"features.{place}"
        x = b.max_pool(x, at, 3, 2, ceil=True) if squeeze == POOL else _fire(b, x, at, squeeze)
    x = b.conv(b.dropout(x, "classifier.0", 0.5), "classifier.1", classes, 1, padding=0, bias=True)
    b.average(b.act(x, "classifier.2", "relu"), LOGITS)
    return b.build(name, size)


def _fire(b: Builder, x: str, at: str, squeeze: int) -> str:
    x = b.conv(x, f"{at}.squeeze", squeeze, 1, padding=0, bias=True)
    x = b.act(x, f"{at}.squeeze_activation", "relu")
    sides = []
    for kernel in (1, 3):
        side = f"{at}.expand{kernel}x{kernel}"
        y = b.conv(x, side, 4 * squeeze, kernel, padding=kernel // 2, bias=True)
        sides.append(b.act(y, f"{side}_activation", "relu"))
    return b.concat(sides, f"{at}.concat")
