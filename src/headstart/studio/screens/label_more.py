"""Photos without a label, the least certain first; a key for each class puts one where it belongs. Then fit again."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.core.counts import counted, verb
from headstart.core.errors import UnreadableImageError
from headstart.core.progress import Progress
from headstart.core.regular_file import read_regular
from headstart.data.formats import MOST_BYTES
from headstart.data.load import decode_whole
from headstart.report.charts import Axis, Chart, Line, draw
from headstart.studio.page import Tab, Updates, follow, forgets, large, told, warn, work_bar
from headstart.studio.project import Project, refusals
from headstart.studio.screens.fit import verdict_of
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say

KEYS = "123456789"  # one for each of the first classes
SKIP, UNDO = "0", "u"
WAITING = 24  # photos of the grid
NAMED = 5  # photos in a sentence
SIDE = 720  # pixels of the photo that is shown
IN_TURN: dict[str, Any] = {  # keys are taken one after the other, and what they do is told at once
    "concurrency_limit": 1, "concurrency_id": "label", "show_progress": "hidden",
}  # fmt: skip


class Guess(NamedTuple):
    """A photo without a label, and what the model says of it."""

    path: str
    label: str
    probability: float


class Done(NamedTuple):
    """What was done with a photo."""

    guess: Guess
    place: str  # where it is now; "" where it was skipped


@dataclass(frozen=True)
class _Parts:
    """Components that change with each photo."""

    queue: Any  # the guesses, the least certain first
    done: Any  # what was done with others, the last one last
    shown: Any  # the path of the photo that the page shows: a key counts for that one, or not at all
    photo: Any
    words: Any
    keys: Any
    grid: Any

    @property
    def all(self) -> set[Any]:
        return {*vars(self).values()}


def build(tab: Any, opened: Any, version: Any, fitted: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do."""
    queue, done, classes = gr.State(()), gr.State(()), gr.State(())
    with gr.Row(elem_classes="hs-row"):
        adds = gr.UploadButton(say("label.add"), file_count="multiple", elem_id="new-photos")
        orders = gr.Button(say("label.order"), variant="primary", elem_id="order")
        refits = gr.Button(say("label.fit"), elem_id="fit-again")
    bar, words = work_bar(tab), gr.Markdown(say("label.none"), elem_id="label-words")
    photo = gr.HTML(elem_id="unlabelled")
    shown = gr.Textbox(visible=False)
    with gr.Column(visible=False) as keys:
        pass
    with gr.Column(visible=False) as waiting:
        gr.Markdown(say("label.next"))
        grid = gr.Gallery(
            columns=8, object_fit="cover", allow_preview=False, interactive=False, buttons=[], show_label=False,
            elem_id="waiting",
        )  # fmt: skip
    parts = _Parts(queue, done, shown, photo, words, keys, grid)
    see = _Look(parts, waiting, thumbnails)
    _order(tab, (adds, orders, bar), parts, see)
    version.change(told(_classes), tab, classes, show_progress="hidden")
    with keys:
        _buttons((tab, version, classes), parts, see)
    fitted.change(told(lambda tab: see(tab, (), ())), tab, see.changes, show_progress="hidden")
    _again(tab, opened, fitted, (refits, bar))


def _classes(tab: Tab) -> tuple[str, ...]:
    return tuple(tab.project.classes()) if tab.project else ()


class _Look:
    """All that the page shows of the photo whose turn it is."""

    def __init__(self, parts: _Parts, waiting: Any, thumbnails: Thumbnails) -> None:
        self.parts, self.waiting, self.thumbnails = parts, waiting, thumbnails
        self.changes = {*parts.all, waiting}

    def __call__(self, tab: Tab, queue: Sequence[Guess], done: Sequence[Done], more: str = "") -> Updates:
        parts, picture, queue = self.parts, None, tuple(queue)
        while queue and (picture := picture_of(queue[0].path)) is None:  # it is gone meanwhile
            queue = queue[1:]
        words = guess_in_words(queue) if queue else waiting_in_words(tab.project)
        small = [str(each) for each in self.thumbnails.of([Path(guess.path) for guess in queue[:WAITING]])]
        return {
            parts.queue: queue,
            parts.done: tuple(done),
            parts.shown: queue[0].path if queue else "",
            parts.photo: "" if picture is None else large(picture, say("label.photo")),
            parts.words: " ".join((words, more)).strip(),
            parts.keys: gr.Column(visible=bool(queue or done)),
            parts.grid: gr.Gallery(small, selected_index=None),
            self.waiting: gr.Column(visible=bool(queue)),
        }


