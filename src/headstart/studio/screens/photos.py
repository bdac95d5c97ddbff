"""The first screen: a project, its classes side by side, the photos in them, and what the check finds."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.core.counts import counted
from headstart.model.bundle import is_bundle
from headstart.studio.page import Tab, Updates, cancel_button, follow, photo_box, told
from headstart.studio.project import Project, said
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say

SHOWN = 48  # photos of a class at a time
ADDRESS = "project"  # of the page's address: where it comes again it opens the same one
_REMEMBER = (
    "folder => { const url = new URL(location); url.searchParams.set('project', folder); "
    "history.replaceState(null, '', url); }"
)
IN_TURN: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "open"}  # of two that open, the later counts


@dataclass(frozen=True)
class Photos:
    """Components of this screen that others look at."""

    version: Any  # a number that rises whenever the photos change
    at_first: tuple[Callable[..., Updates], list[Any], set[Any]]  # opens the project: function, inputs and outputs


def build(tab: Any, opened: Any, fitted: Any, start: str, thumbnails: Thumbnails) -> Photos:
    """The components, and what they do."""
    version, chosen, shown = gr.State(0), gr.State(""), gr.State(SHOWN)
    with gr.Row(elem_classes="hs-row"):
        folder = gr.Textbox(start, label=say("project"), info=say("project.about"), scale=4, elem_id="project")
        opens = gr.Button(say("project.open"), variant="primary", elem_id="open")
    status = gr.Markdown(elem_id="status")
    with gr.Row(elem_classes="hs-row"):
        source = gr.Textbox(label=say("bring"), info=say("bring.about"), scale=4, elem_id="bring")
        brings = gr.Button(say("bring.button"))
        name = gr.Textbox(label=say("class"), info=say("class.about"), scale=2, elem_id="class")
        adds = gr.Button(say("class.add"))
    numbers = (version, opened, fitted)
    at_first = _opening(tab, status, folder, opens, numbers)
    _changes(tab, version, (source, brings), (name, adds))
    version.change(told(lambda tab: _state(tab.the_project())), tab, status)
    _choice(tab, version, chosen)
    _classes(tab, version, chosen, shown, thumbnails)
    _camera(tab, version)
    _check(tab, opened, version, chosen, thumbnails)
    opened.change(lambda: ("", SHOWN), None, [chosen, shown])
    return Photos(version, (at_first, [tab, folder, *numbers], {folder, *numbers}))


def _opening(tab: Any, status: Any, box: Any, button: Any, numbers: tuple[Any, Any, Any]) -> Callable[..., Updates]:
    """Open a project, with the model that lies in it; returns what does that when the page comes."""
    version, opened, fitted = numbers

    @told
    def opens(tab: Tab, folder: str, changes: int, projects: int, models: int) -> Updates:
        if not folder.strip():
            raise hs.UsageError(say("no.folder"))
        project = Project(folder)
        tab.running.make_way()
        tab.project, tab.classifier, tab.health = project, None, None
        try:
            if is_bundle(project.model_folder):
                tab.classifier = hs.load(project.model_folder)
        except hs.HeadstartError as error:  # its photos are there all the same
            gr.Warning(html.escape(say("model.damaged", error=error)), duration=None, title=say("error"))
        return {version: changes + 1, opened: projects + 1, fitted: models + 1}

    def at_first(tab: Tab, folder: str, changes: int, projects: int, models: int, request: gr.Request) -> Updates:
        """When the page comes, or comes again; somebody may have been faster."""
        if tab.project:
            return {box: gr.skip()}
        again = request.query_params.get(ADDRESS)
        found: Updates = opens(tab, again or folder, changes, projects, models)
        return {box: again or gr.skip(), **(found if version in found else {})}

    gr.on([button.click, box.submit], opens, [tab, box, *numbers], set(numbers), **IN_TURN)
    opened.change(None, box, None, js=_REMEMBER)
    return at_first


def _changes(tab: Any, version: Any, bringing: tuple[Any, Any], adding: tuple[Any, Any]) -> None:
    """Bring photos in, add a class."""
    (source, brings), (name, adds) = bringing, adding

    @told
    def brought(tab: Tab, folder: str, changes: int) -> Updates:
        if not folder.strip():
            raise hs.UsageError(say("no.folder"))
        gr.Info(html.escape(said(tab.the_project().bring_in(folder))))
        return {version: changes + 1, source: ""}

    @told
    def added(tab: Tab, label: str, changes: int) -> Updates:
        tab.the_project().add_class(label)
        return {version: changes + 1, name: ""}

    gr.on([brings.click, source.submit], brought, [tab, source, version], {version, source})
    gr.on([adds.click, name.submit], added, [tab, name, version], {version, name})


def _state(project: Project) -> str:
    classes = project.classes()
    count = sum(len(project.photos(label)) for label in classes)
    photos, names = counted(count, "photo"), counted(len(classes), "class", "classes")
    return say("project.opened", folder=project.folder, photos=photos, classes=names)


def _choice(tab: Any, version: Any, chosen: Any) -> None:
    """What can be done with the photo that was clicked."""
    with gr.Row(elem_classes="hs-row", elem_id="choice"):
        what = gr.Markdown(say("photos.nothing"))
        where = gr.Dropdown([], label=say("photos.move"), interactive=True, allow_custom_value=False)
        moves = gr.Button(say("photos.move.button"))
        leaves = gr.Button(say("photos.leave"))

    def told_of(tab: Tab, chosen: str) -> Updates:
        if not chosen:
            return {what: say("photos.nothing")}
        photo, classes = Path(chosen), tab.the_project().classes()
        choices = gr.Dropdown(classes, value=photo.parent.name if photo.parent.name in classes else None)
        return {what: say("photos.chosen", photo=f"`{photo.name}`"), where: choices}

    @told
    def moved(tab: Tab, photo: str, label: str, changes: int) -> Updates:
        tab.the_project().move(_photo(photo), label)
        return {chosen: "", version: changes + 1}

    @told
    def left(tab: Tab, photo: str, changes: int) -> Updates:
        tab.the_project().leave_out(_photo(photo))
        return {chosen: "", version: changes + 1}

    chosen.change(told(told_of), [tab, chosen], {what, where})
    moves.click(moved, [tab, chosen, where, version], {chosen, version})
    leaves.click(left, [tab, chosen, version], {chosen, version})


def _photo(chosen: str) -> Path:
    if not chosen:
        raise hs.UsageError(say("no.photo"))
    return Path(chosen)


def gallery_of(photos: Sequence[Path], thumbnails: Thumbnails, chosen: Any, **options: Any) -> Any:
    """Small pictures; a click on one chooses it."""
    pairs = [(str(small), photo.name) for small, photo in zip(thumbnails.of(photos), photos, strict=True)]
    gallery = gr.Gallery(
        pairs,
        columns=3,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        height="auto",
        **options,
    )
    paths = [str(photo) for photo in photos]
    gallery.select(_chooser(paths), None, chosen)
    return gallery


def _chooser(paths: Sequence[str]) -> Callable[..., str]:
    def choose(event: gr.SelectData) -> str:
        return paths[int(event.index)]

    return choose


def _classes(tab: Any, version: Any, chosen: Any, shown: Any, thumbnails: Thumbnails) -> None:
    """A column for each class, and what is left out."""
    tab_box, version_box = tab, version

    @gr.render([tab, shown], triggers=[version.change, shown.change])  # type: ignore[untyped-decorator]
    def classes(tab: Tab, shown: int) -> None:
        project = tab.the_project()
        labels = project.classes()
        if not labels:
            gr.Markdown(say("photos.none"))
        with gr.Row():
            for label in labels:
                with gr.Column(min_width=300):
                    _class(tab_box, version_box, chosen, label, project.photos(label), shown, thumbnails)
        if left := project.left_out():
            gr.Markdown(f"### {say('photos.left', photos=counted(len(left), 'photo'))}")
            gallery_of(left[:shown], thumbnails, chosen, show_label=False, elem_classes="hs-left")
            back = gr.Button(say("photos.back"))

            @told
            def put_back(tab: Tab, chosen: str, version: int) -> tuple[str, int]:
                tab.the_project().put_back(_photo(chosen))
                return "", version + 1

            back.click(put_back, [tab_box, chosen, version_box], [chosen, version_box])
        if max((len(project.photos(label)) for label in labels), default=0) > shown:
            more = gr.Button(say("photos.more", label=", ".join(labels)[:60]))
            more.click(lambda shown: shown + SHOWN, shown_box, shown_box)

    shown_box = shown


def _class(
    tab: Any, version: Any, chosen: Any, label: str, photos: Sequence[Path], shown: int, thumbnails: Thumbnails
) -> None:
    gr.Markdown(f"### {say('class.photos', label=label, photos=counted(len(photos), 'photo'))}")
    gallery_of(photos[:shown], thumbnails, chosen, show_label=False, elem_classes="hs-class")
    adds = gr.UploadButton(say("photos.add", label=label), file_count="multiple")

    @told
    def added(tab: Tab, files: list[str], version: int) -> int:
        tab.the_project().add(label, files)
        return version + 1

    adds.upload(added, [tab, adds, version], version)


def _camera(tab: Any, version: Any) -> None:
    """Photos that are taken here and now."""
    with gr.Accordion(say("photos.camera"), open=False):
        camera = photo_box(say("photos.camera"), "camera", ("webcam",))
        with gr.Row(elem_classes="hs-row"):
            into = gr.Dropdown([], label=say("photos.camera.into"), interactive=True, elem_id="camera-class")
            keep = gr.Button(say("photos.camera.keep"))

    @told
    def kept(tab: Tab, photo: str | None, label: str | None, count: int) -> Updates:
        if not photo:
            raise hs.UsageError(say("no.picture"))
        if not label:
            raise hs.UsageError(say("no.class"))
        tab.the_project().add(label, [photo])
        return {camera: None, version: count + 1}

    version.change(lambda tab: gr.Dropdown(tab.project.classes() if tab.project else []), tab, into)
    keep.click(kept, [tab, camera, into, version], {camera, version})


def _check(tab: Any, opened: Any, version: Any, chosen: Any, thumbnails: Thumbnails) -> None:
    """`hs.check`, and what it found as pictures."""
    found, tab_box, version_box = gr.State(0), tab, version
    with gr.Row(elem_classes="hs-row"):
        checks = gr.Button(say("check"), elem_id="check")
        cancel_button(tab)
    bar = gr.HTML()

    @told
    def checked(tab: Tab, count: int) -> Iterator[Updates]:
        folder = tab.the_photos()
        job = tab.running.begin(lambda report: hs.check(folder, progress=report))
        tab.health = yield from follow(job, bar)
        yield {found: count + 1}

    checks.click(checked, [tab, found], {bar, found}, show_progress="hidden")

    @gr.render([tab], triggers=[found.change])  # type: ignore[untyped-decorator]
    def findings(tab: Tab) -> None:
        health, folder = tab.health, tab.the_project().photos_folder
        for line in _sentences(health):
            gr.Markdown(line)
        for title, names, extra in _kinds(health):
            gr.Markdown(f"### {title}")
            gallery_of([folder / name for name in names[:SHOWN]], thumbnails, chosen, show_label=False)
            if extra:
                leave = gr.Button(f"{say('check.leave')} ({len(extra)})")
                leave.click(_leaver([folder / name for name in extra]), [tab_box, version_box], version_box)


def _leaver(photos: Sequence[Path]) -> Callable[..., int]:
    @told
    def leave(tab: Tab, version: int) -> int:
        for photo in photos:
            tab.the_project().leave_out(photo)
        return version + 1

    return leave


def _sentences(health: Any) -> list[str]:
    lines = []
    counts = health.classes
    if not (health.unreadable or health.duplicates or health.near_duplicates):
        lines.append(
            say("check.fine", photos=counted(health.images, "photo"), classes=counted(len(counts), "class", "classes"))
        )
    if health.tiny_classes:
        lines.append(say("check.tiny", classes=", ".join(health.tiny_classes)))
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if health.imbalanced:
        lines.append(say("check.uneven", most=most, least=least, factor=counts[most] / counts[least]))
    return lines


def _kinds(health: Any) -> Iterator[tuple[str, list[str], list[str]]]:
    """Title, the photos that are shown, and those of them that may go."""
    unreadable = [problem.name for problem in health.unreadable]
    if unreadable:
        yield say("check.unreadable"), unreadable, unreadable
    for title, repeats in ((say("check.repeated"), health.duplicates), (say("check.near"), health.near_duplicates)):
        if repeats:
            names = [name for repeat in repeats for name in repeat.names]
            yield title, names, [name for repeat in repeats for name in repeat.names[1:]]
    if health.wrong_names:
        yield say("check.names"), [problem.name for problem in health.wrong_names], []
