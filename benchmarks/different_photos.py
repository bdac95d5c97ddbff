"""Shortcuts, corruptions and a small network from scratch, on real photos: python benchmarks/different_photos.py

Needs the extra torch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from harness import Goal, arguments, finish, shared

SETS = ("cats_dogs", "oxford_pets", "caltech101", "apple_leaves", "elpv")
CORRUPTED = ("cats_dogs", "apple_leaves")
DIGITS = 600


def main() -> None:
    """The four facts of each set, the accuracy by kind and strength, and both accuracies."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=5)
    options = parser.parse_args()
    import headstart as hs
    from headstart.core.spread import evenly_spread

    hidden = {name: shortcuts_of(name, options.repeats) for name in SETS[: 1 if options.quick else None]}
    worse: dict[str, Any] = {}
    models = {}
    for name in CORRUPTED[: 1 if options.quick else None]:
        data = shared("data", name)
        models[name] = hs.fit(data, progress=False)
        begun = time.perf_counter()
        found = hs.corrupted(models[name], data, images=10 if options.quick else 200, progress=False)
        worse[name] = {"as it is": models[name].evaluate(data, progress=False).accuracy.value}
        worse[name] |= {f"{each.kind} {each.strength}": each.accuracy.value for each in found}
        worse[name]["seconds"] = time.perf_counter() - begun
        print(name, {what: round(value, 3) for what, value in worse[name].items()}, flush=True)
    digits = hs.open_source(shared("data", "mnist"))
    digits = digits.part(evenly_spread(range(len(digits)), DIGITS))
    scratch = {}
    subjects: dict[str, Callable[[], tuple[Any, Any]]] = {
        "cats_dogs": lambda: (models["cats_dogs"], shared("data", "cats_dogs")),
        f"{DIGITS} digits of MNIST": lambda: (hs.fit(digits, progress=False), digits),
    }
    for name, subject in subjects.items():
        model, data = subject()
        begun = time.perf_counter()
        both = hs.from_scratch(model, data, epochs=1 if options.quick else None, progress=False)
        scratch[name] = asdict(both) | {"seconds": time.perf_counter() - begun}
        print(name, both.sentence, f"{scratch[name]['seconds']:.0f} s", flush=True)
    called = sum(each["is_one"] for found in hidden.values() for each in found["facts"])
    goals = [
        Goal("shortcuts that are called so", called, most=0),
        Goal("seconds for the shortcuts of cats and dogs", hidden["cats_dogs"]["seconds"], most=0.15),
        Goal("seconds for those of the slowest set", max(each["seconds"] for each in hidden.values()), most=0.5),
        Goal("frozen less scratch, cats and dogs",
             scratch["cats_dogs"]["frozen"]["value"] - scratch["cats_dogs"]["accuracy"]["value"], least=0.2),
    ]  # fmt: skip
    finish("different_photos", {"shortcuts": hidden, "corrupted": worse, "from_scratch": scratch}, goals, options)


def shortcuts_of(name: str, repeats: int) -> dict[str, Any]:
    """The four facts of a training set, and the median of the seconds."""
    from headstart.data.fingerprints import take_fingerprints
    from headstart.data.sources import open_source
    from headstart.data.split import make_split
    from headstart.diagnose.shortcuts import shortcuts

    dataset = open_source(name if name == "elpv" else shared("data", name))
    prints = take_fingerprints(dataset)
    split = make_split(dataset, prints, 0.2, 0)
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        found = shortcuts(dataset, np.flatnonzero(split.train), split.labels, split.groups, prints.thumbnails)
        seconds.append(time.perf_counter() - begun)
    median = statistics.median(seconds)
    print(f"{name}: {median:.3f} s", flush=True)
    for each in found:
        print(f"  {each.what:<12}{each.accuracy:>8.1%}{each.chance:>8.1%}  {'shortcut' if each.is_one else ''}")
    return {"facts": [asdict(each) for each in found], "images": int(split.train.sum()), "seconds": median}


if __name__ == "__main__":
    main()
