"""The head, its whole path and leave-one-out, against scikit-learn's LogisticRegressionCV: python benchmarks/head.py"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headstart as hs
from harness import arguments, keep, median, shared
from headstart.backbones.catalogue import DEFAULT, load_pretrained
from headstart.backbones.weights import weights_digest
from headstart.engines.fast import FastNetwork
from headstart.learn.calibrate import log_softmax
from headstart.learn.features import extract
from headstart.learn.heads import fit_head

SETS = ("cats_dogs", "elpv", "apple_leaves", "cifar10", "oxford_pets", "caltech101")
CIFAR = 2000
Floats = NDArray[np.float32]


def main() -> None:
    """Every set: accuracy and negative log-likelihood on a quarter held out, and seconds; then 10 000 images."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--max-seconds", type=float, default=600, help="after which the other side is stopped")
    parser.add_argument("--sets", nargs="+", default=SETS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    print(
        f"{'set':<14}{'K':>4}{'N':>6}{'seconds':>9}{'LRCV':>8}{'ratio':>8}{'accuracy':>10}{'LRCV':>8}{'NLL':>8}{'LRCV':>8}"
    )
    for name in options.sets:
        features, labels = _features(name)
        test = _quarter(labels)
        ours = [_ours(features, labels, test) for _ in range(options.repeats)]
        theirs = _theirs(features, labels, test, options.max_seconds)
        row = {"set": name, "classes": int(labels.max()) + 1, "images": int((~test).sum())} | ours[0]
        row["seconds"] = median([run["seconds"] for run in ours])
        row |= {f"lrcv_{key}": value for key, value in theirs.items()}
        row["ratio"] = theirs["seconds"] / row["seconds"]
        rows.append(row)
        stopped = (
            ""
            if theirs["accuracy"] is not None
            else f"   stopped after {options.max_seconds:.0f} s: the ratio is a lower bound"
        )
        figures = "".join(
            f"{row[key]:{width}.{digits}f}" if row[key] is not None else " " * (width - 1) + "-"
            for key, width, digits in (
                ("seconds", 9, 2), ("lrcv_seconds", 8, 1), ("ratio", 8, 1), ("accuracy", 10, 4),
                ("lrcv_accuracy", 8, 4), ("nll", 8, 3), ("lrcv_nll", 8, 3),
            )
        )  # fmt: skip
        print(f"{name:<14}{row['classes']:4}{row['images']:6}{figures}{stopped}", flush=True)
    both = [row for row in rows if row["lrcv_accuracy"] is not None]
    means = {
        key: float(np.mean([row[key] for row in both])) for key in ("accuracy", "lrcv_accuracy", "nll", "lrcv_nll")
    }
    print(
        f"mean of the {len(both)} sets that both finished: "
        + ", ".join(f"{key} {value:.4f}" for key, value in means.items())
    )
    keep("head", {"sets": rows, "means": means, "ten_thousand": _ten_thousand()}, options.out)


def _ten_thousand() -> dict[str, float]:
    """10 000 images, 10 classes: seconds of the head beside those of its features, extracted in this run."""
    table = hs.open_source(str(shared("data", "cifar10", "train.parquet")))
    table = table.part(range(0, len(table), 5))
    trunk = load_pretrained(DEFAULT, head=False)
    network = FastNetwork(trunk.blueprint, trunk.weights, trunk.spec)
    start = time.perf_counter()
    found = extract(table, network, weights_digest(trunk.weights), keep=False)
    extraction = time.perf_counter() - start
    labels = np.unique([sample.label for sample in table.samples], return_inverse=True)[1]
    result = {"extraction": extraction}
    for width in (1280, found.values.shape[1]):
        start = time.perf_counter()
        fit_head(found.values[:, :width], labels, 10, sqrt=True)
        result[f"head_{width}"] = time.perf_counter() - start
        seconds = result[f"head_{width}"]
        share = f"{seconds / extraction:.1%} of the {extraction:.1f} s of extraction"
        print(f"10 000 images × {width} features: head {seconds:.2f} s, {share}")
    return result


def _features(name: str) -> tuple[Floats, NDArray[np.int_]]:
    if name == "cifar10":
        table = hs.open_source(str(shared("data", "cifar10", "train.parquet")))
        table = table.part(np.random.default_rng(0).permutation(len(table))[:CIFAR].tolist())
    else:
        table = hs.open_source("elpv" if name == "elpv" else str(shared("data", name)))
    trunk = load_pretrained(DEFAULT, head=False)
    network = FastNetwork(trunk.blueprint, trunk.weights, trunk.spec)
    found = extract(table, network, weights_digest(trunk.weights))
    names = np.array([sample.label for sample in table.samples])[found.usable]
    return found.values[found.usable].astype(np.float32), np.unique(names, return_inverse=True)[1]


def _quarter(labels: NDArray[np.int_]) -> NDArray[np.bool_]:
    rng, test = np.random.default_rng(0), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: round(len(rows) / 4)]] = True
    return test


def _scores(logits: NDArray[Any], truth: NDArray[np.int_], seconds: float) -> dict[str, Any]:
    likelihood = log_softmax(logits.astype(np.float64))[np.arange(len(truth)), truth]
    return {
        "accuracy": float((logits.argmax(axis=1) == truth).mean()),
        "nll": float(-likelihood.mean()),
        "seconds": seconds,
    }


def _ours(features: Floats, labels: NDArray[np.int_], test: NDArray[np.bool_]) -> dict[str, Any]:
    start = time.perf_counter()
    fitted = fit_head(features, labels[~test], int(labels.max()) + 1, rows=np.flatnonzero(~test), sqrt=True)
    seconds = time.perf_counter() - start
    return _scores(fitted.head.logits(features[test]), labels[test], seconds)


def _theirs(features: Floats, labels: NDArray[np.int_], test: NDArray[np.bool_], patience: float) -> dict[str, Any]:
    """In a process of its own, so that it can be stopped."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_lrcv, args=(there, features, labels, test))
    child.start()
    if here.poll(patience):
        answer: dict[str, Any] = here.recv()
        child.join()
        return answer
    child.kill()
    child.join()
    return {"accuracy": None, "nll": None, "seconds": patience}


def _lrcv(answer: Connection, features: Floats, labels: NDArray[np.int_], test: NDArray[np.bool_]) -> None:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler

    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    scaler = StandardScaler().fit(features[~test])
    model = LogisticRegressionCV(Cs=7, cv=5, max_iter=200, scoring="neg_log_loss")
    model.fit(scaler.transform(features[~test]), labels[~test])
    seconds = time.perf_counter() - start
    logits = np.log(np.maximum(model.predict_proba(scaler.transform(features[test])), 1e-300))
    answer.send(_scores(logits, labels[test], seconds))


if __name__ == "__main__":
    main()
