"""What int8 gains and costs against fp32, whole fits of four data sets by turns: python benchmarks/precision.py"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness import HEADSTART, Goal, Run, a_few, arguments, finish, median, shared, timed

PRECISIONS = ("fp32", "int8")
DATA = ("cats_dogs", "apple_leaves", "oxford_pets", "caltech101")
FIGURES = ("accuracy", "nll", "calibration_error")
LOSS = 0.01  # of accuracy, on average


def main() -> None:
    """Fit in both precisions, with empty caches."""
    options = arguments(__doc__, repeats=3).parse_args()
    networks = {
        "efficientnet_lite0": (),
        "mobilenet_v2": ("--weights", str(shared("weights", "mobilenet_v2.timm.safetensors"))),
    }
    rows: dict[str, Any] = {}
    print(f"{'':<34}{'seconds':>16}{'ratio':>8}{'accuracy':>18}{'NLL':>18}{'ECE':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for data in DATA[:1] if options.quick else DATA:
            photos = shared("data", data)
            if options.quick:
                options.repeats, photos = 1, a_few(photos, Path(folder) / data, each=16)
            for network, weights in networks.items():
                words = ("fit", str(photos), "--out", str(Path(folder) / "model"), "--overwrite", "--json")
                row = _both((*words, "--backbone", network, *weights), options.repeats)
                rows[f"{data}, {network}"] = row
                cells = "".join(f"{row['fp32'][each]:>10.4f}{row['int8'][each]:>8.4f}" for each in FIGURES)
                seconds = f"{row['fp32']['seconds']:.1f} {row['int8']['seconds']:.1f}"
                print(f"{f'{data}, {network}':<34}{seconds:>16}{row['ratio']:>8.2f}{cells}", flush=True)
    lost = [row["fp32"]["accuracy"] - row["int8"]["accuracy"] for row in rows.values()]
    ratio = rows["cats_dogs, efficientnet_lite0"]["ratio"]
    goals = [
        Goal("times faster than fp32, whole fit of 820 photos, default network", ratio, least=1.5),
        Goal("accuracy lost, mean", sum(lost) / len(lost), most=LOSS),
    ]
    finish("precision", {"rows": rows}, goals, options)


def _both(command: tuple[str, ...], repeats: int) -> dict[str, Any]:
    runs: dict[str, list[Run]] = {name: [] for name in PRECISIONS}
    for _ in range(repeats):
        for name in PRECISIONS:
            runs[name].append(timed((*HEADSTART, *command, "--precision", name)))
    found: dict[str, Any] = {
        name: {"seconds": median([run.seconds for run in each]), "cpu": median([run.cpu for run in each])}
        | {figure: float(each[0].output[figure]) for figure in FIGURES}
        for name, each in runs.items()
    }
    pairs = zip(runs["fp32"], runs["int8"], strict=True)
    return found | {"ratio": median([exact.seconds / low.seconds for exact, low in pairs])}


if __name__ == "__main__":
    main()
