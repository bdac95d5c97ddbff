"""The head, its whole path and leave-one-out, against scikit-learn's LogisticRegressionCV: python benchmarks/head.py"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from harness import Goal, arguments, finish, in_child, median, shared

SETS = ("cats_dogs", "elpv", "apple_leaves", "cifar10", "oxford_pets", "caltech101")
SOME, MANY = 2000, 10_000  # of CIFAR's images, as one set among the others and as a large one
LAST = 1280  # features of the last layer, which come first
STRENGTHS, FOLDS, STEPS = 7, 5, 200  # of LogisticRegressionCV


@dataclass(frozen=True)
class Photos:
    """A set as both sides get it."""

    features: NDArray[np.float16]  # (N, D)
    labels: NDArray[np.int_]  # (N,)
    test: NDArray[np.bool_]  # (N,) a quarter of every class
    seconds: float  # that the features took


@dataclass(frozen=True)
class Score:
    """How one side did on the quarter held out."""

    accuracy: float
    nll: float  # mean negative log-likelihood, nats
    seconds: float
    steps: int = 0  # of the longest fit of LogisticRegressionCV; STEPS means that it was not done


@dataclass(frozen=True)
class Row:
    """Both sides on one set."""

    name: str
    classes: int
    images: int  # fitted on
    head: Score
    lrcv: Score | None  # None where it was stopped
    ratio: float  # a lower bound where it was stopped
    threads: float | None  # seconds of LRCV with its folds side by side on all cores, which is not how it comes


def main() -> None:
    """Every set: accuracy and negative log-likelihood on a quarter held out, and seconds; then 10 000 images."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--max-seconds", type=float, default=900, help="after which LRCV is stopped on a set")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options = parser.parse_args()
    shared("data")  # before any heading
    pixels, many = (64, 500) if options.quick else (None, MANY)
    if options.quick:
        options.sets, options.max_seconds = ("cats_dogs", "oxford_pets"), 15
    print(
        f"LRCV: standardised features, {STRENGTHS} strengths, {FOLDS} folds, likelihood chooses, at most {STEPS} steps"
    )
    print("(its folds one after the other, as it comes; in brackets side by side on all cores)")
    print(f"{'':<23}{'seconds':>24}{'ratio':>16}{'accuracy':>18}{'NLL':>16}")
    print(f"{'set':<13}{'K':>4}{'N':>6}{'head':>8}{'LRCV':>16}{'':16}{'head':>10}{'LRCV':>8}{'head':>8}{'LRCV':>8}")
    rows, goals = [], []
    for name in options.sets:
        row = _compare(name, in_child(partial(_photos, name, SOME, pixels)), options.repeats, options.max_seconds)
        _show(row, options.max_seconds)
        rows.append(row)
        if least := 3 if row.classes <= 6 else 30 if row.classes >= 37 else 0:
            goals.append(Goal(f"times faster on {name}, {row.classes} classes", row.ratio, least=least))
    means = _means(rows)
    if means:
        print(
            f"mean of {means['sets']} sets that both finished: "
            + ", ".join(f"{k} {v:.4f}" for k, v in means.items() if k != "sets")
        )
        goals.append(Goal("mean accuracy less LRCV's", means["accuracy"] - means["LRCV accuracy"], least=0))
        goals.append(Goal("mean NLL less LRCV's", means["NLL"] - means["LRCV NLL"], most=0))
    large = in_child(partial(_photos, "cifar10", many, pixels))
    seconds = {width: _seconds_of_head(large, width, options.repeats) for width in (LAST, large.features.shape[1])}
    for width, took in seconds.items():
        print(f"{many} images × {width} features × 10 classes: head {took:.2f} s, extraction {large.seconds:.1f} s")
    goals.append(Goal(f"head with {LAST} features, share of the extraction", seconds[LAST] / large.seconds, most=0.1))
    result = {"sets": [asdict(row) for row in rows], "means": means}
    finish("head", result | {"large": {"images": many, "extraction": large.seconds, "head": seconds}}, goals, options)


def _compare(name: str, photos: Photos, repeats: int, patience: float) -> Row:
    """Each side in a process of its own, with all cores."""
    runs = in_child(partial(_head, photos, repeats))
    head = Score(runs[0].accuracy, runs[0].nll, median([run.seconds for run in runs]))
    lrcv = threads = None
    with suppress(TimeoutError):
        lrcv = in_child(partial(_lrcv, photos, side_by_side=False), patience)
        threads = in_child(partial(_lrcv, photos, side_by_side=True), patience).seconds
    ratio = (lrcv.seconds if lrcv else patience) / head.seconds
    return Row(name, int(photos.labels.max()) + 1, int((~photos.test).sum()), head, lrcv, ratio, threads)


