"""Seconds and peak memory of a fit on 1 000 to 50 000 images of CIFAR-10: python benchmarks/growth.py"""

from __future__ import annotations

import functools
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import HEADSTART, Goal, arguments, finish, in_child, median, shared, timed

SIZES = (1000, 5000, 20_000, 50_000)


def main() -> None:
    """Fit on ever more images, each time in a process of its own with an empty cache."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument(
        "--pixels", type=int, default=64, help="224 is the backbone's own size, and takes ten times as long"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    if options.quick:
        options.pixels, options.sizes = 32, (300, 900)
    source = shared("data", "cifar10", "train.parquet")
    width = in_child(_width)
    print(f"{options.pixels} px; memory in MB of 10⁶ bytes; the matrix is images × {width} features × 2 bytes, as held")
    print(
        f"{'images':>8}{'seconds':>9}{'work':>8}{'work/1000':>11}{'peak':>7}{'matrix':>8}{'beside':>8}  work by stage"
    )
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "cifar.parquet"
            in_child(functools.partial(_write, source, data, size))
            command = (*HEADSTART, "fit", str(data), "--pixels", str(options.pixels), "--overwrite", "--json")
            runs = [timed((*command, "--out", str(Path(folder) / "model"))) for _ in range(options.repeats)]
        row = {
            "images": size,
            "seconds": median([run.seconds for run in runs]),
            "work": median([run.work for run in runs]),
            "peak_mb": max(run.peak_mb for run in runs),
            "matrix_mb": size * width * 2 / 1e6,
            "stages": {name: median([run.stages[name] for run in runs]) for name in runs[0].stages},
            "accuracy": runs[0].output["accuracy"],
        }
        row["beside_mb"] = row["peak_mb"] - row["matrix_mb"]
        rows.append(row)
        line = f"{size:8}{row['seconds']:9.1f}{row['work']:8.1f}{row['work'] / size * 1000:11.2f}{row['peak_mb']:7.0f}"
        stages = ", ".join(f"{name} {took:.1f}" for name, took in row["stages"].items() if took >= 0.05)
        print(f"{line}{row['matrix_mb']:8.0f}{row['beside_mb']:8.0f}  {stages}", flush=True)
    goals = [Goal("largest memory beside the matrix, MB", max(row["beside_mb"] for row in rows), most=600)]
    tail = rows[-3:]  # without the smallest, where what every fit costs would hide how the rest grows
    if len(tail) > 1:
        power = _power([row["images"] for row in tail], [row["work"] for row in tail])
        goals.append(Goal(f"work from {tail[0]['images']} images on grows as the number to the power", power, most=1.1))
    finish("growth", {"pixels": options.pixels, "features": width, "sizes": rows}, goals, options)


def _power(images: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms; 1 is linear."""
    x, y = [math.log(value) for value in images], [math.log(value) for value in seconds]
    return statistics.linear_regression(x, y).slope


def _width() -> int:
    from headstart.backbones.blueprint import FEATURES
    from headstart.backbones.catalogue import DEFAULT, find_backbone

    backbone = find_backbone(DEFAULT)
    return backbone.blueprint().trunk(backbone.layers).shapes()[FEATURES][0]


def _write(source: Path, target: Path, size: int) -> None:
    """The first images, which come in no order, as a table like the one they are from."""
    from pyarrow import parquet

    parquet.write_table(parquet.read_table(source).slice(0, size), target, row_group_size=1000)


if __name__ == "__main__":
    main()
