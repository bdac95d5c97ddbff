"""`headstart finetune`: what it gains, and how fast against plain Lightning and Keras: python benchmarks/finetune.py

Whole processes on two cores, each with an empty cache. ``accuracy``: the head alone and fine-tuned, by data set and
seed. ``speed``: the recipe `careful` against the same fine-tuning in plain Lightning and Keras: of the same layers, on
the same photos, with the same rate, augmentation and epochs. `careful` as it comes trains twice, the second time on the
validation photos too, which the other two do not; so ours is also timed without that. ``full``: likewise with nothing
frozen, on fewer photos, where it trains once as it comes. ``few``: from 8 photos a class on, the given model and what
comes of it, on photos that neither has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from few_photos import few_photos
from harness import HEADSTART, ROOT, Goal, Run, arguments, finish, in_child, median, shared, timed

PARTS = ("accuracy", "speed", "full", "few")  # keys of `WORK`
SETS = {"elpv": 0.25, "apple_leaves": 0.3, "cats_dogs": 0.0, "oxford_pets": 0.3}  # share held out; 0: its own test part
TEST, VALIDATION = 0.25, 0.15  # shares of the baselines' photos, the second of what the first leaves
FULL_EPOCHS = 2
CORES = 2
NETWORK = "efficientnet_lite0"
MODEL, RECIPE_FILE, NETWORK_FILE = "model", "recipe.json", "network.keras"  # where each race keeps them
OURS, ONCE = "headstart", "headstart, trained once"


@dataclass(frozen=True)
class Side:
    """One way to the same classifier, with what its processes did."""

    name: str
    runs: list[Run]
    epochs: int  # that were to be

    @property
    def seconds(self) -> list[float]:
        """Of each whole process; beyond the epochs that were run, as if each took as long as those after the first."""
        return [self._whole(run) for run in self.runs]

    @property
    def extrapolated(self) -> bool:
        """Whether some epochs were only reckoned."""
        return any("epochs" in run.output and self._times(run) for run in self.runs)

    @property
    def accuracy(self) -> float:
        """Mean over the runs."""
        return float(sum(run.output["accuracy"] for run in self.runs) / len(self.runs))

    def _times(self, run: Run) -> int:
        return self.epochs - len(run.output["epochs"])

    def _whole(self, run: Run) -> float:
        later = _later(run)
        return run.seconds + self._times(run) * (sum(later) / len(later))


def _later(run: Run) -> list[float]:
    """Seconds of the epochs after the first, in which Keras compiles; of the first, where there are no others."""
    seconds = [each["seconds"] if isinstance(each, dict) else each for each in run.output["epochs"]]
    return seconds[1:] or seconds


def main() -> None:
    """The parts that are asked for."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS], help="of the part accuracy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the parts accuracy and few")
    parser.add_argument("--data", choices=SETS, default="apple_leaves", help="of the parts speed and full")
    parser.add_argument("--epochs", type=int, help="of the baselines in the part speed; the rest is extrapolated")
    parser.add_argument("--photos", type=int, default=400, help="of the part full")
    parser.add_argument(
        "--jit", choices=("auto", "yes", "no"), default="auto", help="XLA in plain Keras; auto: its way"
    )
    options = parser.parse_args()
    if options.epochs is not None and options.epochs < 2:
        parser.error("--epochs: at least 2. The first, in which much is set up, says nothing of the others.")
    if options.quick:
        options.seeds, options.photos, options.epochs = options.seeds[:1], 60, 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # which all processes inherit
    os.environ |= {"OMP_NUM_THREADS": str(CORES), "TF_CPP_MIN_LOG_LEVEL": "3"}
    result: dict[str, Any] = {}
    goals: list[Goal] = []
    for part in PARTS:
        if part in options.parts:
            with tempfile.TemporaryDirectory() as folder:
                told, judged = WORK[part](options, Path(folder))
            result[part] = told
            goals += judged
    finish("finetune", result, goals, options)


# --- what it gains ----------------------------------------------------------------------------------------------------


def _accuracy(options: argparse.Namespace, place: Path) -> tuple[dict[str, Any], list[Goal]]:
    columns = {"": 14, "seed": 6, "head alone": 12, "fine-tuned": 12, "p": 9, "test": 6, "fit s": 8, "finetune s": 12}
    print("".join(f"{name:<{width}}" for name, width in columns.items()) + "chosen")
    rows = []
    for name in options.sets:
        data = name if name == "elpv" else str(shared("data", name))
        if options.quick:
            data = str(_lay_out(name, place / name, 60)[0])
        for seed in options.seeds:
            rows.append({"set": name, "seed": seed} | _gain(data, SETS[name], seed, place))
            print(_line(rows[-1]), flush=True)
    means = {name: _means([row for row in rows if row["set"] == name]) for name in options.sets}
    for name, (before, after) in means.items():
        print(f"{name:<14}{'mean':<6}{before:<12.4f}{after:.4f}")
    print()
    goals = [
        Goal(f"{name}, fine-tuned, mean accuracy", means[name][1], least=least)
        for name, least in {"elpv": 0.885, "apple_leaves": 0.98}.items()
        if name in means
    ]
    if "cats_dogs" in means:
        before, after = means["cats_dogs"]
        goals.append(Goal("cats_dogs, fine-tuned less the head alone", after - before, least=0))
    return {"rows": rows, "means": means}, goals


