"""What a fit on a cluster costs, from what its parts cost on a few images: python benchmarks/scale_model.py

Each part is measured by itself: reading, decoding, the network, writing (a few hundred images, one thread and as many
as there are cores, since two of those may share one); start-up and what does not depend on the images (two whole fits
of few images); the split, the head and the diagnosis (features that are made up). `predict` adds them up for any number
of images and cores, `table` and `limits` for numbers that nobody has measured. `benchmarks/scale.py` compares it with
fits that were measured.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness import HEADSTART, arguments, finish, in_child, shared, timed
from headstart.scale.pairs import MANY

SMALL, LARGE = 500, 2000  # images of the two whole fits
CONSTANT = ("start", "plan", "golden", "report", "rest")  # stages that do not depend on the number of images
LINEAR = ("open", "save")
HELD_OUT = 0.2
SCORES, ROWS = 1_000_000, 10_000  # see `learn/heads.py`: on so many rows the strength is chosen
PLENTY = 8  # rows for each feature, beyond which the diagnosis keeps all directions
MODEL_BYTES = 16 + 256  # key and thumbnail that a model keeps of each training image
CORES, PRICE = 64, 0.05  # of a machine; dollars an hour of a core
TOO_LITTLE = 1e-10  # seconds that neither a pair nor a unit can take
DAFT = 0.58  # dollars for a million images, of a run that Daft published, at $0.80 an hour of an instance
MEMORY, PATIENCE = 256e9, 1.0  # bytes of the machine that the head is fitted on; hours that are bearable
REMEDIES = {
    "near copies: all pairs are compared, which takes more hours of cores than the features": "fit on a part, and "
    "predict on all",
    "memory of the split, one task": "no way around it yet; a machine with more memory for that task",
    "memory of the diagnosis, one task": "--no-report",
    "the list of a folder's photos, made by one task": "Parquet files, which need no list",
    "the model's folder (key and thumbnail of every training photo), 100 GB": "no way around it yet",
    "disk of the shards, 100 TB": "a network of fewer features",
}


@dataclass(frozen=True)
class Costs:
    """What was measured. Seconds; those of an image are of one core while all cores are busy."""

    cores: int  # where it was measured
    read: float
    decode: float
    forward: float
    store: float
    together: float  # the first three over their sum, as threads that do all of it
    alone: Mapping[str, float]  # the first three by one thread, while all else is idle
    image_bytes: float  # of a file
    shard_bytes: float  # of an image in a shard
    width: int  # features
    classes: int
    fixed: Mapping[str, float]  # seconds of a stage whatever the number of images
    each: Mapping[str, float]  # seconds of a stage for each image beside
    first: float  # seconds of the features beside the images: workers start, and open the network
    unit: float  # seconds in which one unit is handed out
    listed: float  # seconds to write and read one image's line of a list
    line_bytes: float  # of an image in a list
    pair: float  # seconds for a pair of images, of the search for near copies
    near_pair: float  # seconds more for a pair of which one image has a near neighbour
    near: float  # share of pairs that are near
    split: float  # seconds of the split for each image beside
    curves: Mapping[str, Sequence[tuple[int, float]]]  # head, evaluation, diagnosis: (images, seconds)
    scatter: float  # seconds of a core for the sums over one training image
    split_bytes: float  # memory of the split for each image

    @property
    def image(self) -> float:
        """Seconds of a core for one image's features."""
        return (self.read + self.decode + self.forward) * self.together + self.store


def predict(costs: Costs, images: int, cores: int, *, diagnose: bool = True) -> dict[str, float]:
    """Seconds of each stage of a fit on so many cores, and the ``total``.

    The split but for the pairs of very many images, and the head but for its sums, are one task on a machine like the
    one that was measured.
    """
    found = {stage: costs.fixed[stage] for stage in CONSTANT}
    found |= {stage: costs.fixed[stage] + costs.each[stage] * images for stage in LINEAR}
    found["features"] = costs.first + costs.image * images / cores
    found["split"] = costs.split * images + near_copies(costs, images, cores)
    found["head"] = _head(costs, images, cores)
    found["evaluation"] = along(costs.curves["evaluation"], images)
    found["diagnosis"] = _diagnosis(costs, images)
    for stage in () if diagnose else ("diagnosis", "report"):
        found[stage] = 0.0
    return found | {"total": sum(found.values())}


