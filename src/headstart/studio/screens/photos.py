"""The first screen: a project, its classes side by side, the photos in them, and what the check finds."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.core.counts import counted
from headstart.model.opened import is_bundle
from headstart.studio.page import Tab, Updates, complain, photo_box, told, warn
from headstart.studio.project import Project, refusals, said
from headstart.studio.screens import check_photos
from headstart.studio.thumbnails import Thumbnails, gallery_of, pairs_of, toggled
from headstart.studio.words import say

SHOWN = 48  # photos of a class at a time
NAMED = 3  # of the photos that were chosen
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
    version, chosen, shown = gr.State(0), gr.State(()), gr.State(SHOWN)
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
    _change_class(tab, version)
    _camera(tab, version)
    check_photos.build(tab, opened, version, chosen, thumbnails)
    opened.change(lambda: ((), SHOWN), None, [chosen, shown])
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
            warn(say("model.damaged", error=error))
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
    """What can be done with the photos that were clicked."""
    with gr.Row(elem_classes="hs-row", elem_id="choice"):
        what = gr.Markdown(say("photos.nothing"))
        where = gr.Dropdown([], label=say("photos.move"), interactive=True, allow_custom_value=False)
        moves, leaves = gr.Button(say("photos.move.button")), gr.Button(say("photos.leave"))
        backs, none = gr.Button(say("photos.back")), gr.Button(say("photos.none.chosen"))

    def told_of(tab: Tab, chosen: Sequence[str]) -> Updates:
        if not chosen:
            return {what: say("photos.nothing")}
        classes, names = tab.the_project().classes(), [f"`{Path(photo).name}`" for photo in chosen]
        more = f" +{len(names) - NAMED}" if len(names) > NAMED else ""
        there = Path(chosen[-1]).parent.name
        choices = gr.Dropdown(classes, value=there if there in classes else None)
        return {what: say("photos.chosen", photos=", ".join(names[:NAMED]) + more), where: choices}

    def each(change: Callable[[Project, Path], object]) -> Callable[..., Updates]:
        @told
        def done(tab: Tab, photos: Sequence[str], changes: int) -> Updates:
            if not photos:
                raise hs.UsageError(say("no.photo"))
            try:
                for photo in photos:
                    change(tab.the_project(), Path(photo))
            except hs.UsageError as error:  # others were changed already
                complain(error)
            return {chosen: (), version: changes + 1}

        return done

    @told
    def moved(tab: Tab, photos: Sequence[str], label: str | None, changes: int) -> Updates:
        if not label:
            raise hs.UsageError(say("no.class"))
        done: Updates = each(lambda project, photo: project.move(photo, label))(tab, photos, changes)
        return done

    chosen.change(told(told_of), [tab, chosen], {what, where})
    moves.click(moved, [tab, chosen, where, version], {chosen, version})
    leaves.click(each(Project.leave_out), [tab, chosen, version], {chosen, version})
    backs.click(each(Project.put_back), [tab, chosen, version], {chosen, version})
    none.click(lambda: (), None, chosen)


def _classes(tab: Any, version: Any, chosen: Any, shown: Any, thumbnails: Thumbnails) -> None:
    """A column for each class, and what is left out."""
    tab_box, version_box, shown_box = tab, version, shown

    @gr.render([tab, shown], triggers=[version.change, shown.change])  # type: ignore[untyped-decorator]
    def classes(tab: Tab, shown: int) -> None:
        project = tab.the_project()
        labels = project.classes()
        if not labels:
            gr.Markdown(say("photos.none"))
        with gr.Row():
            for label in labels:
                with gr.Column(min_width=300, elem_classes="hs-drop"):
                    _class(tab_box, version_box, chosen, label, project.photos(label), shown, thumbnails)
        if left := project.left_out():
            gr.Markdown(f"### {say('photos.left', photos=counted(len(left), 'file'))}")
            with gr.Column(elem_classes="hs-left"):
                _gallery(left[:shown], chosen, thumbnails)
        if max((len(project.photos(label)) for label in labels), default=0) > shown or len(left) > shown:
            more = gr.Button(say("photos.more"))
            more.click(lambda shown: shown + SHOWN, shown_box, shown_box)


def _gallery(photos: Sequence[Path], chosen: Any, thumbnails: Thumbnails) -> None:
    """Small pictures; a click on one chooses it, or no longer."""
    paths = [str(photo) for photo in photos]

    def choose(chosen: Sequence[str], event: gr.SelectData) -> Sequence[str]:
        return toggled(chosen, paths[int(event.index)])

    gallery = gallery_of(pairs_of(photos, [photo.name for photo in photos], thumbnails))
    gallery.select(choose, chosen, chosen)


def _class(
    tab: Any, version: Any, chosen: Any, label: str, photos: Sequence[Path], shown: int, thumbnails: Thumbnails
) -> None:
    gr.Markdown(f"### {say('class.photos', label=label, photos=counted(len(photos), 'photo'))}")
    if photos:
        with gr.Column(elem_classes="hs-class"):
            _gallery(photos[:shown], chosen, thumbnails)
    adds = gr.UploadButton(say("photos.add", label=label), file_count="multiple")

    @told
    def added(tab: Tab, files: list[str], version: int) -> int:
        if words := refusals(tab.the_project().add(label, files)):
            warn(words)
        return version + 1

    adds.upload(added, [tab, adds, version], version)


def _change_class(tab: Any, version: Any) -> None:
    """Another name for a class, or none of it any more."""
    with gr.Accordion(say("class.change"), open=False), gr.Row(elem_classes="hs-row"):
        which = gr.Dropdown([], label=say("class.which"), interactive=True, elem_id="which-class")
        name = gr.Textbox(label=say("class.new"), elem_id="new-name")
        renames, removes = gr.Button(say("class.rename")), gr.Button(say("class.remove"))

    @told
    def renamed(tab: Tab, label: str | None, name: str, changes: int) -> Updates:
        tab.the_project().rename_class(_class_of(label), name)
        return {version: changes + 1, box: ""}

    @told
    def removed(tab: Tab, label: str | None, changes: int) -> Updates:
        count = tab.the_project().remove_class(_class_of(label))
        gr.Info(html.escape(say("class.removed", label=label, photos=count)))
        return {version: changes + 1, box: ""}

    box = name
    version.change(lambda tab: gr.Dropdown(tab.project.classes() if tab.project else [], value=None), tab, which)
    renames.click(renamed, [tab, which, name, version], {version, name})
    removes.click(removed, [tab, which, version], {version, name})


def _class_of(label: str | None) -> str:
    if not label:
        raise hs.UsageError(say("no.class"))
    return label


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
        tab.the_project().add(_class_of(label), [photo], "camera.png")
        return {camera: None, version: count + 1}

    version.change(lambda tab: gr.Dropdown(tab.project.classes() if tab.project else []), tab, into)
    keep.click(kept, [tab, camera, into, version], {camera, version})
