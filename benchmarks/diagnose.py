"""What the diagnosis costs, and whether it is right: python benchmarks/diagnose.py

cost: a fit of 10 000 training images and 10 classes; the diagnosis against the features, in the same run.
fit: `headstart fit` on cats and dogs with and without its report, whole processes by turns.
labels: 5 % of the labels are changed; how many of those are among the first 8 % of the list of suspects.
forecast: learning curves of parts of data sets, and the accuracy that twice the images really had.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import HEADSTART, Goal, arguments, finish, in_child, median, shared, timed

PARTS = ("cost", "fit", "labels", "forecast")
IMAGES, TEST = 10_000, 2_500
NETWORKS = ("efficientnet_lite0", "mobilenet_v2")  # of 2432 and 1280 features
FLIPPED, LISTED = 0.05, 0.08
FOUND = {"cats_dogs": 0.95, "apple_leaves": 0.95, "caltech101": 0.95, "elpv": 0.6}  # at least
CURVES = ("cats_dogs", "oxford_pets", "apple_leaves", "elpv", "caltech101")
SEEDS, LARGEST, FEWEST = 3, 3000, 60  # draws; training images of a curve at most, and at least
HALVES = (2, 4, 8)

Labels = NDArray[np.int_]
Part = Callable[[argparse.Namespace], tuple[Any, list[Goal]]]  # what it found, and the goals


def main() -> None:
    """All parts; ends with 1 where a goal is missed."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=3)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    options = parser.parse_args()
    parts: dict[str, Part] = {"cost": cost, "fit": fit, "labels": labels, "forecast": forecasts}
    # a process each: what is timed from outside must be larger than this one, which therefore imports nothing
    result, goals = {}, list[Goal]()
    for name in options.parts:
        result[name], met = in_child(partial(parts[name], options))
        goals += met
    finish("diagnose", result, goals, options)


def cost(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Goal]]:
    """Seconds of the features, the head and the diagnosis of one fit."""
    import headstart as hs

    whole = hs.open_source(str(shared("data", "cifar10", "train.parquet")))
    count = 250 if options.quick else IMAGES + TEST
    rows = np.random.default_rng(0).permutation(len(whole))[:count].tolist()
    weights = {"mobilenet_v2": str(shared("weights", "mobilenet_v2.timm.safetensors"))}
    found, goals = [], []
    print(f"{'':<20}{'features':>10}{'head':>8}{'diagnosis':>11}{'ratio':>8}")
    for name in NETWORKS:
        runs = []
        for _ in range(1 if options.quick else options.repeats):
            model = hs.fit(
                whole.part(rows), backbone=name, weights=weights.get(name), holdout=0.2, cache=False, progress=False
            )
            runs.append(model.record.seconds)
        ratio = median([run["diagnosis"] / run["features"] for run in runs])
        times = {stage: median([run[stage] for run in runs]) for stage in ("features", "head", "diagnosis")}
        print(f"{name:<20}{times['features']:>10.1f}{times['head']:>8.2f}{times['diagnosis']:>11.2f}{ratio:>8.1%}")
        found.append({"network": name, "images": model.record.train, **times, "ratio": ratio})
        goals.append(Goal(f"{name}: diagnosis, of the time of the features", ratio, most=0.15))
    return found, goals


def fit(options: argparse.Namespace) -> tuple[dict[str, float], list[Goal]]:
    """A cold fit of 820 photos, with its report and without."""
    data, seconds = str(shared("data", "cats_dogs")), {"--report": list[float](), "--no-report": list[float]()}
    for _ in range(1 if options.quick else 2 * options.repeats + 1):
        for option, own in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                own.append(timed([*HEADSTART, "fit", data, "--out", f"{folder}/model", "--json", option]).seconds)
    with_it, without = median(seconds["--report"]), median(seconds["--no-report"])
    print(f"\nfit, seconds: with its report {with_it:.2f}, without {without:.2f}")
    goal = Goal("fit: what the report adds, of the time without", with_it / without - 1, most=0.1)
    return {"with": with_it, "without": without}, [goal]


@dataclass(frozen=True, eq=False)
class FeaturesOf:
    """Features of a data set, and the rows of its training set and test set."""

    values: NDArray[np.float16]
    labels: Labels
    train: Labels
    test: Labels
    groups: Labels

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.labels.max()) + 1


