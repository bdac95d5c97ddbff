"""What leaves the studio: the model, exports, the report; and the lines that do the same without it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import gradio as gr

import headstart as hs
from headstart.export.formats import FORMATS
from headstart.studio.page import Tab, Updates, cancel_button, follow, told
from headstart.studio.screens.fit import begin_report
from headstart.studio.words import say

NAMES = tuple(name for name, each in FORMATS.items() if not each.library)


def build(tab: Any, fitted: Any) -> None:
    """The components, and what they do."""
    with gr.Row(elem_classes="hs-row"):
        where = gr.Textbox(label=say("take.save"), info=say("take.save.about"), scale=4)
        saves = gr.Button(say("take.save.button"))
    with gr.Row(elem_classes="hs-row"):
        to = gr.Dropdown(list(NAMES), value=NAMES[0], label=say("take.format"), interactive=True, elem_id="format")
        exports = gr.Button(say("take.export"), variant="primary", elem_id="export")
        writes = gr.Button(say("take.report"), elem_id="write-report")
        cancel_button(tab)
    bar, done = gr.HTML(), gr.Markdown(elem_id="taken")
    code = gr.Textbox(label=say("take.python"), lines=5, interactive=False, buttons=["copy"], elem_classes="hs-code")
    lines = gr.Textbox(label=say("take.shell"), lines=4, interactive=False, buttons=["copy"], elem_classes="hs-code")

    @told
    def saved(tab: Tab, where: str) -> str:
        if not where.strip():
            raise hs.UsageError(say("take.where"))
        return say("take.saved", path=tab.the_classifier().save(where))

    @told
    def exported(tab: Tab, to: str) -> Iterator[Updates]:
        project, model = tab.the_project(), tab.the_classifier()
        path = project.folder / f"model-{to}{FORMATS[to].suffix}"
        job = tab.running.begin(lambda report: hs.export_model(model, to, path, overwrite=True, progress=report))
        found = yield from follow(job, bar)
        yield {done: say("take.exported", path=found.path, difference=f"{found.max_difference:.1e}", opens=found.opens)}

    @told
    def reported(tab: Tab) -> Iterator[Updates]:
        found = yield from follow(begin_report(tab), bar)
        yield {done: say("take.reported", path=found.html)}

    @told
    def shown(tab: Tab) -> Updates:
        if tab.classifier is None:
            return {code: "", lines: ""}
        return {code: python_lines(tab), lines: shell_lines(tab)}

    saves.click(saved, [tab, where], done)
    exports.click(exported, [tab, to], {bar, done}, show_progress="hidden")
    writes.click(reported, tab, {bar, done}, show_progress="hidden")
    fitted.change(shown, tab, {code, lines})


def python_lines(tab: Tab) -> str:
    """What was done, as Python."""
    project, record = tab.the_project(), tab.the_classifier().record
    name, pixels = getattr(record, "backbone", ""), getattr(record, "pixels", 0)
    return (
        "import headstart as hs\n\n"
        f"model = hs.fit({str(project.photos_folder)!r}, backbone={name!r}, pixels={pixels})\n"
        f"model.save({str(project.model_folder)!r}, overwrite=True)\n"
        'model.predict(["photo.jpg"])\n'
    )


def shell_lines(tab: Tab) -> str:
    """What was done, as commands."""
    project, record = tab.the_project(), tab.the_classifier().record
    photos, model = shlex.quote(str(project.photos_folder)), shlex.quote(str(project.model_folder))
    name, pixels = getattr(record, "backbone", ""), getattr(record, "pixels", 0)
    return (
        f"headstart check {photos}\n"
        f"headstart fit {photos} --out {model} --backbone {name} --pixels {pixels} --overwrite\n"
        f"headstart predict {model} photo.jpg\n"
        f"headstart export {model} --to onnx\n"
    )
