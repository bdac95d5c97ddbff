"""Near-duplicates: how many known copies are found, and how many photos are touched in sets as they are.

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
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstart.backbones.blueprint import FEATURES
from headstart.backbones.catalogue import DEFAULT, load_pretrained
from headstart.data.check import check
from headstart.data.load import decode_with_thumb, open_image
from headstart.data.sources import open_source
from headstart.engines.base import Network, get_engine
from headstart.learn.neighbours import near_duplicates
from headstart.types import ImageSpec, Sample, Table

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("HEADSTART_SHARED", HERE.parents[1] / "shared"))
SETS = ("mnist", "cifar10", "apple_leaves", "caltech101", "oxford_pets", "cats_dogs", "elpv")
COPIED = 120  # photos of each set that copies are made of

Features = NDArray[np.float32]
Thumbs = NDArray[np.uint8]


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
    """One way of finding copies on one set."""

    by: str
    data: str
    images: int
    touched: float  # share of the untouched set's images that are in any group
    largest: int  # images in the largest group
    seconds: float  # the search, without decoding and features for "features"
    recall: dict[str, float]


def subset(table: Table, size: int) -> Table:
    """The same random images of a set each time."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(table))[:size])
    samples = [replace(table.samples[i], split="", group="") for i in chosen]
    return Table(table.root, samples, lambda index: table.read(int(chosen[index])))


def with_copies(table: Table, copies: Sequence[bytes]) -> Table:
    """The table and behind it copies of its first images."""
    more = [Sample(f"copy {i}", table.samples[i].label) for i in range(len(copies))]
    count = len(table)
    return Table(
        table.root, [*table.samples, *more], lambda index: table.read(index) if index < count else copies[index - count]
    )


def by_hash(name: str, table: Table, copies: dict[str, list[bytes]]) -> Row:
    """As `headstart check` does it."""
    start = time.perf_counter()
    groups = check(table).near_duplicates
    seconds = time.perf_counter() - start
    recall = {}
    for kind, files in copies.items():
        both = with_copies(table, files)
        together = [set(repeat.names) for repeat in check(both).near_duplicates]
        pairs = [{table.samples[i].name, f"copy {i}"} for i in range(len(files))]
        recall[kind] = float(np.mean([any(pair <= group for group in together) for pair in pairs]))
    sizes = [len(group.names) for group in groups]
    return Row("hash", name, len(table), sum(sizes) / len(table), max(sizes, default=1), seconds, recall)


def features_of(
    network: Network, spec: ImageSpec, read: Callable[[int], object], count: int
) -> tuple[Features, Thumbs]:
    """Features and thumbnails of ``count`` images."""
    features, thumbs = [], []
    for start in range(0, count, 256):
        decoded = [decode_with_thumb(read(i), spec) for i in range(start, min(start + 256, count))]  # type: ignore[arg-type]
        features.append(network.forward(np.stack([pixels for pixels, _ in decoded]), FEATURES))
        thumbs += [thumb for _, thumb in decoded]
    return np.concatenate(features), np.stack(thumbs)


def by_features(name: str, table: Table, copies: dict[str, list[bytes]], network: Network) -> Row:
    """As `headstart fit` does it."""
    features, thumbs = features_of(network, network.spec, table.read, len(table))
    start = time.perf_counter()
    group_of = near_duplicates(features, thumbs)
    seconds = time.perf_counter() - start
    sizes = np.bincount(group_of)
    recall = {}
    for kind, files in copies.items():
        more, small = features_of(network, network.spec, files.__getitem__, len(files))
        both = near_duplicates(np.concatenate([features, more]), np.concatenate([thumbs, small]))
        recall[kind] = float(np.mean(both[: len(files)] == both[len(table) :]))
    touched = float(np.mean(sizes[group_of] > 1))
    return Row("features", name, len(table), touched, int(sizes.max()), seconds, recall)


def commit() -> str:
    """The revision that was measured, with a + where files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def show(rows: Sequence[Row]) -> None:
    """The rows as a table."""
    print(
        f"{'':9} {'':13} {'images':>6} {'touched':>8} {'largest':>7} {'s':>5}  " + " ".join(f"{k:>10}" for k in COPIES)
    )
    for row in rows:
        recalls = " ".join(f"{row.recall[k]:10.3f}" if k in row.recall else f"{'':10}" for k in COPIES)
        shares = f"{row.images:6} {row.touched:8.4f} {row.largest:7} {row.seconds:5.1f}"
        print(f"{row.by:9} {row.data:13} {shares}  {recalls}", flush=True)


def main() -> None:
    """Measure all sets, print a table, write results/duplicates.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/")
    parser.add_argument("--photos", type=int, default=2000, help="images of each set, at most")
    options = parser.parse_args()
    pretrained = load_pretrained(DEFAULT, head=False)
    network = get_engine("fast", pretrained.blueprint, pretrained.weights, pretrained.spec)
    rows: list[Row] = []
    for name in SETS:
        source = "elpv" if name == "elpv" else options.shared / "data" / name
        table = subset(open_source(source), options.photos)
        photos = [open_image(table.read(i)).convert("RGB") for i in range(min(COPIED, len(table)))]
        copies = {kind: [change(photo) for photo in photos] for kind, change in COPIES.items()}
        unmirrored = {kind: files for kind, files in copies.items() if kind != "mirrored"}
        rows += [by_hash(name, table, unmirrored), by_features(name, table, copies, network)]
        show(rows[-2:])
    rows.sort(key=lambda row: row.by, reverse=True)
    print()
    show(rows)
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "backbone": DEFAULT,
        "precision": network.precision,
        "copies": COPIED,
        "rows": [asdict(row) for row in rows],
    }
    path = HERE / "results" / "duplicates.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
