"""What is known of an image without its pixels: width, height, kind of file and how strongly a JPEG is compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core.errors import UnreadableImageError
from headstart.core.types import ImageDataset
from headstart.data.load import Raw, became_unreadable, in_chunks, open_unscaled


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The header of an image's file; of an array its shape and type."""

    width: int
    height: int
    kind: str  # format and colours: "JPEG RGB", "PNG L", "array uint8 (3,)"
    compression: int  # sum of a JPEG's first quantisation table: the larger, the coarser; 0 for all others


def read_headers(dataset: ImageDataset, rows: Sequence[int]) -> list[FileHeader]:
    """The headers of some images of a data set, which could be read before.

    Raises:
        DataError: one of them cannot be read any more.
    """

    def work(chunk: Sequence[int]) -> list[FileHeader]:
        return [_read(dataset, row) for row in chunk]

    return [*in_chunks(work, rows)]


def header_of(raw: Raw) -> FileHeader:
    """The header of an image; pixels are not decoded, unless they have more than 8 bits.

    Raises:
        UnreadableImageError: it is none.
    """
    image = open_unscaled(raw)
    if isinstance(image, np.ndarray):
        height, width, *channels = image.shape
        return FileHeader(width, height, f"array {image.dtype} {tuple(channels)}", 0)
    tables = getattr(image, "quantization", None) or {0: ()}
    return FileHeader(*image.size, f"{image.format} {image.mode}", sum(next(iter(tables.values()))))


def _read(dataset: ImageDataset, row: int) -> FileHeader:
    try:
        return header_of(dataset.read(row))
    except (UnreadableImageError, OSError) as error:
        raise became_unreadable(dataset, row, error) from error
