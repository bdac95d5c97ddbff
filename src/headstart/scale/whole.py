"""All units together: the data set and its features, as one process would have them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import cast

import numpy as np
from numpy.typing import NDArray

from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset, Sample
from headstart.data.spelling import as_whole
from headstart.learn.features import Features
from headstart.scale.extract import Done, Work
from headstart.scale.matrix import ShardedMatrix, ShardFile
from headstart.scale.pairs import pairs_on_cluster
from headstart.scale.plan import Plan
from headstart.scale.shards import Shard

OPEN = 8  # units at a time


def some_of(plan: Plan, count: int) -> ImageDataset:
    """So many images of a data set, evenly spread; of files that hold many, about."""
    starts = [0, *accumulate(unit.images for unit in plan.units)]
    samples, places = list[Sample](), list[tuple[int, int]]()
    for row in evenly_spread(range(starts[-1]), count):
        number = bisect_right(starts, row) - 1
        dataset = plan.open(plan.units[number])
        if len(dataset):
            places.append((number, min(row - starts[number], len(dataset) - 1)))
            samples.append(dataset.samples[places[-1][1]])
    return ImageDataset(plan.source.data, samples, _Reader(plan, places).read)


def whole_of(work: Work, done: Sequence[Done]) -> tuple[ImageDataset, Features]:
    """The data set of all units, and its features, which stay on the disk; all else of it is in memory."""
    plan = work.plan
    files = [ShardFile(work.path(plan.units[each.number]), each.images) for each in done]
    shards = [Shard(file.path, work.space) for file in files]
    width = shards[0].features.shape[1]
    samples = [sample for shard in shards for sample in shard.samples]
    left_out = [*plan.left_out, *(problem for shard in shards for problem in shard.left_out)]
    places = [(each.number, row) for each in done for row in range(each.images)]
    dataset = ImageDataset(plan.source.data, samples, _Reader(plan, places).read, tuple(left_out), plan.label_kind)
    seen = Features(
        keys=[key for shard in shards for key in shard.keys],
        thumbnails=np.concatenate([shard.thumbnails for shard in shards]),
        usable=np.concatenate([shard.usable for shard in shards]),
        formats=[text for shard in shards for text in shard.formats],
        problems=[problem for shard in shards for problem in shard.problems],
        values=cast("NDArray[np.float16]", ShardedMatrix(files, work.space, width, dict(enumerate(shards)))),
        computed=sum(each.computed for each in done),
        pairs=pairs_on_cluster,
    )
    seen.from_store = int(seen.usable.sum()) - seen.computed
    return (dataset if all(unit.listed for unit in plan.units) else as_whole(dataset)), seen


class _Reader:
    """Reads single images of units, a few of which stay open."""

    def __init__(self, plan: Plan, places: Sequence[tuple[int, int]]) -> None:
        self._places = places
        self._open = lru_cache(OPEN)(lambda number: plan.open(plan.units[number]))

    def read(self, row: int) -> bytes | NDArray[np.generic]:
        number, place = self._places[row]
        return self._open(number).read(place)
