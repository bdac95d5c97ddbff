"""The computational graph as a picture: every node and edge in it, nothing on top of anything else."""

from __future__ import annotations

import functools
import hashlib
import html.parser
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.backbones.builder import Builder
from headstart.backbones.catalogue import BACKBONES
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.ops import Node
from headstart.core.errors import UsageError
from headstart.drawing import page
from headstart.drawing.boxes import Box, boxes_of, describe, fitted, group_of, shape_text, text_width
from headstart.drawing.columns import fold
from headstart.drawing.layers import Item, layered
from headstart.drawing.layout import Layout, Rect, arrange
from headstart.drawing.page import draw
from headstart.drawing.picture import svg
from making import Shell

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


# --- every network ----------------------------------------------------------------------------------------------------


@functools.cache
def pictures() -> dict[str, tuple[Blueprint, Drawn]]:
    """One of each architecture, and a trunk with a new head."""
    blueprints = {each.architecture: each.blueprint() for each in reversed(BACKBONES.values())}
    lite = BACKBONES["efficientnet_lite0"]
    blueprints["fitted"] = lite.blueprint().trunk(lite.layers).with_head(3, sqrt=True)
    blueprints |= {"mlp": mlp(3, [4, 5], 2), "small_cnn": small_cnn(8, 2)}
    return {name: (blueprint, read(svg(blueprint))) for name, blueprint in blueprints.items()}


NAMES = sorted({each.architecture for each in BACKBONES.values()} | {"fitted", "mlp", "small_cnn"})


