"""Damaged images of every format: each is decoded, or refused with a reason."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from fault_injection.mutations import mutated
from fault_injection.watched import Trial
from headstart.core.types import ImageSpec
from headstart.data.file_headers import header_of
from headstart.data.load import decode_whole, decode_with_thumbnail
from making import picture

SPEC = ImageSpec(64)
FORMS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "CMYK", {}), ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "LA", {}), ("PNG", "I;16", {}), ("TIFF", "RGB", {}),
    ("TIFF", "F", {"compression": "tiff_adobe_deflate"}), ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
    ("TIFF", "CMYK", {"compression": "jpeg"}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {}), ("BMP", "RGB", {}), ("PPM", "RGB", {}), ("TGA", "RGB", {"compression": "tga_rle"}),
    ("JPEG2000", "RGB", {}),
    ("ICO", "RGBA", {}), ("ICNS", "RGBA", {}), ("PCX", "RGB", {}), ("DDS", "RGBA", {}), ("SGI", "RGB", {}),
    ("QOI", "RGB", {}), ("AVIF", "RGB", {"speed": 10}), ("MPO", "RGB", {}),
)  # fmt: skip


def originals() -> list[bytes]:
    """A small image of each form, and TIFF files that Pillow does not write."""
    found = [_saved(form, mode, options) for form, mode, options in FORMS]
    wide = np.asarray(Image.fromarray(picture("waves", 2)).resize((90, 70))).astype(np.uint16) * 200
    for pixels, options in (
        (wide, {"photometric": "rgb"}),
        (np.moveaxis(wide, 2, 0), {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
        (wide[..., 0].astype(np.float32), {}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **options)
        found.append(file.getvalue())
    return found


def _saved(form: str, mode: str, options: dict[str, Any]) -> bytes:
    image = Image.fromarray(picture("discs", 5)).resize((96, 80))
    image = (
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 99)
        if mode == "I;16"
        else image.convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, form, **options, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    return file.getvalue()


@contextmanager
def trials() -> Iterator[Trial]:
    whole = originals()

    def trial(seed: int) -> str:
        rng = random.Random(seed)
        raw = mutated(rng.choice(whole), rng)
        square, thumbnail = decode_with_thumbnail(raw, SPEC)
        seen, header = decode_whole(raw, 100), header_of(raw)
        if square.shape != (64, 64, 3) or thumbnail.shape != (16, 16) or square.dtype != np.uint8:
            return f"wrong: pixels of shape {square.shape}"
        if max(seen.shape[:2]) > 100 or min(header.width, header.height) < 1:
            return f"wrong: {seen.shape}, {header}"
        return "accepted"

    yield trial
