"""The studio in this process, and a real browser."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def studio_browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium here (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with all_processors(), sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *camera])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A studio that runs, whose project is to be named on the page."""
    from headstart.studio.run import launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HEADSTART_OFFLINE", "1")
        # uvicorn sets logging up, which closes all handlers; that of absl (TensorFlow) closes pytest's stream with it
        patch.setattr(logging, "shutdown", lambda *_: None)
        running = launch(tmp_path_factory.mktemp("start") / "project", host="127.0.0.1", port=0, browser=False)
        yield running
        running.close()


@pytest.fixture
def tab(studio_browser: Any, studio: Any) -> Iterator[Callable[..., Any]]:
    """Opens a tab on a project; in the end none has asked for anything from elsewhere, or found a fault."""
    contexts, problems = list[Any](), list[str]()

    def opened(project: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Any:
        context = studio_browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, permissions=["camera"]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.extend(_elsewhere(request.url, studio.address)))
        page.goto(studio.address)
        page.fill("#project textarea, #project input", str(project))
        page.click("#open")
        page.wait_for_function(
            "name => document.querySelector('#status').textContent.includes(name)", arg=str(project.resolve())
        )
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@contextlib.contextmanager
def all_processors() -> Iterator[None]:
    """A browser, a server and a test would wait for each other on the one processor of this process."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _elsewhere(url: str, own: str) -> list[str]:
    return [] if url.startswith((own, "data:", "blob:")) else [url]