def test_these_are_all_there_are() -> None:
    assert sorted(pictures()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_node_is_there_once_and_every_edge_with_its_shape(name: str) -> None:
    blueprint, drawn = pictures()[name]
    assert sorted(node for box in drawn.boxes for node in box) == sorted(blueprint.layers)
    inside = {pair for box in drawn.boxes for pair in pairwise(box)}
    shapes = blueprint.shapes()
    edges = [(source, node.name) for node in blueprint.nodes for source in node.inputs]
    assert inside <= set(edges)
    expected = Counter((a, b, shape_text(shapes[a])) for a, b in edges if (a, b) not in inside)
    assert drawn.lines == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_line_leads_from_its_source_to_its_target(name: str) -> None:
    _, drawn = pictures()[name]
    of = {node: box for names, box in drawn.boxes.items() for node in names}
    assert len(drawn.paths) >= 4
    for source, target, path in drawn.paths:
        above, below = of[source], of[target]
        assert path[0] == pytest.approx((above.x + above.width / 2, above.y + above.height), abs=0.2)
        assert path[-1][1] == pytest.approx(below.y, abs=0.2)
        assert below.x + 5 < path[-1][0] < below.x + below.width - 5


@pytest.mark.parametrize("name", NAMES)
def test_a_line_keeps_within_the_frame_of_what_it_leads_to(name: str) -> None:
    _, drawn = pictures()[name]
    frames = [rect for rects in drawn.frames.values() for rect in rects]
    of = {node: box for names, box in drawn.boxes.items() for node in names}
    for _, target, path in drawn.paths:
        for frame in frames:
            if within(of[target], frame):
                above = [place for place, (_, y) in enumerate(path) if y < frame.y]
                inside = path[above[-1] + 1 :] if above else path
                assert all(frame.x + 3 < x < frame.x + frame.width - 3 for x, _ in inside)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_lies_on_anything_else(name: str) -> None:
    _, drawn = pictures()[name]
    boxes, labels = list(drawn.boxes.values()), [place for place, _ in drawn.texts["shape"]]
    lines = [piece for *_, path in drawn.paths for piece in pieces(path)]
    assert clashes(boxes) == []
    assert clashes(labels) == []
    assert clashes(labels, boxes) == []
    assert clashes(lines, boxes) == []
    titles = [place for place, _ in drawn.texts.get("group", [])]
    assert clashes(titles) == []
    assert clashes(titles, [*boxes, *lines]) == []
    for style in ("name", "op"):
        assert all(around is not None and within(place, around) for place, around in drawn.texts[style])


@pytest.mark.parametrize("name", NAMES)
def test_words_in_a_box_do_not_run_into_one_another(name: str) -> None:
    _, drawn = pictures()[name]
    inside = [place for words in drawn.texts.values() for place, around in words if around is not None]
    assert len(inside) >= 2 * sum(map(len, drawn.boxes))
    assert clashes(inside) == []


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_is_in_the_picture(name: str) -> None:
    _, drawn = pictures()[name]
    width, height = (float(str(drawn.root.get(key))) for key in ("width", "height"))
    (outer,) = (g for g in drawn.root.findall(f"{SVG}g"))
    moved = outer.findall(f"{SVG}g")[-1]
    dx, dy = (sum(map(float, pair)) for pair in zip(*map(shift_of, (outer, moved)), strict=True))
    page = Rect(-dx, -dy, width, height)
    everything = [*drawn.boxes.values(), *(rect for rects in drawn.frames.values() for rect in rects)]
    everything += [piece for *_, path in drawn.paths for piece in pieces(path)]
    assert all(within(each, page) for each in everything)
    still = Rect(0, 0, width - 32, dy)  # title and legend, above all else
    heading = [place for style in ("head", "note") for place, _ in drawn.texts[style]]
    assert len(heading) >= 3
    assert all(within(place, still) for place in heading)


def shift_of(group: ElementTree.Element) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", str(group.get("transform")))]


@pytest.mark.parametrize("name", NAMES)
def test_frames_hold_their_own_boxes_and_no_others(name: str) -> None:
    blueprint, drawn = pictures()[name]
    groups = {box.nodes[0].name: box.group for box in boxes_of(blueprint)}
    titles = {title for group in groups.values() for title in group}
    frames = {title: rects for title, rects in drawn.frames.items() if title in titles}
    for title in titles:  # what goes on in the next column
        frames[title] = frames.get(title, []) + drawn.frames.get(f"{title} …", [])
    for names, box in drawn.boxes.items():
        around = {title for title, rects in frames.items() if any(within(box, rect) for rect in rects)}
        assert around == set(groups[names[0]])
        assert not any(overlap(box, rect) for title, rects in frames.items() if title not in around for rect in rects)


def test_frames_are_the_stages_and_blocks_that_names_tell() -> None:
    def titles(name: str) -> list[str]:
        return list(dict.fromkeys(title.removesuffix(" …") for title in pictures()[name][1].frames))

    blocks = [["layer1", "layer1.0", "layer1.1"], ["layer2", "layer2.0", "layer2.1"]]
    assert titles("resnet18")[:6] == [*blocks[0], *blocks[1]]
    assert titles("vgg16") == [
        "features", "features.0–4", "features.5–9", "features.10–16", "features.17–23", "features.24–30", "classifier",
    ]  # fmt: skip
    assert titles("squeezenet1_1")[:4] == ["features", "features.3", "features.4", "features.6"]
    assert titles("small_cnn") == []


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("conv_stem", ()),
        ("bn1.act", ()),
        ("layer1.0.conv1", ("layer1", "layer1.0")),
        ("layer1.0.downsample.0", ("layer1", "layer1.0")),
        ("blocks.3.0.se.pool", ("blocks.3", "blocks.3.0")),
        ("blocks.3.0.bn1.act", ("blocks.3", "blocks.3.0")),
        ("features.0", ("features",)),
        ("features.3.squeeze", ("features", "features.3")),
    ],
)
def test_the_group_of_a_name(name: str, group: tuple[str, ...]) -> None:
    assert group_of(name, {"bn1", "bn1.act", "blocks.3.0.bn1", "conv_stem"}) == group


def test_what_comes_back_to_a_group_stands_outside() -> None:
    """The averages of a middle layer are taken below the trunk; its stage is drawn once all the same."""
    blueprint, _ = pictures()["fitted"]
    groups = {box.nodes[0].name: box.group for box in boxes_of(blueprint)}
    assert groups["blocks.5.1.conv_dw"] == ("blocks.5", "blocks.5.1")
    assert groups["blocks.5.1.bn2.act.pooled"] == ()


# --- boxes ------------------------------------------------------------------------------------------------------------


def names_of(boxes: list[Box]) -> list[tuple[str, ...]]:
    return [tuple(node.name for node in box.nodes) for box in boxes]


