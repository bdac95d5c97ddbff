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
from headstart.plots.comparison import draw_comparison
from headstart.report.charts import Axis, Chart, Line, draw
from headstart.report.figures import training_charts
from headstart.studio.jobs import CancelledError, Job
from headstart.studio.page import Tab, Updates, cancel_button, follow, told
from headstart.studio.project import REPORT
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say
from headstart.train.protocol import Epoch
from headstart.workflows.compare import at_hand

MISTAKES = 24  # that are shown
RECIPES = ("careful", "fast", "full")


def build(tab: Any, opened: Any, fitted: Any, thumbnails: Thumbnails) -> None:
    """The components, and what they do; ``fitted`` is a number that rises whenever there is another model."""
    with gr.Row(elem_classes="hs-row"):
        network = gr.Dropdown(_networks(), label=say("fit.network"), interactive=True, elem_id="network")
        pixels = gr.Slider(0, 512, value=0, step=32, label=say("fit.pixels"))
        fits = gr.Button(say("fit"), variant="primary", elem_id="fit")
        cancel_button(tab)
    bar, verdict = gr.HTML(elem_id="fit-bar"), gr.HTML(f"<p>{say('fit.none')}</p>", elem_id="verdict")
    mistakes = gr.Gallery(
        label=say("fit.mistakes"), columns=6, object_fit="cover", interactive=False, buttons=[], visible=False
    )

    @told
    def fit(tab: Tab, network: str, pixels: float, models: int) -> Iterator[Updates]:
        project, folder = tab.the_project(), tab.the_photos(enough=True)
        tab.check_place(project)

        def work(report: Progress) -> None:  # also where the page is closed meanwhile
            tab.keep(hs.fit(folder, backbone=network, pixels=int(pixels) or None, progress=report), project)

        yield from follow(tab.running.begin(work), bar)
        yield {fitted: models + 1}

    fits.click(fit, [tab, network, pixels, fitted], {bar, fitted}, show_progress="hidden")

    @told
    def shown(tab: Tab) -> Iterator[Updates]:
        """The verdict at once, then the mistakes, for which the held-out photos are looked at again."""
        if tab.classifier is None:
            yield {verdict: f"<p>{say('fit.none')}</p>", mistakes: gr.Gallery(visible=False)}
            return
        model, folder = tab.classifier, str(tab.the_project().photos_folder)
        yield {verdict: verdict_of(model), mistakes: gr.Gallery(visible=False)}
        job = tab.running.begin(lambda report: model.evaluate(folder, progress=report), gives_way=True)
        try:
            found = yield from follow(job, bar)
        except (CancelledError, hs.HeadstartError):  # the photos are others now, or somebody had something else to do
            return
        wrong, words = _mistakes(found, Path(folder), thumbnails)
        yield {verdict: verdict_of(model, words), mistakes: gr.Gallery(wrong, visible=bool(wrong))}

    fitted.change(shown, tab, {bar, verdict, mistakes}, show_progress="hidden")
    _compare(tab, network, pixels, bar)
    _finetune(tab, fitted, bar)
    _report(tab, bar)


def _networks() -> list[str]:
    """Those whose weights are on this machine, the default first."""
    return [DEFAULT, *(name for name in at_hand() if name != DEFAULT)]


def verdict_of(classifier: Classifier, more: str = "") -> str:
    """How accurate it is, how far to trust it, and what to do next, in HTML."""
    record = classifier.record
    lines = []
    if record.result is not None:
        lines.append(record.result.accuracy.in_words("photo"))
        lines.append(f"calibration error {record.result.calibration_in_words()}")
    if (diagnosis := getattr(record, "diagnosis", None)) is not None:
        found = diagnosis.verdict
        lines = [f"{found.kind}: {found.sentence}", *lines]
        if found.kind != HEALTHY.kind:  # else it is to be used, and the next tab does that
            lines.append(found.next_step)
        if diagnosis.learning_curve:
            lines.append(diagnosis.learning_curve.sentence)
    first, *others = [html.escape(line) for line in (*lines, more) if line] or [""]
    rest = "".join(f"<li>{line}</li>" for line in others)
    return f'<p class="hs-verdict" role="status"><strong>{first}</strong></p><ul>{rest}</ul>'


