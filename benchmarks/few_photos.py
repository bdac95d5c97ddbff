"""Fine-tuning on few photos as a user reads it, on photos that neither model has seen. A part of `finetune.py`."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import HEADSTART, Goal, shared, timed

SETS = ("cats_dogs", "apple_leaves")
SIZES = (8, 20, 50, 110, 270)  # photos a class, but at most `MOST` of it
MOST = 0.75
FRESH = 140  # others of each class, at most
FIGURES = {"accuracy": "accuracy", "nll": "NLL", "calibration_error": "ECE", "unknown": "unknown"}
# by how much the mean of a size may be worse than the given model's, and the largest share of known photos called so
WORSE, CALLED_UNKNOWN = {"accuracy": -0.005, "nll": 0.005, "calibration_error": 0.01}, 0.1


def few_photos(options: argparse.Namespace, place: Path) -> tuple[dict[str, Any], list[Goal]]:
    """Fit, fine-tune, and evaluate both, for each set, size and seed."""
    print(f"{'':<14}{'a class':<9}{'seed':<6}" + "".join(f"{name:<18}" for name in FIGURES.values()) + "chosen")
    sizes = SIZES[:1] if options.quick else SIZES
    rows = [
        _one(name, size, seed, place / f"{name}_{size}_{seed}")
        for name in SETS
        for size in sizes
        for seed in options.seeds
    ]
    means, goals = {}, []
    for size in sizes:
        own = [row for row in rows if row["size"] == size]
        means[size] = {key: [fmean(row[side][key] for row in own) for side in ("given", "tuned")] for key in FIGURES}
        print(f"{'mean':<14}{size:<15}" + _figures(means[size]))
        for key, most in WORSE.items():
            given, tuned = means[size][key]
            what, less = f"{size} a class, {FIGURES[key]}, fine-tuned less given", tuned - given
            goals.append(Goal(what, less, least=most) if most < 0 else Goal(what, less, most=most))
        called = means[size]["unknown"][1]
        goals.append(Goal(f"{size} a class, known photos called unknown", called, most=CALLED_UNKNOWN))
    print()
    return {"rows": rows, "means": means}, goals


def _one(name: str, size: int, seed: int, place: Path) -> dict[str, Any]:
    known, fresh, model, tuned = (str(place / part) for part in ("known", "fresh", "model", "tuned"))
    _lay_out(name, size, seed, place)
    timed((*HEADSTART, "fit", known, "--holdout", "0", "--out", model, "--seed", str(seed), "--overwrite", "--json"))
    found = timed((*HEADSTART, "finetune", model, known, "--out", tuned, "--overwrite", "--json"))
    sides = [timed((*HEADSTART, "evaluate", one, fresh, "--json")).output for one in (model, tuned)]
    row: dict[str, Any] = {"set": name, "size": size, "seed": seed, "seconds": found.seconds}
    row |= {key: found.output[key] for key in ("chosen", "folds", "images")}
    row |= {side: {key: of[key] for key in FIGURES} for side, of in zip(("given", "tuned"), sides, strict=True)}
    pairs = {key: [row[side][key] for side in ("given", "tuned")] for key in FIGURES}
    print(f"{name:<14}{size:<9}{seed:<6}{_figures(pairs)}{row['chosen']}", flush=True)
    return row


def _lay_out(name: str, size: int, seed: int, place: Path) -> None:
    """Links to so many photos of each class, drawn by lot, and to others."""
    import headstart as hs

    root = shared("data", name)
    draw, table = random.Random(seed), hs.open_source(root)
    for label in table.classes:
        own = [Path(root, sample.name).resolve() for sample in table.samples if sample.label == label]
        draw.shuffle(own)
        cut = min(size, int(MOST * len(own)))
        for part, photos in (("known", own[:cut]), ("fresh", own[cut : cut + FRESH])):
            folder = place / part / label
            folder.mkdir(parents=True)
            for number, photo in enumerate(photos):
                (folder / f"{number}{photo.suffix}").symlink_to(photo)


def _figures(pairs: dict[str, list[float]]) -> str:
    return "".join(f"{f'{given:.3f} → {tuned:.3f}':<18}" for given, tuned in pairs.values())