def test_norm_and_activation_share_the_box_of_what_they_follow() -> None:
    assert names_of(boxes_of(small_cnn(8, 2, widths=(4,)))) == [
        ("input",), ("conv1", "bn1", "act1"), ("pool1",), ("pooled",), ("dropout",), ("logits",),
    ]  # fmt: skip


def test_what_others_take_too_ends_its_box() -> None:
    b = Builder()
    x = b.conv(INPUT, "conv", 4, 3)
    y = b.norm(x, "bn", 1e-5)
    b.dense(b.average(b.add(x, b.act(y, "relu", "relu"), "add")), LOGITS, 2)
    assert names_of(boxes_of(b.build("forked", 8)))[:4] == [("input",), ("conv",), ("bn", "relu"), ("add",)]


def test_a_box_ends_with_its_group() -> None:
    b = Builder()
    b.dense(b.average(b.act(b.conv(INPUT, "a.0.conv", 4, 3), "b.0.act", "relu")), LOGITS, 2)
    assert names_of(boxes_of(b.build("two", 8)))[1:3] == [("a.0.conv",), ("b.0.act",)]


def test_what_takes_a_node_twice_gets_two_lines() -> None:
    b = Builder()
    x = b.conv(INPUT, "conv", 4, 3)
    b.dense(b.average(b.add(x, x, "twice")), LOGITS, 2)
    drawn = read(svg(b.build("twice", 8)))
    assert drawn.lines["conv", "twice", "4×8×8"] == 2


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Node("n", "conv", ("x",), {"filters": 8, "kernel": (3, 3), "stride": 2, "groups": 1}),
         "conv 3×3, stride 2, 8 filters"),
        (Node("n", "conv", ("x",), {"filters": 8, "kernel": (3, 5), "stride": 1, "groups": 2}),
         "conv 3×5, 8 filters, 2 groups"),
        (Node("n", "conv", ("x",), {"filters": 8, "kernel": (5, 5), "stride": 1, "groups": 8}),
         "depthwise 5×5, 8 filters"),
        (Node("n", "max_pool", ("x",), {"kernel": (3, 3), "stride": 2}), "max pool 3×3, stride 2"),
        (Node("n", "act", ("x",), {"kind": "hard_swish"}), "hard swish"),
        (Node("n", "pool", ("x",), {"kind": "global_average"}), "global average"),
        (Node("n", "pad_channels", ("x",), {"before": 2, "after": 3}), "zeros: 2 channels before, 3 after"),
        (Node("n", "dropout", ("x",), {"rate": 0.2}), "dropout 0.2"),
        (Node("n", "dense", ("x",), {"units": 10}), "dense, 10 units"),
        (Node("n", "module", ("x",), {"source": "timm/one"}), "module timm/one"),
        (Node("n", "flatten", ("x",)), "flatten"),
    ],
)  # fmt: skip
def test_an_op_in_words(node: Node, words: str) -> None:
    assert describe(node) == words


@given(st.text(st.characters(max_codepoint=0x17F, exclude_categories=("C", "M")), max_size=30))
def test_a_text_is_never_wider_than_estimated(text: str) -> None:
    assert font(11, False).getlength(text) <= text_width(text, 11) + 1e-6
    assert font(11, True).getlength(text) <= text_width(text, 12.5) * 1.1


@given(st.text(max_size=20), st.floats(20, 300))
def test_a_text_is_cut_to_its_room(text: str, width: float) -> None:
    cut = fitted(text, width, 10)
    assert text_width(cut, 10) <= width
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))


def test_the_parameters_and_all_details_are_in_the_box() -> None:
    blueprint, drawn = pictures()["vgg16"]
    (box,) = (g for g in drawn.root.iter(f"{SVG}g") if g.find(f"{SVG}text[@data-name='features.2']") is not None)
    texts = [text.text for text in box.iter(f"{SVG}text")]
    assert texts == ["features.2", "conv 3×3, 64 filters", "36,928", "features.3", "relu"]
    assert box.findtext(f"{SVG}title") == (
        "features.2: conv 3×3, 64 filters, padding (1, 1, 1, 1), bias True → 64×224×224; 36,928 parameters\n"
        "features.3: relu → 64×224×224"
    )
    assert f"{sum(blueprint.parameters().values()):,} parameters" in "".join(drawn.root.itertext())