def _gain(data: str, holdout: float, seed: int, place: Path) -> dict[str, Any]:
    """Both commands, as they come."""
    model, tuned = str(place / "model"), str(place / "tuned")
    share = ("--holdout", str(holdout)) if holdout else ()
    fit = timed((*HEADSTART, "fit", data, "--out", model, *share, "--seed", str(seed), "--overwrite", "--json"))
    found = timed((*HEADSTART, "finetune", model, data, "--out", tuned, "--overwrite", "--json"))
    kept = ("before", "after", "chosen", "p", "images", "verdict", "epochs", "best", "stopped", "views", "stages")
    return {"fit_seconds": fit.seconds, "seconds": found.seconds, "peak_mb": found.peak_mb} | {
        key: found.output[key] for key in kept
    }


def _line(row: dict[str, Any]) -> str:
    before, after = (row[when]["accuracy"] for when in ("before", "after"))
    return (
        f"{row['set']:<14}{row['seed']:<6}{before:<12.4f}{after:<12.4f}{row['p']:<9.2g}{row['images']['test']:<6}"
        f"{row['fit_seconds']:<8.1f}{row['seconds']:<12.1f}{row['chosen']}"
    )


def _means(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    before, after = (sum(row[when]["accuracy"] for row in rows) / len(rows) for when in ("before", "after"))
    return before, after


# --- how fast ---------------------------------------------------------------------------------------------------------


def _speed(options: argparse.Namespace, place: Path) -> tuple[dict[str, Any], list[Goal]]:
    folder, listed = _lay_out(options.data, place / "photos", 60 if options.quick else None)
    told, goals = _race("careful", 5.0, folder, listed, options.epochs, options, place)
    return told | {"data": options.data}, goals


def _full(options: argparse.Namespace, place: Path) -> tuple[dict[str, Any], list[Goal]]:
    folder, listed = _lay_out(options.data, place / "photos", options.photos)
    told, goals = _race("full", 2.5, folder, listed, None, options, place)
    return told | {"data": options.data, "photos": options.photos}, goals


def _race(
    preset: str, times: float, folder: Path, listed: Path, epochs: int | None, options: argparse.Namespace, place: Path
) -> tuple[dict[str, Any], list[Goal]]:
    """Ours and the two baselines in turn; ``epochs`` are those that the baselines run, by default all."""
    from headstart.train.recipe import preset as recipe_called

    followed = recipe_called(preset)
    wanted = FULL_EPOCHS if preset == "full" else followed.epochs
    in_child(_Save(str(place / NETWORK_FILE)))
    fits: list[Run] = []
    own = (OURS, ONCE) if preset == "careful" else (OURS,)  # `full` trains once as it comes
    sides = {name: Side(name, [], wanted) for name in (*own, "Lightning", "Keras")}
    for seed in range(options.repeats):  # in turn, so that a slow minute of the machine falls on all of them
        settings = {"preset": preset, "epochs": wanted, "patience": 0, "seed": seed}  # all epochs, as the others have
        (place / RECIPE_FILE).write_text(json.dumps(settings), encoding="utf-8")
        out = ("--out", str(place / MODEL), "--overwrite")
        fits.append(timed((*HEADSTART, "fit", str(folder), *out, "--seed", str(seed), "--json")))
        same = ["--epochs", str(epochs or wanted), "--rate", str(followed.learning_rate), "--seed", str(seed)]
        same += ["--augmentation", followed.augmentation, *["--full"] * (preset == "full")]
        commands = _commands(place, folder, listed, same, options.jit)
        for name, side in sides.items():
            side.runs.append(timed(commands[name]))
    _show(preset, sides, fits)
    return _judge(preset, times, sides, fits)


def _commands(place: Path, folder: Path, listed: Path, same: list[str], jit: str) -> dict[str, tuple[str, ...]]:
    """Of each side; ``same`` says to the baselines what the recipe says to ours."""
    baselines = ROOT / "benchmarks" / "baselines"
    model, recipe, network = (str(place / name) for name in (MODEL, RECIPE_FILE, NETWORK_FILE))
    out = ("--out", str(place / "tuned"), "--overwrite")
    ours = (*HEADSTART, "finetune", model, str(folder), "--recipe", recipe, *out, "--json")
    return {
        OURS: ours,
        ONCE: (*ours, "--no-refit"),
        "Lightning": (sys.executable, str(baselines / "finetune_lightning.py"), str(listed), _weights(), *same),
        "Keras": (sys.executable, str(baselines / "finetune_keras.py"), str(listed), network, *same, "--jit", jit),
    }


def _show(preset: str, sides: dict[str, Side], fits: list[Run]) -> None:
    some = sides[OURS].runs[0].output
    print(f"{preset}: {some['images']}, {sides[OURS].epochs} epochs, {some['views']['count']} views kept")
    print(f"{'whole process, cold cache':<28}{'seconds':<10}{'measured':<10}{'an epoch':<10}{'accuracy':<10}peak MB")
    for name, side in sides.items():
        measured, epoch = median([run.seconds for run in side.runs]), median([median(_later(run)) for run in side.runs])
        note = f"  only {len(side.runs[0].output['epochs'])} epochs run, the rest extrapolated" * side.extrapolated
        peak = median([run.peak_mb for run in side.runs])
        print(
            f"{name:<28}{median(side.seconds):<10.1f}{measured:<10.1f}{epoch:<10.2f}{side.accuracy:<10.4f}{peak:.0f}{note}"
        )
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in some["stages"].items())
    print(f"headstart's: {stages}; the rest is start-up and saving. The head alone: {some['before']['accuracy']:.4f}")
    print(f"its `fit` before: {median([run.seconds for run in fits]):.1f} s\n")


