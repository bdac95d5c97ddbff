"""Images made for tests, in memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.types import ImageSpec

SPEC = ImageSpec(size=32, crop=1.0)


Pixels = NDArray[np.uint8]


def photo(height: int = 48, width: int = 64) -> Pixels:
    """Smooth, coloured, and alike under no turn or mirroring."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / height, 255 * x / width, 80 + 60 * (y < height / 3) * (x < width / 3)], -1).astype(
        np.uint8
    )


def packed(image: Image.Image | Pixels, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()
