"""Photos without a label, the least certain first; a key for each class puts one where it belongs. Then fit again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.core.counts import counted
from headstart.core.regular_file import read_regular
from headstart.data.formats import MOST_BYTES
from headstart.data.load import decode_whole
from headstart.report.charts import Axis, Chart, Line, draw
from headstart.studio.page import Tab, Updates, cancel_button, follow, told
from headstart.studio.project import refusals
from headstart.studio.screens.fit import verdict_of
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say

KEYS = "123456789"  # one for each of the first classes
WAITING = 24  # photos of the grid
SIDE = 720  # pixels of the photo that is shown


def build(tab: Any, opened: Any, version: Any, fitted: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do."""
    queue = gr.State(())  # paths of photos, the least certain first
    history = gr.State(())  # (photos fitted on, accuracy) of each fit
    with gr.Row(elem_classes="hs-row"):
        adds = gr.UploadButton(say("label.add"), file_count="multiple", elem_id="new-photos")
        orders = gr.Button(say("label.order"), variant="primary", elem_id="order")
        refits = gr.Button(say("label.fit"), elem_id="fit-again")
        cancel_button(tab)
    bar, words = gr.HTML(), gr.Markdown(say("label.none"), elem_id="label-words")
    photo = gr.Image(
        label=say("label.photo"), interactive=False, buttons=[], height=360, visible=False, elem_id="unlabelled"
    )

    @told
    def added(tab: Tab, files: Sequence[str]) -> str:
        done = tab.the_project().add_new(files)
        return say("label.added", photos=counted(done.photos, "photo")) + f" {refusals(done)}"

    @told
    def ordered(tab: Tab) -> Iterator[Updates]:
        project, model = tab.the_project(), tab.the_classifier()
        photos = project.new_photos()
        job = tab.running.begin(lambda report: least_certain_first(model, photos, report))
        found = yield from follow(job, bar)
        yield {queue: tuple(found)}

    adds.upload(added, [tab, adds], words)
    orders.click(ordered, tab, {bar, queue}, show_progress="hidden")
    _buttons(tab, version, queue)
    _waiting(queue, thumbnails)
    queue.change(told(_next), [tab, queue], [photo, words])
    _again(tab, fitted, history, (refits, bar))


def _waiting(queue: Any, thumbnails: Thumbnails) -> None:
    """A grid of what comes next; a click puts one at the front."""
    grid = gr.Gallery(
        label=say("label.next"), columns=8, object_fit="cover", allow_preview=False, interactive=False, buttons=[],
        visible=False, elem_id="waiting",
    )  # fmt: skip

    def shown(queue: Sequence[str]) -> Any:
        small = thumbnails.of([Path(path) for path in queue[:WAITING]])
        return gr.Gallery([str(picture) for picture in small], visible=bool(queue), selected_index=None)

    def first(queue: Sequence[str], event: gr.SelectData) -> Sequence[str]:
        place = int(event.index)
        return (queue[place], *queue[:place], *queue[place + 1 :])

    queue.change(told(shown), queue, grid)
    grid.select(first, queue, queue)


def least_certain_first(
    model: hs.Classifier, photos: Sequence[Path], report: Callable[[str, int, int], None]
) -> list[str]:
    """Paths in the order of the largest probability, the smallest first; photos that cannot be read are left out."""
    sure: list[tuple[float, str]] = []
    for number, found in enumerate(model.predictions([str(photo) for photo in photos]), 1):
        report("photos", number, len(photos))
        if isinstance(found, hs.Prediction):
            sure.append((found.probability, str(photos[number - 1])))
    return [path for _, path in sorted(sure)]


def _next(tab: Tab, queue: Sequence[str]) -> tuple[Any, str]:
    if not queue:
        return gr.Image(visible=False), say("label.none")
    found = tab.the_classifier().predict([queue[0]], top=1)[0][0]
    left = counted(len(queue), "photo")
    words = say("label.guess", label=found[0], probability=f"{found[1]:.0%}", left=left)
    return gr.Image(decode_whole(read_regular(queue[0], MOST_BYTES), SIDE), visible=True), words


def _buttons(tab: Any, version: Any, queue: Any) -> None:
    """A button and a key for each class."""
    tab_box, version_box, queue_box = tab, version, queue

    @gr.render([tab], triggers=[version.change, queue.change])  # type: ignore[untyped-decorator]
    def buttons(tab: Tab) -> None:
        labels = tab.project.classes() if tab.project else []
        with gr.Row():
            for key, label in zip(KEYS, labels, strict=False):
                button = gr.Button(f"{key}  {label}", elem_id=f"key-{key}", elem_classes="hs-key")
                button.click(_labeller(label), [tab_box, queue_box, version_box], [queue_box, version_box])
            for label in labels[len(KEYS) :]:
                button = gr.Button(label)
                button.click(_labeller(label), [tab_box, queue_box, version_box], [queue_box, version_box])


def _labeller(label: str) -> Callable[..., tuple[Sequence[str], int]]:
    @told
    def labelled(tab: Tab, queue: Sequence[str], version: int) -> tuple[Sequence[str], int]:
        if not queue:
            raise hs.UsageError(say("label.none"))
        tab.the_project().move(Path(queue[0]), label)
        return queue[1:], version + 1

    return labelled


def _again(tab: Any, fitted: Any, history: Any, parts: tuple[Any, Any]) -> None:
    """Fit anew on all photos that have a label, and see the curve move."""
    button, bar = parts
    curve = gr.HTML(elem_id="history")

    @told
    def again(tab: Tab, models: int, points: Sequence[tuple[float, float]]) -> Iterator[Updates]:
        project, record = tab.the_project(), tab.the_classifier().record
        before = _point(record)
        options: dict[str, Any] = {"backbone": record.backbone, "pixels": record.pixels} if record.backbone else {}
        folder = str(project.photos_folder)
        job = tab.running.begin(lambda report: hs.fit(folder, progress=report, **options))
        model = yield from follow(job, bar)
        tab.keep(model, project)
        points = tuple(dict.fromkeys([*points, *before, *_point(model.record)]))
        yield {
            history: points,
            curve: verdict_of(model) + draw(_chart(points)),
            fitted: models + 1,
        }

    button.click(again, [tab, fitted, history], {bar, history, curve, fitted}, show_progress="hidden")


def _point(record: Any) -> list[tuple[float, float]]:
    return [(float(record.train), record.result.accuracy.value)] if record.result else []


def _chart(points: Sequence[tuple[float, float]]) -> Chart:
    return Chart(
        say("label.curve"),
        Axis(say("label.curve.photos"), whole=True),
        Axis(say("label.curve.accuracy"), percent=True),
        (Line(say("label.curve.accuracy"), points),),
    )
