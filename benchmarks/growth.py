"""Seconds and peak memory of a fit on 1 000 to 50 000 images: python benchmarks/growth.py"""

from __future__ import annotations

import os
import sys
import tempfile

from harness import HEADSTART, arguments, keep, shared, timed

SIZES = (1000, 5000, 20_000, 50_000)
LIMIT = 600  # MB beside the feature matrix


def main() -> None:
    """Fit on ever more of CIFAR-10, each in a process of its own with an empty cache."""
    import pyarrow.parquet as pq

    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--pixels", type=int, default=96, help="fewer than 224, so that the run takes minutes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    images = pq.read_table(shared("data", "cifar10", "train.parquet"))
    images = images.take([i for start in range(5000) for i in range(start, len(images), 5000)])  # classes in turn
    rows = []
    print(f"{'images':>8}{'seconds':>9}{'s / 1000':>10}{'peak MB':>9}{'features MB':>13}{'beside MB':>11}  stages")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as place:
            data = os.path.join(place, "cifar.parquet")
            pq.write_table(images.slice(0, size), data, row_group_size=1000)
            model = os.path.join(place, "model")
            run = timed((*HEADSTART, "fit", data, "--pixels", str(options.pixels), "--out", model, "--json"))
        features = size * 2432 * 2 / 1e6  # float16, as they are held
        beside = run.peak_mb - features
        rows.append({"images": size, "seconds": run.seconds, "peak_mb": run.peak_mb, "features_mb": features})
        stages = ", ".join(f"{name} {took:.1f}" for name, took in run.output["stages"].items() if took >= 0.1)
        line = f"{size:8}{run.seconds:9.1f}{run.seconds / size * 1000:10.2f}{run.peak_mb:9.0f}"
        print(f"{line}{features:13.0f}{beside:11.0f}  {stages}", flush=True)
    keep("growth", {"pixels": options.pixels, "sizes": rows}, options.out)
    sys.exit(any(row["peak_mb"] - row["features_mb"] > LIMIT for row in rows))


if __name__ == "__main__":
    main()
