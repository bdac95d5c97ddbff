"""A tall picture, cut into columns side by side; lines lead from the end of one column to the top of the next.

Lengths are pixels, downward and to the right.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ASPECT = 1.5  # of the whole, width to height
GUTTER = 30  # between columns, without the lines that run there
STEP, FOOT, TITLE = 9, 16, 22  # between those lines; below a column; above it, for every frame that continues
CUT_COST = (0.0, 0.05, 0.5)  # of a cut between frames, in the outer one, in both; in heights of a column

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a frame in one column, from top to bottom."""

    top: Point
    bottom: float
    again: bool  # whether it began in a column before


@dataclass(frozen=True, slots=True)
class Fold:
    """The new places of a tall picture's parts. ``cuts`` are the heights at which its columns end, except the last."""

    cuts: Sequence[float]
    sides: Sequence[tuple[float, float]]  # how far each column reaches to the left and right of its axis
    height: float
    crossing: Sequence[Sequence[float]]  # where lines cross each cut, from right to left
    frames: Sequence[int]  # how many each cut goes through

    @property
    def size(self) -> Point:
        """Width and height of the whole."""
        feet = [self._foot(column) + STEP * len(lines) for column, lines in enumerate(self.crossing)]
        return self._axis(len(self.cuts)) + self.sides[-1][1], max([*feet, self.place((0.0, self.height))[1]])

    def place(self, point: Point, column: int | None = None) -> Point:
        """The new place of a point."""
        x, y = point
        column = bisect_right(self.cuts, y) if column is None else column
        start = self.cuts[column - 1] if column else 0.0
        return x + self._axis(column), y - start + self._head(column)

    def path(self, points: Sequence[Point]) -> list[Point]:
        """The new corners of a line; at every cut that it crosses it leads to the next column."""
        found = [self.place(points[0])]
        for (x, above), (end, below) in pairwise(points):
            for column, cut in enumerate(self.cuts):
                if above < cut < below:
                    found += self._to_next_column(x, column)
            found.append(self.place((end, below)))
        return found

    def spans(self, left: float, top: float, bottom: float, depth: int) -> list[Span]:
        """The parts of a frame of this depth, one for each column."""
        found = []
        first, last = (bisect_right(self.cuts, y) for y in (top, bottom))
        for column in range(first, last + 1):
            x, y = self.place((left, top if column == first else self.cuts[column - 1]), column)
            if column > first:
                y -= TITLE * (self.frames[column - 1] - depth + 1)
            end = self.place((left, bottom), column)[1] if column == last else self._foot(column) - 4 * depth
            found.append(Span((x, y), end, column > first))
        return found

    def _axis(self, column: int) -> float:
        before = sum(sum(sides) + GUTTER for sides in self.sides[:column])
        return self.sides[column][0] + before + STEP * sum(len(lines) for lines in self.crossing[:column])

    def _head(self, column: int) -> float:
        """The height above a column for lines and frames that continue."""
        return (STEP * len(self.crossing[column - 1]) + FOOT + TITLE * self.frames[column - 1]) if column else 0.0

    def _foot(self, column: int) -> float:
        """The height at which the lines of a column turn to the side."""
        return self.place((0.0, self.cuts[column]), column)[1] + FOOT

    def _to_next_column(self, x: float, column: int) -> list[Point]:
        """Down, to the side, up, and down again: the rightmost line turns first, so that no two lines cross."""
        number = self.crossing[column].index(x)
        axis = self._axis(column)
        aside = axis + self.sides[column][1] + GUTTER / 2 + STEP * number
        low, high = self._foot(column) + STEP * number, STEP * number + FOOT / 2
        return [(axis + x, low), (aside, low), (aside, high), (self._axis(column + 1) + x, high)]


def fold(
    cuts: Sequence[tuple[float, int]],
    reach: Sequence[tuple[float, float, float]],
    height: float,
    paths: Sequence[Sequence[Point]],
) -> Fold:
    """Cut a tall picture so that its shape is near to a screen's.

    Args:
        cuts: heights at which it may be cut, and how many frames each cut goes through.
        reach: heights from top to bottom, and how far the picture reaches there to the left and right.
        height: of the whole.
        paths: corners of every line.
    """
    width = sum(left + right for _, left, right in reach) / len(reach) + GUTTER
    count = max(1, round(math.sqrt(ASPECT * height / width)))
    aim, chosen = height / count, list[tuple[float, int]]()
    for column in range(1, count):
        below = [cut for cut in cuts if cut[0] > (chosen[-1][0] if chosen else 0.0) + aim / 4]
        if below:
            chosen.append(min(below, key=lambda cut: abs(cut[0] - aim * column) + CUT_COST[cut[1]] * aim))
    heights = [y for y, _ in chosen]
    crossing = [sorted({x for path in paths for x in _across(path, y)}, reverse=True) for y in heights]
    sides = []
    for column, led in enumerate([[], *crossing]):
        here = [(left, right) for y, left, right in reach if bisect_right(heights, y) == column]
        here += [(-x, x) for x in led]
        sides.append((max(left for left, _ in here), max(right for _, right in here)))
    return Fold(heights, sides, height, crossing, [frames for _, frames in chosen])


def _across(path: Sequence[Point], cut: float) -> list[float]:
    return [x for (x, above), (_, below) in pairwise(path) if above < cut < below]
