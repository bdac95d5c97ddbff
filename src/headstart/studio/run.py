"""`hs.studio`: the studio on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from typing import Any

from headstart.core.arguments import PATH, YES_NO, checks, text, whole
from headstart.core.errors import UsageError, needs
from headstart.core.text import say
from headstart.data.sources import PathLike

DEFAULT = "headstart-project"


@checks(project=PATH, host=text("a host's name or address"), port=whole(0, 65535), browser=YES_NO)
def studio(project: PathLike = DEFAULT, *, host: str = "127.0.0.1", port: int = 7860, browser: bool = True) -> None:
    """Open the studio in a browser: photos, fit, report and all the rest, until a signal ends it; docs/studio.md.

    Args:
        project: the folder of photos and model that is proposed; it need not be there.
        port: 0 takes one that is free.
        browser: whether the page is opened.

    Raises:
        UsageError: the address cannot be had.
    """
    running = launch(project, host=host, port=port, browser=browser)
    try:
        running.block_thread()
    finally:
        running.close()


def launch(project: PathLike, *, host: str, port: int, browser: bool) -> Any:
    """The studio, which runs on threads of its own; its address is `local_url`."""
    # before Gradio is imported: nobody is asked anything, and what is uploaded goes when the studio does
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    folder = tempfile.TemporaryDirectory(prefix="headstart-studio-")
    os.environ["GRADIO_TEMP_DIR"] = folder.name
    with needs("gradio", "studio", "The studio"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gradio  # noqa: F401
    from headstart.studio.app import create_app
    from headstart.studio.page import script, style, theme
    from headstart.studio.thumbnails import Thumbnails

    port = port or _free_port(host)
    thumbnails = Thumbnails()
    app = create_app(os.fspath(project), thumbnails)
    app.uploads = folder  # goes with it
    app.queue(default_concurrency_limit=None)
    try:
        app.launch(
            server_name=host, server_port=port, inbrowser=browser, share=False, quiet=True, prevent_thread_lock=True,
            theme=theme(), css=style(), head=script(), footer_links=[], allowed_paths=[str(thumbnails.folder)],
            ssr_mode=False, show_error=True, enable_monitoring=False,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be had: {error}. Choose another: --port") from error
    say(f"the studio is at {app.local_url}")
    return app


def _free_port(host: str) -> int:
    """One that nobody listens on; Gradio itself would look from 7860 on."""
    try:
        with socket.create_server((host, 0)) as free:
            return int(free.getsockname()[1])
    except OSError as error:
        raise UsageError(f"{host} cannot be listened on: {error.strerror or error}. Choose another: --host") from error