def near_copies(costs: Costs, images: float, cores: int) -> float:
    """Seconds of the search, which looks at all pairs, and once more at those of images with a near neighbour.

    The pairs of very many images are compared by all cores of the cluster, else by those of one machine.
    """
    looked_at = 1 - math.exp(-costs.near * images)
    share = costs.cores / cores if images >= MANY else 1.0
    return costs.pair * share * images**2 / 2 + costs.near_pair * looked_at * images**2


def along(points: Sequence[tuple[int, float]], images: float) -> float:
    """Seconds on straight lines through points that were measured, and on along the last of them."""
    after = next((place for place in range(1, len(points) - 1) if images <= points[place][0]), len(points) - 1)
    (low, below), (high, above) = points[after - 1], points[after]
    return max(below + (above - below) * (images - low) / (high - low), 0.0)


def _head(costs: Costs, images: int, cores: int) -> float:
    """Beyond so many images the strength is chosen on some of them, and only sums over all grow."""
    most = min(ROWS, SCORES / costs.classes) / (1 - HELD_OUT)
    if images <= most:
        return along(costs.curves["head"], images)
    return along(costs.curves["head"], most) + costs.scatter * (1 - HELD_OUT) * (images - most) / cores


def _diagnosis(costs: Costs, images: int) -> float:
    """Where there are plenty of rows for the features, all directions are kept, which takes longer."""
    plenty = costs.curves.get("plenty", ())
    many = bool(plenty) and images * (1 - HELD_OUT) > PLENTY * costs.width
    return along(plenty if many else costs.curves["diagnosis"], images)


def table(costs: Costs, images: int, machines: int) -> dict[str, float]:
    """What the features of very many images take, and beside them what one task of the fit would."""
    seconds = costs.image * images
    return {
        "images": images,
        "machines": machines,
        "hours of the features": (costs.first + seconds / (machines * CORES)) / 3600,
        "dollars of the features": seconds / 3600 * PRICE,
        "dollars a million": seconds / 3600 * PRICE / images * 1e6,
        "terabytes of images": costs.image_bytes * images / 1e12,
        "terabytes of shards": costs.shard_bytes * images / 1e12,
        "gigabytes of the model": MODEL_BYTES * (1 - HELD_OUT) * images / 1e9,
        "gigabytes of the split": costs.split_bytes * images / 1e9,
        "hours of near copies": near_copies(costs, images, machines * CORES) / 3600,
    }


def limits(costs: Costs) -> list[tuple[float, str]]:
    """From how many images on each part gives way, the first one first."""
    near = costs.pair * costs.cores / 2  # seconds of a core for all pairs, over the square of the images
    found = {
        "near copies: all pairs are compared, which takes more hours of cores than the features": costs.image / near,
        "memory of the split, one task": MEMORY / costs.split_bytes,
        "memory of the diagnosis, one task": MEMORY / (4 * costs.width * (1 - HELD_OUT)),
        "the list of a folder's photos, made by one task": PATIENCE * 3600 / costs.listed,
        "the model's folder (key and thumbnail of every training photo), 100 GB": 1e11 / MODEL_BYTES / (1 - HELD_OUT),
        "disk of the shards, 100 TB": 1e14 / costs.shard_bytes,
    }
    return sorted((images, name) for name, images in found.items())