def picture_of(path: str) -> NDArray[np.uint8] | None:
    """A photo as it is shown; None if it cannot be read any more."""
    try:
        return decode_whole(read_regular(path, MOST_BYTES), SIDE)
    except (OSError, UnreadableImageError):
        return None


def guess_in_words(queue: Sequence[Guess]) -> str:
    """What the model says of the first, and how many are left."""
    first, left = queue[0], counted(len(queue), "photo")
    return say("label.guess", label=first.label, probability=f"{first.probability:.0%}", left=left)


def waiting_in_words(project: Project | None) -> str:
    """How many photos of a project wait for a label."""
    count = len(project.new_photos()) if project else 0
    if not count:
        return say("label.none")
    return say("label.waits", photos=counted(count, "photo"), waits=verb(count, "waits", "wait"))


def _order(tab: Any, buttons: tuple[Any, Any, Any], parts: _Parts, see: _Look) -> None:
    """Add photos, look at those that wait, and take one out of turn."""
    adds, orders, bar = buttons

    @told
    def added(tab: Tab, files: Sequence[str], queue: Sequence[Guess]) -> Updates:
        done = tab.the_project().add_new(files)
        gr.Info(html.escape(say("label.added", photos=counted(done.photos, "photo"))))
        if refused := refusals(done):
            warn(refused)
        return {} if queue else {parts.words: waiting_in_words(tab.project)}

    @told
    def ordered(tab: Tab) -> Iterator[Updates]:
        project, model = tab.the_project(), tab.the_classifier()
        photos = project.new_photos()
        job = tab.running.begin(lambda report: least_certain_first(model, photos, report))
        found, unreadable = yield from follow(job, bar)
        yield see(tab, found, (), unreadable_in_words(unreadable))

    @told
    def first(tab: Tab, queue: Sequence[Guess], done: Sequence[Done], event: gr.SelectData) -> Updates:
        place = int(event.index)
        return see(tab, (queue[place], *queue[:place], *queue[place + 1 :]), done)

    adds.upload(added, [tab, adds, parts.queue], {parts.words}, show_progress="hidden")
    orders.click(ordered, tab, {bar, *see.changes}, show_progress="hidden")
    parts.grid.select(first, [tab, parts.queue, parts.done], see.changes, **IN_TURN)


def least_certain_first(
    model: hs.Classifier, photos: Sequence[Path], report: Progress
) -> tuple[list[Guess], list[str]]:
    """In the order of the largest probability, the smallest first; and the names of photos that cannot be read."""
    found: list[Guess] = []
    unreadable: list[str] = []
    for number, (photo, answer) in enumerate(zip(photos, model.predictions(list(map(str, photos))), strict=True), 1):
        report("photos", number, len(photos))
        if isinstance(answer, hs.Prediction):
            found.append(Guess(str(photo), str(answer.label), answer.probability))
        else:
            unreadable.append(photo.name)
    return sorted(found, key=lambda guess: (guess.probability, guess.path)), unreadable


def unreadable_in_words(names: Sequence[str]) -> str:
    """Photos that cannot be read, by name; "" if all can."""
    if not names:
        return ""
    more = f" … (+{len(names) - NAMED})" if len(names) > NAMED else ""
    return say("label.unreadable", count=len(names), names=", ".join(f"`{name}`" for name in names[:NAMED]) + more)


