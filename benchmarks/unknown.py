"""Photos of other things against held-out photos of the known kind: python benchmarks/unknown.py"""

from __future__ import annotations

import argparse
import json
import os
from datetime import date
from pathlib import Path
from subprocess import run

import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.catalogue import DEFAULT, load_pretrained
from headstart.backbones.weights import weights_digest
from headstart.engines.fast import FastNetwork
from headstart.learn.calibrate import softmax
from headstart.learn.features import extract
from headstart.learn.heads import fit_head
from headstart.learn.regularisation_path import Design
from headstart.learn.unknown import fit_unknown

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data"
SETS = ("cats_dogs", "apple_leaves", "oxford_pets", "caltech101", "elpv")


def main() -> None:
    """Fit on each set (and on half of a set's classes), and rank its held-out photos against foreign ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/unknown.json")
    out = parser.parse_args().out
    features = {name: _features(name) for name in (*SETS, "caltech101_background")}
    rows = []
    for known in SETS:
        for foreign in features:
            if foreign != known and not (known == "caltech101" and foreign == "caltech101_background"):
                rows.append(_pair(known, foreign, features[known], features[foreign][0]))
    for known in ("oxford_pets", "caltech101"):  # other kinds of the same thing
        values, labels = features[known]
        half = np.isin(labels, np.unique(labels)[::2])
        rows.append(_pair(known, "its other half", (values[half], labels[half]), values[~half]))
    print(f"{'known':<14}{'foreign':<24}{'AUROC':>8}{'largest p':>11}{'found':>8}{'false alarms':>14}")
    for row in rows:
        print(
            f"{row['known']:<14}{row['foreign']:<24}{row['auroc']:8.3f}{row['auroc_probability']:11.3f}"
            f"{row['found']:8.3f}{row['false_alarms']:14.3f}"
        )
    whole = [row for row in rows if row["foreign"] != "its other half"]
    mean = {
        key: float(np.mean([row[key] for row in whole]))
        for key in ("auroc", "auroc_probability", "found", "false_alarms")
    }
    print(f"mean of the {len(whole)} pairs of sets: " + ", ".join(f"{key} {value:.3f}" for key, value in mean.items()))
    commit = run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"date": str(date.today()), "commit": commit, "mean": mean, "pairs": rows}, indent=1) + "\n"
    )


def _features(name: str) -> tuple[NDArray[np.float16], NDArray[np.str_]]:
    place = DATA / name
    trunk = load_pretrained(DEFAULT, head=False)
    if name == "caltech101_background":
        photos = sorted(str(path) for path in place.rglob("*.jpg"))
        from headstart.data.sources import from_pairs

        table = from_pairs(photos, ["clutter"] * len(photos))
    else:
        table = hs.open_source(str(place) if place.exists() else name)
    network = FastNetwork(trunk.blueprint, trunk.weights, trunk.spec)
    found = extract(table, network, weights_digest(trunk.weights))
    return found.values[found.usable], np.array([sample.label for sample in table.samples])[found.usable]


def _pair(
    known: str,
    foreign: str,
    inside: tuple[NDArray[np.float16], NDArray[np.str_]],
    outside: NDArray[np.float16],
) -> dict[str, float | str]:
    values, names = inside
    labels = np.unique(names, return_inverse=True)[1]
    test = np.random.default_rng(0).random(len(labels)) < 0.25
    train = np.flatnonzero(~test)
    fitted = fit_head(values, labels[train], int(labels.max()) + 1, rows=train, sqrt=True)
    unknown, _ = fit_unknown(Design(values, train, sqrt=True), labels[train], np.arange(len(train)), fitted)

    def scores(rows: NDArray[np.float16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        probabilities = softmax(fitted.head.logits(rows))
        x = Design(rows, sqrt=True)[np.arange(len(rows))]
        return unknown.score(x, probabilities), probabilities.max(axis=1)

    (inner, inner_p), (outer, outer_p) = scores(values[test]), scores(outside)
    return {
        "known": known,
        "foreign": foreign,
        "auroc": _auroc(inner, outer),
        "auroc_probability": _auroc(inner_p, outer_p),
        "found": float((outer < unknown.threshold).mean()),
        "false_alarms": float((inner < unknown.threshold).mean()),
    }


def _auroc(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    """The chance that a value of ``above`` is larger than one of ``below``; ties count half."""
    ordered = np.sort(below)
    wins = np.searchsorted(ordered, above, "left") + np.searchsorted(ordered, above, "right")
    return float(wins.mean() / (2 * len(below)))


if __name__ == "__main__":
    main()
