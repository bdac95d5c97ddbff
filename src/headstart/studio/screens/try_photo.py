"""A photo, and what the model says of it: label, probabilities, "unknown", nearest training photos, and why."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.plots.explanation import over_photo
from headstart.studio.page import Tab, Updates, filled, photo_box, told
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say

CLASSES, NEAREST = 5, 6  # that are shown


def build(tab: Any, opened: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do."""
    with gr.Row():
        with gr.Column():
            photo = photo_box(say("try.photo"), "try-photo")
        with gr.Column():
            answer = gr.HTML(f"<p>{say('try.none')}</p>", elem_id="answer")
            bars = gr.HTML(elem_id="probabilities")
    with gr.Row():
        why = gr.Image(label=say("try.why"), interactive=False, buttons=[], visible=False, elem_id="why")
        near = gr.Gallery(
            label=say("try.nearest"), columns=3, object_fit="cover", interactive=False, buttons=[], visible=False
        )

    @told
    def asked(tab: Tab, photo: str | None) -> Updates:
        if not photo:
            return {
                answer: f"<p>{say('try.none')}</p>",
                bars: "",
                why: gr.Image(visible=False),
                near: gr.Gallery(visible=False),
            }
        model = tab.the_classifier()
        (found,) = model.predictions([photo])
        if isinstance(found, hs.Problem):
            raise hs.DataError(f"{found.kind}: {found.detail}")
        return {
            answer: _answer(found),
            bars: _bars(model.predict([photo], top=CLASSES)[0]),
            why: _map(model, photo),
            near: _nearest(tab, photo, thumbnails),
        }

    photo.change(asked, [tab, photo], {answer, bars, why, near})


def _answer(found: Any) -> str:
    label = html.escape(found.label)
    if found.unknown:
        words = say("try.unknown", label=label)
    else:
        words = say("try.label", label=label, probability=f"{found.probability:.1%}")
    return f'<p class="hs-verdict" role="status">{words}</p>'


def _bars(top: Sequence[tuple[Any, float]]) -> str:
    """The probabilities of the most probable classes, as bars."""
    rows = (
        f"<dt>{html.escape(str(label))}</dt>"
        f'<dd><div class="hs-bar" aria-hidden="true">{filled(chance)}</div></dd>'
        f"<dd>{chance:.1%}</dd>"
        for label, chance in top
    )
    return f'<dl class="hs-chances" aria-label="{say("try.probabilities")}">{"".join(rows)}</dl>'


def _map(model: Any, photo: str) -> Any:
    """The class activation over the photo; none of a network that has no places."""
    try:
        (found,) = hs.explain_photos(model, [photo], progress=False)
    except hs.UsageError:
        return gr.Image(visible=False)
    return gr.Image(over_photo(found), visible=True)


def _nearest(tab: Tab, photo: str, thumbnails: Thumbnails) -> Any:
    model = tab.the_classifier()
    if model.unknown is None or tab.project is None:
        return gr.Gallery(visible=False)
    ((*found,),) = model.nearest([photo], NEAREST)
    files = [tab.project.photos_folder / name for name, _ in found]
    pairs = [
        (str(small), f"{Path(name).parent} {cosine:.2f}")
        for small, (name, cosine) in zip(thumbnails.of(files), found, strict=True)
    ]
    return gr.Gallery(pairs, visible=True)
