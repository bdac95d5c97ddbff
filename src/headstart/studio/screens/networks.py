"""Networks compared, on the screen Fit: a plot and a table, from which one is chosen."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

import headstart as hs
from headstart.backbones.catalogue import DEFAULT
from headstart.report.charts import COLOURS, Axis, Chart, Line, Mark, draw
from headstart.studio.page import Tab, Updates, follow, forgets, told, work_bar
from headstart.studio.words import say
from headstart.workflows.compare import at_hand
from headstart.workflows.ranking import Candidate

PIXELS = (128, 192, 224)  # sizes that are compared


def names() -> list[str]:
    """Those whose weights are on this machine, the default first."""
    return [DEFAULT, *(name for name in at_hand() if name != DEFAULT)]


def build(tab: Any, opened: Any, network: Any, pixels: Any) -> None:
    """The components, and what they do; the choice goes into ``network`` and ``pixels``."""
    with gr.Accordion(say("compare"), open=False):
        gr.Markdown(say("compare.about"))
        with gr.Row(elem_classes="hs-row"):
            compares = gr.Button(say("compare"), elem_id="compare")
        bar, page, words = work_bar(tab), gr.HTML(elem_id="compared"), gr.Markdown()
        picks = gr.Dropdown([], label=say("compare.pick"), interactive=True, visible=False)

    @told
    def compared(tab: Tab) -> Iterator[Updates]:
        folder = tab.the_photos()
        job = tab.running.begin(lambda report: hs.compare(folder, pixels=[*PIXELS], progress=report))
        found = yield from follow(job, bar)
        choices = [(row.title, f"{row.backbone} {row.pixels}") for row in found.rows]
        chosen = found.chosen and f"{found.chosen.backbone} {found.chosen.pixels}"
        tried = ", ".join(dict.fromkeys(row.backbone for row in found.rows))
        yield {
            page: page_of(found),
            words: f"{say('compare.done', names=tried)}\n\n{say('compare.next')}",
            picks: gr.Dropdown(choices, value=chosen, visible=True),
        }

    @told
    def picked(choice: str | None) -> tuple[str, int] | tuple[Any, Any]:
        if not choice:
            return gr.skip(), gr.skip()
        name, size = choice.rsplit(" ", 1)
        return name, int(size)

    compares.click(compared, tab, {bar, page, words, picks}, show_progress="hidden")
    picks.change(picked, picks, [network, pixels], show_progress="hidden")
    forgets(opened, {page: "", words: "", picks: gr.Dropdown([], value=None, visible=False)})


def page_of(found: hs.Comparison) -> str:
    """The choice, the plot, and the same in figures."""
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(row.backbone)}</th><td>{row.pixels}</td>"
        f"<td>{row.accuracy.value:.1%} ({100 * row.accuracy.low:.1f} to {100 * row.accuracy.high:.1f})</td>"
        f"<td>{row.images_per_second:.0f}</td><td>{say('compare.chosen') if row is found.chosen else ''}</td></tr>"
        for row in found.rows
    )
    heads = "".join(
        f"<th scope='col'>{say(f'compare.{key}')}</th>" for key in ("network", "pixels", "accuracy", "speed")
    )
    return (
        f'<p class="hs-verdict" role="status"><strong>{html.escape(found.sentence)}</strong></p>'
        f'<div class="hs-charts"><div>{draw(chart_of(found.rows, found.chosen, found.sentence))}</div>'
        f'<div class="hs-wide" tabindex="0" role="region" aria-label="{say("compare")}">'
        f'<table class="hs-table"><tr>{heads}<td></td></tr>{rows}</table></div></div>'
    )


def chart_of(rows: Sequence[Candidate], chosen: Candidate | None, says: str) -> Chart:
    """Accuracy against speed, a line for each network from its fastest size to its slowest."""
    lines = []
    for place, name in enumerate(dict.fromkeys(row.backbone for row in rows)):
        own = sorted((row for row in rows if row.backbone == name), key=lambda row: row.images_per_second)
        points = [(row.images_per_second, row.accuracy.value) for row in own]
        band = [(row.accuracy.low, row.accuracy.high) for row in own]
        colour = COLOURS[place % len(COLOURS)]
        lines.append(Line(name, points, colour, band, whiskers=True, dashed=place >= len(COLOURS)))
    marks = (Mark(say("compare.chosen"), chosen.images_per_second),) if chosen else ()
    speed, accuracy = Axis(say("compare.speed"), log=True), Axis(say("label.curve.accuracy"), high=1, percent=True)
    return Chart(says, speed, accuracy, tuple(lines), marks)
