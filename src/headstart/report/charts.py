"""Charts as inline SVG: lines with bands or whiskers, points, and bars. Colours are those of the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from headstart.core.text import one_line
from headstart.report.ticks import log_ticks, tick_text, ticks

WIDTH, HEIGHT = 380, 244  # units of the picture; letters of 13 units can be read on a phone too
LEFT, RIGHT, TOP, BOTTOM = 54, 22, 12, 46  # margins
COLOURS = ("a", "b", "c", "d", "e")  # classes of the style, beside "quiet"
MANY = 30  # points of a line above which they are not marked

Pairs = Sequence[tuple[float, float]]
Place = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """Points (x, y) that a line connects; what is not finite is left out, and the line broken there."""

    name: str
    points: Pairs
    colour: str = "a"
    band: Pairs = ()  # the lowest and the highest at each point
    whiskers: bool = False  # draw the band as a line at each point
    dashed: bool = False
    dots: bool = True
    joined: bool = True


@dataclass(frozen=True)
class Mark:
    """A vertical line."""

    name: str
    x: float


@dataclass(frozen=True)
class Axis:
    """One axis; its ends are those of the points, unless given."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    percent: bool = False
    whole: bool = False  # ticks at whole numbers only
    at: tuple[float, ...] = ()  # where ticks stand; else chosen


@dataclass(frozen=True)
class Chart:
    """Lines over two axes."""

    says: str  # in words, for those who do not see it
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()


def draw(chart: Chart) -> str:
    """A chart as SVG, with what its lines are below it."""
    xs = [x for line in chart.lines for x, _ in line.points] + [mark.x for mark in chart.marks]
    ys = [y for line in chart.lines for _, y in line.points] + [y for line in chart.lines for y in sum(line.band, ())]
    (left, right), (bottom, top) = _ends(chart.x, xs), _ends(chart.y, ys)
    x = _scale(chart.x, left, right, LEFT, WIDTH - RIGHT)
    y = _scale(chart.y, bottom, top, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_safe(chart.says)}">',
        *_axes(chart, x, y, (left, right), (bottom, top)),
        *(_band(line, x, y) for line in chart.lines if line.band and not line.whiskers),
        *(_mark(mark, x) for mark in chart.marks),
        *(piece for line in chart.lines for piece in _line(line, x, y)),
        "</svg>",
    ]
    return "".join(parts) + _legend(chart)


def bar(parts: Sequence[tuple[float, str]], says: str) -> str:
    """Shares of a whole, with their colours, one behind the other as one bar."""
    left, found = 0.0, []
    for share, colour in parts:
        width = min(max(share, 0.0), 1 - left) if math.isfinite(share) else 0.0
        found.append(f'<rect class="fill {colour}" x="{100 * left:.2f}" y="0" width="{100 * width:.2f}" height="10"/>')
        left += width
    return _small(says, '<rect class="track" x="0" y="0" width="100" height="10"/>' + "".join(found))


def interval(low: float, value: float, high: float, says: str) -> str:
    """A share with its interval on a line from 0 to 1."""
    box = f'<rect class="fill a soft" x="{100 * low:.2f}" y="1" width="{max(100 * (high - low), 0.5):.2f}" height="8"/>'
    place = min(max(100 * value - 0.75, 0), 98.5)
    return _small(says, f'<rect class="track" x="0" y="4" width="100" height="2"/>{box}'
                  f'<rect class="fill a" x="{place:.2f}" y="0" width="1.5" height="10"/>')  # fmt: skip


def _small(says: str, inside: str) -> str:
    label = f'role="img" aria-label="{_safe(says)}"'
    return f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" {label}>{inside}</svg>'


def _safe(text: str) -> str:
    return escape(one_line(text))


