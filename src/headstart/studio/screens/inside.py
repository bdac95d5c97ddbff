"""A look inside: what layers answer to a photo, a class's ideal image, an attack, and the robustness curve."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.core.counts import counted
from headstart.plots.attack import magnified
from headstart.plots.explanation import channels
from headstart.report.charts import draw
from headstart.report.figures import robustness_chart
from headstart.studio.page import (
    Tab,
    Updates,
    figures,
    follow,
    forgets,
    inline,
    large,
    photo_box,
    slider,
    told,
    work_bar,
)  # fmt: skip
from headstart.studio.words import say

EPSILON, LARGEST = 4, 16  # of an attack, in levels of 255: at first, and at most
STEPS, MOST = 20, 100  # its gradient steps
CURVE = 40  # photos of a robustness curve


def build(tab: Any, opened: Any, fitted: Any) -> None:
    """The components, and what they do."""
    photo = photo_box(say("inside.photo"), "inside-photo")
    with gr.Accordion(say("maps")):
        _maps(tab, fitted, photo)
    with gr.Accordion(say("imagine"), open=False):
        _imagine(tab, fitted)
    with gr.Accordion(say("attack"), open=False):
        _attack(tab, fitted, photo)
    with gr.Accordion(say("robust"), open=False):
        _robust(tab, fitted)
    forgets(opened, {photo: None})


def classes_of(tab: Tab) -> Any:
    """A choice of the model's classes."""
    names = list(tab.classifier.classes) if tab.classifier else []
    return gr.Dropdown(names, value=names[0] if names else None)


def _maps(tab: Any, fitted: Any, photo: Any) -> None:
    with gr.Row(elem_classes="hs-row"):
        layer = gr.Dropdown([(say("maps.auto"), "auto")], value="auto", label=say("maps.layer"), interactive=True)
        button = gr.Button(say("maps.button"), variant="primary")
    page = gr.HTML(elem_id="maps")

    @told
    def maps(tab: Tab, photo: str | None, layer: str) -> str:
        (found,) = hs.feature_maps(tab.the_classifier(), [_given(photo)], layer)
        return maps_of(found)

    def layers(tab: Tab) -> Any:
        names = tab.classifier.network.layers if tab.classifier else ()
        return gr.Dropdown([(say("maps.auto"), "auto"), *((name, name) for name in names)], value="auto")

    fitted.change(layers, tab, layer, show_progress="hidden")
    button.click(maps, [tab, photo, layer], page, show_progress="hidden")
    forgets(fitted, {page: ""})


def maps_of(found: hs.FeatureMaps) -> str:
    """The strongest channels of each layer, in HTML."""
    parts = []
    for layer in found.layers:
        height, width = layer.values.shape[1:]
        about = say("maps.layer.about", layer=layer.layer, count=layer.count, height=height, width=width)
        tiles = ((inline(pixels), say("maps.channel", channel=number)) for number, pixels in channels(layer))
        parts.append(f"<h3>{html.escape(about)}</h3>{figures(tiles, 'maps')}")
    return "".join(parts)


def _given(photo: str | None) -> str:
    if not photo:
        raise hs.UsageError(say("no.photo"))
    return photo


def _imagine(tab: Any, fitted: Any) -> None:
    """The picture grows while it is made."""
    with gr.Row(elem_classes="hs-row"):
        label = gr.Dropdown([], label=say("imagine.class"), interactive=True, elem_id="imagine-class")
        steps = slider(16, 512, 128, 16, label=say("imagine.steps"), elem_id="imagine-steps")
        makes = gr.Button(say("imagine.button"), variant="primary")
    bar, words = work_bar(tab), gr.Markdown()
    picture = gr.HTML(elem_id="ideal")

    @told
    def made(tab: Tab, label: str | None, steps: float) -> Iterator[Updates]:
        model, seen = tab.the_classifier(), list[NDArray[np.uint8]]()
        job = tab.running.begin(
            lambda report: hs.ideal_images(
                model, [label], steps=int(steps), progress=report, watch=lambda _, pictures: seen.append(pictures[0])
            )
        )
        shown = 0
        for update in follow(job, bar):
            if len(seen) > shown:
                shown = len(seen)
                update |= {picture: large(seen[-1], say("imagine"))}
            yield update
        (found,) = job.result()
        yield {picture: large(found.pixels, say("imagine")), words: _about(found)}

    fitted.change(classes_of, tab, label, show_progress="hidden")
    forgets(fitted, {picture: "", words: ""})
    makes.click(made, [tab, label, steps], {bar, picture, words}, show_progress="hidden")


