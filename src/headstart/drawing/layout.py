"""The place of everything: boxes in rows, lines between them, frames around groups.

Lengths are pixels, downward and to the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from headstart.drawing.columns import TITLE, Point, fold
from headstart.drawing.layers import Grid, Item, layered, shared
from headstart.drawing.lines import PAD, SAME, Wire, choose_lanes, choose_ports, choose_tracks, room, wires_of

TRACK, AIR, LABEL = 9, 8, 20  # between level lines; below a row; above a box, for the words beside its lines


@dataclass(frozen=True, slots=True)
class Rect:
    """Left, top, width, height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """From an item down to one of the inputs of another; its words stand left or right of its end."""

    source: int
    target: int
    place: int
    points: tuple[Point, ...]
    leftward: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """Around a group, or around its part in one column."""

    title: str
    depth: int  # 1 the outer
    rect: Rect
    again: bool  # whether the group began in an earlier column


@dataclass(frozen=True, slots=True)
class Layout:
    """The place of everything; the picture begins at (0, 0)."""

    boxes: tuple[Rect, ...]
    lines: tuple[Line, ...]
    frames: tuple[Frame, ...]
    width: float
    height: float


@dataclass(slots=True)
class _Gap:
    """Heights above a row, from top to bottom: frames end, a cut, frames begin, horizontal lines."""

    cut: float = 0.0
    ends: dict[int, float] = field(default_factory=dict)  # by depth
    begins: dict[int, float] = field(default_factory=dict)
    tracks: float = 0.0


def arrange(items: Sequence[Item]) -> Layout:
    """Place every item, the lines between them and a frame around every group."""
    grid = layered([replace(item, width=max(item.width, room(item))) for item in items])
    wires = wires_of(grid)
    edges = choose_lanes(grid, wires)
    choose_ports(grid, wires)
    counts = choose_tracks(grid, wires)
    tops, gaps = _heights(grid, counts)
    boxes = [
        Rect(centre - item.width / 2, tops[row], item.width, item.height)
        for item, row, centre in zip(grid.items, grid.rows, grid.centres, strict=True)
    ]
    paths = [_points(wire, boxes, gaps, counts) for wire in wires]
    lefts = _lefts(grid)
    frames = _frames(grid.groups, gaps)
    cuts = [(gap.cut, sum(top < gap.cut < bottom for _, _, top, bottom in frames)) for gap in gaps[1:-1]]
    folded = fold(cuts, _reach(grid, wires, tops, lefts, edges), gaps[-1].cut, paths)
    width, height = folded.size
    return Layout(
        tuple(Rect(*folded.place((box.x, box.y)), box.width, box.height) for box in boxes),
        tuple(
            Line(wire.source, wire.target, wire.place, tuple(folded.path(path)), wire.leftward)
            for wire, path in zip(wires, paths, strict=True)
        ),
        tuple(
            Frame(title, depth, Rect(*span.top, lefts[depth] + edges[depth], span.bottom - span.top[1]), span.again)
            for title, depth, top, bottom in frames
            for span in folded.spans(-lefts[depth], top, bottom, depth)
        ),
        width,
        height,
    )


def _heights(grid: Grid, counts: Sequence[tuple[int, int]]) -> tuple[list[float], list[_Gap]]:
    """The top of every row; and the gaps: one above each row, and one below the last."""
    y, tops, gaps = 0.0, [], []
    groups = [(), *grid.groups, ()]
    for row, (before, after) in enumerate(pairwise(groups)):
        gap = _Gap()
        same = shared([before, after])
        y += AIR if row else 0
        for depth in range(len(before), same, -1):
            gap.ends[depth] = y = y + (PAD if depth < len(before) else 0)
        gap.cut = y = y + (AIR / 2 if gap.ends else 0)
        y += AIR / 2 if gap.ends else 0
        for depth in range(same + 1, len(after) + 1):
            gap.begins[depth] = y
            y += TITLE
        gap.tracks = y
        gaps.append(gap)
        if row < len(grid.order):
            y += TRACK * sum(counts[row - 1]) + LABEL if row else 0
            tops.append(y)
            y += max(grid.items[i].height for i in grid.order[row])
    return tops, gaps


def _points(wire: Wire, boxes: Sequence[Rect], gaps: Sequence[_Gap], counts: Sequence[tuple[int, int]]) -> list[Point]:
    """The corners of a line, before the picture is folded."""
    source, end = boxes[wire.source], boxes[wire.target].y
    axis, beside = source.x + source.width / 2, wire.lane if wire.passes else wire.port
    points = [(axis, source.y + source.height)]
    if abs(beside - axis) > SAME:
        level = gaps[wire.first + 1].tracks + TRACK * (wire.leaves + 0.5)
        points += [(axis, level), (beside, level)]
    if wire.passes:
        level = gaps[wire.last + 1].tracks + TRACK * (counts[wire.last][0] + wire.enters + 0.5)
        points += [(beside, level), (wire.port, level)]
    return [*points, (wire.port, end)]


def _lefts(grid: Grid) -> dict[int, float]:
    """How far the frames of each depth reach to the left."""
    found = {3: 0.0}
    for depth in (2, 1):
        inside = [half for half, group in zip(grid.halves, grid.groups, strict=True) if len(group) >= depth]
        found[depth] = max([*inside, found[depth + 1]]) + PAD
    return found


def _reach(
    grid: Grid, wires: Sequence[Wire], tops: Sequence[float], lefts: Mapping[int, float], edges: Mapping[int, float]
) -> list[tuple[float, float, float]]:
    """The top of every row, and how far its boxes, frames and lanes reach to the left and right."""
    found = []
    for row, (top, half, group) in enumerate(zip(tops, grid.halves, grid.groups, strict=True)):
        lanes = [wire.lane for wire in wires if wire.passes and wire.first <= row <= wire.last + 1]
        left, right = (lefts[1], edges[1]) if group else (half, half)
        found.append((top, left + PAD, max([right, *lanes]) + PAD))
    return found


def _frames(groups: Sequence[tuple[str, ...]], gaps: Sequence[_Gap]) -> list[tuple[str, int, float, float]]:
    """Title, depth, top and bottom of every frame."""
    found = []
    for row, group in enumerate(groups):
        for depth, top in gaps[row].begins.items():
            bottom = next(gap.ends[depth] for gap in gaps[row + 1 :] if depth in gap.ends)
            found.append((group[depth - 1], depth, top, bottom))
    return found