def _ends(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """The two ends of an axis, apart from each other."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
    low = axis.low if axis.low is not None else min(finite, default=1.0 if axis.log else 0.0)
    high = axis.high if axis.high is not None else max(finite, default=1.0)
    if low < high:
        return low, high
    return (low / 2, low * 2) if axis.log else (low, low + (abs(low) * 0.1 or (0.01 if axis.percent else 1.0)))


def _scale(axis: Axis, low: float, high: float, start: float, end: float) -> Place:
    def place(value: float) -> float:
        if axis.log:
            share = (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            share = (value - low) / (high - low)
        return start + min(max(share, 0.0), 1.0) * (end - start)

    return place


def _ticks(axis: Axis, low: float, high: float) -> list[float]:
    if axis.at:
        return [*axis.at]
    found = log_ticks(low, high) if axis.log else ticks(low, high)
    if axis.log and len(found) < 2:  # less than a power of ten
        found = ticks(low, high, 5)
    return [value for value in found if value == round(value)] if axis.whole else found


def _axes(chart: Chart, x: Place, y: Place, across: tuple[float, float], upwards: tuple[float, float]) -> Iterator[str]:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in _ticks(chart.y, *upwards):
        at, text = y(value), tick_text(value, percent=chart.y.percent)
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
    for value in _ticks(chart.x, *across):
        at, text = x(value), tick_text(value, percent=chart.x.percent)
        yield f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>'
        yield f'<text x="{at:.1f}" y="{floor + 17}" text-anchor="middle">{text}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>'
    middle, height = (LEFT + right) / 2, (TOP + floor) / 2
    yield f'<text class="label" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{_safe(chart.x.label)}</text>'
    turn = f'transform="rotate(-90 12 {height})"'
    yield f'<text class="label" x="12" y="{height}" {turn} text-anchor="middle">{_safe(chart.y.label)}</text>'


def _line(line: Line, x: Place, y: Place) -> Iterator[str]:
    """Whiskers, the pieces of the line, and its points."""
    style = f"{line.colour}{' dashed' if line.dashed else ''}"
    if line.whiskers:
        for (value, _), (low, high) in zip(line.points, line.band, strict=True):
            yield f'<path class="whisker {line.colour}" d="M{x(value):.1f} {y(low):.1f}V{y(high):.1f}"/>'
    places = [(x(one), y(other)) if math.isfinite(one) and math.isfinite(other) else None for one, other in line.points]
    if line.joined:
        moves, broken = [], True
        for place in places:
            if place is not None:
                moves.append(f"{'M' if broken else 'L'}{place[0]:.1f} {place[1]:.1f}")
            broken = place is None
        yield f'<path class="line {style}" d="{"".join(moves)}"/>'
    if line.dots and len(places) <= MANY:
        yield from (
            f'<circle class="dot {line.colour}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3"/>'
            for place in places if place is not None
        )  # fmt: skip


def _band(line: Line, x: Place, y: Place) -> str:
    both = zip(line.points, line.band, strict=True)
    corners = [(x(place[0]), y(low), y(high)) for place, (low, high) in both if math.isfinite(low + high)]
    there = [f"{at:.1f} {high:.1f}" for at, _, high in corners]
    back = [f"{at:.1f} {low:.1f}" for at, low, _ in reversed(corners)]
    return f'<path class="band {line.colour}" d="M{"L".join(there + back)}Z"/>' if corners else ""


def _mark(mark: Mark, x: Place) -> str:
    at = x(mark.x)
    return f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'


def _legend(chart: Chart) -> str:
    keys = [(line.name, f"line {line.colour}{' dashed' if line.dashed else ''}") for line in chart.lines]
    keys += [(mark.name, "mark") for mark in chart.marks]
    picture = '<svg viewBox="0 0 24 8" width="24" height="8" aria-hidden="true"><path class="{}" d="M0 4H24"/></svg>'
    items = "".join(f"<li>{picture.format(style)}<bdi>{_safe(name)}</bdi></li>" for name, style in keys if name)
    return f'<ul class="legend">{items}</ul>' if items else ""