# --- any graph --------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> list[Item]:
    """Items that take any of those before them, in groups or not."""
    count = draw(st.integers(1, 24))
    groups = st.sampled_from([(), ("a",), ("a", "a.0"), ("a", "a.1"), ("b",), ("b", "b.0")])
    items: list[Item] = []
    group: tuple[str, ...] = ()
    done: set[tuple[str, ...]] = set()
    for number in range(count):
        other = draw(groups)
        new = other not in done and (other[:1] == group[:1] or other[:1] not in {each[:1] for each in done})
        if new and draw(st.booleans()):
            group = other
        elif group and draw(st.integers(0, 5)) == 0:
            group = ()
        done.add(group)
        inputs = draw(st.lists(st.integers(max(0, number - 6), number - 1), max_size=4)) if number else []
        width, height = draw(st.integers(20, 200)), draw(st.integers(15, 60))
        items.append(Item(float(width), float(height), tuple(inputs), (40.0,) * len(inputs), group))
    return items


def lines_cross_boxes(layout: Layout) -> list[tuple[Rect, Rect]]:
    lines = [piece for line in layout.lines for piece in pieces(list(line.points))]
    return clashes(lines, list(layout.boxes))


def plain(*inputs: tuple[int, ...]) -> list[Item]:
    return [Item(50.0, 20.0, each, (40.0,) * len(each), ()) for each in inputs]


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_any_graph_is_drawn_without_clashes(items: list[Item]) -> None:
    layout = arrange(items)
    whole = Rect(0, 0, layout.width, layout.height)
    for item, box in zip(items, layout.boxes, strict=True):
        around = {frame.title for frame in layout.frames if within(box, frame.rect)}
        assert around == set(item.group)
        assert not any(overlap(box, frame.rect) for frame in layout.frames if frame.title not in around)
    assert clashes(list(layout.boxes)) == []
    assert all(within(box, whole) for box in layout.boxes)
    assert lines_cross_boxes(layout) == []
    ends = Counter((line.source, line.target, line.place) for line in layout.lines)
    assert ends == Counter((s, t, k) for t, item in enumerate(items) for k, s in enumerate(item.inputs))
    for line in layout.lines:
        source, target = layout.boxes[line.source], layout.boxes[line.target]
        assert line.points[0] == pytest.approx((source.x + source.width / 2, source.y + source.height))
        assert line.points[-1][1] == pytest.approx(target.y)
        assert target.x < line.points[-1][0] < target.x + target.width
        assert all(a[0] == pytest.approx(b[0]) or a[1] == pytest.approx(b[1]) for a, b in pairwise(line.points))
        assert all(within(piece, whole) for piece in pieces(list(line.points)))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_lines_from_different_boxes_never_run_on_one_another(items: list[Item]) -> None:
    runs = [(line.source, a, b) for line in arrange(items).lines for a, b in pairwise(line.points)]
    for (one, a, b), (other, c, d) in combinations(runs, 2):
        for across in (0, 1):
            along = 1 - across
            if one != other and a[across] == b[across] and c[across] == d[across]:
                apart = abs(a[across] - c[across]) > 1
                low = max(min(a[along], b[along]), min(c[along], d[along]))
                assert apart or low >= min(max(a[along], b[along]), max(c[along], d[along]))


def test_a_row_is_ordered_so_that_lines_do_not_cross() -> None:
    """Two chains whose boxes come in turn, the second chain's first below: they are drawn side by side."""
    take = [(), (0,), (0,), (2,), (1,), (4, 3)]
    layout = arrange(plain(*take))
    left = [box.x for box in layout.boxes]
    assert (left[1] < left[2]) == (left[4] < left[3])


def test_what_may_stand_lower_stands_near_what_takes_it() -> None:
    assert layered(plain((), (0,), (1,), (0,), (2, 3))).rows == (0, 1, 2, 2, 3)


def test_lines_led_over_to_the_next_column_do_not_cross() -> None:
    paths = [[(x, 0.0), (x, 900.0)] for x in (-30.0, 0.0, 40.0)]
    folded = fold([(450.0, 0)], [(float(y), 200.0, 200.0) for y in range(0, 900, 50)], 900.0, paths)
    led = [list(pieces(folded.path(path))) for path in paths]
    assert all(len(each) == 5 for each in led)
    for one, other in combinations(led, 2):
        for a in one:
            for b in other:
                apart = a.x > b.x + b.width or b.x > a.x + a.width or a.y > b.y + b.height or b.y > a.y + a.height
                assert apart


