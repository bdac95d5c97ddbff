"""The features of all shards as one matrix that stays on the disk, and sums over its rows by many processes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.learn.regularisation_path import BLOCK, Design, Labels, Matrix
from headstart.scale.cluster import answers_in_order
from headstart.scale.shards import Shard

CHUNK = 64 * BLOCK  # rows that one task adds up: whole blocks, so that the sums are those of one process
MOST = 256  # tasks of one sum: each sends a matrix of D × D
AHEAD = 8  # sums that wait for the one whose turn it is


@dataclass(frozen=True)
class ShardFile:
    """A shard that is there."""

    path: Path
    images: int


class ShardedMatrix:
    """Features (N, D), float16, read from shards; rows are taken by their numbers.

    ``opened`` are shards that were opened already, by their places.
    """

    dtype = np.dtype(np.float16)

    def __init__(
        self,
        files: Sequence[ShardFile],
        space: Mapping[str, object],
        width: int,
        opened: Mapping[int, Shard] | None = None,
    ) -> None:
        self.files, self.space = tuple(files), dict(space)
        self._starts = np.cumsum([0, *(file.images for file in files)])
        self.shape = (int(self._starts[-1]), width)
        self._opened, self._opening = dict(opened or {}), threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Labels | NDArray[np.bool_]) -> NDArray[np.float16]:
        rows = np.arange(len(self))[rows]
        places = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.zeros((len(rows), self.shape[1]), np.float16)
        for place in np.unique(places).tolist():
            here = places == place
            found[here] = self.shard(place).features[rows[here] - self._starts[place]]
        return found

    def min(self) -> float:
        """The least value of all."""
        return min((self.shard(place).least for place in range(len(self.files))), default=0.0)

    def shard(self, place: int) -> Shard:
        """A shard, opened once."""
        with self._opening:
            if place not in self._opened:
                self._opened[place] = Shard(self.files[place].path, self.space)
            return self._opened[place]


class SpreadDesign(Design):
    """The design of a `ShardedMatrix`, whose sums over all rows are added up by tasks on the cluster.

    Each task opens the shards of its rows and sends one sum: (classes, D) or (D, D), whatever the number of rows. They
    are added in the order of the rows, so the result does not depend on which machine was faster.
    """

    _features: ShardedMatrix

    def exact_sum(self, labels: Labels, classes: int) -> NDArray[np.float64]:
        """As `Design.exact_sum`."""
        if self.shape[0] <= CHUNK:
            return super().exact_sum(labels, classes)
        return self._added(labels, classes)

    def scatter(self, centres: Matrix, labels: Labels | None = None) -> NDArray[np.float64]:
        """As `Design.scatter`."""
        if self.shape[0] <= CHUNK:
            return super().scatter(centres, labels)
        return self._added(labels, centres)

    def _added(self, labels: Labels | None, how: int | Matrix) -> NDArray[np.float64]:
        import ray

        features, count = self._features, self.shape[0]
        shared = ray.put((features.files, features.space, features.shape[1], self._sqrt, how))
        size = BLOCK * max(CHUNK // BLOCK, -(-count // (MOST * BLOCK)))
        task, all_rows = ray.remote(num_cpus=1)(_sum_of), np.arange(count) if self._rows is None else self._rows
        parts = (slice(start, start + size) for start in range(0, count, size))
        sums = (task.remote(shared, all_rows[part], None if labels is None else labels[part]) for part in parts)
        total = np.zeros(())
        for one in answers_in_order(sums, AHEAD):
            total = total + one
        return total


def _sum_of(shared: tuple[Any, ...], rows: Labels, labels: Labels | None) -> NDArray[np.float64]:
    """The sum over some rows, in a process of its own."""
    files, space, width, sqrt, how = shared
    design = Design(ShardedMatrix(files, space, width), rows, sqrt=sqrt, alone=True)
    if isinstance(how, int) and labels is not None:
        return design.exact_sum(labels, how)
    return design.scatter(how, labels)
