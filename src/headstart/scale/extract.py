"""Features of the units of a data set, by a pool of workers on a cluster that each hold one network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.blueprint import FEATURES
from headstart.backbones.catalogue import Pretrained
from headstart.core.errors import UsageError
from headstart.core.processors import THREADS
from headstart.core.types import ImageDataset
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine
from headstart.engines.sound import ADVICE
from headstart.learn.features import run_network, to_half
from headstart.scale.cluster import answers
from headstart.scale.plan import Plan
from headstart.scale.shards import SUFFIX, DamagedError, Rows, Shard, write_shard
from headstart.scale.unit import Unit


@dataclass(frozen=True, eq=False)
class Work:
    """What every worker needs to know."""

    plan: Plan
    pretrained: Pretrained
    precision: str
    space: Mapping[str, object]  # all that the features depend on but the image
    folder: Path  # of the shards

    def network(self) -> Network:
        """The network on the fast engine, in the precision that was chosen for all."""
        trunk = self.pretrained
        return get_engine("fast", trunk.blueprint, trunk.weights, trunk.spec, self.precision)

    def path(self, unit: Unit) -> Path:
        """Where the shard of a unit is."""
        return self.place(unit) / f"{unit.name}{SUFFIX}"

    def place(self, unit: Unit) -> Path:
        """The folder of the shards of its place: one of 4096, so that it is listed quickly."""
        return self.folder / unit.place[:3]


@dataclass(frozen=True)
class Done:
    """A unit whose shard is there."""

    number: int
    images: int
    computed: int  # of them now, the others before
    damaged: int = 0  # shards that were there


DONE = tuple(field.name for field in fields(Done))


class Worker:
    """One process: reads, decodes and runs the network, each core for itself, and writes the shards."""

    def __init__(self, shared: Any, threads: int) -> None:
        os.environ[THREADS] = str(threads)
        (self._work,) = answers(shared)
        self._network = self._work.network()
        self._width = self._network.shape(FEATURES)[0]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do some units, by their numbers."""
        done = [self._one(int(number)) for number in batch["unit"]]
        return {name: np.array([getattr(each, name) for each in done]) for name in DONE}

    def _one(self, number: int) -> Done:
        """A unit: nothing where its shard is there and whole, else what of it was not computed before."""
        unit = self._work.plan.units[number]
        path, self._damaged = self._work.path(unit), 0
        if path.exists() and (there := self._opened(path)):
            return Done(number, len(there), 0)
        dataset = self._work.plan.open(unit)
        rows, computed = self._rows(dataset, self._earlier(unit))
        write_shard(path, rows, self._work.space)
        return Done(number, len(dataset), computed, self._damaged)

    def _opened(self, path: Path) -> Shard | None:
        """A shard; one that is damaged is as one that is not there."""
        try:
            return Shard(path, self._work.space)
        except DamagedError:
            self._damaged += 1
            return None

    def _rows(self, dataset: ImageDataset, known: Mapping[bytes, tuple[Shard, int]]) -> tuple[Rows, int]:
        """The rows of a shard, and how many of them were computed."""
        rows, computed = Rows.of(dataset.samples, self._width, dataset.problems), 0
        for item, values in run_network(dataset, self._network, (FEATURES,), known=known):
            row = item.index
            if item.error is not None:
                rows.problems[row], rows.details[row] = item.error.kind, item.error.detail
                continue
            rows.keys[row] = np.frombuffer(item.key, np.uint8)
            if values is None:
                shard, place = known[item.key]
                rows.features[row], rows.thumbnails[row] = shard.features[place], shard.thumbnails[place]
                rows.formats[row] = shard.formats[place]
                continue
            if not np.isfinite(values[0]).all():
                name = dataset.samples[row].name
                raise UsageError(f"'{self._network.name}' gives no finite numbers for '{name}'. {ADVICE}")
            rows.features[row], rows.formats[row] = to_half(values[0]), item.format
            if item.thumbnail is not None:
                rows.thumbnails[row] = item.thumbnail
            computed += 1
        return rows, computed

    def _earlier(self, unit: Unit) -> dict[bytes, tuple[Shard, int]]:
        """Images by their content in shards of the same place, of which others or fewer images were there."""
        found: dict[bytes, tuple[Shard, int]] = {}
        for path in {*self._work.place(unit).glob(f"{unit.place}-*{SUFFIX}")} - {self._work.path(unit)}:
            if shard := self._opened(path):
                found |= {key: (shard, row) for row, key in enumerate(shard.keys) if key}
        return found
