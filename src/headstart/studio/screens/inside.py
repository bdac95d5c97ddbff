"""A look inside: what layers answer to a photo, a class's ideal image, an attack, and the robustness curve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.plots.attack import magnified
from headstart.plots.explanation import draw_features
from headstart.plots.robustness import draw_robustness
from headstart.studio.page import Tab, Updates, cancel_button, follow, photo_box, told
from headstart.studio.words import say

EPSILON, STEPS = 4, 20  # of an attack, in levels of 255 and in gradient steps
CURVE = 40  # photos of a robustness curve


def build(tab: Any, opened: Any, fitted: Any) -> None:
    """The components, and what they do."""
    with gr.Row(), gr.Column():
        photo = photo_box(say("inside.photo"), "inside-photo")
    with gr.Tab(say("maps")):
        _maps(tab, fitted, photo)
    with gr.Tab(say("imagine")):
        _imagine(tab, fitted)
    with gr.Tab(say("attack")):
        _attack(tab, fitted, photo)
    with gr.Tab(say("robust")):
        _robust(tab)


def classes_of(tab: Tab) -> Any:
    """A choice of the model's classes."""
    names = list(tab.classifier.classes) if tab.classifier else []
    return gr.Dropdown(names, value=names[0] if names else None)


def _maps(tab: Any, fitted: Any, photo: Any) -> None:
    with gr.Row(elem_classes="hs-row"):
        layer = gr.Dropdown([(say("maps.auto"), "auto")], value="auto", label=say("maps.layer"), interactive=True)
        button = gr.Button(say("maps.button"), variant="primary")
    picture = gr.Image(label=say("maps"), interactive=False, visible=False, elem_id="maps")

    @told
    def maps(tab: Tab, photo: str | None, layer: str) -> Any:
        (found,) = hs.feature_maps(tab.the_classifier(), [_given(photo)], layer)
        return gr.Image(draw_features(found), visible=True)

    def layers(tab: Tab) -> Any:
        names = tab.classifier.network.layers if tab.classifier else ()
        return gr.Dropdown([(say("maps.auto"), "auto"), *((name, name) for name in names)], value="auto")

    fitted.change(layers, tab, layer)
    button.click(maps, [tab, photo, layer], picture)


def _given(photo: str | None) -> str:
    if not photo:
        raise hs.UsageError(say("no.photo"))
    return photo


def _imagine(tab: Any, fitted: Any) -> None:
    """The picture grows while it is made."""
    with gr.Row(elem_classes="hs-row"):
        label = gr.Dropdown([], label=say("imagine.class"), interactive=True, elem_id="imagine-class")
        steps = gr.Slider(16, 512, value=128, step=16, label=say("imagine.steps"))
        makes = gr.Button(say("imagine.button"), variant="primary")
        cancel_button(tab)
    bar, words = gr.HTML(), gr.Markdown()
    picture = gr.Image(label=say("imagine"), interactive=False, visible=False, elem_id="ideal")

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
                update |= {picture: gr.Image(seen[-1], visible=True)}
            yield update
        (found,) = job.result()
        yield {picture: gr.Image(found.pixels, visible=True), words: _about(found)}

    fitted.change(classes_of, tab, label)
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
        epsilon = gr.Slider(0.5, 16, value=EPSILON, step=0.5, label=say("attack.epsilon"))
        steps = gr.Slider(1, 100, value=STEPS, step=1, label=say("attack.steps"))
        attacks = gr.Button(say("attack"), variant="primary", elem_id="attack")
        cancel_button(tab)
    bar, words = gr.HTML(), gr.Markdown(elem_id="attacked")
    pictures = gr.Gallery(
        columns=3, show_label=False, interactive=False, buttons=[], visible=False, elem_id="attack-pictures"
    )

    @told
    def attacked(tab: Tab, photo: str | None, target: str | None, epsilon: float, steps: float) -> Iterator[Updates]:
        model, given = tab.the_classifier(), _given(photo)
        job = tab.running.begin(
            lambda report: hs.attack_photos(
                model, [given], target or None, method="pgd", epsilon=epsilon / 255, steps=int(steps), progress=report
            )
        )
        found = yield from follow(job, bar)
        yield {words: _outcome(found), pictures: gr.Gallery(_three(found), visible=True)}

    def targets(tab: Tab) -> Any:
        names = list(tab.classifier.classes) if tab.classifier else []
        return gr.Dropdown([(say("attack.any"), ""), *((name, name) for name in names)], value="")

    fitted.change(targets, tab, target)
    attacks.click(attacked, [tab, photo, target, epsilon, steps], {bar, words, pictures}, show_progress="hidden")


def _outcome(found: hs.Attacked) -> str:
    before, after = found.before[0], found.after[0]
    key = "attack.already" if found.already[0] else "attack.fooled" if found.success[0] else "attack.held"
    return say(
        key,
        before=found.classes[before.argmax()],
        first=f"{before.max():.1%}",
        after=found.classes[after.argmax()],
        second=f"{after.max():.1%}",
    )


def _three(found: hs.Attacked) -> list[tuple[Any, str]]:
    change, times = magnified(found.saved[0], found.originals[0])
    return [
        (Image.fromarray(found.originals[0]), say("attack.photo")),
        (Image.fromarray(change), say("attack.change", times=f"{times:.3g}")),
        (Image.fromarray(found.saved[0]), say("attack.result")),
    ]


def _robust(tab: Any) -> None:
    gr.Markdown(say("robust.about", photos=CURVE))
    with gr.Row(elem_classes="hs-row"):
        measures = gr.Button(say("robust.button"), variant="primary")
        cancel_button(tab)
    bar, plot = gr.HTML(), gr.Plot(show_label=False, visible=False)

    @told
    def measured(tab: Tab) -> Iterator[Updates]:
        model, folder = tab.the_classifier(), tab.the_photos()
        job = tab.running.begin(
            lambda report: hs.robustness(model, folder, methods=["pgd"], images=CURVE, progress=report)
        )
        found = yield from follow(job, bar)
        yield {plot: gr.Plot(draw_robustness(found), visible=True)}

    measures.click(measured, tab, {bar, plot}, show_progress="hidden")
