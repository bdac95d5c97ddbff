"""Images just below the limit of pixels, several at a time: all threads together stay within their memory."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from PIL import Image

from fault_injection.watched import Trial
from headstart.core.errors import UnreadableImageError
from headstart.core.types import ImageSpec
from headstart.data.load import decode_with_thumbnail

SIDE = 13_300  # 177 megapixels
THREADS = 4
FORMS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "RGBA", {"compress_level": 1}), ("PNG", "P", {}), ("PNG", "LA", {"compress_level": 1}),
    ("TIFF", "F", {"compression": "tiff_adobe_deflate"}), ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
    ("JPEG", "RGB", {"progressive": True}), ("GIF", "P", {}), ("WEBP", "RGB", {"method": 0, "quality": 1}),
)  # fmt: skip


@contextmanager
def trials() -> Iterator[Trial]:
    files = list[bytes]()
    for form, mode, options in FORMS:
        file = io.BytesIO()
        Image.new(mode, (SIDE, SIDE)).save(file, form, **options)
        files.append(file.getvalue())

    def seen(raw: bytes) -> str:
        try:
            decode_with_thumbnail(raw, ImageSpec(224))
        except UnreadableImageError as error:
            return error.kind
        return "accepted"

    def trial(seed: int) -> str:
        drawn = random.Random(seed).sample(files, THREADS)
        with ThreadPoolExecutor(THREADS) as pool:
            found = set(pool.map(seen, drawn))
        return "accepted" if found <= {"accepted", "bomb"} else f"wrong: {found}"

    yield trial
