"""What the screens share: one tab's state, handlers whose errors are sentences, the bar of a job, and the look."""

from __future__ import annotations

import base64
import functools
import html
import inspect
import io
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import HeadstartError, UsageError
from headstart.core.progress import amount
from headstart.model.classifier import Classifier
from headstart.model.files import why_not_writable
from headstart.studio.jobs import CancelledError, Job, Running, State
from headstart.studio.project import Project
from headstart.studio.words import say, stage_in_words

T = TypeVar("T")
READ = 30  # seconds
LEAST = 2  # classes, and photos of each, for a fit
Updates = dict[Any, Any]  # component -> its new value


def photo_box(label: str, name: str, sources: Sequence[str] = ("upload", "webcam", "clipboard")) -> Any:
    """Where a photo is dropped, pasted or taken; its value is the path of a file, or None.

    The file counts as it was given, so that whatever `fit` reads can be dropped here. Gradio would decode it.
    """
    box = gr.Image(label=label, elem_id=name, sources=list(sources), type="filepath", image_mode=None, buttons=[])
    box.preprocess = lambda payload: payload.path if payload is not None else None
    return box


def slider(lowest: float, highest: float, value: float, step: float, **options: Any) -> Any:
    """A slider; a number that is typed and out of range counts as its nearer end. Gradio would raise an error."""
    box = gr.Slider(lowest, highest, value=value, step=step, **options)
    box.preprocess = lambda payload: value if payload is None else min(max(payload, lowest), highest)
    return box