def _mistakes(found: Evaluation, folder: Path, thumbnails: Thumbnails) -> tuple[list[tuple[str, str]], str]:
    """Pictures with words below, and a sentence where there are none."""
    wrong = list(found.wrong or ())[:MISTAKES]
    if not wrong:
        return [], say("fit.no.mistakes", photos=counted(found.accuracy.images, "photo"))
    small = thumbnails.of([folder / each.name for each in wrong])
    words = [f"{each.truth} as {each.label} {each.probability:.0%}" for each in wrong]
    return [(str(picture), text) for picture, text in zip(small, words, strict=True)], ""


def _compare(tab: Any, network: Any, pixels: Any, bar: Any) -> None:
    """A plot of networks and sizes, from which one is chosen."""
    with gr.Accordion(say("compare"), open=False):
        compares = gr.Button(say("compare"))
        plot, sentence = gr.Plot(show_label=False, visible=False), gr.Markdown()
        picks = gr.Dropdown([], label=say("compare.pick"), interactive=True)

    @told
    def compared(tab: Tab) -> Iterator[Updates]:
        folder = tab.the_photos()
        job = tab.running.begin(lambda report: hs.compare(folder, pixels=[128, 192, 224], progress=report))
        found = yield from follow(job, bar)
        names = [(row.title, f"{row.backbone} {row.pixels}") for row in found.rows]
        chosen = found.chosen and f"{found.chosen.backbone} {found.chosen.pixels}"
        yield {
            plot: gr.Plot(draw_comparison(found.rows, found.chosen), visible=True),
            sentence: found.sentence,
            picks: gr.Dropdown(names, value=chosen),
        }

    @told
    def picked(choice: str | None) -> tuple[str, int] | tuple[Any, Any]:
        if not choice:
            return gr.skip(), gr.skip()
        name, size = choice.rsplit(" ", 1)
        return name, int(size)

    compares.click(compared, tab, {bar, plot, sentence, picks}, show_progress="hidden")
    picks.change(picked, picks, [network, pixels])


def _finetune(tab: Any, fitted: Any, bar: Any) -> None:
    """`hs.finetune` with its curve while it goes on."""
    with gr.Accordion(say("finetune"), open=False):
        if not any(importlib.util.find_spec(name) for name in ("torch", "keras")):
            gr.Markdown(say("finetune.needs", command=extra_install("torch")))
            return
        recipe = gr.Dropdown(list(RECIPES), value=RECIPES[0], label=say("finetune.recipe"))
        tunes = gr.Button(say("finetune"))
        curve = gr.HTML()

    @told
    def tuned(tab: Tab, recipe: str, models: int) -> Iterator[Updates]:
        project, model, folder = tab.the_project(), tab.the_classifier(), tab.the_photos()
        epochs: list[Epoch] = []
        run = hs.TrainingRun(callbacks=[_Watch(epochs)], quiet=True)
        job = tab.running.begin(lambda report: hs.finetune(model, folder, recipe=recipe, trainer=run, progress=report))
        for update in follow(job, bar):
            yield update | ({curve: _curve(epochs)} if epochs else {})
        new = job.result()
        tab.keep(new, project)
        record = new.record.finetune
        charts = "".join(f"<div>{draw(chart)}</div>" for chart in training_charts(record)) if record else ""
        yield {curve: f'<div class="hs-charts">{charts}</div>', fitted: models + 1}

    tunes.click(tuned, [tab, recipe, fitted], {bar, curve, fitted}, show_progress="hidden")


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


def _report(tab: Any, bar: Any) -> None:
    """`hs.write_report`, shown as it is."""
    with gr.Accordion(say("fit.report"), open=False):
        writes = gr.Button(say("fit.report"))
        page = gr.HTML()

    @told
    def written(tab: Tab) -> Iterator[Updates]:
        found = yield from follow(begin_report(tab), bar)
        yield {page: frame_of(found.html)}

    writes.click(written, tab, {bar, page}, show_progress="hidden")


def begin_report(tab: Tab) -> Job[hs.Report]:
    """`hs.write_report` into the project."""
    model, folder, place = tab.the_classifier(), tab.the_photos(), tab.the_project().folder / REPORT
    return tab.running.begin(lambda report: hs.write_report(model, folder, out=place, overwrite=True, progress=report))


def frame_of(file: Path) -> str:
    """A page in a frame that may run nothing."""
    content = html.escape(file.read_text(encoding="utf-8"), quote=True)
    return f'<iframe sandbox title="{say("fit.report")}" srcdoc="{content}" style="width:100%;height:80vh"></iframe>'
