"""Drawings read back from their SVG."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
from PIL import ImageFont

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES
from headstart.backbones.families.small import mlp, small_cnn
from headstart.drawing.layout import Rect
from headstart.drawing.picture import svg

SVG = "{http://www.w3.org/2000/svg}"


FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"


@dataclass(frozen=True)
class Drawn:
    """A picture, read back."""

    root: ElementTree.Element
    boxes: dict[tuple[str, ...], Rect]  # by the nodes in each
    lines: Counter[tuple[str, str, str]]  # from, to, shape
    paths: list[tuple[str, str, list[tuple[float, float]]]]  # from, to, corners
    texts: dict[str, list[tuple[Rect, Rect | None]]]  # by class: where it stands, and the box that it is in
    frames: dict[str, list[Rect]]


def read(text: str) -> Drawn:
    root = ElementTree.fromstring(text)
    boxes: dict[tuple[str, ...], Rect] = {}
    frames: dict[str, list[Rect]] = {}
    texts: dict[str, list[tuple[Rect, Rect | None]]] = {}
    paths: list[tuple[str, str, list[tuple[float, float]]]] = []
    lines: Counter[tuple[str, str, str]] = Counter()
    around: dict[ElementTree.Element, Rect] = {}
    for group in root.iter(f"{SVG}g"):
        if group.get("class", "").startswith("box "):
            rect = rect_of(group.find(f"{SVG}rect"))
            names = tuple(str(text.get("data-name")) for text in group.iter() if text.get("data-name") is not None)
            assert names not in boxes
            boxes[names] = rect
            around |= dict.fromkeys(group.iter(f"{SVG}text"), rect)
    before = None
    for element in root.iter():
        style = element.get("class", "").split(" ")[0]
        if element.tag == f"{SVG}path" and style == "line":
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", str(element.get("d")))]
            corners = list(zip(numbers[::2], numbers[1::2], strict=True))
            paths.append((str(element.get("data-from")), str(element.get("data-to")), corners))
        if element.tag == f"{SVG}text":
            texts.setdefault(style, []).append((place_of(element, style), around.get(element)))
            if style == "shape":
                lines[str(element.get("data-from")), str(element.get("data-to")), str(element.text)] += 1
            if style == "group":
                frames.setdefault(str(element.text), []).append(rect_of(before))
        before = element
    assert sum(lines.values()) == len(paths)
    return Drawn(root, boxes, lines, paths, texts, frames)


def rect_of(element: ElementTree.Element | None) -> Rect:
    assert element is not None
    return Rect(*(float(str(element.get(key))) for key in ("x", "y", "width", "height")))


@functools.cache
def font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)


def place_of(element: ElementTree.Element, style: str) -> Rect:
    """What a text covers in the widest usual font."""
    size = {"shape": 10, "head": 17}.get(style, 11)
    width = font(size, style in ("group", "head")).getlength(element.text or "")
    x, y = float(str(element.get("x"))), float(str(element.get("y")))
    return Rect(x - width if element.get("text-anchor") == "end" else x, y - size, width, size)


def overlap(a: Rect, b: Rect) -> bool:
    return (
        a.x < b.x + b.width - 0.2
        and b.x < a.x + a.width - 0.2
        and a.y < b.y + b.height - 0.2
        and b.y < a.y + a.height - 0.2
    )


def within(a: Rect, b: Rect) -> bool:
    return (
        a.x >= b.x - 0.2
        and a.y >= b.y - 0.2
        and a.x + a.width <= b.x + b.width + 0.2
        and a.y + a.height <= b.y + b.height + 0.2
    )


def pieces(path: list[tuple[float, float]]) -> Iterator[Rect]:
    for (x0, y0), (x1, y1) in pairwise(path):
        yield Rect(min(x0, x1), min(y0, y1), abs(x0 - x1), abs(y0 - y1))


def clashes(rects: list[Rect], others: list[Rect] | None = None) -> list[tuple[Rect, Rect]]:
    """Which overlap: of one another, or of others."""
    if others is None:
        ordered = sorted(rects, key=lambda rect: rect.x)
        found = []
        for place, a in enumerate(ordered):
            for b in ordered[place + 1 :]:
                if b.x > a.x + a.width:
                    break
                if overlap(a, b):
                    found.append((a, b))
        return found
    return [(a, b) for a in rects for b in others if overlap(a, b)]


@functools.cache
def pictures() -> dict[str, tuple[Blueprint, Drawn]]:
    """One of each architecture, and a trunk with a new head."""
    blueprints = {each.architecture: each.blueprint() for each in reversed(BACKBONES.values())}
    lite = BACKBONES["efficientnet_lite0"]
    blueprints["fitted"] = lite.blueprint().trunk(lite.layers).with_head(3, sqrt=True)
    blueprints |= {"mlp": mlp(3, [4, 5], 2), "small_cnn": small_cnn(8, 2)}
    return {name: (blueprint, read(svg(blueprint))) for name, blueprint in blueprints.items()}
