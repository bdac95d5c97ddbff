"""Golden images: what a classifier said of a few when it was saved, and their file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import ImageSpec
from headstart.data.load import decode
from headstart.learn.unknown import Unknown
from headstart.model import stored


@dataclass(frozen=True, eq=False)
class Golden:
    """A few images with what the classifier said of them when it was saved, in fp32."""

    images: NDArray[np.uint8]  # (N, size, size, 3)
    logits: NDArray[np.float32]  # (N, K)
    photos: tuple[NDArray[np.uint8], ...] = ()  # the same before they were cropped and scaled, (height, width, 3)
    scores: NDArray[np.float64] | None = None  # (N,) how typical, see `Unknown.score`

    def as_arrays(self, unknown: Unknown | None) -> stored.Arrays:
        """What its file has."""
        photos: dict[str, Any] = {f"photos.{row}": photo for row, photo in enumerate(self.photos)} or {
            "images": self.images
        }
        if unknown is not None and self.scores is not None:
            photos["margins"] = self.scores - unknown.threshold  # below zero: unknown
        return {**photos, "logits": self.logits.astype(np.float32)}

    @classmethod
    def from_arrays(cls, arrays: stored.Arrays, spec: ImageSpec, classes: int, unknown: Unknown | None) -> Self:
        """Those of a file, as the network sees them; from format 2 on they are kept as they were before that."""
        photos = tuple(arrays[f"photos.{row}"] for row in range(len(arrays["logits"])) if f"photos.{row}" in arrays)
        images = np.stack([decode(photo, spec) for photo in photos]) if photos else arrays["images"]
        logits, margins = arrays["logits"], arrays.get("margins")
        if logits.shape != (len(images), classes):
            raise ValueError(f"{len(images)} golden images of {classes} classes for logits of shape {logits.shape}")
        if not np.isfinite(logits).all() or (margins is not None and margins.shape != (len(images),)):
            raise ValueError("the answers of its golden images are none")
        if unknown is None and margins is not None:
            raise ValueError("it does not say what is unknown to it")
        scores = None if unknown is None or margins is None else margins + unknown.threshold
        return cls(images, logits, photos, scores)
