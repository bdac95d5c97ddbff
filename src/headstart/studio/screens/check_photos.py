"""The check of the photos, and what it found as pictures, which can be left out."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.core.counts import counted
from headstart.data.check import Health
from headstart.studio.page import Tab, Updates, follow, told, work_bar
from headstart.studio.thumbnails import Thumbnails, gallery_of, pairs_of, toggled
from headstart.studio.words import say

SHOWN = 48  # photos of a kind


@dataclass(frozen=True)
class _Kind:
    """What the check found of one kind."""

    title: str
    names: Sequence[str] = ()  # of the photos that are shown
    captions: Sequence[str] = ()
    reasons: Sequence[str] = ()  # a sentence for each, where there is one
    extra: Sequence[str] = ()  # of those that may go


def build(tab: Any, opened: Any, version: Any, chosen: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do; ``chosen`` are the photos that were clicked."""
    found = gr.State(0)  # a number that rises with every check; 0: none yet
    checks = gr.Button(say("check"), elem_id="check")
    bar, sentences = work_bar(tab), gr.Markdown(visible=False)
    shows = [_part(tab, version, chosen, number, thumbnails) for number in range(len(_kinds(None)))]

    @told
    def checked(tab: Tab, count: int) -> Iterator[Updates]:
        folder = tab.the_photos()
        job = tab.running.begin(lambda report: hs.check(folder, progress=report))
        tab.health = yield from follow(job, bar)
        yield {found: count + 1}

    @told
    def shown(tab: Tab) -> Updates:
        updates: Updates = {sentences: gr.Markdown("\n\n".join(_sentences(tab.health)), visible=tab.health is not None)}
        for show, kind in zip(shows, _kinds(tab.health), strict=True):
            updates |= show.of(kind, tab)
        return updates

    checks.click(checked, [tab, found], {bar, found}, show_progress="hidden")
    for show in shows:
        show.left.change(checked, [tab, found], {bar, found}, show_progress="hidden")
    opened.change(lambda: 0, None, found)
    outputs = {sentences, *(part for show in shows for part in show.parts)}
    found.change(shown, tab, outputs, show_progress="hidden")


@dataclass(frozen=True)
class _Part:
    """The components of one kind."""

    column: Any
    title: Any
    reasons: Any
    gallery: Any
    button: Any
    left: Any  # a number that rises when photos were left out
    thumbnails: Thumbnails

    @property
    def parts(self) -> tuple[Any, ...]:
        return self.column, self.title, self.reasons, self.gallery, self.button

    def of(self, kind: _Kind, tab: Tab) -> Updates:
        """Them with what was found."""
        if not kind.names:
            return {self.column: gr.Column(visible=False)}
        folder, listed = tab.the_project().photos_folder, (f"<li>{html.escape(each)}</li>" for each in kind.reasons)
        photos = [folder / name for name in kind.names]
        return {
            self.column: gr.Column(visible=True),
            self.title: f"### {kind.title}",
            self.reasons: gr.HTML(f'<ul class="hs-list">{"".join(listed)}</ul>', visible=bool(kind.reasons)),
            self.gallery: gr.Gallery(pairs_of(photos, kind.captions, self.thumbnails), selected_index=None),
            self.button: gr.Button(f"{say('check.leave')} ({len(kind.extra)})", visible=bool(kind.extra)),
        }


def _part(tab: Any, version: Any, chosen: Any, number: int, thumbnails: Thumbnails) -> _Part:
    """The components of a kind, and what they do; ``number`` is its place among `_kinds`."""
    with gr.Column(visible=False) as column:
        title, reasons = gr.Markdown(), gr.HTML()
        gallery = gallery_of([])
        button, left = gr.Button(), gr.State(0)

    @told
    def leave(tab: Tab, version: int, left: int) -> tuple[int, int]:
        for name in _kinds(tab.health)[number].extra:
            photo = tab.the_project().photos_folder / name
            if os.path.lexists(photo):  # or it was left out by hand
                tab.the_project().leave_out(photo)
        return version + 1, left + 1

    def choose(tab: Tab, chosen: Sequence[str], event: gr.SelectData) -> Sequence[str]:
        name = _kinds(tab.health)[number].names[int(event.index)]
        return toggled(chosen, str(tab.the_project().photos_folder / name))

    button.click(leave, [tab, version, left], [version, left])
    gallery.select(choose, [tab, chosen], chosen)
    return _Part(column, title, reasons, gallery, button, left, thumbnails)


def _sentences(health: Health | None) -> list[str]:
    if health is None:
        return []
    lines = []
    counts = health.classes
    if not (health.unreadable or health.duplicates or health.near_duplicates):
        lines.append(
            say("check.fine", photos=counted(health.images, "photo"), classes=counted(len(counts), "class", "classes"))
        )
    if len(counts) == 1:
        lines.append(say("check.one"))
    if health.tiny_classes:
        lines.append(say("check.tiny", classes=", ".join(health.tiny_classes)))
    if health.imbalanced:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        lines.append(say("check.uneven", most=most, least=least, factor=health.imbalance))
    return lines


def _kinds(health: Health | None) -> tuple[_Kind, ...]:
    """What was found, of each kind; of some of them nothing."""
    if health is None:
        return (_Kind(""),) * 4
    return (
        _with_reasons(say("check.unreadable"), health.unreadable, may_go=True),
        _in_groups(say("check.repeated"), health.duplicates),
        _in_groups(say("check.near"), health.near_duplicates),
        _with_reasons(say("check.names"), health.wrong_names, may_go=False),
    )


def _with_reasons(title: str, problems: Sequence[hs.Problem], *, may_go: bool) -> _Kind:
    names = [problem.name for problem in problems]
    reasons = [f"{problem.name}: {problem.detail}" for problem in problems[:SHOWN]]
    captions = [Path(name).name for name in names[:SHOWN]]
    return _Kind(title, names[:SHOWN], captions, reasons, names if may_go else ())


def _in_groups(title: str, groups: Sequence[Any]) -> _Kind:
    names = [name for group in groups for name in group.names]
    captions = [say("check.group", number=number) for number, group in enumerate(groups, 1) for _ in group.names]
    extra = [name for group in groups for name in group.names[1:]]
    return _Kind(title, names[:SHOWN], captions[:SHOWN], (), extra)
