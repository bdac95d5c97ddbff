"""Networks held against each other on one's own photos: with how few resources can nearly the same be had?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import download
from headstart.backbones.blueprint import FEATURES
from headstart.backbones.catalogue import (
    BACKBONES,
    DEFAULT,
    LARGEST,
    SMALLEST,
    Pretrained,
    find_backbone,
)
from headstart.backbones.weights import weights_digest
from headstart.choosing import Candidate, Tried, choose, rank
from headstart.classifier import Images, labelled_table
from headstart.data.load import CHUNK, cores
from headstart.data.sources import PathLike
from headstart.engines.base import ENGINES, PRECISIONS, Network, framework_of, get_engine, open_backbone
from headstart.errors import CheckError, UsageError, did_you_mean
from headstart.learn.features import Features, extract, observe
from headstart.learn.heads import HeadFit
from headstart.learn.paths import Design, blocks
from headstart.planning import HOLDOUT, Plan, check_settings, fit_planned_head, plan_split
from headstart.types import Problem, Table

SAMPLE = 64  # images that the speed is measured on
REPEATS, PATIENCE = 5, 2.0  # measurements of it, and the seconds after which no further one is begun
TOGETHER = 12  # networks that stay compiled at a time

Progress = Callable[[str, int, int], None]  # what is going on, images done, of how many


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: candidates, the most accurate first, and the one to take."""

    rows: tuple[Candidate, ...]
    chosen: Candidate | None  # None where a budget is met by none
    sentence: str  # the choice, and why
    judged_on: str  # "held out", "test", "val", or "left out in turn" where there are too few images to hold any out
    images: int  # that all were judged on
    train: int  # images that all were fitted on
    classes: tuple[str, ...]
    skipped: tuple[Problem, ...]  # networks that could not be had

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {
            "rows": [row.as_json() for row in self.rows],
            "chosen": self.chosen and self.chosen.as_json(),
            "skipped": [{"backbone": problem.name, "why": problem.detail} for problem in self.skipped],
        }


@dataclass(frozen=True)
class Settings:
    """What all candidates share."""

    head: str = "lda"
    prior: str = "flat"
    holdout: float = HOLDOUT
    seed: int = 0
    engine: str = "auto"
    precision: str = "auto"
    cache: bool = True


