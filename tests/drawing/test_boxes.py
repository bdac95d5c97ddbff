"""Boxes, layout and files of a drawing."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import SVG, clashes, font, overlap, pictures, pieces, read, within
from headstart.backbones.blueprint import INPUT, LOGITS
from headstart.backbones.builder import Builder
from headstart.backbones.families.small import small_cnn
from headstart.backbones.ops import Node
from headstart.drawing.boxes import Box, boxes_of, describe, fitted, text_width
from headstart.drawing.columns import fold
from headstart.drawing.layers import Item, layered
from headstart.drawing.layout import Layout, Rect, arrange
from headstart.drawing.picture import svg


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
