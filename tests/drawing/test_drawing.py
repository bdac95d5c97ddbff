"""The drawing of every network."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from drawn import SVG, clashes, overlap, pictures, pieces, within
from headstart.backbones.catalogue import BACKBONES
from headstart.drawing.boxes import boxes_of, group_of, shape_text
from headstart.drawing.layout import Rect

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
