"""The parts of a fit on a cluster, each measured by itself, for `scale_model.py`."""

from __future__ import annotations

import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import median
from headstart.backbones.blueprint import FEATURES
from headstart.backbones.catalogue import DEFAULT, Pretrained
from headstart.core.processors import cores
from headstart.core.spread import evenly_spread
from headstart.core.timing import StageTimer
from headstart.core.types import ImageDataset, Sample
from headstart.data.fingerprints import take_fingerprints
from headstart.data.load import THUMBNAIL, content_key, decode_with_thumbnail, in_chunks
from headstart.data.near_copies import ALIKE, FAR, _whitened_views, near_copies, near_pairs
from headstart.data.split import make_split
from headstart.data.threads import ONE_BLAS_THREAD
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine, open_backbone
from headstart.learn.features import Features, run_network, to_half
from headstart.learn.regularisation_path import Design
from headstart.scale.cluster import cluster
from headstart.scale.extract import Done, Work
from headstart.scale.image_list import write_list
from headstart.scale.plan import Plan, Source
from headstart.scale.pool import Pool
from headstart.scale.shards import Rows, write_shard
from headstart.scale.unit import Unit
from headstart.scale.whole import whole_of
from headstart.workflows.backbone_features import FitSettings, FrozenBackbone
from headstart.workflows.fit import fit_features

IMAGES, CLASSES = 400, 10
SIZES = (500, 1000, 2000, 4000, 8000)  # images whose features are made up
PAIRS = (4000, 16_000)  # thumbnails that are made up
SUMMED = 4096  # made up, summed by one core
LEAST = 1e-12  # seconds: what was too quick to be measured
NARROW, ROOMY = 4, 1.03  # a part of the features; a little beyond where all directions are kept