def test_a_column_is_as_wide_as_the_lines_led_over_to_it() -> None:
    path = [(400.0, 0.0), (400.0, 900.0)]
    reach = [(float(y), 200.0, 500.0 if y < 450 else 50.0) for y in range(0, 900, 50)]
    folded = fold([(450.0, 0)], reach, 900.0, [path])
    assert list(folded.cuts) == [450.0]
    assert max(x for x, _ in folded.path(path)) <= folded.size[0]


def test_a_tall_picture_is_folded_and_its_lines_led_over() -> None:
    chain = [Item(100.0, 40.0, (number - 1,) if number else (), (20.0,) if number else (), ()) for number in range(40)]
    layout = arrange(chain)
    axes = [round(box.x + box.width / 2) for box in layout.boxes]
    columns = sorted(set(axes))
    assert len(columns) > 2
    assert 0.7 < layout.width / layout.height < 2.5
    assert sum(len(line.points) > 2 for line in layout.lines) == len(columns) - 1
    tops = [min(box.y for box, x in zip(layout.boxes, axes, strict=True) if x == column) for column in columns]
    feet = [max(box.y for box, x in zip(layout.boxes, axes, strict=True) if x == column) for column in columns]
    assert max(tops) - min(tops) < 60
    assert max(feet) - min(feet) < 0.3 * layout.height


def test_a_fold_spares_frames_where_it_can() -> None:
    reach = [(float(y), 200.0, 200.0) for y in range(0, 1000, 50)]
    folded = fold([(450.0, 0), (500.0, 2), (550.0, 1)], reach, 1000.0, [])
    assert list(folded.cuts) == [450.0]
    assert list(fold([(500.0, 2)], reach, 1000.0, []).cuts) == [500.0]


# --- files ------------------------------------------------------------------------------------------------------------

ODD = "<b>&\"'\x1b[31m]]>\ud800 é 猫 </text></script>"


def odd() -> Blueprint:
    b = Builder()
    return replace_names(b, f"{ODD}.0.{ODD}")


def replace_names(b: Builder, name: str) -> Blueprint:
    b.dense(b.average(b.act(b.conv(INPUT, name, 4, 3), f"{name}'", "relu")), LOGITS, 2)
    return b.build(f"</title><script>alert(1)</script>{ODD}", 8)


def test_odd_names_are_written_harmlessly(tmp_path: Path) -> None:
    drawn = read(draw(odd(), tmp_path / "odd.svg").read_text(encoding="utf-8"))
    names = [name for box in drawn.boxes for name in box]
    shown = ODD.replace("\x1b", "\\x1b").replace("\ud800", "\\ud800")
    assert names == ["input", f"{shown}.0.{shown}", f"{shown}.0.{shown}'", "pooled", "logits"]
    assert not list(drawn.root.iter(f"{SVG}script"))
    assert not list(drawn.root.iter("script"))
    tags: Counter[str] = Counter()

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags[tag] += 1

    Reader().feed(draw(odd(), tmp_path / "odd.html").read_text(encoding="utf-8"))
    assert (tags["script"], tags["svg"], tags["b"]) == (1, 1, 0)


def test_a_page_needs_nothing_else(tmp_path: Path) -> None:
    text = draw(small_cnn(8, 2), tmp_path / "net.HTML").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert svg(small_cnn(8, 2)) in text
    assert not re.search(r"""\b(src|href)\s*=|@import|url\((?!#)|fetch\(|import\b""", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}


def test_equal_blueprints_give_equal_bytes() -> None:
    """In another process too, where sets come in another order."""
    code = (
        "import sys, hashlib; from headstart.backbones.catalogue import BACKBONES; "
        "from headstart.drawing.picture import svg; "
        "print(hashlib.sha256(svg(BACKBONES['mobilenet_v3_small'].blueprint()).encode()).hexdigest())"
    )
    blueprint = BACKBONES["mobilenet_v3_small"].blueprint()
    again = Blueprint.from_json(blueprint.to_json())
    expected = {hashlib.sha256(svg(each).encode()).hexdigest() for each in (blueprint, again)}
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        )
        expected.add(done.stdout.decode().strip())
    assert len(expected) == 1


