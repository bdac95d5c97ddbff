"""`headstart studio`: what it asks of the world, and what it says where it cannot be had."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from making import Shell

ALONE = """
import json, socket, sys, time
asked, look = [], socket.getaddrinfo
def recorded(host, *rest, **options):
    asked.append(str(host))
    return look(host, *rest, **options)
socket.getaddrinfo = recorded
from headstart.studio.run import launch
app = launch(sys.argv[1], host="127.0.0.1", port=0, browser=False)
time.sleep(2)  # Gradio asks from threads
app.close()
print(json.dumps(asked))
"""


def test_its_server_asks_nobody(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO")}
    command = [sys.executable, "-c", ALONE, str(tmp_path / "project")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert set(json.loads(done.stdout.splitlines()[-1])) <= {"127.0.0.1", "localhost"}
    assert not (tmp_path / "project").exists()  # it is made when there is something in it


def test_an_address_that_cannot_be_had_is_told(shell: Shell, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = shell("studio", tmp_path, "--port", port, "--no-browser")
    assert (answer.code, f"127.0.0.1:{port} cannot be had" in answer.err) == (2, True), answer.err
    assert "Choose another: --host, --port" in answer.err
    answer = shell("studio", tmp_path, "--host", "no.such.host.invalid", "--port", 0, "--no-browser")
    assert (answer.code, "no.such.host.invalid:0 cannot be had" in answer.err) == (2, True), answer.err


def test_the_extra_is_named_where_it_is_missing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    answer = shell("studio", "--no-browser")
    assert answer.code == 2
    assert "headstart[studio]" in answer.err
