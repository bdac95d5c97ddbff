"""How well LogME foretells which network is the most accurate on one's photos: python benchmarks/transferability.py"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness import Goal, a_few, arguments, finish, shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.workflows.ranking import Candidate

SETS = ("cats_dogs", "apple_leaves", "oxford_pets")
OWN = {"mobilenet_v2": "mobilenet_v2.timm.safetensors", "squeezenet1_1": "squeezenet1_1.torchvision.safetensors"}
NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", *OWN)
SIZES = (96, 160, 224)
LEAST = 0.7  # rank correlation over all networks and sizes


def main() -> None:
    """Compare all networks at all sizes on each set, and correlate LogME with the leave-one-out accuracy."""
    options = arguments(__doc__, repeats=1).parse_args()
    print(f"{'':<14}{'all':>6}{'size alone':>12}" + "".join(f"{f'at {size} px':>11}" for size in SIZES) + "   lost")
    with tempfile.TemporaryDirectory() as place:
        sets = {name: _measure(name, options, Path(place)) for name in SETS}
    goals = [Goal(f"{name}, rank correlation of LogME", sets[name]["rho"], least=LEAST) for name in SETS]
    within = fmean(rho for one in sets.values() for rho in one["rho_within"].values())
    print(f"\nmean of the correlations at one size: {within:.2f}")
    finish("transferability", {"sets": sets, "rho_within": within}, goals, options)


def _measure(name: str, options: argparse.Namespace, place: Path) -> dict[str, Any]:
    import headstart as hs

    photos, own = shared("data", name), {network: shared("weights", file) for network, file in OWN.items()}
    if options.quick:
        photos = a_few(photos, place / name, 4)
    rows = hs.compare(photos, backbones=NETWORKS, pixels=SIZES, weights=own, progress=False).rows
    taken = max(rows, key=lambda row: row.logme)
    found: dict[str, Any] = {
        "rho": _rho(rows),
        "rho_of_size_alone": spearman([row.pixels for row in rows], [row.accuracy.value for row in rows]),
        "rho_within": {size: _rho([row for row in rows if row.pixels == size]) for size in SIZES},
        "lost": rows[0].accuracy.value - taken.accuracy.value,
        "images": rows[0].accuracy.images,
        "rows": [
            {"network": row.backbone, "pixels": row.pixels, "accuracy": row.accuracy.value, "logme": row.logme}
            for row in rows
        ],
    }
    sizes = "".join(f"{rho:>11.2f}" for rho in found["rho_within"].values())
    print(f"{name:<14}{found['rho']:>6.2f}{found['rho_of_size_alone']:>12.2f}{sizes}{found['lost']:>7.1%}", flush=True)
    return found


def _rho(rows: Sequence[Candidate]) -> float:
    return spearman([row.logme for row in rows], [row.accuracy.value for row in rows])


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation of the ranks, those of equal values shared."""
    import numpy as np

    def ranks(values: Sequence[float]) -> Any:
        _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(sizes) - (sizes + 1) / 2)[place]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


if __name__ == "__main__":
    main()
