"""Networks trained from nothing, in all four trainers, on iris, digits and MNIST: python benchmarks/labs.py"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import HEADSTART, Goal, arguments, finish, median, shared, timed

TRAINERS = ("pytorch", "lightning", "tensorflow", "keras")
IRIS, DIGITS, MNIST = "iris", "digits", "mnist"
FLOORS = {IRIS: 0.95, DIGITS: 0.975, MNIST: 0.97}
FOLDS, SPLITS = 10, 5


@dataclass(frozen=True)
class Lab:
    """A network on a set."""

    data: str
    network: str
    options: tuple[str, ...] = ()
    splits: int = 1
    judged: bool = True  # else it is stated beside the others
    quick: tuple[str, ...] = field(default=())


LABS = (
    Lab(IRIS, "one layer", ("--hidden", "none", "--folds", str(FOLDS)), quick=("--folds", "2")),
    Lab(IRIS, "mlp 16", ("--hidden", "16", "--folds", str(FOLDS)), quick=("--folds", "2")),
    Lab(DIGITS, "mlp 512, 256", ("--network", "mlp"), SPLITS),
    Lab(DIGITS, "small_cnn", ("--network", "small_cnn"), SPLITS, judged=False),
    Lab(MNIST, "mlp 512, 256", ("--network", "mlp")),
)


def main() -> None:
    """Every network, set and trainer; ends with 1 where an accuracy is below its floor."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--sets", nargs="+", choices=FLOORS, default=list(FLOORS))
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    options = parser.parse_args()
    if options.quick:
        options.sets = [name for name in options.sets if name != MNIST]
    elif MNIST in options.sets:
        shared("data", MNIST)  # before any heading
    print(f"{'set':<8}{'network':<15}{'trainer':<12}{'accuracy':>9}{'floor':>7}{'seconds':>9}  measured on")
    results: list[dict[str, Any]] = []
    goals = []
    with tempfile.TemporaryDirectory() as folder:
        for lab in LABS:
            for trainer in options.trainers if lab.data in options.sets else ():
                found = run(lab, trainer, folder, options)
                results.append(found)
                floor = FLOORS[lab.data] if lab.judged else -float("inf")
                if lab.judged:
                    goals.append(Goal(f"{lab.data}, {lab.network}, {trainer}", found["accuracy"], least=floor))
                print(
                    f"{lab.data:<8}{lab.network:<15}{trainer:<12}{found['accuracy']:9.4f}"
                    f"{f'{floor:7.3f}' if lab.judged else '      –'}{found['seconds']:9.1f}  {words(found)}",
                    flush=True,
                )
    finish("labs", {"labs": results}, goals, options)


def run(lab: Lab, trainer: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network by one trainer: a process for each split."""
    data = str(shared("data", MNIST)) if lab.data == MNIST else lab.data
    fewer = (*lab.quick, "--recipe", str(short(Path(folder), lab))) if options.quick else ()
    runs = []
    for seed in range(2 if options.quick and lab.splits > 1 else lab.splits):
        out = ("--out", str(Path(folder) / "model"), "--seed", str(seed), "--trainer", trainer, "--overwrite", "--json")
        command = (*HEADSTART, "train", data, *lab.options, *fewer, *out)
        runs.append(timed(command, str(Path(folder) / "cache")))  # the split is the same for every trainer
    answers = [each.output for each in runs]
    values = answers[0]["folds"] or [float(answer["accuracy"]) for answer in answers]
    return {
        "set": lab.data,
        "network": lab.network,
        "trainer": trainer,
        "accuracy": sum(values) / len(values),
        "each": values,
        "folds": bool(answers[0]["folds"]),
        "nll": [answer["nll"] for answer in answers],
        "tested_on": [answer["tested_on"] for answer in answers],
        "best_epoch": [answer["best"] + 1 for answer in answers],
        "training_seconds": median([answer["stages"]["training"] for answer in answers]),
        "seconds": median([each.seconds for each in runs]),
        "recipe": answers[0]["recipe"],
    }


def short(folder: Path, lab: Lab) -> Path:
    """A recipe of two epochs."""
    path = folder / f"{lab.data}.json"
    path.write_text(f'{{"preset": "{"table" if lab.data == IRIS else "scratch"}", "epochs": 2}}', encoding="utf-8")
    return path


def words(found: dict[str, Any]) -> str:
    """What the accuracy is a mean of."""
    each: Sequence[float] = found["each"]
    if found["folds"]:
        return f"{len(each)} folds, {min(each):.3f} to {max(each):.3f}"
    if len(each) > 1:
        return f"{len(each)} splits, {min(each):.3f} to {max(each):.3f}"
    return f"{found['tested_on'][0]} photos"


if __name__ == "__main__":
    main()
