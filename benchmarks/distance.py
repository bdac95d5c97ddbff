"""How far well-known images are from ImageNet's, by the batch norms of a network: python benchmarks/distance.py

Each set once with 64 images and once with 16, which should give nearly the same.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from harness import Goal, arguments, finish, shared

BACKBONE = "efficientnet_lite0"
SETS = {  # five of photos, then other pictures
    "other photos of ImageNet's classes": "imagenet_sample",
    "Caltech-101's objects": "caltech101",
    "photos of clutter": "caltech101_background",
    "photos of pets": "oxford_pets",
    "photos of cats and dogs": "cats_dogs",
    "leaves on black": "apple_leaves",
    "CIFAR-10's pictures of 32 pixels": "cifar10/test.parquet",
    "solar cells in infrared": "elpv",
    "handwritten digits": "mnist",
    "noise": "noise",
}
COUNTS = (64, 16)


def main() -> None:
    """A line for each set."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    options = parser.parse_args()
    import headstart as hs
    from headstart.core.spread import evenly_spread
    from headstart.diagnose.distance import distance_to_imagenet

    network = hs.pretrained(BACKBONE, progress=False).network
    print(f"{BACKBONE:<38}{'64 images':>12}{'16 images':>12}{'seconds':>10}")
    found: dict[str, dict[str, Any]] = {}
    for what, where in SETS.items():
        dataset = images_of(where)
        row = found[what] = {}
        for count in COUNTS:
            begun = time.perf_counter()
            one = distance_to_imagenet(dataset, np.array(evenly_spread(range(len(dataset)), count)), network)
            row |= {f"of {count}": one.distance if one else None, f"seconds of {count}": time.perf_counter() - begun}
        print(f"{what:<38}{row['of 64']:>12.3f}{row['of 16']:>12.3f}{row['seconds of 64']:>10.2f}", flush=True)
    values = [row["of 64"] for row in found.values()]
    goals = [
        Goal("the nearest of other pictures over the farthest of photos", min(values[5:]) / max(values[:5]), least=2),
        Goal("the nearest of other photos over those of ImageNet's classes", min(values[1:]) / values[0], least=1),
        Goal(
            "the largest change to 16 images",
            max(abs(row["of 64"] - row["of 16"]) for row in found.values()),
            most=0.02,
        ),
    ]
    finish("distance", {"backbone": BACKBONE, "distances": found}, goals, options)


def images_of(where: str) -> Any:
    """A data set, of noise too."""
    from headstart.data.inputs import unlabelled_dataset
    from headstart.data.sources import open_source

    if where == "noise":
        return unlabelled_dataset(np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), np.uint8))
    if where == "elpv":
        return open_source(where)
    path = shared("data", *where.split("/"))
    if where in ("imagenet_sample", "caltech101_background"):  # photos without labels
        return unlabelled_dataset(path)
    return open_source(path)


if __name__ == "__main__":
    main()
