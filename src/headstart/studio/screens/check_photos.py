"""The check of the photos, and what it found as pictures, which can be left out."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.core.counts import counted
from headstart.studio.page import Tab, Updates, cancel_button, follow, told
from headstart.studio.thumbnails import Thumbnails, gallery_of
from headstart.studio.words import say

SHOWN = 48  # photos of a kind


def build(tab: Any, opened: Any, version: Any, chosen: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do; ``chosen`` are the photos that were clicked."""
    found = gr.State(0)
    found_box, tab_box, version_box = found, tab, version
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

    opened.change(lambda: 0, None, found)

    @gr.render([tab, found], triggers=[found.change])  # type: ignore[untyped-decorator]
    def findings(tab: Tab, found: int) -> None:
        if not found or tab.health is None:
            return
        health, folder = tab.health, tab.the_project().photos_folder
        for line in _sentences(health):
            gr.Markdown(line)
        for kind in _kinds(health):
            gr.Markdown(f"### {kind.title}")
            if kind.reasons:
                listed = "".join(f"<li>{html.escape(reason)}</li>" for reason in kind.reasons[:SHOWN])
                gr.HTML(f'<ul class="hs-list">{listed}</ul>')
            gallery_of([folder / name for name in kind.names[:SHOWN]], thumbnails, chosen, kind.captions[:SHOWN])
            if kind.extra:
                leave = gr.Button(f"{say('check.leave')} ({len(kind.extra)})")
                leaver = _leaver([folder / name for name in kind.extra])
                leave.click(leaver, [tab_box, version_box], version_box).success(
                    checked, [tab_box, found_box], {bar, found_box}, show_progress="hidden"
                )


def _leaver(photos: Sequence[Path]) -> Callable[..., int]:
    @told
    def leave(tab: Tab, version: int) -> int:
        for photo in photos:
            if os.path.lexists(photo):  # or it was left out by hand
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
    if len(counts) == 1:
        lines.append(say("check.one"))
    if health.tiny_classes:
        lines.append(say("check.tiny", classes=", ".join(health.tiny_classes)))
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if health.imbalanced:
        lines.append(say("check.uneven", most=most, least=least, factor=counts[most] / counts[least]))
    return lines


@dataclass(frozen=True)
class _Kind:
    """What the check found of one kind."""

    title: str
    names: list[str]  # of the photos that are shown
    captions: list[str]
    reasons: list[str]  # a sentence for each
    extra: list[str]  # of those that may go


def _kinds(health: Any) -> Iterator[_Kind]:
    if health.unreadable:
        names = [problem.name for problem in health.unreadable]
        reasons = [f"{problem.name}: {problem.detail}" for problem in health.unreadable]
        yield _Kind(say("check.unreadable"), names, [Path(name).name for name in names], reasons, names)
    for title, repeats in ((say("check.repeated"), health.duplicates), (say("check.near"), health.near_duplicates)):
        if repeats:
            names = [name for repeat in repeats for name in repeat.names]
            groups = [say("check.group", number=number) for number, each in enumerate(repeats, 1) for _ in each.names]
            yield _Kind(title, names, groups, [], [name for repeat in repeats for name in repeat.names[1:]])
    if health.wrong_names:
        names = [problem.name for problem in health.wrong_names]
        reasons = [f"{problem.name}: {problem.detail}" for problem in health.wrong_names]
        yield _Kind(say("check.names"), names, [Path(name).name for name in names], reasons, [])
