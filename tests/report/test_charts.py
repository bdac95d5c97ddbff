"""Charts as SVG: ticks, lines that break, bands, and words for those who do not see them."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from headstart.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Chart,
    Line,
    Mark,
    bar,
    draw,
    interval,
)
from headstart.report.ticks import log_ticks, tick_text, ticks
from reports import HOSTILE

CHART = Chart("rises", Axis("x"), Axis("y", 0), (Line("one", [(0, 0), (1, 2), (2, 4)]),))


def parsed(chart: Chart) -> list[ElementTree.Element]:
    """The SVG and the legend."""
    return [*ElementTree.fromstring(f"<div>{draw(chart)}</div>")]


def of(chart: Chart, kind: str) -> list[dict[str, str]]:
    return [each.attrib for each in parsed(chart)[0] if each.attrib.get("class", "").split()[:1] == [kind]]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.031, [0, 0.01, 0.02, 0.03]),
        (3, 7, [3, 4, 5, 6, 7]),
        (0, 1234, [0, 500, 1000]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(20, 640, [20, 50, 100, 200, 500]), (1, 1000, [1, 3, 10, 30, 100, 300, 1000]), (1e-6, 10, [1e-6, 1e-4, 0.01, 1])],
)
def test_log_ticks_are_round_too(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("span", [1e-3, 0.7, 1, 3.3, 99, 1e7])
def test_there_are_neither_too_many_ticks_nor_too_few(span: float) -> None:
    for low in (0, 0.31 * span):
        found = ticks(low, low + span)
        assert 2 <= len(found) <= 6
        assert all(low - 1e-9 <= value <= low + span + 1e-9 for value in found)
    assert len(log_ticks(1e-12, 1e12)) <= 7


def test_ticks_as_text() -> None:
    assert [tick_text(value) for value in (0, 0.01, 20, 1e-6, 1e5)] == ["0", "0.01", "20", "10⁻⁶", "10⁵"]
    assert [tick_text(value, percent=True) for value in (0, 0.125, 1)] == ["0%", "12.5%", "100%"]


def test_points_lie_where_they_belong() -> None:
    (line,) = of(CHART, "line")
    places = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", line["d"])]
    assert places[0] == (LEFT, HEIGHT - BOTTOM)
    assert places[2] == (WIDTH - RIGHT, TOP)
    assert places[1] == pytest.approx(((places[0][0] + places[2][0]) / 2, (places[0][1] + places[2][1]) / 2), abs=0.1)
    assert len(of(CHART, "dot")) == 3


def test_a_line_breaks_where_there_is_no_number() -> None:
    points = [(0, 1.0), (1, math.nan), (2, 1.0), (3, 2.0)]
    chart = replace(CHART, lines=(Line("one", points),))
    assert of(chart, "line")[0]["d"].count("M") == 2
    assert len(of(chart, "dot")) == 3
    assert "nan" not in draw(chart)


def test_a_band_goes_there_and_back() -> None:
    points = [(0, 1.0), (1, 2.0)]
    chart = replace(CHART, lines=(Line("one", points, band=[(0.5, 1.5), (1.0, 3.0)]),))
    (band,) = of(chart, "band")
    assert band["d"].count("L") == 3
    assert of(replace(chart, lines=(replace(chart.lines[0], whiskers=True),)), "band") == []


def test_a_mark_and_every_line_are_named_below() -> None:
    chart = replace(CHART, lines=(*CHART.lines, Line("two", [(0, 1)], "b", dashed=True)), marks=(Mark("chosen", 1),))
    svg, legend = parsed(chart)
    assert ["".join(item.itertext()) for item in legend] == ["one", "two", "chosen"]
    assert (svg.attrib["role"], svg.attrib["aria-label"]) == ("img", "rises")
    assert [each["class"] for each in of(chart, "line")] == ["line a", "line b dashed"]


@pytest.mark.parametrize("points", [[], [(1, 0)], [(1, 0), (2, 0)], [(math.nan, math.nan)]])
@pytest.mark.parametrize("log", [True, False])
def test_few_or_equal_points_are_drawn_too(points: list[tuple[float, float]], log: bool) -> None:
    chart = Chart("", Axis("x", log=log), Axis("error", 0, percent=True), (Line("one", points),))
    text = draw(chart)
    parsed(chart)
    assert "nan" not in text
    assert "inf" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_text(name: str) -> None:
    chart = Chart(name, Axis(name), Axis(name), (Line(name, [(0, 1)]),), (Mark(name, 1),))
    svg, legend = parsed(chart)
    assert {each.tag for each in svg} <= {"line", "text", "path", "circle"}
    assert len(legend) == 2
    draw(chart).encode("utf-8")


def test_bars_stay_within_their_width() -> None:
    for shares in ([0.25, 0.5], [0.9, 0.9], [-0.2, 0.4], [math.nan, 0.3]):
        rects = [*ElementTree.fromstring(bar([(share, "a") for share in shares], "both"))][1:]
        assert all(float(rect.attrib["width"]) >= 0 for rect in rects)
        assert float(rects[-1].attrib["x"]) + float(rects[-1].attrib["width"]) <= 100
    assert [rect.attrib["width"] for rect in [*ElementTree.fromstring(bar([(0.25, "a"), (0.5, "b")], ""))][1:]] == [
        "25.00", "50.00",
    ]  # fmt: skip
    for value in (0.0, 0.5, 1.0):
        marks = [*ElementTree.fromstring(interval(value, value, value, ""))]
        assert 0 <= float(marks[-1].attrib["x"]) <= 98.5