def test_shapes_are_those_of_the_size_asked_for(tmp_path: Path) -> None:
    blueprint = BACKBONES["cifar_resnet20"].blueprint()
    small = read(draw(blueprint, tmp_path / "small.svg", 16).read_text(encoding="utf-8"))
    assert small.lines["input", "conv1", "3×16×16"] == 1
    assert "at 16 pixels" in "".join(small.root.itertext())
    with pytest.raises(UsageError, match="takes images of 224 pixels only"):
        draw(BACKBONES["vgg16"].blueprint(), tmp_path / "none.svg", 64)
    assert [path.name for path in tmp_path.iterdir()] == ["small.svg"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stop"])
def test_nothing_is_left_half_written(failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw(small_cnn(8, 2), tmp_path / "net.svg")
    before = path.read_bytes()

    def fail(self: Path, *_: object, **__: object) -> None:
        self.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises((UsageError, KeyboardInterrupt), match=r"No space left|^$"):
        draw(small_cnn(8, 3), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net.svg"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_show_draws_a_backbone(shell: Shell, tmp_path: Path) -> None:
    said = shell("show", "squeezenet1_1", "--graph", tmp_path / "net.svg")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"graph: {tmp_path / 'net.svg'}\n")
    assert "1,235,496 parameters" in said.out
    assert read((tmp_path / "net.svg").read_text(encoding="utf-8")).boxes == pictures()["squeezenet1_1"][1].boxes
    answer = shell("show", "cifar_resnet20", "--graph", tmp_path / "net.svg", "--pixels", 48, "--json").json
    assert (answer["graph"], answer["pixels"]) == (str(tmp_path / "net.svg"), 48)
    assert "3×48×48" in (tmp_path / "net.svg").read_text(encoding="utf-8")  # ours, so it was replaced
    assert shell("show", "cifar_resnet20", "--json").json["graph"] is None


def test_show_draws_a_model(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    assert shell("show", bundle, "--graph", tmp_path / "net.html").code == 0
    text = (tmp_path / "net.html").read_text(encoding="utf-8")
    for words in ('data-name="head_sqrt"', "dense, 3 units", "blocks.5.1.bn2.act.pooled", "<input"):
        assert words in text


@pytest.mark.parametrize("name", ["net.png", "net", "svg", "net.svg.gz"])
def test_another_ending_is_refused(name: str, shell: Shell, tmp_path: Path) -> None:
    said = shell("show", "cifar_resnet20", "--graph", tmp_path / name)
    assert (said.code, said.out) == (2, "")
    assert ".svg or .html" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("theirs", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x00\xff" * 99])
def test_a_file_of_others_is_let_be(theirs: bytes, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "net.svg"
    path.write_bytes(theirs)
    said = shell("show", "cifar_resnet20", "--graph", path)
    assert (said.code, said.out, path.read_bytes()) == (2, "", theirs)
    assert "not overwritten" in said.err
    assert said.err.count("\n") == 1


def test_a_page_may_take_the_place_of_a_picture(tmp_path: Path) -> None:
    draw(small_cnn(8, 2), tmp_path / "net.svg").rename(tmp_path / "net.html")
    assert "<nav>" in draw(small_cnn(8, 2), tmp_path / "net.html").read_text(encoding="utf-8")


def test_places_where_nothing_can_be_written(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = shell("show", "cifar_resnet20", "--graph", tmp_path / "none" / "net.svg")
    assert said.code == 2
    assert "there is no folder" in said.err
    (tmp_path / "folder.svg").mkdir()
    assert "not overwritten" in shell("show", "cifar_resnet20", "--graph", tmp_path / "folder.svg").err
    assert "File name too long" in shell("show", "cifar_resnet20", "--graph", tmp_path / f"{'x' * 300}.svg").err

    def read_only(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    said = shell("show", "cifar_resnet20", "--graph", tmp_path / "net.svg")
    assert (said.code, said.out) == (2, "")
    assert "Read-only file system" in said.err
    assert page.why_not_drawable(tmp_path / "net.svg") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.svg"]
