"""A blueprint as SVG: boxes in a colour for each kind of op, shapes on the lines, a frame around each block."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import Node
from headstart.drawing.boxes import (
    KINDS,
    Box,
    boxes_of,
    clean,
    describe,
    details,
    fitted,
    shape_text,
    short_name,
    text_width,
)
from headstart.drawing.layers import Item
from headstart.drawing.layout import Frame, Line, Rect, arrange
from headstart.plots.style import INK, QUIET

TEXT, SMALL, BOLD, ROW = 11, 10, 12.5, 15  # sizes of letters, bold counted as larger; the height of a line in a box
INSET, COLUMNS = 8, 14  # between the words and the edge of a box; between columns of words
WIDEST = (200, 270)  # of a name and its description; longer ones are shortened
MARGIN, HEADER, ENTRY = 16, 56, 20  # around the picture; height of its title; of a line of the legend
CORNER = 5  # radius of a line's corners
COLOURS = {  # fill and edge of each kind
    "input": ("#ece5f6", "#6b4fa0"),
    "conv": ("#dceaf7", "#1f6fb4"),
    "depthwise": ("#d5f0ec", "#1f8a7d"),
    "dense": ("#fbe2d6", "#c8481f"),
    "pool": ("#e3f1d8", "#55892c"),
    "join": ("#fdf1c4", "#ad8500"),
    "pointwise": ("#efefef", "#7a7a7a"),
    "module": ("#f6dde9", "#a83a72"),
}
NOTE = (
    "On the lines: channels × height × width, or features. In a box: name, op, parameters; "
    "batch norm and activation are in the box of the node before them."
)
AGAIN = " A frame whose title ends in … began in the column before it."


@dataclass(frozen=True, slots=True)
class _Words:
    """The three columns of every box, and the width of each in this picture."""

    rows: dict[str, tuple[str, str, str]]  # by node: name, op, parameters
    widths: tuple[float, float, float]

    @property
    def width(self) -> float:
        return sum(self.widths) + 2 * INSET + COLUMNS * sum(1 for width in self.widths[1:] if width)


def svg(blueprint: Blueprint, pixels: int | None = None) -> str:
    """The picture for images of ``pixels`` (default: the native size). Equal blueprints give equal text."""
    shapes, parameters = blueprint.shapes(pixels), blueprint.parameters()
    boxes = boxes_of(blueprint)
    words = _words(boxes, parameters)
    ends = {box.nodes[-1].name: number for number, box in enumerate(boxes)}
    labels = {name: shape_text(shape) for name, shape in shapes.items()}
    layout = arrange(
        [
            Item(
                words.width,
                ROW * len(box.nodes) + INSET,
                tuple(ends[name] for name in box.inputs),
                tuple(text_width(labels[name], SMALL) for name in box.inputs),
                box.group,
            )
            for box in boxes
        ]
    )
    width = max(layout.width, 640)
    kinds = [kind for kind in KINDS if any(box.kind == kind for box in boxes)]
    legend, top = _legend(kinds, NOTE + AGAIN * any(frame.again for frame in layout.frames), width)
    said = {node.name: details(node, shapes[node.name], parameters.get(node.name, 0)) for node in blueprint.nodes}
    parts = [
        *(_frame(frame, words.width) for frame in layout.frames),
        *(_line(line, boxes[line.target].inputs[line.place], boxes[line.target], labels) for line in layout.lines),
        *(_box(box, place, words, said) for box, place in zip(boxes, layout.boxes, strict=True)),
    ]
    moved = _tag("g", "".join(parts), transform=f"translate({_number((width - layout.width) / 2)} {top})")
    header = _header(blueprint, pixels) + legend
    return _whole(blueprint, header + moved, width, top + layout.height)


def _words(boxes: Sequence[Box], parameters: dict[str, int]) -> _Words:
    rows = {}
    for box in boxes:
        for node in box.nodes:
            name, op = clean(short_name(box, node)), clean(describe(node))
            count = f"{parameters[node.name]:,}" if node.name in parameters else ""
            rows[node.name] = (fitted(name, WIDEST[0], TEXT), fitted(op, WIDEST[1], TEXT), count)
    first, second, third = (max(text_width(row[k], TEXT) for row in rows.values()) for k in range(3))
    return _Words(rows, (first, second, third))


def _whole(blueprint: Blueprint, inside: str, width: float, height: float) -> str:
    full = (_number(width + 2 * MARGIN), _number(height + 2 * MARGIN))
    marker = _tag(
        "marker", '<path d="M0 0L7 3.5L0 7z"/>', id="arrow", markerWidth="7", markerHeight="7", refX="6.5", refY="3.5",
        orient="auto", markerUnits="userSpaceOnUse",
    )  # fmt: skip
    return _tag(
        "svg",
        _tag("title", _escaped(clean(blueprint.name))),
        _tag("style", _style()),
        _tag("defs", marker),
        _tag("rect", width="100%", height="100%", fill="#ffffff"),
        _tag("g", inside, transform=f"translate({MARGIN} {MARGIN})"),
        xmlns="http://www.w3.org/2000/svg", width=full[0], height=full[1], viewBox=f"0 0 {full[0]} {full[1]}",
        role="img",
    ) + "\n"  # fmt: skip


def _style() -> str:
    rules = [
        f"text{{font:{TEXT}px Verdana,'DejaVu Sans',sans-serif;fill:{INK}}}",
        ".op,.note{fill:#555}",
        f".shape{{font-size:{SMALL}px;fill:{QUIET}}}",
        ".head{font-size:17px;font-weight:bold}",
        ".group{font-weight:bold;fill:#55606b}",
        ".line{fill:none;stroke:#6f7a85;stroke-width:1.2;marker-end:url(#arrow)}",
        "#arrow path{fill:#6f7a85}",
        ".frame{fill:#f4f6f8;stroke:#cfd6dd}.frame.in{fill:#fbfcfd;stroke:#dde3e8}",
    ]
    rules += [f".{kind} rect{{fill:{fill};stroke:{edge}}}" for kind, (fill, edge) in COLOURS.items()]
    return "".join(rules)


def _header(blueprint: Blueprint, pixels: int | None) -> str:
    parameters, work = sum(blueprint.parameters().values()), sum(blueprint.multiply_adds(pixels).values())
    sums = f"{parameters:,} parameters, {work / 1e6:,.0f} million multiply-adds an image"
    size = f"at {pixels or blueprint.size} pixels: {sums}"
    return _text(clean(blueprint.name), 0, 18, "head") + _text(size, 0, 38, "note")


def _legend(kinds: Sequence[str], note: str, width: float) -> tuple[str, float]:
    """The legend of kinds and a wrapped note, and the height at which they end."""
    found, x, y = "", 0.0, HEADER
    for kind in kinds:
        room = 18 + text_width(KINDS[kind], TEXT) + 16
        if x and x + room > width:
            x, y = 0.0, y + ENTRY
        swatch = _tag("rect", x=_number(x), y=y, width=12, height=12, rx=2)
        found += _tag("g", swatch, _text(KINDS[kind], x + 18, y + 10), class_=kind)
        x += room
    lines = [""]
    for word in note.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if text_width(longer, TEXT) <= width else [*lines, word]
    for line in lines:
        y += ENTRY
        found += _text(line, 0, y + 10, "note")
    return found, y + 2 * ENTRY


def _frame(frame: Frame, box_width: float) -> str:
    place = frame.rect
    style = "frame in" if frame.depth > 1 else "frame"
    again = " …" if frame.again else ""
    title = fitted(clean(frame.title), box_width / 2 - text_width(again, BOLD), BOLD) + again
    return _rect(place, 6, class_=style) + _text(title, place.x + 8, place.y + 15, "group")


def _line(line: Line, name: str, target: Box, labels: dict[str, str]) -> str:
    ends = {"data-from": clean(name), "data-to": clean(target.nodes[0].name)}
    x, y = line.points[-1]
    side = {"text-anchor": "end"} if line.leftward else {}
    label = _text(labels[name], x + (-5 if line.leftward else 5), y - 6, "shape", **ends, **side)
    return _tag("path", d=_rounded(line.points), class_="line", **ends) + label


def _rounded(points: Sequence[tuple[float, float]]) -> str:
    """A path of straight pieces with round corners."""
    path = [f"M{_place(points[0])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(CORNER, _length(before, corner) / 2, _length(corner, after) / 2)
        path.append(f"L{_place(_towards(corner, before, radius))}Q{_place(corner)} "
                    f"{_place(_towards(corner, after, radius))}")  # fmt: skip
    return "".join([*path, f"L{_place(points[-1])}"])


def _length(a: tuple[float, float], b: tuple[float, float]) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])  # the pieces are vertical or horizontal


def _towards(start: tuple[float, float], end: tuple[float, float], distance: float) -> tuple[float, float]:
    share = distance / _length(start, end) if distance else 0.0
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _box(box: Box, place: Rect, words: _Words, said: dict[str, str]) -> str:
    inside = [_tag("title", _escaped(clean([said[node.name] for node in box.nodes]))), _rect(place, 4)]
    for row, node in enumerate(box.nodes):
        inside += _row(node, words, place, place.y + INSET / 2 + ROW * row + TEXT)
    return _tag("g", *inside, class_=f"box {box.kind}")


def _row(node: Node, words: _Words, place: Rect, y: float) -> list[str]:
    name, op, count = words.rows[node.name]
    left = place.x + (place.width - words.width) / 2 + INSET
    found = [_text(name, left, y, "name", **{"data-name": clean(node.name)})]
    found.append(_text(op, left + words.widths[0] + COLUMNS, y, "op"))
    if count:
        found.append(_text(count, place.x + (place.width + words.width) / 2 - INSET, y, **{"text-anchor": "end"}))
    return found


def _rect(place: Rect, radius: int, **attributes: object) -> str:
    size = {key: _number(getattr(place, key)) for key in ("x", "y", "width", "height")}
    return _tag("rect", **size, rx=radius, **attributes)


def _text(text: str, x: float, y: float, style: str = "", **attributes: object) -> str:
    named = {"class_": style} if style else {}
    return _tag("text", _escaped(text), x=_number(x), y=_number(y), **named, **attributes)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _tag(name: str, *inside: str, **attributes: object) -> str:
    """An element; ``inside`` is markup already, attributes are escaped here."""
    written = "".join(f' {key.rstrip("_")}="{html.escape(str(value))}"' for key, value in attributes.items())
    return f"<{name}{written}>{''.join(inside)}</{name}>" if inside else f"<{name}{written}/>"


def _place(point: tuple[float, float]) -> str:
    return f"{_number(point[0])} {_number(point[1])}"


def _number(value: float) -> str:
    return f"{round(value, 1):g}" if abs(value) < 1e5 else f"{value:.1f}"
