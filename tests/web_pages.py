"""What the tests of the format web share: the real runtime, scripts of the page in Node, and questions to a page."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path

from headstart.core.errors import UsageError
from headstart.export.web import runtime
from headstart.export.web.runtime import Runtime, find_runtime

HOSTILE = ("</script><img src=x onerror=alert(1)>", "<!--<script>", "\u202eturned\nlines", "a" * 200, "naïve ☃ & co.")
STAND_IN = Runtime("const ort = {env: {wasm: {}}};\n", b"\0asm")  # for what does not run the page
ASK = """
const done = arguments[arguments.length - 1];
const photo = new Blob([Uint8Array.from(atob(arguments[0]), sign => sign.charCodeAt(0))]);
const begun = performance.now();
headstart.classify(photo).then(
  answer => done({...answer, milliseconds: performance.now() - begun}), error => done({error: error.message}));
"""


def real_runtime(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """The archive of the runtime: of an earlier export on this machine, or downloaded; else the test is skipped."""
    name = runtime.URL.rpartition("/")[2]
    kept, target = user_cache_path("headstart", appauthor=False) / "weights" / name, home / "weights" / name
    if kept.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(kept)
    monkeypatch.setenv("HEADSTART_HOME", str(home))
    monkeypatch.delenv("HEADSTART_OFFLINE", raising=False)
    try:
        find_runtime(pause=0.1)
    except UsageError as error:
        pytest.skip(f"no ONNX Runtime Web: {error}")
    return target


def in_node(scripts: tuple[str, ...], code: str, given: Any) -> Any:
    """What ``code`` gives for the JSON value ``given``, with scripts of the page before it; skipped without Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node here")
    folder = resources.files("headstart.export.web")
    parts = [folder.joinpath(f"{name}.js").read_text("utf-8") for name in scripts]
    whole = "\n".join(
        [
            "import {readFileSync} from 'node:fs';",
            *parts,
            "const bytesOf = text => new Uint8Array(Buffer.from(text, 'base64'));",
            "const given = JSON.parse(readFileSync(0, 'utf8'));",
            f"console.log(JSON.stringify(await ({code})(given)));",
        ]
    )
    done = subprocess.run(
        [node, "--input-type=module", "-e", whole], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packed(content: bytes) -> str:
    return base64.b64encode(content).decode()


def ask(browser: Any, photo: bytes) -> Any:
    """The answer of the page's hook to a photo, and how long it took."""
    return browser.execute_async_script(ASK, packed(photo))


def opened(browser: Any, address: str, width: int = 900) -> None:
    """Open a page of the format, and wait until its model is ready."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before
    browser.get(address)
    browser.set_script_timeout(60)
    assert browser.execute_async_script("headstart.ready.then(() => arguments[0](''), arguments[0])") == ""
