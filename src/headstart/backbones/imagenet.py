"""The thousand classes of ImageNet-1k, in the order that every published classifier has them."""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def class_names() -> tuple[str, ...]:
    """Their English names; number 0 is the tench, 340 the zebra."""
    return tuple(resources.files(__package__).joinpath("imagenet_classes.txt").read_text(encoding="utf-8").splitlines())