def compare(
    data: Images,
    labels: Sequence[str] | None = None,
    *,
    backbones: Sequence[str] | None = None,
    pixels: Sequence[int] = (),
    weights: Mapping[str, PathLike] | None = None,
    budget: float | None = None,
    within: float | None = None,
    head: str = "lda",
    prior: str = "flat",
    holdout: float = HOLDOUT,
    seed: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    cache: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Fit every backbone at every size on the same photos, measure all on the same others, and choose one.

    Near copies, and with them the split, are found once, with the first network that can be had. ``data``, ``labels``
    and what is not listed here are as for `hs.fit`.

    Args:
        backbones: catalogued networks, "timm/NAME" or "keras/NAME"; None for all whose weights are at hand.
        pixels: sizes that images are scaled to; none for each network's own.
        weights: files of one's own, by backbone.
        budget: images a second; of those that manage as many, the most accurate is chosen.
        within: percentage points; of those at most so far below the most accurate, the fastest is chosen. Without
            budget and within it is the fastest whose difference from the most accurate may be noise.
        progress: called with (what is going on, images done, of how many).

    Raises:
        UsageError: an unknown or repeated name, a size or setting out of range, no network that can be had.
        DataError: the photos do not make two classes with two photos each.
    """
    settings = Settings(head, prior, holdout, seed, engine, precision, cache)
    check_settings(head, prior, holdout, seed)
    names = at_hand() if backbones is None else list(backbones)
    _check_names(names, weights or {})
    check_sizes(pixels)
    _check_wish(budget, within)
    for what, known, name in (("engine", ENGINES, engine), ("precision", PRECISIONS, precision)):
        if name not in known:
            raise UsageError(f"There is no {what} '{name}'. {did_you_mean(name, known)}")
    table = labelled_table(data, labels)
    trials = list(product(names, pixels or (None,)))
    tried, plan, skipped = contest(table, trials, weights or {}, settings, progress)
    rows = rank(tried)
    chosen, sentence = choose(rows, budget, within)
    return Comparison(
        tuple(rows), chosen, sentence, _judged_on(plan), rows[0].accuracy.images, int(plan.train.sum()), plan.classes,
        tuple(skipped),
    )  # fmt: skip


def at_hand() -> list[str]:
    """The catalogued networks whose weights need no download and no file, the default one first."""
    names = [name for name, backbone in BACKBONES.items() if download.at_hand(backbone.weights)]
    return sorted(names, key=lambda name: name != DEFAULT)


def open_network(
    name: str, weights: PathLike | None, pixels: int | None, settings: Settings
) -> tuple[Pretrained, Network]:
    """A trunk, and the network that runs it."""
    trunk, module = open_backbone(name, weights, pixels, head=False)
    engine, precision = settings.engine, settings.precision
    return trunk, get_engine(engine, trunk.blueprint, trunk.weights, trunk.spec, precision, module)


def contest(
    table: Table,
    trials: Sequence[tuple[str, int | None]],
    weights: Mapping[str, PathLike],
    settings: Settings,
    progress: Progress | None = None,
) -> tuple[list[Tried], Plan, list[Problem]]:
    """Fit and judge each (backbone, pixels) on one plan; also what could not be had, one line each.

    Where the plan holds nothing out they are judged on predictions for training images that were left out in turn.
    """
    fits: list[_Fit] = []
    skipped: dict[Problem, None] = {}
    plan: Plan | None = None
    count = len(trials) * len(table)
    for place, (name, pixels) in enumerate(trials):
        try:
            trunk, network = open_network(name, weights.get(name), pixels, settings)
        except (UsageError, CheckError) as error:
            why = str(error).replace("--weights FILE", f"--weights {name}=FILE")
            skipped[Problem(name, "no weights", why)] = None
            continue
        report = _report(progress, f"{name} at {trunk.spec.size} px", place * len(table), count)
        features = extract(table, network, weights_digest(trunk.weights), keep=settings.cache, progress=report)
        plan = plan or plan_split(table, features, settings.holdout, settings.seed)
        plan.check(table, features)
        start = time.perf_counter()
        fitted = fit_planned_head(features, plan, kind=settings.head, prior=settings.prior, seed=settings.seed)
        right = _right(features, plan, fitted)
        fits.append(_fit(name, trunk, network, plan, fitted, right, time.perf_counter() - start))
        if len(trials) > TOGETHER:
            network.release()
    if plan is None:
        first = next(iter(skipped))
        others = f" And {len(skipped) - 1} more like it." if len(skipped) > 1 else ""
        raise UsageError(f"No network can be had. {first.name}: {first.detail}{others}")
    if progress:
        progress("measuring the speeds", count, count)
    speeds = images_per_second(table, [fit.network for fit in fits], np.flatnonzero(plan.train | plan.test))
    tried = [fit.at_speed(speed, len(table)) for fit, speed in zip(fits, speeds, strict=True)]
    return tried, plan, list(skipped)


def images_per_second(table: Table, networks: Sequence[Network], rows: NDArray[np.int_]) -> list[float]:
    """Decoding and network together on all cores, nothing from the store: the median of a few runs on a few images.

    The networks take turns, so that whatever else the machine does slows down all of them.
    """
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))].tolist()
    sample *= -(-4 * CHUNK * cores() // len(sample))  # several chunks for every core
    times: list[list[float]] = [[] for _ in networks]
    for turn in range(REPEATS):
        for network, own in zip(networks, times, strict=True):
            if sum(own) >= PATIENCE:
                continue
            if turn == 0 or len(networks) > TOGETHER:
                _seconds(table, network, sample[:CHUNK])  # compiles
            own.append(_seconds(table, network, sample))
            if len(networks) > TOGETHER:
                network.release()
    return [len(sample) / median(own) for own in times]


def _seconds(table: Table, network: Network, rows: Sequence[int]) -> float:
    start = time.perf_counter()
    for _ in observe(table, network, (FEATURES,), rows):
        pass
    return time.perf_counter() - start


def _right(features: Features, plan: Plan, fitted: HeadFit) -> NDArray[np.bool_]:
    rows = np.flatnonzero(plan.test)
    if not len(rows):
        return np.asarray(fitted.logits.argmax(axis=1) == plan.labels[np.flatnonzero(plan.train)[fitted.rows]])
    design = Design(features.values, rows, sqrt=fitted.head.sqrt)
    guesses = [(design[block] @ fitted.head.weight.T + fitted.head.bias).argmax(axis=1) for block in blocks(len(rows))]
    return np.asarray(np.concatenate(guesses) == plan.labels[rows])


@dataclass(frozen=True)
class _Fit:
    """One network at one size, whose speed is not measured yet."""

    backbone: str
    network: Network
    right: NDArray[np.bool_]
    parameters: int
    megabytes: float
    seconds: float  # of the head

    def at_speed(self, speed: float, images: int) -> Tried:
        seconds = self.seconds + images / speed
        pixels = self.network.spec.size
        return Tried(self.backbone, pixels, self.right, speed, self.parameters, self.megabytes, seconds)


def _fit(
    name: str,
    trunk: Pretrained,
    network: Network,
    plan: Plan,
    fitted: HeadFit,
    right: NDArray[np.bool_],
    seconds: float,
) -> _Fit:
    blueprint = trunk.blueprint.with_head(len(plan.classes), sqrt=fitted.head.sqrt)
    size = sum(array.nbytes for array in (*trunk.weights.values(), fitted.head.weight, fitted.head.bias))
    parameters = sum(blueprint.parameters().values())
    return _Fit(name, network, right, parameters, size / 1e6, seconds)


def _judged_on(plan: Plan) -> str:
    return (plan.own_test or "held out") if plan.test.any() else "left out in turn"


def _report(progress: Progress | None, doing: str, before: int, count: int) -> Callable[[int, int], None] | None:
    return None if progress is None else (lambda done, _: progress(doing, before + done, count))


def _check_names(names: Sequence[str], weights: Mapping[str, PathLike]) -> None:
    if not names:
        raise UsageError("Expected the names of networks to compare. Received: none. See: headstart backbones")
    for place, name in enumerate(names):
        if not framework_of(name):
            find_backbone(name)
        if name in names[:place]:
            raise UsageError(f"--backbones: '{name}' is named twice.")
    for name, file in weights.items():
        if name not in names:
            raise UsageError(f"--weights: '{name}' is none of the networks to compare. {did_you_mean(name, names)}")
        if not os.path.isfile(file):
            raise UsageError(f"--weights: expected a file of weights for {name}. Received: '{os.fspath(file)}'.")


def check_sizes(pixels: Sequence[int]) -> None:
    """Refuse sizes out of range, or named twice."""
    for place, size in enumerate(pixels):
        if not SMALLEST <= size <= LARGEST:
            raise UsageError(f"--pixels: expected {SMALLEST} to {LARGEST}. Received: {size}.")
        if size in pixels[:place]:
            raise UsageError(f"--pixels: {size} is named twice.")


def _check_wish(budget: float | None, within: float | None) -> None:
    if budget is not None and within is not None:
        raise UsageError("--budget and --within choose in different ways: give one of them.")
    if budget is not None and not 0 < budget < float("inf"):
        raise UsageError(f"--budget: expected images a second, more than 0. Received: {budget:g}.")
    if within is not None and not 0 <= within <= 100:
        raise UsageError(f"--within: expected percentage points, 0 to 100. Received: {within:g}.")
