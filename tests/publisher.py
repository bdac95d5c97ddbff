"""A server on this machine that keeps one file, and misbehaves as it is told: on the line, not in a mock."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Publisher:
    """What it serves, what it is to do with the next requests (then: behave), and what it was asked."""

    content: bytes
    plan: list[Act] = field(default_factory=list)
    always: Act | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each GET
    go_on: threading.Event = field(default_factory=threading.Event)  # what `pausing` waits for
    paused: threading.Event = field(default_factory=threading.Event)  # that it does
    address: str = ""

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [range_ for _, range_ in self.asked]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    publisher: Publisher

    def do_GET(self) -> None:
        """Do what is planned, else serve the file."""
        self.close_connection = True
        with LOCK:
            self.publisher.asked.append((self.path, self.headers["Range"]))
            act = self.publisher.plan.pop(0) if self.publisher.plan else self.publisher.always or whole
        act(self)

    def begin(self, status: int, **headers: object) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Act = Callable[[Handler], None]
LOCK = threading.Lock()


class Server(ThreadingHTTPServer):
    """Its clients may be killed."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


def serve(publisher: Publisher, handler: type[Handler] = Handler) -> Server:
    """Start it; `shutdown` and `server_close` end it."""
    server = Server(("127.0.0.1", 0), type("Bound", (handler,), {"publisher": publisher}))
    publisher.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def whole(to: Handler) -> None:
    """As it should be: the file, or the part that is asked for."""
    _send(to, len(to.publisher.content))


def cut(after: int) -> Act:
    """Hang up after so many bytes."""

    def act(to: Handler) -> None:
        _send(to, after)

    return act


def torn(after: int) -> Act:
    """Likewise, in the way of a machine that lost its power: the other side reads an error, not an end."""

    def act(to: Handler) -> None:
        _send(to, after)
        to.wfile.flush()
        to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        to.connection.close()

    return act


def pausing(after: int) -> Act:
    """Fall silent after so many bytes, until it is told to go on."""

    def act(to: Handler) -> None:
        start = _send(to, after)
        to.publisher.paused.set()
        to.publisher.go_on.wait(30)
        to.wfile.write(to.publisher.content[start + after :])

    return act


def deaf(to: Handler) -> None:
    """Answer nothing at all until told to go on."""
    to.publisher.go_on.wait(30)


def without_range(to: Handler) -> None:
    """Send the whole file whatever is asked."""
    to.begin(200, Content_Length=len(to.publisher.content))
    to.wfile.write(to.publisher.content)


def another_range(to: Handler) -> None:
    """Send another part than the one asked for."""
    content = to.publisher.content
    to.begin(206, Content_Length=len(content) - 7, Content_Range=f"bytes 7-{len(content) - 1}/{len(content)}")
    to.wfile.write(content[7:])


def saying(length: int) -> Act:
    """Name another length than the file has."""

    def act(to: Handler) -> None:
        to.begin(200, Content_Length=length)
        to.wfile.write(to.publisher.content[:length])

    return act


def chunked(to: Handler, pieces: int = 10) -> None:
    """Send it in pieces, without saying how long it is."""
    content = to.publisher.content
    to.begin(200, Transfer_Encoding="chunked")
    size = -(-len(content) // 10)
    for start in range(0, size * pieces, size):
        to.wfile.write(f"{len(content[start : start + size]):x}\r\n".encode() + content[start : start + size] + b"\r\n")
    if pieces == 10:
        to.wfile.write(b"0\r\n\r\n")


def answering(status: int, **headers: object) -> Act:
    """Answer with a status alone."""
    return lambda to: to.begin(status, Content_Length=0, **headers)


def _send(to: Handler, most: int) -> int:
    """Headers and at most so many bytes of what was asked for; where that begins."""
    content, asked = to.publisher.content, re.fullmatch(r"bytes=(\d+)-", to.headers["Range"] or "")
    start = int(asked[1]) if asked else 0
    if asked and start >= len(content):
        to.begin(416, Content_Length=0, Content_Range=f"bytes */{len(content)}")
        return start
    if asked:
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        to.begin(206, Content_Length=len(content) - start, Content_Range=span)
    else:
        to.begin(200, Content_Length=len(content))
    to.wfile.write(content[start : start + most])
    return start