@dataclass(eq=False)  # Gradio compares what a tab holds by its hash
class Tab:
    """What one tab of the browser holds; the rest is on the disk."""

    project: Project | None = None
    classifier: Classifier | None = None
    health: Any = None  # what the check found
    running: Running = field(default_factory=Running)

    def the_project(self) -> Project:
        """The project that is open.

        Raises:
            UsageError: none is.
        """
        if self.project is None:
            raise UsageError(say("no.project"))
        return self.project

    def the_photos(self, enough: bool = False) -> str:
        """The folder of the photos that have a label.

        Args:
            enough: whether a fit is to be possible.

        Raises:
            UsageError: there are none, or not enough.
        """
        project = self.the_project()
        counts = {label: len(project.photos(label)) for label in project.classes()}
        if not any(counts.values()):
            raise UsageError(say("no.photos"))
        if enough and sum(count >= LEAST for count in counts.values()) < LEAST:
            there = ", ".join(f"{label} {count}" for label, count in counts.items())
            raise UsageError(say("few.photos", there=there))
        return str(project.photos_folder)

    def the_classifier(self) -> Classifier:
        """The model that was fitted.

        Raises:
            UsageError: there is none.
        """
        if self.classifier is None:
            raise UsageError(say("no.model"))
        return self.classifier

    def check_place(self, project: Project) -> None:
        """Before the work is done.

        Raises:
            UsageError: a model cannot be put into the project.
        """
        if problem := why_not_writable(project.model_folder, overwrite=True):
            raise UsageError(problem)

    def keep(self, model: Classifier, project: Project) -> None:
        """Make this the model of the project for which it was fitted."""
        model.save(project.model_folder, overwrite=True)
        if self.project is project:  # another may have been opened meanwhile
            self.classifier = model


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors are a sentence on the page, never a traceback; what the page shows stays then.

    Gradio's own errors would lie over every component that the handler could change.
    """
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any) -> Iterator[Any]:
            try:
                yield from function(*args)
            except CancelledError:
                gr.Info(say("cancelled"))
                yield gr.skip()
            except Exception as error:
                complain(error)
                yield gr.skip()

        return stream

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            complain(error)
            return gr.skip()

    return run


def complain(error: Exception) -> None:
    """Say on the page what went wrong."""
    if isinstance(error, HeadstartError):
        sentence = str(error)
    elif isinstance(error, OSError):
        where = f"'{error.filename}': " if error.filename else ""
        sentence = f"{where}{error.strerror or error}."
    else:
        sys.stderr.write("".join(traceback.format_exception(error)))
        sentence = say("unforeseen", kind=type(error).__name__, error=str(error).rstrip("."))
    warn(sentence)


def warn(sentence: str) -> None:
    """Say something on the page, for long enough to be read."""
    gr.Warning(html.escape(sentence), duration=READ, title=say("error"))


def forgets(opened: Any, empty: Updates) -> None:
    """Components that show something of a project are empty again when another is opened."""
    opened.change(lambda: empty, None, set(empty), show_progress="hidden")


def follow(job: Job[T], bar: Any) -> Generator[Updates, None, T]:
    """The bar of a job while it runs; then it is gone, and the job's result is returned.

    Raises:
        CancelledError: it was cancelled. Whatever else the work raised.
    """
    for state in job.states():
        yield {bar: bar_of(state)}
    yield {bar: ""}
    return job.result()


def work_bar(tab: Any, name: str | None = None) -> Any:
    """The bar of a job, with a button that ends it; neither is seen while there is no job."""
    with gr.Row(elem_classes="hs-work"):
        bar = gr.HTML(elem_id=name, padding=False)
        cancel_button(tab)
    return bar


def cancel_button(tab: Any) -> Any:
    """A button that ends what runs in this tab; it is seen while anything does."""
    button = gr.Button(say("cancel"), elem_classes="hs-cancel")
    button.click(_cancel, tab, None, show_progress="hidden")
    return button


def _cancel(tab: Tab) -> None:
    job = tab.running.job
    tab.running.cancel()
    if job is not None and job.runs:
        job.state = State(say("cancelling"))


def bar_of(state: State) -> str:
    """A bar in HTML, which a screen reader reads as one."""
    share, left = state.share, state.left
    words = f"{stage_in_words(state.stage)} {amount(state.stage, state.done, state.count)}".strip()
    if left is not None:
        words += f", {say('left', seconds=round(left))}"
    value = "" if share is None else f' aria-valuenow="{100 * share:.0f}"'
    return (
        f'<div class="hs-bar" role="progressbar" aria-label="{html.escape(words)}" aria-valuemin="0" '
        f'aria-valuemax="100"{value}>{filled(share)}</div><p class="hs-stage">{html.escape(words)}</p>'
    )


def filled(share: float | None) -> str:
    """The inside of a bar; where it is not known how much is done it is full, and moves."""
    return "<i></i>" if share is None else f'<i style="width:{share:.1%}"></i>'


def figures(pictures: Iterable[tuple[str, str]], kind: str = "") -> str:
    """Pictures (address, words below) of one size in HTML, as many beside each other as there is room for."""
    found = "".join(
        f'<figure><img src="{html.escape(address)}" alt=""><figcaption>{html.escape(words)}</figcaption></figure>'
        for address, words in pictures
    )
    return f'<div class="hs-figures {kind}">{found}</div>'


def address_of(picture: Path) -> str:
    """Where the page finds a file of `Thumbnails`."""
    return f"gradio_api/file={quote(picture.as_posix())}"


def large(pixels: NDArray[np.uint8], words: str) -> str:
    """One picture in HTML, and what it is for those who do not see it. Gradio's own is a button without a name."""
    return f'<img class="hs-large" src="{inline(pixels, "JPEG")}" alt="{html.escape(words)}">'


def inline(pixels: NDArray[np.uint8], kind: str = "PNG") -> str:
    """Pixels (height, width, 3) as an address that holds them."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind, quality=90)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(written.getvalue()).decode()}"


def to_take(file: Path) -> str:
    """A copy of a file where the page may fetch it; it goes when the studio does."""
    folder = tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR"))
    return str(shutil.copy(file, folder))


def theme() -> Any:
    """Fonts of the machine alone, for nothing is fetched; and colours that can be read in light and dark."""
    found = gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return found.set(
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
    )


def script() -> str:
    """What the head of the page runs."""
    return f"<script>{(files('headstart') / 'studio/studio.js').read_text('utf-8')}</script>"


def style() -> str:
    """The style sheet, and that of the charts."""
    package = files("headstart")
    return "".join((package / name).read_text("utf-8") for name in ("report/charts.css", "studio/studio.css"))
