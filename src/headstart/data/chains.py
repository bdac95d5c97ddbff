"""Chains of near neighbours: frames of a video or a burst, each like the next, the first perhaps unlike the last.

A chain is a cluster of single linkage that stands alone: everything else is at least ``GAP`` times as far away as the
longest link in it. Handwritten digits have neighbours as near as frames have, but they do not stand alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]

LINK = 0.1  # the longest link of a chain, as a distance of `near_copies`
GAP = 5.0
FEWEST = 3  # images of a chain
_HELD = 2**17  # links, before they are thinned out


@dataclass(eq=False)
class Cluster:
    """Images that links join, and the longest of those links."""

    members: list[int]
    longest: float = 0.0

    def is_chain(self, nearest: float) -> bool:
        """Whether it stands alone, the nearest other image being so far away."""
        return len(self.members) >= FEWEST and nearest >= GAP * self.longest


class Links:
    """Pairs of images that are near each other. Only a minimum spanning forest is kept, so memory stays bounded."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pairs: list[Index] = []
        self._lengths: list[NDArray[np.float64]] = []

    def add(self, i: Index, j: Index, length: NDArray[np.floating]) -> None:
        """Link ``i[k]`` to ``j[k]`` for every k, unless they are farther apart than `LINK`."""
        short = length <= LINK
        self._pairs.append(np.stack([i[short], j[short]], axis=1))
        self._lengths.append(length[short].astype(np.float64))
        if sum(map(len, self._pairs)) > _HELD + self.count:
            needed = [place for place, _, _, _ in self._joins()]
            self._pairs, self._lengths = [self._all_pairs()[needed]], [np.concatenate(self._lengths)[needed]]

    def clusters(self) -> tuple[list[list[int]], list[Cluster]]:
        """The chains that became part of a larger cluster, and the clusters of all links that are large enough."""
        chains: list[list[int]] = []
        merged: dict[int, Cluster] = {}
        for _, length, one, other in self._joins():
            chains += [[*cluster.members] for cluster in (one, other) if cluster.is_chain(length)]
            merged.pop(id(other), None)
            merged[id(one)] = one
        return chains, [cluster for cluster in merged.values() if len(cluster.members) >= FEWEST]

    def _joins(self) -> Iterator[tuple[int, float, Cluster, Cluster]]:
        """Links that join two clusters, the shortest first (Kruskal 1956): place, length, and the two as they were.

        After it the first of them has the members of both.
        """
        if not self._pairs:
            return
        lengths, pairs = np.concatenate(self._lengths), self._all_pairs()
        number = np.arange(self.count)
        clusters = [Cluster([k]) for k in range(self.count)]
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self.count):  # most links are inside a cluster, seen for many at once
            ends = number[pairs[order[start : start + self.count]]]
            for place in order[start : start + self.count][ends[:, 0] != ends[:, 1]].tolist():
                one, other = (clusters[k] for k in number[pairs[place]].tolist())
                if one is other:
                    continue
                one, other = (one, other) if len(one.members) >= len(other.members) else (other, one)
                yield place, float(lengths[place]), one, other
                number[other.members] = number[one.members[0]]
                one.members += other.members
                one.longest = float(lengths[place])

    def _all_pairs(self) -> Index:
        return np.concatenate(self._pairs)
