"""Every training trick with and without, on small labs of real photos: python benchmarks/tricks.py"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness import RESULTS, Goal, arguments, finish, median
from headstart.core.processors import cores
from headstart.train.recipe import Recipe, preset
from trick_labs import LABS, Outcome, Setting, proposed_rate, train
from trick_tables import PAGE, filled, optimiser_table, trick_table

# no trick at all: what is tried is added to this, alone
BARE = Recipe(
    epochs=12,
    optimiser="adamw",
    learning_rate=2e-3,
    warm_up=0.1,
    layer_decay=1.0,
    weight_decay=0.0,
    dropout=0.0,
    augmentation="none",
    clip=0.0,
    patience=0,
    averaging="none",
    precision="fp32",
    unfreeze="all",
    batch_norm="train",
)
PHOTOS = Setting("photos", BARE)
DIGITS = Setting("digits", BARE).but(epochs=10, learning_rate=1e-3)
DEEP = DIGITS.but(network="deep", optimiser="momentum", learning_rate=0.005, schedule="constant", warm_up=0.0)
LEAVES = Setting("leaves", BARE).but(epochs=8, learning_rate=3e-4, batch_norm="frozen")
PLAIN = PHOTOS.but(network="plain", optimiser="momentum", learning_rate=0.02)
CELLS = Setting("cells", LEAVES.recipe).but(epochs=16, schedule="constant", warm_up=0.0, keep="best")
FEW = PHOTOS.but(each=50, epochs=48, schedule="constant", warm_up=0.0, keep="best")
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # those of "adam" and "adamw" are a tenth

SHARE_FLAGGED: dict[str, dict[str, float]] = {"no regularisation": {"least": 1}, "regularised": {"most": 0}}

Changes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Trick:
    """Settings that differ in one thing; the first is what the others are held against."""

    name: str
    base: Setting
    changes: Changes
    steps: bool = False  # whether it is about how fast the training loss falls


def _each(field: str, *values: Any) -> dict[str, dict[str, Any]]:
    return {str(value): {field: value} for value in values}


TRICKS = (
    Trick("epochs", PHOTOS, _each("epochs", 3, 6, 12, 24)),
    Trick("batch size", PHOTOS, _each("batch_size", 32, 16, 128, 512)),
    Trick("learning rate", PHOTOS, _each("learning_rate", 2e-3, 2e-4, 2e-2, 2e-1), steps=True),
    Trick(
        "momentum",
        DIGITS.but(learning_rate=0.02, schedule="constant", warm_up=0.0),
        {
            "sgd, rate 0.02": {"optimiser": "sgd"},
            "momentum, rate 0.02": {"optimiser": "momentum"},
            "sgd, rate 0.2": {"optimiser": "sgd", "learning_rate": 0.2},
        },
        steps=True,
    ),
    Trick(
        "schedule",
        PHOTOS.but(learning_rate=1e-2, warm_up=0.0),
        {
            "constant": {"schedule": "constant"},
            "step": {"schedule": "step"},
            "cosine": {"schedule": "cosine"},
            "one_cycle, warm_up 0.3": {"schedule": "one_cycle", "warm_up": 0.3},
        },
    ),
    Trick(
        "warm-up, from scratch",
        DEEP.but(optimiser="adamw", learning_rate=5e-3, schedule="cosine"),
        _each("warm_up", 0.0, 0.1, 0.3),
    ),
    Trick("warm-up, fine-tuning", LEAVES.but(learning_rate=1e-3), _each("warm_up", 0.0, 0.1, 0.3)),
    Trick("layer decay, rate 3e-4", LEAVES, _each("layer_decay", 1.0, 0.8, 0.6)),
    Trick("layer decay, rate 2e-3", LEAVES.but(learning_rate=2e-3), _each("layer_decay", 1.0, 0.8, 0.6)),
    Trick("weight decay, adamw", PHOTOS, _each("weight_decay", 0.0, 0.01, 0.1, 1.0)),
    Trick(
        "weight decay, momentum",
        PHOTOS.but(optimiser="momentum", learning_rate=0.05),
        _each("weight_decay", 0.0, 5e-4, 5e-3, 5e-2),
    ),
    Trick("dropout, digits", DIGITS, _each("dropout", 0.0, 0.3, 0.5)),
    Trick("dropout, leaves", LEAVES, _each("dropout", 0.0, 0.2, 0.5)),
    Trick("label smoothing", PHOTOS, _each("label_smoothing", 0.0, 0.1)),
    Trick("label smoothing, 20 % of the labels wrong", PHOTOS.but(wrong=0.2), _each("label_smoothing", 0.0, 0.1, 0.3)),
    Trick("augmentation, photos", PHOTOS.but(epochs=24), _each("augmentation", "none", "flips", "light", "strong")),
    Trick("augmentation, digits", DIGITS, _each("augmentation", "none", "flips", "light")),
    Trick("augmentation, leaves", LEAVES, _each("augmentation", "none", "flips", "light", "strong")),
    Trick(
        "views",
        LEAVES.but(augmentation="light"),
        {
            "a fresh view each epoch": {},
            **{f"{count} cached": {"cached": True, "views": count} for count in (1, 2, 4)},
        },
    ),
    Trick(
        "clip",
        DEEP.but(learning_rate=0.1),
        _each("clip", 0.0, 1.0, 0.1),
        steps=True,
    ),
    Trick(
        "early stopping",
        FEW,
        {
            "the last weights": {"keep": "last"},
            "the best snapshot": {},
            "the best snapshot, patience 3": {"patience": 3},
        },
    ),
    Trick("averaging, constant rate", PHOTOS.but(schedule="constant"), _each("averaging", "none", "ema")),
    Trick("averaging, cosine", PHOTOS, _each("averaging", "none", "ema", "snapshots")),
    Trick("averaging, leaves", LEAVES.but(learning_rate=1e-3), _each("averaging", "none", "ema", "snapshots")),
    Trick("precision", LEAVES, _each("precision", "fp32", "bf16")),
    Trick(
        "initialisation",
        DEEP,
        {
            "normal, σ = 0.01": {"initialisation": "normal", "spread": 0.01},
            "normal, σ = 0.05": {"initialisation": "normal"},
            "uniform, σ = 0.05": {"initialisation": "uniform"},
            "normal, σ = 1": {"initialisation": "normal", "spread": 1.0},
            **{name: {"initialisation": name} for name in ("xavier", "xavier_uniform", "he", "he_uniform")},
        },
        steps=True,
    ),
    Trick(
        "unfreeze",
        LEAVES,
        {
            "the closed-form head": {"keep": "start"},
            **{name: {"unfreeze": name} for name in ("head", "top", "all")},
        },
    ),
    Trick("adversarial", LEAVES, {"none": {}, "1 level of 255": {"adversarial": 1.0}}),
    Trick("batch norm, fine-tuning", LEAVES, _each("batch_norm", "train", "frozen")),
    Trick("batch norm, its statistics from scratch", PHOTOS, _each("batch_norm", "frozen", "train")),
    Trick(
        "batch norm, the network",
        PHOTOS,
        {
            "without": {"network": "plain"},
            "with": {},
            "without, rate 0.02": {"network": "plain", "learning_rate": 0.02},
            "with, rate 0.02": {"learning_rate": 0.02},
        },
        steps=True,
    ),
    Trick(
        "input normalisation, without batch norm",
        PLAIN,
        _each("pixels", "0 to 255", "0 to 1", "standardised"),
        steps=True,
    ),
    Trick(
        "input normalisation, with batch norm",
        PHOTOS.but(optimiser="momentum", learning_rate=0.02),
        _each("pixels", "0 to 255", "0 to 1", "standardised"),
        steps=True,
    ),
    Trick("more photos", PHOTOS, {f"{10 * each} photos": {"each": each} for each in (12, 25, 50, 100)}),
    Trick(
        "overfitting, from scratch",
        FEW,
        {
            "no regularisation": {},
            "regularised": {
                "schedule": "cosine",
                "weight_decay": 0.05,
                "dropout": 0.3,
                "augmentation": "flips",
                "averaging": "ema",
            },
        },
    ),
    Trick(
        "overfitting, fine-tuning",
        CELLS,
        {
            "no regularisation": {},
            "as `careful`": {
                name: value
                for name, value in preset("careful").to_json().items()
                if name not in ("epochs", "patience", "precision", "seed")
            },
        },
    ),
)


def main() -> None:
    """Every trick in turn, each setting with as many seeds, on all cores, a thread each."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="WORD", help="what begins with one of these; the rest is kept as it is"
    )
    parser.add_argument("--page", action="store_true", help=f"nothing is run: the result goes into {PAGE.name}")
    options = parser.parse_args()
    if options.page:
        kept = json.loads((options.out or RESULTS / "tricks.json").read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), kept), encoding="utf-8")
        return
    seeds, quick, words = range(options.repeats), options.quick, tuple(options.only) or ("",)
    tricks = [trick for trick in TRICKS if trick.name.startswith(words)]
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        waiting: dict[Setting, list[Future[Outcome]]] = {}
        best = _optimisers(pool, seeds, quick) if "optimiser".startswith(words) else None
        for trick in tricks:
            for setting in _settings(trick, quick).values():
                if setting not in waiting:
                    waiting[setting] = [pool.submit(train, setting, seed) for seed in seeds]
        found = []
        for trick in tricks:
            outcomes = {
                name: [future.result() for future in waiting[setting]]
                for name, setting in _settings(trick, quick).items()
            }
            found.append(_summary(trick, outcomes))
            print("\n".join(["", *trick_table(found[-1])]), flush=True)
    labs = {name: {"data": lab.data, "pixels": lab.spec.size, "each": lab.each} for name, lab in LABS.items()}
    result: dict[str, Any] = {"labs": labs, "bare": BARE.to_json(), "optimisers": best, "tricks": found}
    if options.only and not quick:
        result |= _kept(options.out or RESULTS / "tricks.json", best, found)
    finish("tricks", result, _goals(result["tricks"]), options)


