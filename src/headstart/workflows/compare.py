"""Networks held against each other on one's own photos: with how few resources can nearly the same be had?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import download
from headstart.backbones.blueprint import FEATURES
from headstart.backbones.catalogue import BACKBONES, DEFAULT, LARGEST, SMALLEST, find_backbone
from headstart.core.arguments import FILES, PIXELS, TEXT, checks, number, several
from headstart.core.counts import counted
from headstart.core.display import line_of, table_of
from headstart.core.errors import CheckError, UsageError, did_you_mean
from headstart.core.processors import CHUNK, cores
from headstart.core.progress import Progress, Shown, StageProgress, function_of, shows_progress
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset, Problem
from headstart.data.depth import common_levels
from headstart.data.inputs import Images, labelled_dataset
from headstart.data.sources import PathLike
from headstart.data.split import HOLDOUT, Split, make_split
from headstart.engines.names import framework_of
from headstart.engines.protocol import Network
from headstart.learn.features import Features, run_network
from headstart.learn.heads import fit_head_on_split
from headstart.learn.regularisation_path import Design
from headstart.learn.transferability import logme
from headstart.workflows.backbone_features import RULES, FitSettings, FrozenBackbone
from headstart.workflows.ranking import Candidate, Trial, choose, rank

SAMPLE = 64  # images that the speed is measured on
REPEATS, PATIENCE = 5, 2.0  # measurements of it, and the seconds after which no further one is begun
FEWEST_RUNS = 3  # so that the median passes over one that something else disturbed
TOGETHER = 12  # networks that stay compiled at a time


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: candidates, the most accurate first, and the one to take."""

    rows: tuple[Candidate, ...]
    chosen: Candidate | None  # None where a budget is met by none
    sentence: str  # the choice, and why
    judged_on: str  # "left out in turn": each by a head that was fitted on all others
    images: int  # of the training set, that all were judged on
    train: int  # images that all were fitted on
    test: int  # images that none of them has seen, so that a fit of the one chosen can be measured on them
    classes: tuple[str, ...]
    skipped: tuple[Problem, ...]  # networks that could not be had

    def __repr__(self) -> str:
        return line_of(type(self).__name__, [counted(len(self.rows), "candidate"), self.sentence])

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{row.title}{' ← chosen' if row is self.chosen else ''}",
                row.accuracy.in_words("image").removeprefix("accuracy "),
                f"{row.images_per_second:.0f}",
                f"{row.megabytes:.1f}",
                f"{row.logme:.3f}",
            )
            for row in self.rows
        ]
        return table_of(("network", "accuracy", "images a second", "MB", "LogME"), rows, self.sentence)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {
            "rows": [row.as_json() for row in self.rows],
            "chosen": self.chosen and self.chosen.as_json(),
            "skipped": [{"backbone": problem.name, "why": problem.detail} for problem in self.skipped],
        }


@checks(
    backbones=several(TEXT, "names of networks"),
    pixels=several(PIXELS, "sizes, as in [128, 160, 224]"),
    weights=FILES,
    budget=replace(number(0, above=True), expected="images a second, more than 0"),
    within=replace(number(0, 100), expected="percentage points, 0 to 100"),
    **RULES,
)
@shows_progress
def compare(
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    backbones: str | Sequence[str] | None = None,
    pixels: int | Sequence[int] = (),
    weights: Mapping[str, PathLike] | None = None,
    budget: float | None = None,
    within: float | None = None,
    head: str = "lda",
    prior: str = "flat",
    holdout: float = HOLDOUT,
    seed: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    cache: bool = True,
    progress: Shown = True,
) -> Comparison:
    """Fit every backbone at every size on the same photos, measure all by leave-one-out, and choose one.

    The choice is made on the training set alone: `hs.fit` with the same data and settings splits alike, and measures
    the network that was chosen on a test set that had no part in the choice. The split is made once, with the first
    network that can be had. ``data``, ``labels`` and what is not listed here are as for `hs.fit`.

    Args:
        backbones: catalogued networks, "timm/NAME" or "keras/NAME", or one; None for all whose weights are at hand.
        pixels: sizes, or one, that images are scaled to; none for each network's own.
        weights: files of one's own, by backbone.
        budget: images a second; of those that manage as many, the most accurate is chosen.
        within: percentage points, 1 by default; of those at most so far below the most accurate, the fastest is
            chosen.
        progress: as for `fit`.

    Raises:
        UsageError: an unknown or repeated name, a size or setting out of range, no network that can be had.
        DataError: the photos do not make two classes with two photos each.
    """
    settings = FitSettings(head, prior, holdout, seed, engine, precision, cache, device)
    names = at_hand() if backbones is None else [*backbones]
    _check_names(names, weights or {})
    sizes = cast("tuple[int, ...]", pixels)
    check_sizes(sizes)
    if budget is not None and within is not None:
        raise UsageError("--budget and --within choose in different ways: give one of them.")
    dataset = labelled_dataset(data, labels)
    trials = list(product(names, sizes or (None,)))
    tried, split, skipped = run_trials(dataset, trials, weights or {}, settings, function_of(progress))
    rows = rank(tried)
    chosen, sentence = choose(rows, budget, within)
    return Comparison(
        rows=tuple(rows),
        chosen=chosen,
        sentence=sentence,
        judged_on="left out in turn",
        images=rows[0].accuracy.images,
        train=int(split.train.sum()),
        test=int(split.test.sum()),
        classes=split.classes,
        skipped=tuple(skipped),
    )


