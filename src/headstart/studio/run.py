"""`hs.studio`: the studio on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.arguments import PATH, YES_NO, checks, text, whole
from headstart.core.errors import UsageError, needs
from headstart.core.text import say
from headstart.data.sources import PathLike
from headstart.server.run import LOCAL
from headstart.studio.jobs import end_all
from headstart.studio.project import Project

DEFAULT = "headstart-project"
LOOK = 0.5  # seconds between two looks whether it is to end
PREFIX = "headstart-studio-"  # of temporary folders


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
    if host not in LOCAL:
        say(f"{host} is open to others, who need no password.")
    say(f"the studio is at {running.address}")
    ended = threading.Event()
    with _on_signals(ended.set):
        while not ended.wait(LOOK):  # Windows hears no Ctrl-C while it waits without end
            pass
    say("the studio is closed")
    running.close()


@contextmanager
def _on_signals(end: Callable[[], None]) -> Iterator[None]:
    """Call ``end`` on Ctrl-C and on SIGTERM, which by themselves would leave what was uploaded."""
    if threading.current_thread() is not threading.main_thread():  # where Python hears none
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda *_: end()) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


@dataclass
class Studio:
    """A studio that runs on threads of its own."""

    app: Any
    address: str
    folders: ExitStack  # of uploads and small pictures

    def close(self) -> None:
        """End it; what was uploaded is gone, projects stay."""
        with self.folders:
            end_all()
            self.app.close(verbose=False)


def launch(project: PathLike, *, host: str, port: int, browser: bool) -> Studio:
    """Start a studio.

    Raises:
        UsageError: the address cannot be had.
    """
    Project(project)  # refuses a file
    with ExitStack() as folders:
        # before Gradio is imported: nobody is asked anything, and what is uploaded goes when the studio does
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        os.environ["GRADIO_TEMP_DIR"] = folders.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX))
        with needs("gradio", "studio", "The studio"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import gradio  # noqa: F401
        from headstart.studio.app import create_app
        from headstart.studio.page import script, style, theme
        from headstart.studio.thumbnails import Thumbnails

        port = _port(host, port)
        small = Path(folders.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
        app = create_app(os.fspath(project), Thumbnails(small))
        app.queue(default_concurrency_limit=None)
        _, address, _ = app.launch(
            server_name=host, server_port=port, inbrowser=browser, share=False, quiet=True, prevent_thread_lock=True,
            theme=theme(), css=style(), head=script(), footer_links=[], allowed_paths=[str(small)], ssr_mode=False,
            show_error=True, enable_monitoring=False,
        )  # fmt: skip
        return Studio(app, address, folders.pop_all())


def _port(host: str, port: int) -> int:
    """The port; for 0 one that nobody listens on, where Gradio would look from 7860 on.

    Raises:
        UsageError: it cannot be had.
    """
    try:
        with socket.create_server((host, port)) as found:
            return int(found.getsockname()[1])
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{host}:{port} cannot be had: {why}. Choose another: --host, --port") from error
