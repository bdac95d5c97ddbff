"""Which network and size suit these photos: tried on a part of the training set, before the fit itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.catalogue import SMALLEST, find_backbone
from headstart.core.errors import UsageError
from headstart.core.progress import Progress, stage
from headstart.core.types import ImageDataset
from headstart.data.depth import common_levels
from headstart.data.near_copies import named_groups
from headstart.data.sources import PathLike
from headstart.data.split import Split, make_split
from headstart.learn.features import Features
from headstart.model.records import ChoiceRecord
from headstart.workflows.backbone_features import FitSettings, FrozenBackbone
from headstart.workflows.compare import at_hand, check_sizes, run_trials
from headstart.workflows.ranking import lightest, rank

AUTO = "auto"
WHOLE = 2000  # photos up to which the split is made before the choice; of more, those tried on are not held out
IMAGES, EACH = 500, 3  # to try on, and of every class at least, where there are as many
SHARES = (1, 5 / 7, 4 / 7)  # of a network's own size: 224, 160 and 128 pixels of 224
WORK = 1.5e9  # multiply-adds an image that all candidates may cost together: seconds on two cores


@dataclass(frozen=True, eq=False)
class AutomaticChoice:
    """The choice, and what keeps the photos that it was made on out of the test set."""

    backbone: str
    pixels: int
    made: Split | None  # the split, where it was made first
    pinned: NDArray[np.bool_] | None  # (N,) else the photos that were tried on
    settings: FitSettings
    record: ChoiceRecord

    def split(self, dataset: ImageDataset, features: Features) -> Split:
        """What becomes of every image; none that the choice was made on is held out."""
        if self.made is None:
            return make_split(dataset, features, self.settings.holdout, self.settings.seed, self.pinned)
        self.made.check(dataset, features)
        return self.made


def choose_backbone(
    dataset: ImageDataset,
    settings: FitSettings,
    weights: PathLike | None = None,
    pixels: int | None = None,
    progress: Progress | None = None,
) -> AutomaticChoice:
    """Choose the fastest of the networks at hand that is within a point of the most accurate, by leave-one-out.

    It is made on photos of the training set only. With few photos the split is made first, and kept; with many it
    would cost a pass over all of them, so some are drawn, and the split holds neither them nor their near copies out.

    Args:
        pixels: the one size to try; None for each network's own and two smaller ones.

    Raises:
        UsageError: there is no network at hand, or a size out of range.
        DataError: the photos do not make two classes with two photos each.
    """
    if weights is not None:
        raise UsageError("--weights is a file of one network: name that one with --backbone instead of auto.")
    check_sizes([] if pixels is None else [pixels])
    trials = candidates(pixels)
    split = pinned = None
    if len(dataset) <= WHOLE:
        frozen = FrozenBackbone.open(trials[0][0], settings, common_levels(dataset), pixels=trials[0][1])
        features = frozen.features(dataset, cache=settings.cache, progress=stage(progress, "split"))
        split = make_split(dataset, features, settings.holdout, settings.seed)
        train = np.flatnonzero(split.train)
        rows = train[_some(split.labels[train], np.arange(len(train)), settings.seed)]
    else:
        rows = _some_of_many(dataset, settings.seed)
        pinned = np.isin(np.arange(len(dataset)), rows)
    report = None if progress is None else (lambda _, done, count: progress("choice", done, count))
    tried, tried_on, _ = run_trials(_only(dataset, rows), trials, {}, replace(settings, holdout=0), report)
    ranked = rank(tried)
    chosen, sentence = lightest(ranked)
    record = ChoiceRecord(sentence, int(tried_on.train.sum()), tuple(row.as_json() for row in ranked))
    return AutomaticChoice(chosen.backbone, chosen.pixels, split, pinned, settings, record)


def candidates(pixels: int | None = None) -> list[tuple[str, int]]:
    """What to try, (backbone, pixels): the default network at its own size, then the lightest, as many as `WORK` lets.

    It goes by multiply-adds and not by the clock, so the same photos have the same candidates on every run.
    """
    costs: dict[tuple[str, int], int] = {}
    for name in at_hand():
        backbone = find_backbone(name)
        trunk = backbone.blueprint().trunk(backbone.layers)
        own = backbone.spec.size
        sizes = [pixels] if pixels else [own, *(round(own * share / 32) * 32 for share in SHARES[1:])]
        costs |= {(name, size): sum(trunk.multiply_adds(size).values()) for size in sizes if size >= SMALLEST}
    if not costs:
        raise UsageError("No network is at hand to choose from. See: headstart backbones")
    first, *others = costs
    chosen, work = [first], costs[first]
    for trial in sorted(others, key=costs.__getitem__):
        work += costs[trial]
        if work <= WORK:
            chosen.append(trial)
    return chosen


def _some_of_many(dataset: ImageDataset, seed: int) -> NDArray[np.int_]:
    """Rows to try on, of the part that is fitted on, from few of the groups that the data names."""
    own_test, place = dataset.own_test, {name: k for k, name in enumerate(dataset.classes)}
    rows = np.array([row for row, sample in enumerate(dataset.samples) if not own_test or sample.split != own_test])
    labels = np.array([place[dataset.samples[row].label] for row in rows])
    return rows[_some(labels, named_groups([dataset.samples[row] for row in rows]), seed)]


def _some(labels: NDArray[np.int_], groups: NDArray[np.int_], seed: int) -> NDArray[np.int_]:
    """About `IMAGES` of the rows, stratified, and group after group, so that few groups are touched."""
    sizes = np.bincount(labels)
    room = np.maximum(np.round(sizes * IMAGES / len(labels)).astype(int), EACH)
    members: dict[int, list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(labels)).tolist():
        members.setdefault(int(groups[row]), []).append(row)
    taken = []
    for row in (row for group in members.values() for row in group):
        if room[labels[row]]:
            room[labels[row]] -= 1
            taken.append(row)
    return np.sort(np.array(taken))


def _only(dataset: ImageDataset, rows: NDArray[np.int_]) -> ImageDataset:
    """Some rows as a table that brings no part of its own to be measured on."""
    part = dataset.part(rows.tolist())
    return replace(part, samples=[replace(sample, split="") for sample in part.samples], problems=())
