"""Data sets for `scale.py` and `scale_model.py`: real images under more names, and made-up ones in tar files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from harness import shared

CLASSES = 10
PNG = b"\x89PNG"
SIDE = 8  # pixels of a made-up picture, each shown as 4 × 4


def cifar(target: Path, count: int) -> Path:
    """The first images of CIFAR-10's training set, which come in no order, as a table like the one they are from."""
    from pyarrow import parquet

    whole = parquet.read_table(shared("data", "cifar10", "train.parquet"))
    parquet.write_table(whole.slice(0, count), target, row_group_size=1000)
    return target


def photos(target: Path, count: int) -> Path:
    """Photos of cats and dogs in two folders, as often as it takes; bytes behind the end of a JPEG make them others."""
    there = sorted(shared("data", "cats_dogs").rglob("*.jpg"))
    for number in range(count):
        photo = there[number * len(there) // count if count < len(there) else number % len(there)]
        folder = target / photo.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        content = photo.read_bytes() + (b"" if number < len(there) else number.to_bytes(8, "big"))
        (folder / f"{number:06d}.jpg").write_bytes(content)
    return target


def cifar_tars(target: Path, count: int, each: int = 5000) -> Path:
    """Images of CIFAR-10 in tar files, a folder for each class."""
    from pyarrow import parquet

    rows = parquet.read_table(shared("data", "cifar10", "train.parquet")).slice(0, count).to_pylist()
    return _tars(target, ((str(row["label"]), row["image"]["bytes"]) for row in rows), each)


def made_up_tars(target: Path, count: int, each: int = 5000) -> Path:
    """Tiny pictures of coloured squares, 32 pixels, PNG, in tar files."""
    return _tars(target, _squares(count), each)


def _squares(count: int) -> Iterator[tuple[str, bytes]]:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        small[..., 0] //= 1 + number % CLASSES  # a class has its share of red
        file = io.BytesIO()
        Image.fromarray(small).resize((32, 32), Image.Resampling.NEAREST).save(file, "PNG", compress_level=1)
        yield str(number % CLASSES), file.getvalue()


def _tars(target: Path, images: Iterator[tuple[str, bytes]], each: int) -> Path:
    target.mkdir(parents=True)
    tar: tarfile.TarFile | None = None
    for number, (label, content) in enumerate(images):
        if number % each == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(target / f"{number // each:05d}.tar", "w")  # noqa: SIM115
        member = tarfile.TarInfo(f"{label}/{number:07d}.{'png' if content.startswith(PNG) else 'jpg'}")
        member.size = len(content)
        if tar is not None:
            tar.addfile(member, io.BytesIO(content))
    if tar is not None:
        tar.close()
    return target
