"""From a folder of labelled photos to a classifier: the one place where the rooms meet."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, LOGITS
from headstart.backbones.catalogue import DEFAULT, Pretrained, load_pretrained
from headstart.backbones.weights import weights_digest
from headstart.classifier import Classifier, Golden, Images, labelled_table
from headstart.data.load import fetch
from headstart.data.sources import PathLike
from headstart.data.split import FEWEST, hold_out, join
from headstart.engines.fast import FastNetwork
from headstart.errors import DataError, UsageError
from headstart.learn.calibrate import softmax
from headstart.learn.evaluate import evaluate
from headstart.learn.features import Features, extract
from headstart.learn.heads import HeadFit, check_names, fit_head
from headstart.learn.neighbours import near_duplicates
from headstart.learn.paths import Design, blocks
from headstart.learn.unknown import Unknown, fit_unknown
from headstart.types import Evaluation, Problem, Sample, Table

HOLDOUT = 0.2
GOLDEN = 4  # images kept with the model, to hold every engine that opens it against

Progress = Callable[[str, int, int], None]  # stage, done, of how many


def fit(
    data: Images,
    labels: Sequence[str] | None = None,
    *,
    backbone: str = DEFAULT,
    weights: PathLike | None = None,
    pixels: int | None = None,
    head: str = "lda",
    prior: str = "flat",
    holdout: float = HOLDOUT,
    seed: int = 0,
    precision: str = "auto",
    cache: bool = True,
    progress: Progress | None = None,
) -> Classifier:
    """Fit a classifier on labelled photos and measure it on photos that it has not seen.

    Args:
        data: a folder of class folders (or of train/ and test/), a CSV, Parquet or IDX file, a named set, a list of
            paths, or arrays. A test part (else a validation part) is what it is measured on.
        labels: of a list of paths, or of arrays.
        backbone: a catalogued network, with ``weights`` from a file of one's own if given.
        pixels: size that images are scaled to; fewer are faster and a little less accurate.
        head: "lda" or "ridge".
        prior: "flat" or "empirical": whether classes are expected alike, or as often as in the data.
        holdout: share of every class to measure on, where the data brings no part of its own for that; 0 for none.
        seed: of the split; the same photos and seed give the same split everywhere.
        precision: "auto", "bf16" or "fp32".
        cache: whether to keep features for the next fit.
        progress: called with (stage, done, of how many).

    Raises:
        UsageError: a path, name or setting that is not there or out of range.
        DataError: the photos do not make two classes with two photos each.
    """
    _check_settings(head, prior, holdout, seed)
    clock = _Clock()
    with clock("open"):
        table = labelled_table(data, labels)
        trunk = load_pretrained(backbone, weights, pixels, head=False)
        network = FastNetwork(trunk.blueprint, trunk.weights, trunk.spec, precision)
    with clock("features"):
        report = None if progress is None else (lambda done, count: progress("features", done, count))
        features = extract(table, network, weights_digest(trunk.weights), keep=cache, progress=report)
    if network.precision != "fp32":  # which the golden images are still to go through
        network.release()
    with clock("duplicates"):
        plan = _plan(table, features, holdout, seed)
    with clock("head"):
        train = np.flatnonzero(plan.train)
        labels_of = plan.labels[train]
        sqrt = bool(features.values.min() >= 0)
        fitted = fit_head(
            features.values,
            labels_of,
            len(plan.classes),
            rows=train,
            sqrt=sqrt,
            kind=head,
            prior=prior,
            groups=plan.groups[train],
            seed=seed,
        )
        design = Design(features.values, train, sqrt=sqrt)
        unknown = fit_unknown(design, labels_of, plan.groups[train], fitted, seed)
    with clock("evaluation"):
        result = _evaluate(features, plan, fitted, unknown)
    with clock("golden"):
        golden = _golden(table, network, train, fitted)
    record = _record(table, trunk, network, features, plan, fitted, result, clock.seconds) | {
        "holdout": holdout,
        "seed": seed,
        "data": _called(data, table),
    }
    return Classifier(
        trunk.blueprint.with_head(len(plan.classes), sqrt=sqrt),
        trunk.weights | {f"{LOGITS}.weight": fitted.head.weight, f"{LOGITS}.bias": fitted.head.bias},
        trunk.spec,
        plan.classes,
        unknown,
        tuple(table.samples[train[row]].name for row in unknown.rows),
        record,
        golden,
        frozenset(features.keys[row] for row in train.tolist()),
        precision=network.precision,
    )


def _check_settings(head: str, prior: str, holdout: float, seed: int) -> None:
    """What can be known to be wrong before any image is looked at."""
    if not 0 <= holdout <= 0.9:
        raise UsageError(f"--holdout: expected a share from 0 to 0.9. Received: {holdout}.")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed: expected a whole number from 0. Received: {seed}.")
    check_names(head, prior)


def _called(data: Images, table: Table) -> str:
    """What a person calls the data: the folder, file or named set."""
    place = data if isinstance(data, str | os.PathLike) else table.root
    return os.path.basename(os.path.abspath(place)) if place else "in memory"


@dataclass
class _Plan:
    """What becomes of every image: fitted on, held out, or left out."""

    classes: tuple[str, ...]
    labels: NDArray[np.int_]  # (N,), of the classes that are left; -1 elsewhere
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    groups: NDArray[np.int_]  # near-duplicates, and groups that the data names
    own_test: str  # the part that the data brings to be measured on, or ""
    left_out: list[Problem]


def _plan(table: Table, features: Features, holdout: float, seed: int) -> _Plan:
    samples = table.samples
    left_out = [*table.problems, *features.problems]
    usable = features.usable.copy()
    if not usable.any():
        raise DataError(_nothing_left(table, left_out))

    def drop(rows: Iterable[Any], kind: str, why: Callable[[int], str]) -> None:
        for row in rows:
            usable[row] = False
            left_out.append(Problem(samples[row].name, kind, why(row)))

    own_test = table.own_test
    held = np.array([bool(own_test) and sample.split == own_test for sample in samples])
    _drop_repeats(samples, features.keys, usable, held, drop)

    groups = near_duplicates(features.values, features.thumbs)
    groups[~usable] = len(groups) + np.flatnonzero(~usable)  # an unreadable image is like no other
    named = [sample.group or f"\0{row}" for row, sample in enumerate(samples)]
    groups = join(groups, np.unique(named, return_inverse=True)[1])
    if own_test:
        seen = np.isin(groups, groups[held & usable]) & usable & ~held
        drop(np.flatnonzero(seen), "copy of a test image", lambda row: f"nearly the same as one in {own_test}/")

    text = np.array([sample.label for sample in samples])
    counts = dict(zip(*np.unique(text[usable & ~held], return_counts=True), strict=True))
    kept = tuple(name for name in table.classes if counts.get(name, 0) >= FEWEST)
    few = [row for row in np.flatnonzero(usable) if counts.get(text[row], 0) < FEWEST]
    drop(
        few,
        "class too small",
        lambda row: f"class '{text[row]}' has {counts.get(text[row], 0)} image(s) to fit on, 2 are needed",
    )
    if len(kept) < 2:
        raise DataError(_nothing_left(table, left_out))

    place = {name: k for k, name in enumerate(kept)}
    labels = np.array([place.get(name, -1) for name in text])
    rows = np.flatnonzero(usable)
    if not own_test:
        held[rows] = hold_out(labels[rows], [features.keys[row] for row in rows.tolist()], groups[rows], holdout, seed)
    return _Plan(kept, labels, usable & ~held, usable & held, groups, own_test, left_out)


def _drop_repeats(
    samples: Sequence[Sample],
    keys: Sequence[bytes],
    usable: NDArray[np.bool_],
    held: NDArray[np.bool_],
    drop: Callable[[Iterable[Any], str, Callable[[int], str]], None],
) -> None:
    """Of byte-identical images keep one, a test image first; where their labels differ, none: one of them is wrong."""
    first: dict[bytes, int] = {}
    labels: dict[bytes, set[str]] = {}
    for row in [*np.flatnonzero(usable & held).tolist(), *np.flatnonzero(usable & ~held).tolist()]:
        first.setdefault(keys[row], row)
        labels.setdefault(keys[row], set()).add(samples[row].label)
    rows = np.flatnonzero(usable).tolist()
    again = [row for row in rows if first[keys[row]] != row and len(labels[keys[row]]) == 1]
    torn = [row for row in rows if len(labels[keys[row]]) > 1]
    drop(again, "duplicate", lambda row: f"the same file as '{samples[first[keys[row]]].name}'")
    drop(torn, "conflicting labels", lambda row: f"the same file is labelled {' and '.join(sorted(labels[keys[row]]))}")


def _evaluate(features: Features, plan: _Plan, fitted: HeadFit, unknown: Unknown) -> Evaluation | None:
    rows = np.flatnonzero(plan.test)
    if not len(rows):
        return None
    probabilities, strange = [], []
    design = Design(features.values, rows, sqrt=fitted.head.sqrt)
    for block in blocks(len(rows)):
        x = design[block]
        probabilities.append(softmax(x @ fitted.head.weight.T + fitted.head.bias))
        strange.append(unknown.score(x, probabilities[-1]) < unknown.threshold)
    return evaluate(np.concatenate(probabilities), plan.labels[rows], plan.classes, np.concatenate(strange))


def _golden(table: Table, network: FastNetwork, train: NDArray[np.int_], fitted: HeadFit) -> Golden:
    """A few training images, with their logits in fp32, which every engine must give again."""
    places = train[np.unique(np.linspace(0, len(train) - 1, GOLDEN).astype(int))]
    read = [fetch(table, int(place), network.spec).pixels for place in places]
    images = np.stack([pixels for pixels in read if pixels is not None])
    exact = network if network.precision == "fp32" else network.at_precision("fp32")
    return Golden(images, fitted.head.logits(exact.forward(images, FEATURES)))


def _nothing_left(table: Table, left_out: Sequence[Problem]) -> str:
    counts = Counter(sample.label for sample in table.samples)
    reasons = Counter(problem.kind for problem in left_out)
    sentence = (
        f"Expected two classes or more with two readable images each in '{table.root}'. "
        f"Received: {len(table)} images in {len(counts)} class{'' if len(counts) == 1 else 'es'}"
    )
    if reasons:
        first = left_out[0]
        sentence += f"; left out: {', '.join(f'{n} {kind}' for kind, n in reasons.most_common())}"
        sentence += f" (first: '{first.name}': {first.detail})"
    return sentence + ". Put each class's photos into a folder of its own."


def _record(
    table: Table,
    trunk: Pretrained,
    network: FastNetwork,
    features: Features,
    plan: _Plan,
    fitted: HeadFit,
    result: Evaluation | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    logits, truth = fitted.logits, plan.labels[np.flatnonzero(plan.train)[fitted.rows]]
    return {
        "images": len(table),
        "train": int(plan.train.sum()),
        "test": int(plan.test.sum()),
        "test_part": plan.own_test or "held out",
        "per_class": {name: int((plan.labels[plan.train] == k).sum()) for k, name in enumerate(plan.classes)},
        "result": None if result is None else asdict(result),
        "left_one_out": {"accuracy": float((logits.argmax(axis=1) == truth).mean()), "images": len(truth)},
        "left_out": [asdict(problem) for problem in plan.left_out],
        "near_duplicates": int((np.bincount(plan.groups)[plan.groups] > 1).sum()),
        "backbone": trunk.backbone.name,
        "licence": trunk.backbone.weights.licence,
        "pixels": trunk.spec.size,
        "precision": network.precision,
        "head": {
            "kind": fitted.kind,
            "prior": fitted.prior,
            "strength": fitted.strength,
            "temperature": fitted.temperature,
            "path": [list(point) for point in fitted.path],
        },
        "computed": features.computed,
        "from_store": features.from_store,
        "store_problem": features.store_problem,
        "seconds": seconds,
    }


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)
