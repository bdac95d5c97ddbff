"""Underfitting and overfitting on a few points: sliders, both errors, bias and variance, and the verdict."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

import headstart as hs
from headstart.diagnose.polynomials import DENSE, MOST
from headstart.report.charts import Axis, Chart, Line, Mark, draw
from headstart.studio.page import told
from headstart.studio.words import say

LOWEST, HIGHEST = -2.0, 14.0  # of the picture: a curve may leave it


def build() -> None:
    """The components, and what they do."""
    gr.Markdown(say("play.about"))
    with gr.Row():
        parameters = gr.Slider(1, MOST, value=2, step=1, label=say("play.parameters"), elem_id="parameters")
        points = gr.Slider(2, 40, value=5, step=1, label=say("play.points"))
        noise = gr.Slider(0, 3, value=1, step=0.1, label=say("play.noise"))
        seed = gr.Slider(0, 20, value=0, step=1, label=say("play.seed"))
    page = gr.HTML(_page(2, 5, 1.0, 0), elem_id="playground")
    sliders = [parameters, points, noise, seed]
    for slider in sliders:
        slider.change(told(_page), sliders, page, show_progress="hidden", trigger_mode="always_last")


def _page(parameters: float, points: float, noise: float, seed: float) -> str:
    """Charts and figures; with the sliders as they are at the start, of the five known points."""
    known = (points, noise, seed) == (5, 1, 0)
    given: dict[str, Any] = {} if known else {"points": int(points), "noise": float(noise), "seed": int(seed)}
    found = hs.fit_polynomial(int(parameters), **given)
    figures = "".join(
        f"<tr><th scope='row'>{name}</th><td>{value:.2f}</td></tr>"
        for name, value in (
            (say("play.train"), found.train_error),
            (say("play.validation"), found.validation_error),
            (say("play.bias"), found.bias),
            (say("play.variance"), found.variance),
        )
    )
    return (
        f'<p class="hs-verdict" role="status"><strong>{html.escape(found.sentence)}</strong></p>'
        f'<div class="hs-charts"><div>{draw(_points(found))}</div><div>{draw(_errors(found))}</div>'
        f"<table>{figures}</table></div>"
    )


def _points(found: hs.PolynomialFit) -> Chart:
    curve = [(x, y) for x, y in zip(DENSE.tolist(), found.curve.tolist(), strict=True) if LOWEST <= y <= HIGHEST]
    lines = (
        Line(say("play.curve"), curve, "a", dots=False),
        Line(
            say("play.truth"),
            list(zip(DENSE.tolist(), found.truth.tolist(), strict=True)),
            "quiet",
            dashed=True,
            dots=False,
        ),
        Line(
            say("play.training.points"),
            list(zip(*(each.tolist() for each in found.training), strict=True)),
            "b",
            joined=False,
        ),
        Line(
            say("play.validation.points"),
            list(zip(*(each.tolist() for each in found.validation), strict=True)),
            "c",
            joined=False,
        ),
    )
    return Chart(found.sentence, Axis("x"), Axis("y", LOWEST, HIGHEST), lines)


def _errors(found: hs.PolynomialFit) -> Chart:
    """Both errors against the number of parameters, a point of each training and validation set."""
    counts = range(1, len(found.errors) + 1)
    train, validation = (
        [(float(count), each[which] / len(points[0])) for count, each in zip(counts, found.errors, strict=True)]
        for which, points in ((0, found.training), (1, found.validation))
    )
    lines = (Line(say("play.train.mean"), train, "b"), Line(say("play.validation.mean"), validation, "c"))
    highest = max(value for line in (train, validation) for _, value in line)
    axes = Axis(say("play.parameters"), whole=True), Axis(say("play.error"), 0, min(highest, 12.0))
    return Chart(found.sentence, *axes, lines, (Mark(say("play.here"), float(found.parameters)),))
