"""What is known of an image without its pixels: width, height, kind of file and how strongly a JPEG is compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core.errors import UnreadableImageError
from headstart.core.types import ImageDataset
from headstart.data.load import became_unreadable, in_chunks
from headstart.data.memory import once_more_alone
from headstart.data.opened_image import Raw, opened


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The header of an image's file; of an array its shape and type."""

    width: int
    height: int
    kind: str  # format and colours: "JPEG RGB", "PNG L", "array uint8 (3,)"
    compression: int  # sum of a JPEG's first quantisation table: the larger, the coarser; 0 for all others
    transparent: bool = False  # in part, it may be


def read_headers(dataset: ImageDataset, rows: Sequence[int]) -> list[FileHeader]:
    """The headers of some images of a data set, which could be read before.

    Raises:
        DataError: one of them cannot be read any more.
    """

    def work(chunk: Sequence[int]) -> list[FileHeader]:
        return [_read(dataset, row) for row in chunk]

    return [*in_chunks(work, rows)]


@once_more_alone
def header_of(raw: Raw) -> FileHeader:
    """The header of an image; pixels are not decoded, unless they have more than 8 bits.

    Raises:
        UnreadableImageError: it is none.
    """
    with opened(raw) as image:
        found = image.found
        if isinstance(found, np.ndarray):
            return FileHeader(*image.size, f"array {found.dtype} {found.shape[2:]}", 0)
        tables = getattr(found, "quantization", None) or {0: ()}
        kind = f"{found.format} {found.mode}"
        return FileHeader(*image.size, kind, sum(next(iter(tables.values()))), found.has_transparency_data)


def _read(dataset: ImageDataset, row: int) -> FileHeader:
    try:
        return header_of(dataset.read(row))
    except (UnreadableImageError, OSError) as error:
        raise became_unreadable(dataset, row, error) from error