def _judge(preset: str, times: float, sides: dict[str, Side], fits: list[Run]) -> tuple[dict[str, Any], list[Goal]]:
    goals: list[Goal] = []
    ratios: dict[str, dict[str, float]] = {}
    own = {name: side for name, side in sides.items() if name in (OURS, ONCE)}
    others = {name: side for name, side in sides.items() if name not in own}
    for mine, ours in own.items():
        ratios[mine] = {}
        for name, theirs in others.items():
            pairs = list(zip(theirs.seconds, ours.seconds, fits, strict=True))
            ratios[mine][name] = median([their / our for their, our, _ in pairs])
            ratios[mine][f"{name}, with the fit"] = median([their / (our + fit.seconds) for their, our, fit in pairs])
            note = " (extrapolated)" if theirs.extrapolated else ""
            what = preset + mine.removeprefix(OURS)
            goals.append(Goal(f"{what}, times faster than plain {name}{note}", ratios[mine][name], least=times))
            if not theirs.extrapolated:
                goals.append(Goal(f"{what}, accuracy less {name}'s", ours.accuracy - theirs.accuracy, least=-0.005))
        told = ", ".join(f"{ratio:.1f} times faster than plain {name}" for name, ratio in ratios[mine].items())
        print(f"{mine}: {told}")
    print()
    rows = {
        name: {
            "seconds": side.seconds,
            "measured": [run.seconds for run in side.runs],
            "epochs": [run.output["epochs"] for run in side.runs],
            "extrapolated": side.extrapolated,
            "accuracy": [run.output["accuracy"] for run in side.runs],
            "peak_mb": median([run.peak_mb for run in side.runs]),
        }
        for name, side in sides.items()
    }
    kept = {key: sides[OURS].runs[0].output[key] for key in ("before", "images", "views", "cut", "chosen", "stages")}
    return {"ratios": ratios, "sides": rows, "ours": kept, "fit_seconds": [run.seconds for run in fits]}, goals


# --- the same photos and weights for all ------------------------------------------------------------------------------


def _lay_out(name: str, place: Path, limit: int | None) -> tuple[Path, Path]:
    """The same photos for all: a folder of train/ and test/ with class folders of links, and the baselines' JSON."""
    import headstart as hs

    root = (
        str(distribution("elpv-dataset").locate_file("elpv_dataset/data")) if name == "elpv" else shared("data", name)
    )
    table = hs.open_source(name if name == "elpv" else root)
    classes = table.classes
    draw = random.Random(0)
    parts: dict[str, list[tuple[str, int]]] = {"train": [], "val": [], "test": []}
    for number, label in enumerate(classes):
        own = [sample for sample in table.samples if sample.label == label]
        draw.shuffle(own)
        if limit:
            own = own[: max(4, limit * len(own) // len(table))]
        test = [sample for sample in own if sample.split == "test"] or own[: round(TEST * len(own))]
        rest = [sample for sample in own if sample not in test]
        cut = max(1, round(VALIDATION * len(rest)))
        for part, samples in (("test", test), ("val", rest[:cut]), ("train", rest[cut:])):
            parts[part] += [(str(Path(root, sample.name).resolve()), number) for sample in samples]
    for part, pairs in parts.items():
        for number, (path, place_of_class) in enumerate(pairs):
            there = place / ("test" if part == "test" else "train") / classes[place_of_class]
            there.mkdir(parents=True, exist_ok=True)
            (there / f"{part}{number}{Path(path).suffix}").symlink_to(path)
    listed = place.with_suffix(".json")
    listed.write_text(json.dumps({"classes": classes} | parts), encoding="utf-8")
    return place, listed


@dataclass(frozen=True)
class _Save:
    """Writes the network as an ordinary Keras file; outside the clock."""

    path: str

    def __call__(self) -> None:
        import headstart as hs

        hs.pretrained(NETWORK).to_keras().save(self.path)


def _weights() -> str:
    from headstart.backbones.catalogue import find_backbone
    from headstart.backbones.weights import installed_file

    return str(installed_file(find_backbone(NETWORK).weights))


WORK = {"accuracy": _accuracy, "speed": _speed, "full": _full, "few": few_photos}

if __name__ == "__main__":
    main()
