"""A photo, and what the model says of it: label, probabilities, "unknown", nearest training photos, and why."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.plots.explanation import over_photo
from headstart.studio.page import Tab, Updates, address_of, figures, filled, large, photo_box, told
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say

CLASSES, NEAREST = 5, 6  # that are shown


def build(tab: Any, opened: Any, fitted: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do."""
    of = gr.State(0)  # the number of the project that the photo was shown to
    with gr.Row():
        with gr.Column():
            photo = photo_box(say("try.photo"), "try-photo")
        with gr.Column():
            answer = gr.HTML(f"<p>{say('try.none')}</p>", elem_id="answer")
            bars = gr.HTML(elem_id="probabilities")
            why = gr.HTML(elem_id="why")
    near = gr.HTML(elem_id="nearest")
    parts = (answer, bars, why, near)
    empty = {answer: f"<p>{say('try.none')}</p>", bars: "", why: "", near: ""}

    @told
    def asked(tab: Tab, photo: str | None) -> Iterator[Updates]:
        yield empty | {answer: ""} if photo else empty
        if photo:
            yield _about(tab, photo, thumbnails, parts)

    @told
    def again(tab: Tab, photo: str | None, number: int, of_photo: int) -> Iterator[Updates]:
        """Where there is another model, it is asked, too; another project is shown nothing."""
        if number != of_photo:
            yield empty | {box: None, of: number}
        elif photo and tab.classifier:
            yield empty | {answer: ""}
            with suppress(hs.DataError):  # it was said already that it cannot be read
                yield _about(tab, photo, thumbnails, parts)

    box = photo
    photo.change(asked, [tab, photo], set(empty), show_progress="hidden")
    fitted.change(again, [tab, photo, opened, of], {photo, of, *empty}, show_progress="hidden")


def _about(tab: Tab, photo: str, thumbnails: Thumbnails, parts: Sequence[Any]) -> Updates:
    """The answer, the probabilities, the map and the nearest photos."""
    model = tab.the_classifier()
    (found,) = model.predictions([photo])
    if isinstance(found, hs.Problem):
        raise hs.DataError(say("try.unreadable", why=found.detail))
    bars = _bars(model.predict([photo], top=CLASSES)[0])
    return dict(zip(parts, (_answer(found), bars, _map(model, photo), nearest_of(tab, photo, thumbnails)), strict=True))


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


def _map(model: Any, photo: str) -> str:
    """The class activation over the photo; none of a network that has no places."""
    try:
        (found,) = hs.explain_photos(model, [photo], progress=False)
    except hs.UsageError:
        return ""
    return f"<h3>{say('try.why')}</h3>" + large(over_photo(found), say("try.why"))


def nearest_of(tab: Tab, photo: str, thumbnails: Thumbnails) -> str:
    """The training photos that are nearest to it, in HTML; none of a model that keeps none."""
    model = tab.the_classifier()
    if model.unknown is None or tab.project is None:
        return ""
    ((*found,),) = model.nearest([photo], NEAREST)
    small = thumbnails.of([tab.project.photos_folder / name for name, _ in found])
    words = [f"{Path(name).parent} {cosine:.2f}" for name, cosine in found]
    return f"<h3>{say('try.nearest')}</h3>" + figures(zip(map(address_of, small), words, strict=True))