def at_hand() -> list[str]:
    """The catalogued networks whose weights need no download and no file, the default one first."""
    names = [name for name, backbone in BACKBONES.items() if download.at_hand(backbone.weights)]
    return sorted(names, key=lambda name: name != DEFAULT)


def run_trials(
    dataset: ImageDataset,
    trials: Sequence[tuple[str, int | None]],
    weights: Mapping[str, PathLike],
    settings: FitSettings,
    progress: Progress | None = None,
) -> tuple[list[Trial], Split, list[Problem]]:
    """Fit and measure each (backbone, pixels) on one training set; also what could not be had, one line each."""
    networks: list[Network] = []
    measured: list[Trial] = []  # but for the speed, which is measured at the end, of all by turns
    skipped: dict[Problem, None] = {}
    split: Split | None = None
    count, levels = len(trials) * len(dataset), common_levels(dataset)
    for place, (name, pixels) in enumerate(trials):
        try:
            frozen = FrozenBackbone.open(name, settings, levels, weights=weights.get(name), pixels=pixels)
        except (UsageError, CheckError) as error:
            why = str(error).replace("--weights FILE", f"--weights {name}=FILE")
            skipped[Problem(name, "no weights", why)] = None
            continue
        report = _report(progress, f"{name} at {frozen.network.spec.size} px", place * len(dataset), count)
        features = frozen.features(dataset, cache=settings.cache, progress=report)
        split = split or make_split(dataset, features, settings.holdout, settings.seed)
        split.check(dataset, features)
        measured.append(_trial(name, frozen, features, split, settings))
        networks.append(frozen.network)
        if len(trials) > TOGETHER:
            frozen.network.release()
    if split is None:
        first = next(iter(skipped))
        others = f" And {len(skipped) - 1} more like it." if len(skipped) > 1 else ""
        raise UsageError(f"No network can be had. {first.name}: {first.detail}{others}")
    if progress:
        progress("measuring the speeds", count, count)
    speeds = images_per_second(dataset, networks, np.flatnonzero(split.train | split.test))
    tried = [trial.at_speed(speed, len(dataset)) for trial, speed in zip(measured, speeds, strict=True)]
    return tried, split, list(skipped)


def images_per_second(dataset: ImageDataset, networks: Sequence[Network], rows: NDArray[np.int_]) -> list[float]:
    """Decoding and network together on all cores, without the feature cache: the median of a few runs on a few images.

    The networks take turns, so that whatever else the machine does slows down all of them.
    """
    sample = evenly_spread(rows, SAMPLE)
    sample *= -(-4 * CHUNK * cores() // len(sample))  # several chunks for every core
    times: list[list[float]] = [[] for _ in networks]
    for turn in range(REPEATS):
        for network, own in zip(networks, times, strict=True):
            if len(own) >= FEWEST_RUNS and sum(own) >= PATIENCE:
                continue
            if turn == 0 or len(networks) > TOGETHER:
                _seconds(dataset, network, sample[:CHUNK])  # compiles
            own.append(_seconds(dataset, network, sample))
            if len(networks) > TOGETHER:
                network.release()
    return [len(sample) / median(own) for own in times]


def _seconds(dataset: ImageDataset, network: Network, rows: Sequence[int]) -> float:
    start = time.perf_counter()
    for _ in run_network(dataset, network, (FEATURES,), rows):
        pass
    return time.perf_counter() - start


def _trial(name: str, frozen: FrozenBackbone, features: Features, split: Split, settings: FitSettings) -> Trial:
    """Fit a head and measure it; the speed is not measured yet."""
    start = time.perf_counter()
    fitted = fit_head_on_split(features, split, kind=settings.head, prior=settings.prior, seed=settings.seed)
    rows = np.flatnonzero(split.train)[fitted.rows]
    right = fitted.right_left_out
    seconds = time.perf_counter() - start
    trunk, head = frozen.pretrained, fitted.head
    train = np.flatnonzero(split.train)
    blueprint = trunk.blueprint.with_head(len(split.classes), sqrt=head.sqrt)
    return Trial(
        backbone=name,
        pixels=frozen.network.spec.size,
        right=right,
        groups=split.groups[rows],
        images_per_second=float("nan"),
        parameters=sum(blueprint.parameters().values()),
        megabytes=sum(array.nbytes for array in (*trunk.weights.values(), head.weight, head.bias)) / 1e6,
        seconds=seconds,
        train_error=float((head.probabilities(features.values, train).argmax(axis=1) != split.labels[train]).mean()),
        logme=logme(Design(features.values, train, sqrt=head.sqrt), split.labels[train]),
        assumed=trunk.assumed,
    )


def _report(progress: Progress | None, doing: str, before: int, count: int) -> StageProgress | None:
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
