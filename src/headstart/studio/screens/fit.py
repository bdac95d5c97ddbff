"""The second screen: fit, see how far to trust it, choose another network, fine-tune."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

import headstart as hs
from headstart.backbones.catalogue import DEFAULT
from headstart.core.counts import counted
from headstart.core.install import extra_install
from headstart.core.progress import Progress
from headstart.core.types import Evaluation
from headstart.diagnose.verdict import HEALTHY
from headstart.model.classifier import Classifier
from headstart.model.model_card import why_kept
from headstart.report.charts import Axis, Chart, Line, draw
from headstart.report.figures import training_charts
from headstart.studio.jobs import CancelledError, Job
from headstart.studio.page import Tab, Updates, address_of, figures, follow, forgets, told, work_bar
from headstart.studio.project import REPORT
from headstart.studio.screens import networks
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say
from headstart.train.protocol import Epoch

MISTAKES = 24  # that are shown
RECIPES = ("careful", "fast", "full")
SIZES = range(32, 513, 32)  # pixels


def build(tab: Any, opened: Any, fitted: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do; ``fitted`` is a number that rises whenever there is another model."""
    sizes = [(say("fit.pixels.own"), 0), *((say("fit.pixels.some", pixels=size), size) for size in SIZES)]
    with gr.Row(elem_classes="hs-row"):
        network = gr.Dropdown(networks.names(), label=say("fit.network"), interactive=True, elem_id="network")
        pixels = gr.Dropdown(sizes, value=0, label=say("fit.pixels"), interactive=True, elem_id="pixels")
        fits = gr.Button(say("fit"), variant="primary", elem_id="fit")
    bar = work_bar(tab, "fit-bar")
    verdict, mistakes = gr.HTML(f"<p>{say('fit.none')}</p>", elem_id="verdict"), gr.HTML(elem_id="mistakes")

    @told
    def fit(tab: Tab, network: str, pixels: int, models: int) -> Iterator[Updates]:
        project, folder = tab.the_project(), tab.the_photos(enough=True)
        tab.check_place(project)

        def work(report: Progress) -> None:  # also where the page is closed meanwhile
            tab.keep(hs.fit(folder, backbone=network, pixels=pixels or None, progress=report), project)

        yield from follow(tab.running.begin(work), bar)
        yield {fitted: models + 1}

    fits.click(fit, [tab, network, pixels, fitted], {bar, fitted}, show_progress="hidden")

    @told
    def shown(tab: Tab) -> Iterator[Updates]:
        """The verdict at once, then the mistakes, for which the held-out photos are looked at again."""
        if tab.classifier is None:
            yield {verdict: f"<p>{say('fit.none')}</p>", mistakes: ""}
            return
        model, folder = tab.classifier, str(tab.the_project().photos_folder)
        yield {verdict: verdict_of(model), mistakes: ""}
        job = tab.running.begin(lambda report: model.evaluate(folder, progress=report), gives_way=True)
        try:
            found = yield from follow(job, bar)
        except (CancelledError, hs.HeadstartError):  # the photos are others now, or somebody had something else to do
            return
        yield {mistakes: mistakes_of(found, Path(folder), thumbnails)}

    fitted.change(shown, tab, {bar, verdict, mistakes}, show_progress="hidden")
    forgets(opened, {network: DEFAULT, pixels: 0})
    networks.build(tab, opened, network, pixels)
    _finetune(tab, fitted)
    _report(tab, fitted)


def verdict_of(classifier: Classifier) -> str:
    """How accurate it is, how far to trust it, and what to do next, in HTML."""
    record = classifier.record
    lines = []
    if record.result is not None:
        lines.append(record.result.accuracy.in_words("photo"))
        lines.append(f"calibration error {record.result.calibration_in_words()}")
    if (diagnosis := getattr(record, "diagnosis", None)) is not None:
        found = diagnosis.verdict
        named = found.sentence.casefold().startswith(f"{found.kind}:")
        lines = [found.sentence if named else f"{found.kind}: {found.sentence}", *lines]
        if found.kind != HEALTHY.kind:  # else it is to be used, and the next tab does that
            lines.append(found.next_step)
        if diagnosis.learning_curve:
            lines.append(diagnosis.learning_curve.sentence)
    first, *others = [html.escape(line) for line in lines] or [""]
    rest = "".join(f"<li>{line}</li>" for line in others)
    return f'<p class="hs-verdict" role="status"><strong>{first[:1].upper()}{first[1:]}</strong></p><ul>{rest}</ul>'


