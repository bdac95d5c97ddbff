"""The verdict on constructed cases, with seeds that no rule was chosen by: python benchmarks/verdicts.py

Made-up features whose fault is known, and features of real photos to which a fault is done: labels that mean nothing,
changed labels, test images that are copies of training images, few images, a problem that no linear head solves.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diagnose import features_of
from harness import ROOT, Goal, arguments, finish

sys.path.append(str(ROOT / "tests"))
from diagnosed import blobs, fitted, xor  # the makers of the tests

if TYPE_CHECKING:
    from headstart.diagnose.diagnose import FittedHead

HEALTHY, FEW, OVER, UNDER, SUSPICIOUS = "healthy", "too little data", "overfitting", "underfitting", "suspicious data"
SEEDS = range(5000, 5010)
REAL = {  # twice the photos bring about two points on Caltech-101, which is where few begins
    "cats_dogs": (HEALTHY,),
    "apple_leaves": (HEALTHY,),
    "caltech101": (HEALTHY, FEW),
    "oxford_pets": (FEW,),
}
CHANGED = 0.2

Labels = NDArray[np.int_]


@dataclass(frozen=True)
class Case:
    """Heads that are to get one verdict."""

    name: str
    expected: tuple[str, ...]
    make: Callable[[int], FittedHead]


def main() -> None:
    """A line for each case: how often the verdict is the one that is right, and which others there were."""
    from headstart.diagnose.diagnose import diagnose_head

    options = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1).parse_args()
    seeds = [*SEEDS][: 2 if options.quick else None]
    rows, goals = [], []
    for case in cases():
        found = Counter(diagnose_head(case.make(seed)).verdict.kind for seed in seeds)
        right = sum(found[kind] for kind in case.expected) / len(seeds)
        print(f"{case.name:<48}{' or '.join(case.expected):<32}{right:>6.0%}  {dict(found)}", flush=True)
        rows.append({"case": case.name, "expected": case.expected, "right": right, "verdicts": dict(found)})
        goals.append(Goal(case.name, right, least=0.9))
    finish("verdicts", {"cases": rows}, goals, options)


def cases() -> Iterator[Case]:
    """Made up, then real."""
    yield Case("random labels, 400 images, 512 features", (OVER,), lambda s: fitted(*blobs(400, 512, 0, s), _last(400)))
    yield Case("random labels, 1000 images, 5 features", (SUSPICIOUS,), lambda s: fitted(*blobs(1000, 5, 0, s)))
    yield Case("linear, 5 features, far apart", (HEALTHY,), lambda s: fitted(*blobs(800, 5, 4, s, 3), _last(800)))
    yield Case("linear, 5 features, overlapping", (HEALTHY,), lambda s: fitted(*blobs(800, 5, 1.5, s), _last(800)))
    yield Case("exclusive or, 2 features", (UNDER,), lambda s: fitted(*xor(600, s), _last(600)))
    yield Case("10 classes, 420 images, 400 wide", (FEW,), lambda s: fitted(*blobs(600, 400, 3.5, s, 10), _last(600)))
    yield Case("20% of the labels changed, 4 classes", (SUSPICIOUS,), _changed)
    yield Case("a third of the test set is copied", (SUSPICIOUS,), _copied)
    for name, as_it_is in REAL.items():
        yield Case(f"{name} as it is", as_it_is, partial(_real, name))
        yield Case(f"{name}, random labels", (OVER, SUSPICIOUS), partial(_real, name, random=True))
        if name != "oxford_pets":  # 8 photos of each breed are too few to tell
            yield Case(f"{name}, 20% changed", (SUSPICIOUS,), partial(_real, name, changed=CHANGED))
    yield Case("caltech101, 5 of each class", (FEW,), partial(_real, "caltech101", each=5))


def _last(count: int) -> NDArray[np.bool_]:
    return np.arange(count) >= 0.7 * count


def _changed(seed: int) -> FittedHead:
    x, labels = blobs(600, 300, 6, seed, 4)
    return fitted(x, _with_changes(labels, CHANGED, np.random.default_rng(seed)), _last(600))


def _with_changes(labels: Labels, share: float, rng: np.random.Generator) -> Labels:
    rows = rng.permutation(len(labels))[: round(share * len(labels))]
    found, classes = labels.copy(), int(labels.max()) + 1
    found[rows] = (found[rows] + rng.integers(1, classes, len(rows))) % classes
    return found


def _copied(seed: int) -> FittedHead:
    x, labels = blobs(600, 50, 5, seed, 4)
    x[420:480], labels[420:480] = x[:60], labels[:60]
    return fitted(x, labels, _last(600), copies=[(420 + k, k) for k in range(60)])


def _real(name: str, seed: int, *, random: bool = False, changed: float = 0.0, each: int = 0) -> FittedHead:
    """The head on the features of real photos, of nine tenths of them: so that each seed sees others."""
    seen, rng = features_of(name), np.random.default_rng(seed)
    rows = np.concatenate([seen.train, seen.test])
    test = np.isin(rows, seen.test)
    kept = rng.random(len(rows)) < 0.9
    if each:
        for label in range(seen.classes):
            own = np.flatnonzero(~test & (seen.labels[rows] == label))
            kept[own] = np.isin(own, rng.permutation(own)[:each])
    rows, test = rows[kept], test[kept]
    labels = seen.labels[rows]
    if random:
        labels = rng.permutation(labels)
    elif changed:
        labels = _with_changes(labels, changed, rng)
    x = np.sqrt(np.maximum(seen.values[rows].astype(np.float64), 0))
    return fitted(x, labels, test)


if __name__ == "__main__":
    main()
