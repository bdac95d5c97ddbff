"""The studio as an application of Gradio: a tab for each screen."""

from __future__ import annotations

from typing import Any

import gradio as gr

from headstart.studio.page import Tab
from headstart.studio.screens import fit, inside, label_more, photos, playground, take_away, try_photo
from headstart.studio.thumbnails import Thumbnails
from headstart.studio.words import say


def create_app(start: str, thumbnails: Thumbnails) -> Any:
    """All screens, for a project folder that is filled in at the start."""
    with gr.Blocks(title=say("title"), analytics_enabled=False, fill_width=True) as app:
        tab, opened, fitted = gr.State(Tab()), gr.State(0), gr.State(0)  # numbers that rise whenever that happens
        gr.Markdown(f"# {say('title')}")
        with gr.Tab(say("tab.photos")):
            shown = photos.build(tab, opened, fitted, start, thumbnails)
        with gr.Tab(say("tab.fit")):
            fit.build(tab, opened, fitted, thumbnails)
        with gr.Tab(say("tab.try")):
            try_photo.build(tab, opened, fitted, thumbnails)
        with gr.Tab(say("tab.label")):
            label_more.build(tab, opened, shown.version, fitted, thumbnails)
        with gr.Tab(say("tab.inside")):
            inside.build(tab, opened, fitted)
        with gr.Tab(say("tab.overfitting")):
            playground.build()
        with gr.Tab(say("tab.take")):
            take_away.build(tab, opened, fitted)
        app.load(*shown.at_first, **photos.IN_TURN)
    return app
