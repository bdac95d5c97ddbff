"""A server in this process, on a port of its own, and what its tests send to it."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from headstart.core.processors import cores
from headstart.server.app import create_app
from headstart.server.models import Models, Source
from headstart.server.run import server_of
from headstart.server.server import Server
from headstart.server.settings import Settings

PATIENCE = 30  # seconds until a test gives up; nothing that works comes near


@dataclass
class Running:
    """A server that answers."""

    url: str
    port: int
    server: Server
    client: httpx.Client
    connections: list[socket.socket] = field(default_factory=list)  # that are closed in the end

    def post(self, content: bytes, kind: str = "image/png", path: str = "/predict", **more: Any) -> httpx.Response:
        """Bytes of one type to an address."""
        return self.client.post(path, content=content, headers={"Content-Type": kind, **more})

    def files(self, *contents: bytes, path: str = "/predict") -> httpx.Response:
        """Files of a form."""
        files = [("image", (f"{place}.png", content, "image/png")) for place, content in enumerate(contents)]
        return self.client.post(path, files=files)

    def raw(self, *pieces: bytes) -> socket.socket:
        """A connection to which these were sent."""
        found = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self.connections.append(found)
        for piece in pieces:
            found.sendall(piece)
        return found


@contextmanager
def serving(models: Mapping[str, Source] | Models, *, watch: bool = False, **settings: Any) -> Iterator[Running]:
    """Serve models from a thread until the end of the block."""
    found = models if isinstance(models, Models) else Models(models)
    if not found.ready:
        found.open_all()
    limits = Settings(**{"log": "none"} | settings)
    app = create_app(found, limits, watch=watch)
    running = server_of(app, limits)
    ready, before = threading.Event(), {*threading.enumerate()}
    app.state.server.when_loaded = ready.set
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        connections: list[socket.socket] = []
        try:
            assert ready.wait(PATIENCE)
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=PATIENCE) as client:
                yield Running(url, port, app.state.server, client, connections)
        finally:
            for connection in connections:
                connection.close()
            running.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert not {*threading.enumerate()} - before  # the threads of the queue ended, too


def until(true: Callable[[], object]) -> None:
    """Wait for something that other threads do."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


class Gate:
    """Holds the answers of a model back until it is opened."""

    def __init__(self, running: Running, name: str) -> None:
        self.opened, self.sizes, self.alone = threading.Event(), list[int](), list[bool]()
        for runner in running.server.models.served[name].runners:
            runner.answers = partial(self._answers, runner.answers)  # type: ignore[method-assign]

    def _answers(self, answers: Callable[..., Any], images: Any, *, alone: bool) -> Any:
        self.sizes.append(len(images))
        self.alone.append(alone)
        assert self.opened.wait(PATIENCE)
        return answers(images, alone=alone)


def occupy(
    running: Running, held: Gate, pool: Executor, photo: bytes, threads: int | None = None
) -> list[Future[httpx.Response]]:
    """A request in the hands of so many threads (all there are), which hold it until the gate is opened."""
    found = []
    for number in range(1, (cores() if threads is None else threads) + 1):
        found.append(pool.submit(running.post, photo))
        until(lambda number=number: len(held.sizes) == number)  # type: ignore[misc]
    return found


def text_of(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode()


def request_of(content: bytes, *lines: str, path: str = "/predict", length: int | None = None) -> bytes:
    """A request as it goes over the wire."""
    head = [
        f"POST {path} HTTP/1.1", "Host: test", "Content-Type: image/png",
        f"Content-Length: {len(content) if length is None else length}", *lines,
    ]  # fmt: skip
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def reply_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The answer on a connection, up to its end; status 0 where there is none."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]) if first else 0, headers, body


def error_of(response: httpx.Response) -> dict[str, str]:
    """The error of an answer, which says nothing of what is inside."""
    found: dict[str, str] = response.json()["error"]
    check_says_nothing_of_the_inside(json.dumps(found))
    assert found["message"].endswith((".", "?", "/docs", "jpg")) or "model=" in found["message"], found
    return found


def check_says_nothing_of_the_inside(text: str) -> None:
    """No path, no class of an exception, no trace of a stack."""
    for word in ("Traceback", "Error(", "Exception", ".py", "/home", "/tmp", "site-packages", "0x", "PIL"):
        assert word not in text, text
    assert not any(f"{name}Error" in text for name in ("Value", "Key", "Type", "OS", "Runtime", "Unreadable", "Index"))
