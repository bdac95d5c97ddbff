"""Near copies: how many known copies are found, and how many photos are touched in sets as they are.

Run: python benchmarks/duplicates.py [--shared FOLDER] [--photos N]
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from headstart.core.types import ImageDataset, Sample
from headstart.data.fingerprints import take_fingerprints
from headstart.data.load import decode_whole
from headstart.data.sources import open_source

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("HEADSTART_SHARED", HERE.parents[1] / "shared"))
SETS = ("mnist", "cifar10", "apple_leaves", "caltech101", "oxford_pets", "cats_dogs", "elpv")
WHOLE = 1 << 20  # pixels: none is scaled
COPIED = 120  # photos of each set that copies are made of


def encoded(image: Image.Image, quality: int = 0) -> bytes:
    """JPEG of a quality, or PNG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality) if quality else image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def cropped(image: Image.Image) -> Image.Image:
    """Without 5 % at each edge."""
    x, y = round(image.width * 0.05), round(image.height * 0.05)
    return image.crop((x, y, image.width - x, image.height - y))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "re-encoded": lambda image: encoded(image, 40),
    "shrunk": lambda image: encoded(image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)),
    "cropped": lambda image: encoded(cropped(image)),
    "brightened": lambda image: encoded(image.point(lambda value: min(255, round(value * 1.25)))),
    "mirrored": lambda image: encoded(ImageOps.mirror(image)),
}


@dataclass(frozen=True)
class Row:
    """How copies are found on one set."""

    data: str
    images: int
    touched: float  # share of the untouched set's images that are in any group
    largest: int  # images in the largest group
    seconds: float  # the search, without decoding
    recall: dict[str, float]


def subset(dataset: ImageDataset, size: int) -> ImageDataset:
    """The same random images of a set each time."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset))[:size])
    samples = [replace(dataset.samples[i], split="", group="") for i in chosen]
    return ImageDataset(dataset.root, samples, lambda index: dataset.read(int(chosen[index])))


def with_copies(dataset: ImageDataset, copies: Sequence[bytes]) -> ImageDataset:
    """The data set and behind it copies of its first images."""
    more = [Sample(f"copy {i}", dataset.samples[i].label) for i in range(len(copies))]
    count = len(dataset)
    return ImageDataset(
        dataset.root,
        [*dataset.samples, *more],
        lambda index: dataset.read(index) if index < count else copies[index - count],
    )


def measure(name: str, dataset: ImageDataset, copies: dict[str, list[bytes]]) -> Row:
    """As `headstart check` and `headstart fit` do it."""
    prints = take_fingerprints(dataset)
    start = time.perf_counter()
    group_of = prints.copies()
    seconds = time.perf_counter() - start
    recall = {}
    for kind, files in copies.items():
        both = take_fingerprints(with_copies(dataset, files)).copies()
        recall[kind] = float(np.mean(both[: len(files)] == both[len(dataset) :]))
    sizes = np.bincount(group_of)
    return Row(name, len(dataset), float(np.mean(sizes[group_of] > 1)), int(sizes.max()), seconds, recall)


def commit() -> str:
    """The revision that was measured, with a + where files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def show(rows: Sequence[Row]) -> None:
    """The rows as a table."""
    print(f"{'':13} {'images':>6} {'touched':>8} {'largest':>7} {'s':>5}  " + " ".join(f"{k:>10}" for k in COPIES))
    for row in rows:
        recalls = " ".join(f"{row.recall[k]:10.3f}" for k in COPIES)
        print(
            f"{row.data:13} {row.images:6} {row.touched:8.4f} {row.largest:7} {row.seconds:5.1f}  {recalls}", flush=True
        )


def main() -> None:
    """Measure all sets, print a table, write results/duplicates.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/")
    parser.add_argument("--photos", type=int, default=2000, help="images of each set, at most")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in SETS:
        dataset = subset(open_source("elpv" if name == "elpv" else options.shared / "data" / name), options.photos)
        photos = [Image.fromarray(decode_whole(dataset.read(i), WHOLE)) for i in range(min(COPIED, len(dataset)))]
        rows.append(
            measure(name, dataset, {kind: [change(photo) for photo in photos] for kind, change in COPIES.items()})
        )
    show(rows)
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "copies": COPIED,
        "rows": [asdict(row) for row in rows],
    }
    path = HERE / "results" / "duplicates.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