def _buttons(states: tuple[Any, Any, Any], parts: _Parts, see: _Look) -> None:
    """A button and a key for each class, made anew only where the classes change; one to skip, one to undo."""
    tab, version, classes = states
    inputs, changes = [tab, parts.shown, parts.queue, parts.done, version], {version, *see.changes}

    @gr.render([classes], triggers=[classes.change], show_progress="hidden")  # type: ignore[untyped-decorator]
    def buttons(labels: Sequence[str]) -> None:
        with gr.Row():
            for place, label in enumerate(labels):
                key = KEYS[place] if place < len(KEYS) else ""
                button = gr.Button(f"{key}  {label}".strip(), elem_id=f"key-{key}" if key else None)
                button.click(taker(_mover(label), see, version), inputs, changes, **IN_TURN)

    with gr.Row():
        skips = gr.Button(say("label.skip", sign=SKIP), elem_id=f"key-{SKIP}", size="sm")
        undoes = gr.Button(say("label.undo", sign=UNDO.upper()), elem_id=f"key-{UNDO}", size="sm")
    skips.click(taker(lambda project, guess: "", see, version), inputs, changes, **IN_TURN)
    undoes.click(_undo(see, version), [tab, parts.queue, parts.done, version], changes, **IN_TURN)


def _mover(label: str) -> Callable[[Project, Guess], str]:
    return lambda project, guess: str(project.move(Path(guess.path), label))


def taker(take: Callable[[Project, Guess], str], see: _Look, version: Any) -> Callable[..., Any]:
    """A handler that does something with the photo that is shown, once: a key that is too fast counts for no other."""

    @told
    def taken(tab: Tab, shown: str, queue: Sequence[Guess], done: Sequence[Done], number: int) -> Any:
        if not queue or queue[0].path != shown:
            return gr.skip()
        place = take(tab.the_project(), queue[0])
        found = see(tab, queue[1:], (*done, Done(queue[0], place)))
        return found | ({version: number + 1} if place else {})

    return taken


def _undo(see: _Look, version: Any) -> Callable[..., Any]:
    @told
    def undone(tab: Tab, queue: Sequence[Guess], done: Sequence[Done], number: int) -> Any:
        if not done:
            return gr.skip()
        guess, place = done[-1]
        if place:
            guess = guess._replace(path=os.fspath(tab.the_project().take_label_off(Path(place))))
        return see(tab, (guess, *queue), done[:-1]) | ({version: number + 1} if place else {})

    return undone


class Fitted(NamedTuple):
    """One fit: photos that it was fitted on, and the accuracy with its interval."""

    photos: float
    accuracy: float
    low: float
    high: float


def _again(tab: Any, opened: Any, fitted: Any, parts: tuple[Any, Any]) -> None:
    """Fit anew on all photos that have a label, and see the accuracy move."""
    button, bar = parts
    history, curve = gr.State(()), gr.HTML(elem_id="history")

    @told
    def again(tab: Tab, models: int, points: Sequence[Fitted]) -> Iterator[Updates]:
        project, record, folder = tab.the_project(), tab.the_classifier().record, tab.the_photos(enough=True)
        tab.check_place(project)
        options: dict[str, Any] = {"backbone": record.backbone, "pixels": record.pixels} if record.backbone else {}

        def work(report: Progress) -> hs.Classifier:
            model = hs.fit(folder, progress=report, **options)
            tab.keep(model, project)
            return model

        model = yield from follow(tab.running.begin(work), bar)
        points = tuple(dict.fromkeys([*points, *fit_of(record), *fit_of(model.record)]))
        about = f"<p>{say('label.curve.about')}</p>"
        yield {history: points, curve: verdict_of(model) + draw(chart_of(points)) + about, fitted: models + 1}

    button.click(again, [tab, fitted, history], {bar, history, curve, fitted}, show_progress="hidden")
    forgets(opened, {history: (), curve: ""})


def fit_of(record: Any) -> list[Fitted]:
    """A fit that was measured, as a point of the chart."""
    if not record.result:
        return []
    found = record.result.accuracy
    return [Fitted(float(record.train), found.value, found.low, found.high)]


def chart_of(points: Sequence[Fitted]) -> Chart:
    """The accuracy of each fit, with its interval; no line joins what was measured on different photos."""
    line = Line(
        "",
        [(each.photos, each.accuracy) for each in points],
        band=[(each.low, each.high) for each in points],
        whiskers=True,
        joined=False,
    )
    lowest = int(10 * min(each.low for each in points)) / 10
    photos = [each.photos for each in points]
    across = Axis(say("label.curve.photos"), min(photos) - 1, max(photos) + 1, whole=True)
    return Chart(say("label.curve"), across, Axis(say("label.curve.accuracy"), lowest, 1, percent=True), (line,))