@cache
def features_of(name: str) -> FeaturesOf:
    """Those of the default backbone, and the split of a fit."""
    from headstart.data.depth import common_levels
    from headstart.data.inputs import labelled_dataset
    from headstart.data.split import make_split
    from headstart.workflows.backbone_features import FitSettings, FrozenBackbone

    dataset = labelled_dataset("elpv" if name == "elpv" else str(shared("data", name)), None)
    frozen = FrozenBackbone.open(NETWORKS[0], FitSettings(), common_levels(dataset))
    seen = frozen.features(dataset, cache=True, progress=None)
    split = make_split(dataset, seen, 0.2, 0)
    rows = np.flatnonzero(split.train), np.flatnonzero(split.test)
    return FeaturesOf(seen.values, split.labels, *rows, split.groups)


def labels(options: argparse.Namespace) -> tuple[dict[str, list[float]], list[Goal]]:
    """The share of changed labels that a person finds who looks at the first of the list."""
    from headstart.diagnose.wrong_labels import ranked
    from headstart.learn.calibrate import softmax
    from headstart.learn.heads import fit_head

    print(f"\nchanged labels among the first {LISTED:.0%} of the list")
    result, goals = dict[str, list[float]](), list[Goal]()
    for name, least in FOUND.items():
        seen, found = features_of(name), list[float]()
        rows = np.sort(np.concatenate([seen.train, seen.test]))
        for seed in range(1 if options.quick else SEEDS):
            rng = np.random.default_rng(seed)
            given = seen.labels[rows].copy()
            changed = rng.permutation(len(rows))[: round(FLIPPED * len(rows))]
            given[changed] = (given[changed] + rng.integers(1, seen.classes, len(changed))) % seen.classes
            head = fit_head(seen.values, given, seen.classes, rows=rows, sqrt=True, groups=seen.groups[rows], seed=seed)
            order = ranked(softmax(head.logits), given[head.rows])[: round(LISTED * len(head.rows))]
            judged = np.intersect1d(head.rows, changed)
            found.append(float(np.isin(head.rows[order], changed).sum() / len(judged)))
        result[name] = found
        print(f"{name:<20}" + "".join(f"{share:>8.1%}" for share in found))
        goals.append(Goal(f"{name}: share of the changed labels that is found", median(found), least=least))
    return result, goals


def forecasts(options: argparse.Namespace) -> tuple[dict[str, Any], list[Goal]]:
    """What was expected of twice the images against what came, and against no change at all."""
    rows = [row for name in (CURVES[:1] if options.quick else CURVES) for row in _forecasts_on(name)]
    errors = {key: float(np.mean([abs(row[key] - row["came"]) for row in rows])) for key in ("expected", "now")}
    covered = float(np.mean([row["low"] <= row["came"] <= row["high"] for row in rows]))
    print(f"\n{len(rows)} forecasts of twice the images: mean error {errors['expected']:.4f}, of no change "
          f"{errors['now']:.4f}; {covered:.1%} within the interval")  # fmt: skip
    goals = [
        Goal("forecasts: mean error, of that of no change", errors["expected"] / errors["now"], most=0.6),
        Goal("forecasts: share within the 95 % interval", covered, least=0.9),
    ]
    return {"rows": rows, "errors": errors, "covered": covered}, goals


def _forecasts_on(name: str) -> Iterator[dict[str, Any]]:
    from headstart.diagnose.learning_curve import HeldOut, learning_curve, nested
    from headstart.diagnose.refits import Refits
    from headstart.learn.heads import fit_head
    from headstart.learn.regularisation_path import Design

    seen = features_of(name)

    def head_of(rows: Labels) -> Any:
        return fit_head(seen.values, seen.labels[rows], seen.classes, rows=rows, sqrt=True, groups=seen.groups[rows])

    def wrong(head: Any, rows: Labels) -> NDArray[np.float64]:
        guesses = head.probabilities(seen.values, rows).argmax(axis=1)
        return np.asarray(guesses != seen.labels[rows], np.float64)

    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(seen.train)[:LARGEST]
        order = drawn[nested(seen.labels[drawn], rng)]
        for half in HALVES:
            some, twice = np.sort(order[: len(order) // half]), np.sort(order[: 2 * (len(order) // half)])
            if len(some) < max(FEWEST, 4 * seen.classes):
                continue
            fitted = head_of(some)
            x = Design(seen.values, some, sqrt=True)
            refits = Refits(x, seen.labels[some], seen.classes, fitted)
            test = Design(seen.values, seen.test, sqrt=True)
            held_out = HeldOut(refits.project(test), seen.labels[seen.test], wrong(fitted.head, seen.test))
            curve = learning_curve(refits, held_out, float(wrong(fitted.head, some).mean()), seed)
            if curve is None:
                continue
            came = 1 - float(wrong(head_of(twice).head, seen.test).mean())
            yield {
                "data": name, "images": len(some), "now": 1 - held_out.error, "expected": curve.twice.accuracy,
                "low": curve.twice.low, "high": curve.twice.high, "came": came,
            }  # fmt: skip


if __name__ == "__main__":
    main()