def _show(row: Row, patience: float) -> None:
    head, lrcv = row.head, row.lrcv
    took = f"{lrcv.seconds:.1f}" if lrcv else f"> {patience:.0f}"
    ratio = f"{row.ratio:.1f}" if lrcv else f"> {row.ratio:.0f}"
    if row.threads:
        took, ratio = f"{took} ({row.threads:.1f})", f"{ratio} ({row.threads / head.seconds:.1f})"
    accuracy, nll = (f"{lrcv.accuracy:.4f}", f"{lrcv.nll:.3f}") if lrcv else ("-", "-")
    line = f"{row.name:<13}{row.classes:4}{row.images:6}{head.seconds:8.3f}{took:>16}{ratio:>16}"
    line += f"{head.accuracy:10.4f}{accuracy:>8}{head.nll:8.3f}{nll:>8}"
    if lrcv is None:
        line += f"  stopped after {patience:.0f} s, its start included: the ratio is a lower bound"
    elif lrcv.steps >= STEPS:
        line += "  LRCV was not done in its steps"
    print(line, flush=True)


def _means(rows: Sequence[Row]) -> dict[str, float]:
    both = [(row.head, row.lrcv) for row in rows if row.lrcv]
    if not both:
        return {}
    return {
        "sets": len(both),
        "accuracy": fmean(head.accuracy for head, _ in both),
        "LRCV accuracy": fmean(lrcv.accuracy for _, lrcv in both),
        "NLL": fmean(head.nll for head, _ in both),
        "LRCV NLL": fmean(lrcv.nll for _, lrcv in both),
    }


def _seconds_of_head(photos: Photos, width: int, repeats: int) -> float:
    """Fitted on all of the images, with the first ``width`` features."""
    nothing = np.zeros(len(photos.labels), bool)
    narrow = Photos(np.ascontiguousarray(photos.features[:, :width]), photos.labels, nothing, photos.seconds)
    return median([score.seconds for score in in_child(partial(_head, narrow, repeats))])


def _photos(name: str, many: int, pixels: int | None) -> Photos:
    """Features by the default backbone, with no store; of CIFAR's images as ``many``, in their own, mixed order."""
    import headstart as hs
    from headstart.backbones.catalogue import DEFAULT, load_pretrained
    from headstart.backbones.weights import weights_digest
    from headstart.engines.fast import FastNetwork
    from headstart.learn.features import extract

    if name == "cifar10":
        table = hs.open_source(shared("data", "cifar10", "train.parquet")).part(range(many))
    else:
        table = hs.open_source("elpv" if name == "elpv" else shared("data", name))
    trunk = load_pretrained(DEFAULT, pixels=pixels, head=False)
    network = FastNetwork(trunk.blueprint, trunk.weights, trunk.spec)
    start = time.perf_counter()
    found = extract(table, network, weights_digest(trunk.weights), keep=False)
    seconds = time.perf_counter() - start
    names = np.array([sample.label for sample in table.samples])[found.usable]
    labels = np.unique(names, return_inverse=True)[1]
    rng, test = np.random.default_rng(0), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: round(len(rows) / 4)]] = True
    return Photos(found.values[found.usable], labels, test, seconds)


def _head(photos: Photos, repeats: int) -> list[Score]:
    """Headstart's: every strength, leave-one-out, the choice, the temperature."""
    from headstart.learn.calibrate import softmax
    from headstart.learn.heads import fit_head

    train = np.flatnonzero(~photos.test)
    labels, classes, scores = photos.labels[train], int(photos.labels.max()) + 1, []
    for _ in range(repeats):
        start = time.perf_counter()
        fitted = fit_head(photos.features, labels, classes, rows=train, sqrt=True)
        seconds = time.perf_counter() - start
        scores.append(_score(softmax(fitted.head.logits(photos.features[photos.test])), photos, seconds))
    return scores


def _lrcv(photos: Photos, side_by_side: bool) -> Score:
    """As it comes: one fold after the other, all cores within each. ``side_by_side``, a core a fold, is faster."""
    from joblib import parallel_config
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    from headstart.core.processors import cores

    warnings.filterwarnings("ignore")  # of parameters that will change their names; steps are counted below
    features = photos.features.astype(np.float32)
    train, test = features[~photos.test], features[photos.test]
    start = time.perf_counter()
    scaler = StandardScaler().fit(train)
    model = LogisticRegressionCV(Cs=STRENGTHS, cv=FOLDS, max_iter=STEPS, scoring="neg_log_loss")
    jobs, inside = (cores(), 1) if side_by_side else (1, None)
    with parallel_config("threading", n_jobs=jobs), threadpool_limits(inside):
        model.fit(scaler.transform(train), photos.labels[~photos.test])
    seconds = time.perf_counter() - start
    return _score(model.predict_proba(scaler.transform(test)), photos, seconds, int(np.max(model.n_iter_)))


def _score(probabilities: NDArray[np.floating], photos: Photos, seconds: float, steps: int = 0) -> Score:
    truth = photos.labels[photos.test]
    if not len(truth):
        return Score(np.nan, np.nan, seconds, steps)
    likely = np.maximum(probabilities[np.arange(len(truth)), truth], np.finfo(np.float64).tiny)
    right = probabilities.argmax(axis=1) == truth
    return Score(float(right.mean()), float(-np.log(likely).mean()), seconds, steps)


if __name__ == "__main__":
    main()
