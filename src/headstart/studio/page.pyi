"""What the screens share: one tab's state, handlers whose errors are sentences, the bar of a job, and the look."""

from __future__ import annotations

import functools
import html
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from headstart.core.errors import HeadstartError, UsageError
from headstart.core.progress import amount
from headstart.model.classifier import Classifier
from headstart.studio.jobs import CancelledError, Job, Running, State
from headstart.studio.project import Project
from headstart.studio.words import say

Updates = dict[Any, Any]  # component -> its new value

from gradio.events import Dependency

class Photo(gr.Image):
    """An image of which the file counts, as it was given: whatever `fit` reads can be dropped here."""

    is_template = True  # for the page it is an image like others

    def preprocess(self, payload: Any) -> str | None:
        """The path of the file."""
        return payload.path if payload is not None else None
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


@dataclass
class Tab:
    """What one tab of the browser holds; the rest is on the disk."""

    project: Project | None = None
    classifier: Classifier | None = None
    running: Running = field(default_factory=Running)

    def the_project(self) -> Project:
        """The project that is open.

        Raises:
            UsageError: none is.
        """
        if self.project is None:
            raise UsageError(say("no.project"))
        return self.project

    def the_classifier(self) -> Classifier:
        """The model that was fitted.

        Raises:
            UsageError: there is none.
        """
        if self.classifier is None:
            raise UsageError(say("no.model"))
        return self.classifier


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors are a sentence on the page, never a traceback."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any) -> Iterator[Any]:
            try:
                yield from function(*args)
            except CancelledError:
                raise _error(say("cancelled")) from None
            except Exception as error:
                raise _sentence(error) from error

        return stream

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            raise _sentence(error) from error

    return run


def _sentence(error: Exception) -> Any:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, HeadstartError):
        return _error(str(error))
    sys.stderr.write("".join(traceback.format_exception(error)))
    return _error(say("unforeseen", kind=type(error).__name__, error=error))


def _error(sentence: str) -> Any:
    return gr.Error(html.escape(sentence), duration=None, title=say("error"), print_exception=False)


def follow(job: Job[Any], bar: Any) -> Iterator[Updates]:
    """The bar of a job while it runs; then it is gone."""
    for state in job.states():
        yield {bar: bar_of(state)}
    yield {bar: ""}


def bar_of(state: State) -> str:
    """A bar in HTML, which a screen reader reads as one."""
    share, left = state.share, state.left
    words = f"{state.stage} {amount(state.stage, state.done, state.count)}".strip()
    if left is not None:
        words += f", {say('left', seconds=round(left))}"
    value = "" if share is None else f' aria-valuenow="{share:.0%}" style="--share:{share:.1%}"'.replace('%"', '"', 1)
    return (
        f'<div class="hs-bar" role="progressbar" aria-label="{html.escape(words)}" aria-valuemin="0" '
        f'aria-valuemax="100"{value}><i></i></div><p class="hs-stage">{html.escape(words)}</p>'
    )


def theme() -> Any:
    """Fonts of the machine alone: nothing is fetched."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def style() -> str:
    """The style sheet."""
    return (Path(__file__).parent / "studio.css").read_text(encoding="utf-8")