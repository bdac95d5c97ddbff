"""Underfitting and overfitting on a few points: sliders, both errors, bias and variance, and the verdict."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.diagnose.polynomials import DENSE, MOST
from headstart.report.charts import Axis, Chart, Line, Mark, draw
from headstart.studio.page import slider, told
from headstart.studio.words import say

LOWEST, HIGHEST = -2.0, 14.0  # of the picture: a curve may leave it
ROOM = 1.5  # height of the errors' picture, in errors of a constant


def build() -> None:
    """The components, and what they do."""
    gr.Markdown(say("play.about"))
    with gr.Row():
        parameters = slider(1, MOST, 2, 1, label=say("play.parameters"), elem_id="parameters")
        points = slider(2, 40, 5, 1, label=say("play.points"))
        noise = slider(0, 3, 1, 0.1, label=say("play.noise"))
        seed = slider(0, 20, 0, 1, label=say("play.seed"))
    page = gr.HTML(page_of(2, 5, 1.0, 0), elem_id="playground")
    sliders = [parameters, points, noise, seed]
    for each in sliders:
        each.change(told(page_of), sliders, page, show_progress="hidden", trigger_mode="always_last")


def page_of(parameters: float, points: float, noise: float, seed: float) -> str:
    """Charts and figures; with the sliders as they are at the start, of the five known points."""
    known = (points, noise, seed) == (5, 1, 0)
    given: dict[str, Any] = {} if known else {"points": int(points), "noise": float(noise), "seed": int(seed)}
    found = hs.fit_polynomial(int(parameters), **given)
    figures = "".join(
        f"<tr><th scope='row'>{name}</th><td>{value}</td></tr>"
        for name, value in (
            (say("play.train"), f"{found.train_error:.1f}"),
            (say("play.validation"), f"{found.validation_error:.1f}"),
            (say("play.bias"), f"{found.bias:.2f}"),
            (say("play.variance"), f"{found.variance:.2f}"),
        )
    )
    return (
        f'<p class="hs-verdict" role="status"><strong>{html.escape(found.sentence)}</strong></p>'
        f'<div class="hs-charts"><div>{draw(_points(found))}</div><div>{draw(errors_chart(found))}</div>'
        f"<table>{figures}</table></div>"
    )


def _points(found: hs.PolynomialFit) -> Chart:
    training, validation = ([*zip(*map(_plain, each), strict=True)] for each in (found.training, found.validation))
    heights = [y for _, y in (*training, *validation)]
    low, high = min(LOWEST, *heights), max(HIGHEST, *heights)
    curve = [*zip(_plain(DENSE), _plain(found.curve), strict=True)]
    truth = [*zip(_plain(DENSE), _plain(found.truth), strict=True)]
    lines = (
        Line(say("play.curve"), within(curve, low, high), "a", dots=False),
        Line(say("play.truth"), truth, "quiet", dashed=True, dots=False),
        Line(say("play.training.points"), training, "b", joined=False),
        Line(say("play.validation.points"), validation, "c", joined=False),
    )
    return Chart(found.sentence, Axis("x"), Axis("y", low, high), lines)


def errors_chart(found: hs.PolynomialFit) -> Chart:
    """Both errors against the number of parameters; one that is far above those of a constant leaves the picture."""
    highest = max(max(each) for each in found.errors)
    high = min(highest, ROOM * max(found.errors[0])) or 1.0
    lines: list[Line] = []
    for name, which, colour in ((say("play.training.points"), 0, "b"), (say("play.validation.points"), 1, "c")):
        line = [(float(count), each[which]) for count, each in enumerate(found.errors, 1)]
        seen = [(x, y) for x, y in line if y <= high]
        lines += [Line(name, within(line, 0, high), colour, dots=False), Line("", seen, colour, joined=False)]
    axes = Axis(say("play.parameters"), 1, MOST, whole=True), Axis(say("play.error"), 0, high)
    return Chart(found.sentence, *axes, tuple(lines), (Mark(say("play.here"), float(found.parameters)),))


def _plain(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in values]


def within(line: Sequence[tuple[float, float]], low: float, high: float) -> list[tuple[float, float]]:
    """A line as far as it lies between two heights: it is broken where it leaves, and goes to the edge there."""
    found: list[tuple[float, float]] = []
    for (x, y), (to_x, to_y) in pairwise(line):
        ends = sorted((low, high), reverse=to_y < y)
        places = [0.0, *((end - y) / (to_y - y) for end in ends if min(y, to_y) < end < max(y, to_y)), 1.0]
        for start, end in pairwise(places):
            middle = y + (start + end) / 2 * (to_y - y)
            if low <= middle <= high:
                found += [(x + share * (to_x - x), y + share * (to_y - y)) for share in (start, end)]
            else:
                found.append((x, math.nan))
    return [point for place, point in enumerate(found) if not place or point != found[place - 1]]