def _kept(path: Path, best: list[Any] | None, found: list[dict[str, Any]]) -> dict[str, Any]:
    """What is new, and of the earlier result what is not."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"optimisers": None, "tricks": []}
    by_name = {each["name"]: each for each in [*before["tricks"], *found]}
    return {
        "optimisers": best or before["optimisers"],
        "tricks": [by_name[trick.name] for trick in TRICKS if trick.name in by_name],
    }


def _goals(found: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """The watch flags what overfits, and not what is healthy; a fine-tuning on a hundred cells is a little of both."""
    goals = []
    for trick in (each for each in found if each["name"].startswith("overfitting")):
        for row in (each for each in trick["rows"] if each["setting"] in SHARE_FLAGGED):
            flagged = [verdict.startswith("Overfitting") for verdict in row["verdicts"]]
            what = f"{trick['name']}, {row['setting']}: share of {len(flagged)} runs that the watch flags"
            goals.append(Goal(what, sum(flagged) / len(flagged), **SHARE_FLAGGED[row["setting"]]))
    return goals


def _settings(trick: Trick, quick: bool) -> dict[str, Setting]:
    fast = {"quick": True, "epochs": 2} if quick else {}
    return {name: trick.base.but(**{**change, **fast}) for name, change in trick.changes.items()}


def _summary(trick: Trick, outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Median, least and most over the seeds, and what differs from the first setting by more than the seeds do."""
    first = next(iter(outcomes.values()))
    rows = []
    for name, some in outcomes.items():
        told = [_against(what, _of(first, f"test_{what}"), _of(some, f"test_{what}")) for what in ("error", "loss")]
        rows.append(
            {"setting": name, "against": "" if some is first else ", ".join(filter(None, told)) or "within the spread"}
            | {key: _three(_of(some, key)) for key in ("train_error", "train_loss", "val_error", "val_loss")}
            | {key: _three(_of(some, key)) for key in ("test_error", "test_loss")}
            | {"epochs": _of(some, "epochs"), "stopped": [each.stopped for each in some if each.stopped]}
            | {"reached": _median_steps(_of(some, "reached")) if trick.steps else None}
            | {"verdicts": [each.verdict for each in some], "curve": some[0].curve}
        )
    return {
        "name": trick.name,
        "lab": trick.base.lab,
        "recipe": trick.base.recipe.to_json(),
        "seeds": len(first),
        "rows": rows,
    }


