"""The search for near copies among very many photos: all pairs, by tasks on the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from headstart.data.near_copies import Floats, Index, Views, near_in_tile, near_pairs, number_of_tiles, tiles_of
from headstart.data.threads import ONE_BLAS_THREAD
from headstart.scale.cluster import answers_in_order

MANY = 100_000  # photos: of fewer, one process compares all pairs in seconds
FEWEST, TASKS = 256, 2000  # tiles of a task; tasks of which there are enough


def pairs_on_cluster(views: Views, limit: float) -> Iterator[tuple[Index, Index, Floats]]:
    """As `near_pairs`, in the same order."""
    count = len(views[0])
    if count < MANY:
        yield from near_pairs(views, limit)
        return
    import ray

    shared, tiles = ray.put(tuple(views)), tiles_of(count)
    size = max(FEWEST, number_of_tiles(count) // TASKS)
    task = ray.remote(num_cpus=1)(_near_in_tiles)
    found = (task.remote(shared, some, limit) for some in iter(lambda: [*islice(tiles, size)], []))
    yield from answers_in_order(found, 2 * max(1, int(ray.cluster_resources().get("CPU", 1))))


def _near_in_tiles(views: Views, tiles: Sequence[tuple[int, int]], limit: float) -> tuple[Index, Index, Floats]:
    """The near pairs of some tiles, in a process of its own."""
    with ONE_BLAS_THREAD:
        found = [near_in_tile(views, top, left, limit) for top, left in tiles]
    one, other, apart = (np.concatenate(each) for each in zip(*found, strict=True))
    return one, other, apart