def mistakes_of(found: Evaluation, folder: Path, thumbnails: Thumbnails) -> str:
    """The photos that were taken for something else, in HTML; a sentence where there are none."""
    wrong = list(found.wrong or ())[:MISTAKES]
    if not wrong:
        return f"<p>{say('fit.no.mistakes', photos=counted(found.accuracy.images, 'photo'))}</p>"
    small = thumbnails.of([folder / each.name for each in wrong])
    words = [f"{each.truth} as {each.label} {each.probability:.0%}" for each in wrong]
    return f"<h3>{say('fit.mistakes')}</h3>" + figures(zip(map(address_of, small), words, strict=True))


def _finetune(tab: Any, fitted: Any) -> None:
    """`hs.finetune` with its curve while it goes on."""
    with gr.Accordion(say("finetune"), open=False):
        if not any(importlib.util.find_spec(name) for name in ("torch", "keras")):
            gr.Markdown(say("finetune.needs", command=extra_install("torch")))
            return
        recipe = gr.Dropdown(
            [(say(f"finetune.{name}"), name) for name in RECIPES],
            value=RECIPES[0], label=say("finetune.recipe"), info=say("finetune.about"), interactive=True,
        )  # fmt: skip
        with gr.Row(elem_classes="hs-row"):
            tunes = gr.Button(say("finetune"), elem_id="finetune")
        bar, curve = work_bar(tab), gr.HTML(elem_id="curve")

    @told
    def tuned(tab: Tab, recipe: str, models: int) -> Iterator[Updates]:
        project, model, folder = tab.the_project(), tab.the_classifier(), tab.the_photos(enough=True)
        tab.check_place(project)
        epochs: list[Epoch] = []
        run = hs.TrainingRun(callbacks=[_Watch(epochs)], quiet=True)

        def work(report: Progress) -> None:
            tab.keep(hs.finetune(model, folder, recipe=recipe, trainer=run, progress=report), project)

        for update in follow(tab.running.begin(work), bar):
            yield update | ({curve: _curve(epochs)} if epochs else {})
        yield {fitted: models + 1}

    def history(tab: Tab) -> str:
        """Of the model that is there, if it was fine-tuned."""
        record = getattr(tab.classifier.record, "finetune", None) if tab.classifier else None
        if record is None:
            return ""
        words = html.escape(say("finetune.kept", chosen=record.chosen, why=why_kept(record)))
        charts = "".join(f"<div>{draw(chart)}</div>" for chart in training_charts(record))
        return f'<p>{words}</p><div class="hs-charts">{charts}</div>'

    tunes.click(tuned, [tab, recipe, fitted], {bar, curve, fitted}, show_progress="hidden")
    fitted.change(told(history), tab, curve, show_progress="hidden")


class _Watch:
    """Keeps the epochs so far."""

    def __init__(self, epochs: list[Epoch]) -> None:
        self._epochs = epochs

    def step(self, number: int, of: int, loss: float) -> str | None:
        """After a step."""
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """After an epoch."""
        self._epochs[:] = history
        return None


def _curve(epochs: Sequence[Epoch]) -> str:
    """The losses so far, in words and as a chart."""
    last = epochs[-1]
    words = say("finetune.epoch", number=last.number + 1, train=last.train_loss, val=last.val_loss)
    lines = (
        Line(say("finetune.train"), [(each.number + 1, each.train_loss) for each in epochs], "a"),
        Line(say("finetune.val"), [(each.number + 1, each.val_loss) for each in epochs], "b"),
    )
    return f"<p>{words}</p>" + draw(Chart(words, Axis(say("finetune.epochs"), whole=True), Axis("NLL", low=0), lines))


def _report(tab: Any, fitted: Any) -> None:
    """`hs.write_report`, shown as it is."""
    with gr.Accordion(say("fit.report"), open=False):
        with gr.Row(elem_classes="hs-row"):
            writes = gr.Button(say("fit.report"))
        bar, page = work_bar(tab), gr.HTML(elem_id="report-page")

    @told
    def written(tab: Tab) -> Iterator[Updates]:
        found = yield from follow(begin_report(tab), bar)
        yield {page: frame_of(found.html)}

    writes.click(written, tab, {bar, page}, show_progress="hidden")
    forgets(fitted, {page: ""})  # it was of another model


def begin_report(tab: Tab) -> Job[hs.Report]:
    """`hs.write_report` into the project."""
    model, folder, place = tab.the_classifier(), tab.the_photos(), tab.the_project().folder / REPORT
    return tab.running.begin(lambda report: hs.write_report(model, folder, out=place, overwrite=True, progress=report))


def frame_of(file: Path) -> str:
    """A page in a frame that may run nothing."""
    content = html.escape(file.read_text(encoding="utf-8"), quote=True)
    return f'<iframe sandbox title="{say("fit.report")}" srcdoc="{content}" style="width:100%;height:80vh"></iframe>'
