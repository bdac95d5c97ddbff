"""The row of every box and its place in the row: the first two steps of layered drawing (Sugiyama et al. 1981).

Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BESIDE = 24  # between boxes of a row
SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Item:
    """A box to be placed."""

    width: float
    height: float
    inputs: tuple[int, ...]  # numbers of items before it
    labels: tuple[float, ...]  # the width of the words beside the line of each input
    group: tuple[str, ...]  # the titles of the frames around it, the outer first; two at most


@dataclass(frozen=True, slots=True)
class Grid:
    """Items in rows around a common axis at 0; the rows of a group have no other items."""

    items: tuple[Item, ...]
    rows: tuple[int, ...]  # of each item
    order: tuple[tuple[int, ...], ...]  # items of each row, from left to right
    centres: tuple[float, ...]  # of each item, from the axis

    @property
    def halves(self) -> list[float]:
        """Half the width of every row."""
        return [(sum(self.items[i].width + BESIDE for i in row) - BESIDE) / 2 for row in self.order]

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The group of every row."""
        return [self.items[row[0]].group for row in self.order]


def layered(items: Sequence[Item]) -> Grid:
    """Rows by the longest path, ordered so that few lines cross."""
    rows = _rows(items)
    order = _order(items, rows)
    return Grid(tuple(items), tuple(rows), tuple(map(tuple, order)), tuple(_centres(items, order)))


def shared(groups: Sequence[tuple[str, ...]]) -> int:
    """How many frames, from the outer on, all of these groups are in."""
    depth = 0
    while all(len(group) > depth and group[: depth + 1] == groups[0][: depth + 1] for group in groups):
        depth += 1
    return depth


def _takers(items: Sequence[Item]) -> list[list[int]]:
    takers: list[list[int]] = [[] for _ in items]
    for target, item in enumerate(items):
        for source in item.inputs:
            takers[source].append(target)
    return takers


def _rows(items: Sequence[Item]) -> list[int]:
    """Below all inputs of an item and below the group before; within that, as near as possible to its outputs."""
    rows: list[int] = []
    runs: list[list[int]] = []
    first = 0
    for i, item in enumerate(items):
        if i == 0 or item.group != items[i - 1].group:
            first = 1 + max(rows, default=-1)
            runs.append([])
        rows.append(max([first, *(rows[source] + 1 for source in item.inputs)]))
        runs[-1].append(i)
    takers = _takers(items)
    for run in reversed(runs):
        last = max(rows[i] for i in run)
        for i in reversed(run):
            rows[i] = min([last, *(rows[taker] - 1 for taker in takers[i])])
    return rows


def _order(items: Sequence[Item], rows: Sequence[int]) -> list[list[int]]:
    """Every item near the mean place of its inputs, then of its outputs, in turn."""
    order: list[list[int]] = [[] for _ in range(max(rows) + 1)]
    for i, row in enumerate(rows):
        order[row].append(i)
    places = [0.0] * len(items)
    near = ([item.inputs for item in items], _takers(items))
    for sweep in range(SWEEPS):
        upward = sweep % 2
        for items_of_row in reversed(order) if upward else order:
            means = {i: _mean([places[k] for k in near[upward][i]], places[i]) for i in items_of_row}
            items_of_row.sort(key=means.__getitem__)
            for place, i in enumerate(items_of_row):
                places[i] = place - (len(items_of_row) - 1) / 2
    return order


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _centres(items: Sequence[Item], order: Sequence[Sequence[int]]) -> list[float]:
    centres = [0.0] * len(items)
    for row in order:
        left = -sum(items[i].width + BESIDE for i in row) / 2
        for i in row:
            centres[i] = left + (items[i].width + BESIDE) / 2
            left += items[i].width + BESIDE
    return centres
