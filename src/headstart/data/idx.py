"""Image data sets in IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from io import BufferedReader
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted
from headstart.core.errors import DataError, cannot_read
from headstart.core.regular_file import open_regular
from headstart.core.types import ImageDataset, Sample
from headstart.data.columns import PARTS, drop_lone_split
from headstart.data.opened_image import Raw
from headstart.data.scan import printable

_IDX = re.compile(r"(?P<stem>.*?)[-._]?(?P<what>images|labels)[-._]idx(?P<dims>\d)-ubyte(\.gz)?", re.IGNORECASE)
MOST_UNPACKED = 4 << 30  # bytes of a packed file


def idx_pairs(folder: str, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Paths of the image and label files among ``names``, by the beginning of their names.

    Raises:
        DataError: images without labels or the other way round.
    """
    halves: dict[str, dict[str, str]] = {}
    for name in sorted(names, reverse=True):  # so that an unpacked file is preferred to its .gz
        if match := _IDX.fullmatch(name):
            halves.setdefault(match["stem"], {})[match["what"].lower()] = os.path.join(folder, name)
    for stem, half in halves.items():
        for there, lacks, dims in (("images", "labels", 1), ("labels", "images", 3)):
            if lacks not in half:
                raise DataError(
                    f"{half[there]!r} has no {lacks} beside it. Expected {stem}-{lacks}-idx{dims}-ubyte, or with .gz."
                )
    return {stem: (half["images"], half["labels"]) for stem, half in sorted(halves.items())}


def is_idx(name: str) -> str:
    """The beginning of an IDX file's name; "" for any other name."""
    match = _IDX.fullmatch(name)
    return match["stem"] or match["what"] if match else ""


def idx_dataset(root: str, pairs: dict[str, tuple[str, str]]) -> ImageDataset:
    """Images (uint8, height × width) and labels "0", "1", … of IDX files, the format of MNIST.

    Raises:
        DataError: a file that is not IDX, is truncated, or does not fit its counterpart.
    """
    samples: list[Sample] = []
    stacks: list[NDArray[np.uint8]] = []
    for stem, (image_file, label_file) in pairs.items():
        images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1)
        if len(images) != len(labels):
            there = counted(len(images), "image"), counted(len(labels), "label")
            raise DataError(f"{image_file!r} holds {there[0]}, but {label_file!r} {there[1]}.")
        words = re.split(r"[^a-z0-9]+", stem.lower())
        split = "test" if "t10k" in words else next((PARTS[word] for word in words if word in PARTS), "")
        file = printable(os.path.basename(image_file))
        samples += [Sample(f"{file}#{row}", str(label), split) for row, label in enumerate(labels.tolist())]
        stacks.append(images)
    starts = list(accumulate((len(stack) for stack in stacks), initial=0))

    def read(index: int) -> Raw:
        stack = bisect_right(starts, index) - 1
        return np.asarray(stacks[stack][index - starts[stack]])

    return ImageDataset(root, drop_lone_split(samples), read)


def _read_idx(path: str, dims: int) -> NDArray[np.uint8]:
    """Unsigned bytes. The file has 0, 0, 8, ``dims``, then the sizes, big-endian, then the values."""
    try:
        with open_regular(path) as plain, gzip.GzipFile(fileobj=plain) as unpacked:
            packed = plain.peek(2)[:2] == b"\x1f\x8b"  # by content: a browser may have unpacked a .gz
            file = unpacked if packed else plain
            head = file.read(4 + 4 * dims)
            if head[:4] != bytes((0, 0, 8, dims)):
                raise DataError(
                    f"{path!r} is no IDX file of bytes in {counted(dims, 'dimension')}: it begins {head[:4]!r}."
                )
            shape = struct.unpack(f">{dims}I", head[4:]) if len(head) == 4 + 4 * dims else (0,)
            promised, size = math.prod(shape), os.fstat(plain.fileno()).st_size - len(head)
            content = _read_up_to(file, min(promised, MOST_UNPACKED) + 1) if packed else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path!r} is damaged or truncated: {error}. Fetch it again.") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    came = len(content) if packed else size
    if packed and came > MOST_UNPACKED:
        raise DataError(f"{path!r} promises {promised:,} bytes, and up to {MOST_UNPACKED:,} are unpacked.")
    if came != promised or not promised:
        raise DataError(f"{path!r} is damaged or truncated: its header promises {promised} bytes, {came} came.")
    if packed:
        return np.frombuffer(content, np.uint8).reshape(shape)
    return np.memmap(path, np.uint8, "r", offset=len(head), shape=shape)


def _read_up_to(file: gzip.GzipFile | BufferedReader, size: int) -> bytes | bytearray:
    """At most ``size`` bytes; takes no more memory than there is content, whatever the header says."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(1 << 20, size - len(content)))):
        content += piece
    return content
