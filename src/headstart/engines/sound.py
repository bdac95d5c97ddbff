"""Whether a network gives answers at all: weights of one's own may overflow in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import UsageError
from headstart.engines.protocol import Network

ADVICE = (
    "Its weights overflow, or are not those of this network. Take others, or look for very large values, 'nan' and "
    "'inf' in them."
)


def check_sound(network: Network, at: str) -> None:
    """Refuse a network whose values at a node are not finite, or the same for a black image and for noise.

    Raises:
        UsageError: either. Some engines turn values that are not finite into zeros on the way.
    """
    size = network.spec.size
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    values = network.for_images(2).forward(np.stack([np.zeros_like(noise), noise]), at)
    if not np.isfinite(values).all():
        raise UsageError(f"'{network.name}' gives no finite numbers. {ADVICE}")
    if (values[0] == values[1]).all():
        raise UsageError(f"'{network.name}' gives the same values for every image. {ADVICE}")


def check_not_all_alike(name: str, values: NDArray[np.floating], thumbnails: NDArray[np.uint8]) -> None:
    """Refuse features (N, D) that are the same for images (N, height, width) that are not.

    Raises:
        UsageError: they are, in the network of this ``name``.
    """
    if len(values) and (values == values[0]).all() and (thumbnails != thumbnails[0]).any():
        raise UsageError(f"'{name}' gives the same features for all {len(values)} images. {ADVICE}")
