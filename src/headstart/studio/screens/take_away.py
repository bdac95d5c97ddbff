"""What leaves the studio: the model, exports, the report; and the lines that do the same without it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.core.errors import MissingExtraError
from headstart.export.formats import FORMATS, find_format
from headstart.model.records import FinetuneRecord
from headstart.studio.page import Tab, Updates, follow, forgets, to_take, told, work_bar
from headstart.studio.project import Project
from headstart.studio.screens.fit import begin_report
from headstart.studio.words import say
from headstart.train.recipe import PRESETS

NAMES = tuple(name for name, each in FORMATS.items() if not each.library)
RECIPE = "recipe.json"  # where a recipe that has no name goes


def build(tab: Any, opened: Any, fitted: Any) -> None:
    """The components, and what they do."""
    made = gr.State("")  # the format that the model was exported to
    with gr.Row(elem_classes="hs-row"):
        where = gr.Textbox(label=say("take.save"), info=say("take.save.about"), scale=4)
        saves = gr.Button(say("take.save.button"))
    with gr.Row(elem_classes="hs-row"):
        to = gr.Dropdown(formats(), label=say("take.format"), interactive=True, elem_id="format")
        exports = gr.Button(say("take.export"), variant="primary", elem_id="export")
        writes = gr.Button(say("take.report"), elem_id="write-report")
    bar, done = work_bar(tab), gr.Markdown(elem_id="taken")
    with gr.Row(elem_classes="hs-row"):
        takes = gr.DownloadButton(say("take.export"), visible=False, elem_id="download")
    code = gr.Textbox(label=say("take.python"), lines=5, interactive=False, buttons=["copy"], elem_classes="hs-code")
    lines = gr.Textbox(label=say("take.shell"), lines=4, interactive=False, buttons=["copy"], elem_classes="hs-code")

    @told
    def saved(tab: Tab, where: str) -> Updates:
        if not where.strip():
            raise hs.UsageError(say("take.where"))
        path = tab.the_classifier().save(where)
        return {done: say("take.saved", path=path), takes: gr.DownloadButton(visible=False)}

    @told
    def exported(tab: Tab, to: str) -> Iterator[Updates]:
        project, model = tab.the_project(), tab.the_classifier()
        path = place_of(project, to)
        job = tab.running.begin(lambda report: hs.export_model(model, to, path, overwrite=True, progress=report))
        found = yield from follow(job, bar)
        said = say("take.exported", path=found.path, difference=f"{found.max_difference:.1e}", opens=found.opens)
        yield {done: said, takes: offered(found.path), made: to}

    @told
    def reported(tab: Tab) -> Iterator[Updates]:
        found = yield from follow(begin_report(tab), bar)
        yield {done: say("take.reported", path=found.html), takes: offered(found.html)}

    @told
    def shown(tab: Tab, made: str) -> Updates:
        if tab.classifier is None:
            return {code: "", lines: ""}
        return {code: python_lines(tab, made), lines: shell_lines(tab, made)}

    saves.click(saved, [tab, where], {done, takes}, show_progress="hidden")
    exports.click(exported, [tab, to], {bar, done, takes, made}, show_progress="hidden")
    writes.click(reported, tab, {bar, done, takes}, show_progress="hidden")
    fitted.change(lambda tab: shown(tab, ""), tab, {code, lines}, show_progress="hidden")
    made.change(shown, [tab, made], {code, lines}, show_progress="hidden")
    forgets(fitted, {done: "", takes: gr.DownloadButton(visible=False), made: ""})
    forgets(opened, {where: ""})


def formats() -> list[tuple[str, str]]:
    """What each is for, and its name; those that can be written here come first."""
    here, missing = [], []
    for name in NAMES:
        about = say(f"take.{name}")
        try:
            find_format(name)
            here.append((about, name))
        except MissingExtraError:
            missing.append((say("take.format.missing", about=about), name))
    return here + missing


def place_of(project: Project, to: str) -> Path:
    """Where an export goes."""
    return project.folder / f"model-{to}{FORMATS[to].suffix}"


def offered(path: Path) -> Any:
    """The button that fetches a file; a folder lies where it lies."""
    if path.is_dir():
        return gr.DownloadButton(visible=False)
    return gr.DownloadButton(say("take.download", name=path.name), value=to_take(path), visible=True)


def python_lines(tab: Tab, exported: str = "") -> str:
    """What was done, as Python; with the export, if there was one."""
    project, record = tab.the_project(), tab.the_classifier().record
    photos, model = repr(str(project.photos_folder)), repr(str(project.model_folder))
    name, pixels = getattr(record, "backbone", ""), getattr(record, "pixels", 0)
    lines = ["import headstart as hs", "", f"model = hs.fit({photos}, backbone={name!r}, pixels={pixels})"]
    if tuned := getattr(record, "finetune", None):
        lines.append(f"model = model.finetune({photos}, recipe={recipe_of(tuned)!r}, trainer={tuned.trainer!r})")
    lines.append(f"model.save({model}, overwrite=True)")
    lines.append('model.predict(["photo.jpg"])')
    if exported:
        lines.append(f"model.export({exported!r}, {str(place_of(project, exported))!r}, overwrite=True)")
    return "\n".join(lines) + "\n"


def shell_lines(tab: Tab, exported: str = "") -> str:
    """What was done, as commands; with the export, if there was one."""
    project, record = tab.the_project(), tab.the_classifier().record
    photos, model = shlex.quote(str(project.photos_folder)), shlex.quote(str(project.model_folder))
    name, pixels = getattr(record, "backbone", ""), getattr(record, "pixels", 0)
    lines = [f"headstart fit {photos} --out {model} --backbone {name} --pixels {pixels} --overwrite"]
    if tuned := getattr(record, "finetune", None):
        recipe = recipe_of(tuned)
        if not isinstance(recipe, str):
            lines.append(f"echo {shlex.quote(json.dumps(recipe))} > {RECIPE}")
            recipe = RECIPE
        options = f"--recipe {recipe} --trainer {tuned.trainer} --overwrite"
        lines.append(f"headstart finetune {model} {photos} --out {model} {options}")
    lines.append(f"headstart predict {model} photo.jpg")
    if exported:
        place = shlex.quote(str(place_of(project, exported)))
        lines.append(f"headstart export {model} --to {exported} --out {place} --overwrite")
    return "\n".join(lines) + "\n"


def recipe_of(record: FinetuneRecord) -> str | dict[str, Any]:
    """The name of the recipe that a model was fine-tuned with, or what of it differs from "careful"."""
    usual = asdict(PRESETS["careful"])
    followed = {name: value for name, value in record.recipe.items() if name in usual}
    named = next((name for name, recipe in PRESETS.items() if asdict(recipe) == followed), None)
    return named or {name: value for name, value in followed.items() if value != usual[name]}