def _about(found: hs.IdealImage) -> str:
    lines = [say("imagine.own", name=found.name, probability=f"{found.probability or 0:.1%}")]
    for each in found.judges:
        label, probability = each.top[0]
        lines.append(say("imagine.judge", judge=each.judge, label=label, probability=f"{probability:.1%}"))
    if found.unknown:
        lines.append(say("imagine.unknown"))
    return "\n\n".join(lines)


def _attack(tab: Any, fitted: Any, photo: Any) -> None:
    with gr.Row(elem_classes="hs-row"):
        target = gr.Dropdown([], label=say("attack.target"), interactive=True, elem_id="target")
        epsilon = slider(0.5, LARGEST, EPSILON, 0.5, label=say("attack.epsilon"), elem_id="epsilon")
        steps = slider(1, MOST, STEPS, 1, label=say("attack.steps"))
        attacks = gr.Button(say("attack"), variant="primary", elem_id="attack")
    bar, words, pictures = work_bar(tab), gr.Markdown(elem_id="attacked"), gr.HTML(elem_id="attack-pictures")

    @told
    def attacked(tab: Tab, photo: str | None, target: str | None, epsilon: float, steps: float) -> Iterator[Updates]:
        model, given = tab.the_classifier(), _given(photo)
        job = tab.running.begin(
            lambda report: hs.attack_photos(
                model, [given], target or None, method="pgd", epsilon=epsilon / 255, steps=int(steps), progress=report
            )
        )
        found = yield from follow(job, bar)
        yield {words: outcome_of(found), pictures: figures(_three(found), "large")}

    def targets(tab: Tab) -> Any:
        names = list(tab.classifier.classes) if tab.classifier else []
        return gr.Dropdown([(say("attack.any"), ""), *((name, name) for name in names)], value="")

    fitted.change(targets, tab, target, show_progress="hidden")
    forgets(fitted, {words: "", pictures: ""})
    attacks.click(attacked, [tab, photo, target, epsilon, steps], {bar, words, pictures}, show_progress="hidden")


def outcome_of(found: hs.Attacked) -> str:
    """What came of the attack, and what may do more, as far as the sliders go."""
    before, after = found.before[0], found.after[0]
    key = "attack.already" if found.already[0] else "attack.fooled" if found.success[0] else "attack.held"
    words = say(
        key,
        before=found.classes[before.argmax()],
        first=f"{before.max():.1%}",
        after=found.classes[after.argmax()],
        second=f"{after.max():.1%}",
    )
    if key == "attack.fooled":
        return f"{words} {say('attack.soon')}"
    larger, longer = 255 * found.plan.epsilon < LARGEST - 0.01, found.plan.steps < MOST
    if key == "attack.already" or not (larger or longer):
        return words
    more = "both" if larger and longer else "epsilon" if larger else "steps"
    return f"{words} {say('attack.more', what=say(f'attack.more.{more}'))}"


def _three(found: hs.Attacked) -> list[tuple[str, str]]:
    photo, made = found.originals[0], found.saved[0]
    change, times = magnified(made, photo)
    largest = int(np.abs(made.astype(int) - photo).max())
    about = say("attack.change", levels=counted(largest, "level"), times=f"{times:.3g}")
    return [
        (inline(photo), say("attack.photo")),
        (inline(change), about if largest else say("attack.none")),
        (inline(made), say("attack.result")),
    ]


def _robust(tab: Any, fitted: Any) -> None:
    gr.Markdown(say("robust.about", photos=CURVE))
    with gr.Row(elem_classes="hs-row"):
        measures = gr.Button(say("robust.button"), variant="primary", elem_id="measure")
    bar, page = work_bar(tab), gr.HTML(elem_id="robust")

    @told
    def measured(tab: Tab) -> Iterator[Updates]:
        model, folder = tab.the_classifier(), tab.the_photos()
        job = tab.running.begin(
            lambda report: hs.robustness(model, folder, methods=["pgd"], images=CURVE, progress=report)
        )
        found = yield from follow(job, bar)
        chart = robustness_chart(found)
        failed = "".join(f"<li>{html.escape(check.sentence)}</li>" for check in found.checks if not check.passed)
        yield {page: f"<p>{html.escape(chart.says)}</p>{draw(chart)}" + (f"<ul>{failed}</ul>" if failed else "")}

    measures.click(measured, tab, {bar, page}, show_progress="hidden")
    forgets(fitted, {page: ""})