def _of(outcomes: Iterable[Outcome], field: str) -> list[Any]:
    return [getattr(outcome, field) for outcome in outcomes]


def _three(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in (median(values), min(values), max(values))]


def _median_steps(values: Sequence[int]) -> int:
    """0: most of them never got there."""
    found = median([value or float("inf") for value in values])
    return 0 if found == float("inf") else int(found)


def _against(what: str, without: Sequence[float], with_it: Sequence[float]) -> str:
    """Lower or higher, where no seed of the one comes near one of the other."""
    if max(with_it) < min(without):
        return f"{what} lower"
    return f"{what} higher" if min(with_it) > max(without) else ""


def _optimisers(pool: ProcessPoolExecutor, seeds: Sequence[int], quick: bool) -> list[dict[str, Any]]:
    """Each optimiser at the rate, of several, with the lowest validation loss; and what the finder proposes."""
    fast = {"quick": True, "epochs": 2} if quick else {}
    runs: dict[str, dict[float, list[Future[Outcome]]]] = {}
    proposals = {}
    for optimiser in ("sgd", "momentum", "adam", "adamw"):
        factor = 0.1 if optimiser.startswith("adam") else 1.0
        some = {rate * factor: DIGITS.but(optimiser=optimiser, learning_rate=rate * factor, **fast) for rate in RATES}
        runs[optimiser] = {rate: [pool.submit(train, each, seed) for seed in seeds] for rate, each in some.items()}
        proposals[optimiser] = pool.submit(proposed_rate, next(iter(some.values())), 0)
    rows = []
    for optimiser, by_rate in runs.items():
        tried = {rate: [future.result() for future in futures] for rate, futures in by_rate.items()}
        rate = min(tried, key=lambda rate: median(_of(tried[rate], "val_loss")))
        row = {"optimiser": optimiser, "rate": rate, "proposed": proposals[optimiser].result()}
        row |= {f"test_{what}": _three(_of(tried[rate], f"test_{what}")) for what in ("error", "loss")}
        rows.append(row | {"tried": {f"{each:g}": _three(_of(some, "val_loss")) for each, some in tried.items()}})
    print("\n".join(optimiser_table(rows)), flush=True)
    return rows


if __name__ == "__main__":
    main()