def measured_parts(data: Path, pixels: int | None, *, quick: bool = False) -> dict[str, Any]:
    """All that `Costs` says of the parts."""
    dataset = Source(str(data)).open()
    pretrained, _ = open_backbone(DEFAULT, None, pixels, head=False)
    network = get_engine("fast", pretrained.blueprint, pretrained.weights, pretrained.spec)
    found = of_images(dataset, network, 64 if quick else IMAGES)
    real = take_fingerprints(dataset).thumbnails
    found |= of_pairs([size // 4 for size in PAIRS] if quick else PAIRS, real)
    found |= of_heads(pretrained, network, [size // 2 for size in SIZES[:3]] if quick else SIZES, quick=quick)
    found |= of_folders(300 if quick else 3000)
    found |= {"unit": of_a_unit(*((20, 120) if quick else (50, 250)))}
    found |= {"split_bytes": memory_of_split(*((200, 400) if quick else (2000, 6000)))}
    return found | {"cores": cores(), "width": network.shape(FEATURES)[0], "classes": CLASSES}


def seconds_of(work: Callable[[], object], repeats: int = 3, of: Callable[[list[float]], float] = median) -> float:
    """The median, or what else is taken ``of`` the repeats."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return of(taken)


def of_images(dataset: ImageDataset, network: Network, count: int) -> dict[str, Any]:
    """Reading, decoding, the network and writing, by one thread alone and by as many as there are cores."""
    rows = evenly_spread(range(len(dataset)), count)
    raws = [dataset.read(row) for row in rows]
    pictures = [decode_with_thumbnail(raw, network.spec)[0] for raw in raws]
    local = threading.local()

    def forward(chunk: Sequence[int]) -> list[None]:
        if not hasattr(local, "run"):
            local.run = network.runner((FEATURES,))
        for start in range(0, len(chunk), network.micro_batch):
            local.run(np.stack([pictures[place] for place in chunk[start : start + network.micro_batch]]))
        return [None] * len(chunk)

    parts: dict[str, Callable[[Sequence[int]], Iterable[object]]] = {
        "read": lambda chunk: [dataset.read(rows[place]) for place in chunk],
        "decode": lambda chunk: [
            (content_key(raws[place]), decode_with_thumbnail(raws[place], network.spec)) for place in chunk
        ],
        "forward": forward,
    }
    places, all_cores = range(len(rows)), cores()
    found, alone = dict[str, Any](), {}
    for name, part in parts.items():
        [*in_chunks(part, places)]  # to warm up
        alone[name] = seconds_of(lambda: [*in_chunks(part, places, 1)]) / len(rows)  # noqa: B023
        found[name] = seconds_of(lambda: [*in_chunks(part, places)]) * all_cores / len(rows)  # noqa: B023
    together = seconds_of(lambda: [*run_network(dataset, network, (FEATURES,), rows)]) * all_cores / len(rows)
    found["together"] = together / sum(found[name] for name in parts)
    found["image_bytes"] = float(np.mean([len(raw) if isinstance(raw, bytes) else raw.nbytes for raw in raws]))
    return found | {"alone": alone} | _of_store(dataset, rows, network.shape(FEATURES)[0])


def _of_store(dataset: ImageDataset, rows: Sequence[int], width: int) -> dict[str, float]:
    """Seconds and bytes of an image in a shard, of which one is written at a time."""
    values = np.random.default_rng(0).normal(size=(len(rows), width)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.arrow"

        def write() -> None:
            shard = Rows.of([dataset.samples[row] for row in rows], width)
            for place in range(len(rows)):
                shard.features[place] = to_half(values[place])
            write_shard(path, shard, {})

        return {"store": seconds_of(write) / len(rows), "shard_bytes": path.stat().st_size / len(rows)}


def made_up_thumbnails(count: int) -> NDArray[np.uint8]:
    """Grey pictures with light and shade, and some noise."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, 4, 4)).repeat(4, axis=1).repeat(4, axis=2)
    return (coarse + rng.normal(0, 20, (count, THUMBNAIL, THUMBNAIL))).clip(0, 255).astype(np.uint8)


def of_pairs(sizes: Sequence[int], real: NDArray[np.uint8]) -> dict[str, float]:
    """Seconds of the search for near copies: for a pair, for a pair of which one has a near neighbour, for an image.

    Args:
        sizes: numbers of thumbnails that are made up, none near another.
        real: thumbnails of which the share of near pairs is taken.
    """
    few, many = sizes
    thumbnails = made_up_thumbnails(many)
    one, other = (seconds_of(lambda: near_copies(thumbnails[:size]), 5, min) for size in sizes)  # noqa: B023
    pair = max(LEAST, 2 * (other / many - one / few) / (many - few))
    copied = np.concatenate([thumbnails[: many // 2], thumbnails[: many // 2] ^ 1])  # each has a copy
    all_near = seconds_of(lambda: near_copies(copied), 5, min)
    seen, dataset = made_up(few, 4, np.random.default_rng(0))
    rest = seconds_of(lambda: make_split(dataset, seen, 0.2, 0), of=min)
    rest -= seconds_of(lambda: near_copies(seen.thumbnails), of=min)
    return {
        "pair": pair,
        "near_pair": max(0.0, all_near - other) / many**2,
        "near": _near(real),
        "split": max(0.0, one / few - pair * few / 2) + max(0.0, rest) / few,
    }


def _near(thumbnails: NDArray[np.uint8]) -> float:
    """The share of pairs that are near enough for a closer look."""
    views, limit = _whitened_views(thumbnails), ALIKE * FAR
    pairs = sum(int((distance < limit).sum()) for _, _, distance in near_pairs(views, limit))
    return 2 * pairs / len(thumbnails) ** 2


def made_up(count: int, width: int, rng: np.random.Generator) -> tuple[Features, ImageDataset]:
    """Features around a centre for each class, and images that go with them."""
    labels = rng.permutation(np.arange(count) % CLASSES)
    centres = rng.normal(0, 0.15, (CLASSES, width)).astype(np.float32)
    values = np.empty((count, width), np.float16)
    for start in range(0, count, 512):
        part = slice(start, start + 512)
        noise = rng.normal(0.3, 0.5, (len(labels[part]), width)).astype(np.float32)
        values[part] = np.maximum(noise + centres[labels[part]], 0)
    samples = [Sample(f"train/{label}/{row:08d}.jpg", str(label)) for row, label in enumerate(labels.tolist())]
    keys = [row.to_bytes(16, "big") for row in range(count)]
    seen = Features(
        keys=keys,
        thumbnails=made_up_thumbnails(count),
        usable=np.ones(count, bool),
        formats=["JPEG"] * count,
        values=values,
    )
    picture = np.zeros((32, 32, 3), np.uint8)
    return seen, ImageDataset("made-up", samples, lambda row: picture)


def of_heads(pretrained: Pretrained, network: Network, sizes: Sequence[int], *, quick: bool) -> dict[str, Any]:
    """Seconds of the head, the evaluation and the diagnosis for some numbers of images; and of a sum over rows."""
    width = network.shape(FEATURES)[0]
    frozen = FrozenBackbone(pretrained, network)
    curves: dict[str, list[tuple[int, float]]] = {"head": [], "evaluation": [], "diagnosis": []}
    for size in sizes:
        seconds = _stages(frozen, size, width)
        for name, points in curves.items():
            points.append((size, seconds[name]))
    curves["plenty"] = [] if quick else _plenty(frozen, width)
    seen, _ = made_up(SUMMED, width, np.random.default_rng(1))
    design, labels = Design(seen.values, alone=True), np.zeros(SUMMED, int)
    with ONE_BLAS_THREAD:
        one = seconds_of(lambda: design.scatter(np.zeros(width, np.float32))) + 3 * seconds_of(
            lambda: design.exact_sum(labels, 1)
        )
    return {"curves": curves, "scatter": one / SUMMED}


def _plenty(frozen: FrozenBackbone, width: int) -> list[tuple[int, float]]:
    """The diagnosis where there are so many rows that all directions are kept.

    Measured where that begins; twice as far it is as much longer as with a quarter of features and images.
    """
    begins = round(8 * width / 0.8 * ROOMY)
    at = _stages(frozen, begins, width)["diagnosis"]
    few = width // NARROW
    once, twice = (_stages(frozen, times * begins // NARROW, few)["diagnosis"] for times in (1, 2))
    return [(begins, at), (2 * begins, at * max(1.0, twice / once))]


def _stages(frozen: FrozenBackbone, count: int, width: int) -> dict[str, float]:
    """Seconds of what comes after the features."""
    seen, dataset = made_up(count, width, np.random.default_rng(0))
    labels = np.array([int(sample.label) for sample in dataset.samples])
    split = make_split(dataset, seen, 0.2, 0) if count < 1000 else _split(labels)
    timer = StageTimer()
    if width == frozen.network.shape(FEATURES)[0]:
        fit_features(frozen, dataset, seen, split, FitSettings(diagnose=True), timer)
        return timer.seconds
    return _without_network(dataset, seen, split)


def _split(labels: Any) -> Any:
    """A fifth of all at random, without the search for near copies."""
    from headstart.data.split import Split

    test = np.random.default_rng(0).random(len(labels)) < 0.2
    alone = np.arange(len(labels))
    return Split(tuple(map(str, range(CLASSES))), labels, ~test, test, alone, "", [], 0, alone)


def _without_network(dataset: ImageDataset, seen: Features, split: Any) -> dict[str, float]:
    """The diagnosis alone, of features that no network gives."""
    from headstart.diagnose.diagnose import FittedHead, diagnose_head
    from headstart.learn.heads import fit_head_on_split
    from headstart.learn.unknown import fit_unknown

    train = np.flatnonzero(split.train)
    fitted = fit_head_on_split(seen, split, kind="lda", prior="flat", seed=0)
    x = Design(seen.values, train, sqrt=fitted.head.sqrt)
    _, typical = fit_unknown(x, split.labels[train], split.groups[train], fitted, 0)
    known = FittedHead(dataset, seen.values, seen.thumbnails, split, fitted, typical, 0)
    return {"diagnosis": seconds_of(lambda: diagnose_head(known), 1)}


def of_folders(count: int) -> dict[str, float]:
    """Seconds of an image in the list of a folder, and its bytes."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "photos"
        for label in ("a", "b"):
            (root / label).mkdir(parents=True)
            for number in range(count // 2):
                (root / label / f"IMG_{number:06d}.jpg").touch()
        listed = seconds_of(lambda: write_list(Source(str(root)).open(), Path(place) / "lists")) / count
        (lines,) = (Path(place) / "lists").glob("*.jsonl")
        return {"listed": listed, "line_bytes": lines.stat().st_size / count}


def of_a_unit(few: int, many: int) -> float:
    """Seconds of a processor in which one process hands out a unit and hears of it; the workers have nothing to do."""

    class Idle:
        def __init__(self, shared: Any, threads: int) -> None:
            pass

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"number": batch["unit"]}

    with cluster("ray"):
        pool = Pool(max(1, cores() - 1), 1, "fp32")
        for _ in pool.results(Idle, few, None):  # the first one starts what later ones find
            pass
        taken = []
        for units in (few, many):
            begun = time.process_time()
            for _ in pool.results(Idle, units, None):
                pass
            taken.append(time.process_time() - begun)
    return max(LEAST, (taken[1] - taken[0]) / (many - few))


def memory_of_split(few: int, many: int) -> float:
    """Bytes that the task of the split holds for an image, at most, of what grows with the number of images."""
    return max(0.0, (_peak(many) - _peak(few)) / (many - few))


def _peak(count: int) -> int:
    seen, dataset = made_up(count, 4, np.random.default_rng(0))
    rows = Rows.of(dataset.samples, 4)
    rows.features[:], rows.thumbnails[:], rows.formats[:] = seen.values, seen.thumbnails, seen.formats
    rows.keys[:] = np.frombuffer(b"".join(seen.keys), np.uint8).reshape(count, -1)
    with tempfile.TemporaryDirectory() as place:
        unit = Unit("", "a" * 32, "b" * 32, count, listed=True)
        work = Work(Plan(Source("made-up"), (unit,)), None, "fp32", {}, Path(place))  # type: ignore[arg-type]
        write_shard(work.path(unit), rows, {})
        del seen, dataset, rows
        tracemalloc.start()
        try:
            whole, features = whole_of(work, [Done(0, count, count)])
            make_split(whole, features, 0.2, 0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