def calibrate(data: Path, pixels: int | None, small: Sequence[Path], *, quick: bool = False) -> Costs:
    """Measure the parts.

    Args:
        data: images of the kind in question.
        small: two data sets of that kind, of few and of some more images.
    """
    parts = in_child(partial(_parts, data, pixels, quick=quick))
    whole = [whole_fit(path, pixels) for path in small]
    fixed, each = dict[str, float](), dict[str, float]()
    (one, few), (other, many) = whole
    for what in ("pair", "unit"):
        if parts[what] <= TOO_LITTLE:
            print(f"'{what}' was lost in noise: {parts[what]:g} s. What is said of it is not to be used.", flush=True)
    for stage in CONSTANT:
        fixed[stage] = (one[stage] + other[stage]) / 2
    for stage in LINEAR:
        each[stage] = max(0.0, (other[stage] - one[stage]) / (many - few))
        fixed[stage] = max(0.0, one[stage] - each[stage] * few)
    image = (parts["read"] + parts["decode"] + parts["forward"]) * parts["together"] + parts["store"]
    first = sum(max(0.0, run["features"] - image * images / parts["cores"]) for run, images in whole) / len(whole)
    return Costs(fixed=fixed, each=each, first=first, **parts)


def _parts(data: Path, pixels: int | None, *, quick: bool) -> dict[str, Any]:
    """In a process of its own, which may be large."""
    from scale_parts import measured_parts

    return measured_parts(data, pixels, quick=quick)


def whole_fit(data: Path, pixels: int | None, *more: str) -> tuple[dict[str, float], int]:
    """Seconds by stage of `headstart fit` on Ray with nothing kept from before, a whole process; and its images."""
    with tempfile.TemporaryDirectory() as folder:
        size = () if pixels is None else ("--pixels", str(pixels))
        places = ("--out", f"{folder}/model", "--store", f"{folder}/store")
        run = timed((*HEADSTART, "fit", str(data), *size, "--runner", "ray", *places, "--json", *more))
    stages = {"report": 0.0, "diagnosis": 0.0, **run.stages}
    return stages | {"rest": run.seconds - run.work, "total": run.seconds}, int(run.output["images"])


def show(costs: Costs) -> None:
    """The parts, and what would give way."""
    print(f"\nseconds of a core for one image, {costs.cores} cores busy; features {costs.width}")
    for name in ("read", "decode", "forward", "store", "image"):
        print(f"  {name:<10}{getattr(costs, name) * 1e3:9.3f} ms")
    print(f"  together, over the sum of the first three: {costs.together:.2f}")
    print(f"  {1 / costs.image:.0f} images a second a core; a file has {costs.image_bytes:.0f} bytes, ", end="")
    print(
        f"its part of a shard {costs.shard_bytes:.0f}; the split holds {costs.split_bytes:.0f} bytes of memory for it"
    )
    print(f"  near copies: {costs.pair * 1e9:.2f} ns a pair; a unit is handed out in {costs.unit * 1e3:.1f} ms,")
    for unit in (1024, 4096):
        most = unit / costs.unit if costs.unit else float("inf")
        print(f"    so with units of {unit} images one process is enough for {most * costs.image:.0f} cores")
    for images, machines in ((10**8, 16), (10**10, 1600)):
        print(f"\n{images:.0e} images on {machines} machines of {CORES} cores")
        for name, value in table(costs, images, machines).items():
            daft = f" (Daft's published run: {DAFT})" if name == "dollars a million" else ""
            print(f"  {name:<28}{value:,.3g}{daft}")
    print("\nwhat gives way first")
    for most, name in limits(costs):
        print(f"  {most:8.1e} images  {name}: {REMEDIES[name]}")


def main() -> None:
    """The parts for images of 64 pixels, and for photos."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    options = parser.parse_args()
    result = {name: asdict(costs) for name, costs in all_costs(options).items()}
    finish("scale_model", result, [], options)


def all_costs(options: argparse.Namespace) -> dict[str, Costs]:
    """Measured for both kinds of images, and shown."""
    from scale_data import cifar, photos

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        sizes = (100, 200) if options.quick else (SMALL, LARGE)
        shared("data", "cifar10")
        small = [in_child(partial(cifar, Path(folder) / f"{size}.parquet", size)) for size in sizes]
        found["images of 64 pixels"] = calibrate(small[1], 64, small, quick=options.quick)
        show(found["images of 64 pixels"])
        small = [in_child(partial(photos, Path(folder) / f"photos{size}", size)) for size in sizes]
        found["photos of 224 pixels"] = calibrate(small[1], None, small, quick=options.quick)
        show(found["photos of 224 pixels"])
    return found


if __name__ == "__main__":
    main()
