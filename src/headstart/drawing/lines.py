"""The way of every line: through the gaps between rows, and past rows in lanes beside their boxes.

No line crosses a box, and lines of different sources never lie on each other. Lengths are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headstart.drawing.layers import Grid, Item, shared

LANE, CLEAR = 12, 5  # between lanes; between any two vertical lines
PAD = 10  # of a frame
SAME = 1e-6  # places nearer than this are the same
PORT = 14  # between two lines that end at a box
SHIFTS = tuple(sorted(range(-24, 25), key=abs))  # by which the end of a line may be moved away from other lines


@dataclass(slots=True, eq=False)
class Wire:
    """A line from an item to one of the inputs of another, and its way."""

    source: int
    target: int
    place: int  # among the inputs
    first: int  # the gap below its source, of the same number as the row above the gap
    last: int  # the gap above its target
    lane: float = 0.0  # where it passes the rows between the two gaps, if any
    port: float = 0.0  # where it ends, from the axis
    leftward: bool = False  # whether its words stand left of it
    leaves: int = 0  # the track of its horizontal part in the first gap
    enters: int = 0  # the track of its horizontal part in the last gap, below those

    @property
    def passes(self) -> bool:
        """Whether there are rows between its ends."""
        return self.last > self.first


def room(item: Item) -> float:
    """The least width of a box for the lines that end on it, and their words."""
    count, widest = len(item.inputs), max(item.labels, default=0.0) + 2 * CLEAR
    return 2 * max(SHIFTS) + (count * widest if count > 2 else 2 * widest + PORT)


def wires_of(grid: Grid) -> list[Wire]:
    """Every line; its way is not chosen yet."""
    rows = grid.rows
    ends = [(s, t, place) for t, item in enumerate(grid.items) for place, s in enumerate(item.inputs)]
    return [Wire(s, t, place, rows[s], rows[t] - 1) for s, t, place in ends]


def choose_lanes(grid: Grid, wires: Sequence[Wire]) -> dict[int, float]:
    """Choose a lane for every line that passes rows, short lines first; returns how far frames reach right, by depth.

    A line stays in the frame that all rows it passes share.
    """
    halves, groups = grid.halves, grid.groups
    deep = max(map(len, groups))
    passing = sorted((wire for wire in wires if wire.passes), key=lambda w: (w.last - w.first, w.target, w.place))
    passed = {wire: groups[wire.first + 1 : wire.last + 1] for wire in passing}
    depths = {wire: shared(passed[wire]) for wire in passing}
    edges = dict.fromkeys(range(deep + 2), 0.0)
    done: list[Wire] = []
    for depth in range(deep, -1, -1):
        for wire in (wire for wire in passing if depths[wire] == depth):
            beside = max(halves[wire.first + 1 : wire.last + 1])
            if len(set(passed[wire])) > 1:
                beside = max(beside, edges[depth + 1])
            wire.lane = _free_lane(beside + LANE, wire, done, grid)
            done.append(wire)
        inside = [half for half, group in zip(halves, groups, strict=True) if len(group) >= depth]
        edges[depth] = max([*inside, *(wire.lane for wire in done), edges[depth + 1]]) + PAD
    return edges


def _free_lane(x: float, wire: Wire, others: Iterable[Wire], grid: Grid) -> float:
    """The first place from ``x`` on that is clear of other lanes, and of lines that leave the wire's own row."""
    taken = [(other.lane, LANE) for other in others if other.first <= wire.last and wire.first <= other.last]
    taken += [(grid.centres[i], CLEAR) for i in grid.order[wire.first] if i != wire.source]
    while any(abs(x - other) < clear for other, clear in taken):
        x += CLEAR
    return x


def choose_ports(grid: Grid, wires: Sequence[Wire]) -> None:
    """Choose where lines end on a box: in the order of their lanes, one of them straight where that is near."""
    ending: dict[int, list[Wire]] = {}
    for wire in wires:
        ending.setdefault(wire.target, []).append(wire)
    for target, own in ending.items():
        own.sort(key=lambda wire: (_comes(wire, grid), wire.place))
        apart = PORT if len(own) < 3 else max(grid.items[target].labels) + 2 * CLEAR
        wanted = [grid.centres[target] + (place - (len(own) - 1) / 2) * apart for place in range(len(own))]
        straight = [_comes(wire, grid) - x for wire, x in zip(own, wanted, strict=True) if not wire.passes]
        shift = min((each for each in straight if abs(each) <= PORT / 2), key=abs, default=0.0)
        gap = own[0].last
        taken = [(i, grid.centres[i]) for i in grid.order[gap]]
        taken += [(wire.source, wire.lane) for wire in wires if wire.passes and wire.last == gap]
        least = -math.inf
        for place, wire in enumerate(own):
            others = [x for source, x in taken if source != wire.source]
            wire.port = _free_port(wanted[place] + shift, least, others)
            wire.leftward = len(own) == 2 and place == 0
            least = wire.port + apart - CLEAR


def _free_port(wanted: float, least: float, others: Sequence[float]) -> float:
    """The nearest place to the one ``wanted`` that is clear of other vertical lines."""
    places = (wanted + shift for shift in SHIFTS)
    free = (x for x in places if x >= least and all(abs(x - other) >= CLEAR for other in others))
    return next(free, wanted)


def _comes(wire: Wire, grid: Grid) -> float:
    """The place of a line before its last gap."""
    return wire.lane if wire.passes else grid.centres[wire.source]


def choose_tracks(grid: Grid, wires: Sequence[Wire]) -> list[tuple[int, int]]:
    """Choose tracks for the horizontal parts of lines; returns how many each gap has below sources and above targets.

    The lines of one source share a track.
    """
    counts = []
    for gap in range(len(grid.order) - 1):
        leaving: dict[int, list[Wire]] = {}
        for wire in wires:
            if wire.first == gap:
                leaving.setdefault(wire.source, []).append(wire)
        spans = []
        for source, own in leaving.items():
            reach = [grid.centres[source], *(wire.lane if wire.passes else wire.port for wire in own)]
            spans.append((min(reach), max(reach)))
        upper = _tracks(spans)
        for own, track in zip(leaving.values(), upper, strict=True):
            for wire in own:
                wire.leaves = track
        entering = sorted((wire for wire in wires if wire.passes and wire.last == gap), key=lambda wire: wire.lane)
        lower = _tracks([(min(wire.port, wire.lane), max(wire.port, wire.lane)) for wire in entering])
        for wire, track in zip(entering, lower, strict=True):
            wire.enters = track
        counts.append((1 + max(upper, default=-1), 1 + max(lower, default=-1)))
    return counts


def _tracks(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The number of a track for each span; those that overlap get different ones, those without length none (-1)."""
    ends: list[list[tuple[float, float]]] = []
    chosen = []
    for low, high in spans:
        if high - low <= SAME:
            chosen.append(-1)
            continue
        free = (k for k, track in enumerate(ends) if all(high + CLEAR <= a or b + CLEAR <= low for a, b in track))
        track = next(free, len(ends))
        if track == len(ends):
            ends.append([])
        ends[track].append((low, high))
        chosen.append(track)
    return chosen
