"""Images at addresses: fetched only where that is asked for, within limits, several at a time; an error is a row."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import headstart as hs
from headstart.core.errors import UnreadableImageError
from headstart.data import addresses
from headstart.data.addresses import FetchAhead, fetch_image
from making import Shell

LARGEST = addresses.LARGEST
PHOTO: dict[str, bytes] = {}
asked: list[str] = []
together = {"now": 0, "most": 0}
lock = threading.Lock()


class Server(BaseHTTPRequestHandler):
    """A photo, and all that can go wrong."""

    def do_GET(self) -> None:
        with lock:
            asked.append(self.path)
            together["now"] += 1
            together["most"] = max(together["most"], together["now"])
        try:
            self.answer(self.path.lstrip("/").partition("?")[0])
        except (BrokenPipeError, ConnectionResetError):
            pass  # whoever asked has left
        finally:
            with lock:
                together["now"] -= 1

    def answer(self, what: str) -> None:
        word, _, rest = what.partition("/")
        if word == "to":  # a redirect
            self.send_response(302)
            self.send_header("Location", rest if ":" in rest else f"/{rest}")
            self.end_headers()
        elif word == "round":
            self.send_response(302)
            self.send_header("Location", f"/round/{len(rest)}{rest}")
            self.end_headers()
        elif word == "busy" and asked.count(self.path) == 1:
            self.send_error(503)
        elif word in ("gone.png", "denied.png"):
            self.send_error({"gone.png": 404, "denied.png": 403}[word])
        else:
            self.content(word)

    def content(self, word: str) -> None:
        if word == "silent.png":
            time.sleep(0.8)
        content = b"<html>no photo" if word == "text.png" else PHOTO["content"]
        self.send_response(200)
        if word in ("large.png", "cut.png"):
            self.send_header("Content-Length", str(len(content) + 10**6))
        if word == "101-mb.png":
            self.send_header("Content-Length", "101000000")
        self.end_headers()
        if word == "endless.png":
            for _ in range(1000):
                self.wfile.write(content * 100)
        if word == "drops.png":
            for _ in range(40):
                self.wfile.write(b"\x89")
                self.wfile.flush()
                time.sleep(0.05)
        if word == "slow-start.png":
            time.sleep(0.1)
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class ManyAtOnce(ThreadingHTTPServer):
    request_queue_size = 64


@pytest.fixture
def site(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    PHOTO["content"] = (photos / "bars" / "0.png").read_bytes()
    asked.clear()
    together.update(now=0, most=0)
    monkeypatch.setattr(addresses, "SECONDS", 0.5)
    monkeypatch.setattr(addresses, "PAUSE", 0.01)
    monkeypatch.setattr(addresses, "LARGEST", 300_000)
    monkeypatch.setenv("no_proxy", "*")
    server = ManyAtOnce(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("what", ["a.png", "to/a.png", "busy/a.png", "two words é.png", "a.png?x=[1]"])
def test_a_photo_is_fetched(what: str, site: str) -> None:
    assert fetch_image(f"{site}/{what}") == PHOTO["content"]


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("gone.png", "missing", "the server answered 404 Not Found"),
        ("denied.png", "unreadable", "the server answered 403 Forbidden"),
        ("silent.png", "unreadable", "not received within 0.5 s"),
        ("drops.png", "unreadable", "not received within 0.5 s"),
        ("large.png", "unreadable", "larger than 0 MB"),
        ("endless.png", "unreadable", "larger than 0 MB"),
        ("cut.png", "unreadable", "the connection ended after"),
        ("to/file:///etc/passwd", "unreadable", "redirects to file:///etc/passwd, and only http(s) is followed"),
        ("to/ftp://example.org/a.png", "unreadable", "redirects to ftp://example.org/a.png, and only"),
        ("round/", "unreadable", "redirects more than 5 times"),
    ],
)
def test_what_goes_wrong_is_said(what: str, kind: str, said: str, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "cut.png":
        monkeypatch.setattr(addresses, "LARGEST", 10**8)
    with pytest.raises(UnreadableImageError) as error:
        fetch_image(f"{site}/{what}")
    assert said in error.value.detail
    assert error.value.kind == kind
    assert len(asked) < 15


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "http://", "http://[::1/a.png", "http://a:b/c", "https://a b/"]
)
def test_no_server_and_no_address(url: str, site: str) -> None:
    with pytest.raises(UnreadableImageError, match="cannot be fetched"):
        fetch_image(url)


def test_the_limit_is_100_mb(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "LARGEST", LARGEST)
    with pytest.raises(UnreadableImageError, match="larger than 100 MB"):
        fetch_image(f"{site}/101-mb.png")


def test_an_address_with_a_login_is_not_fetched(site: str) -> None:
    with_login = site.replace("//", "//user:secret@")
    for url, said in (
        (f"{with_login}/a.png", "an address with a login in it is not fetched"),
        (f"{site}/to/{with_login}/a.png", "redirects to an address with a login in it, which is not fetched"),
    ):
        with pytest.raises(UnreadableImageError) as error:
            fetch_image(url)
        assert (error.value.kind, error.value.detail) == ("unreadable", said)
    assert len(asked) == 1  # for the redirect
    assert fetch_image(f"{site}/a.png?by=user@host") == PHOTO["content"]


def test_they_are_fetched_ahead_and_never_all_at_once() -> None:
    begun: list[int] = []
    go = threading.Event()

    def fetch(row: int) -> bytes:
        begun.append(row)
        go.wait()
        return bytes([row])

    rows = range(0, 200, 2)
    ahead = FetchAhead(fetch, rows)
    reading = threading.Thread(target=ahead.read, args=(0,))
    reading.start()
    while len(begun) < addresses.THREADS:
        time.sleep(0.001)
    go.set()
    reading.join()
    assert [ahead.read(row) for row in rows[1:50]] == [bytes([row]) for row in rows[1:50]]
    ahead.close()
    assert max(begun) <= 98 + addresses.AHEAD


def test_addresses_are_rows_only_where_that_is_asked_for(
    shell: Shell, small_bundle: Path, photos: Path, site: str, tmp_path: Path
) -> None:
    names = ["a.png", "gone.png", "text.png", "silent.png", "to/file:///etc/passwd", "large.png"]
    paths = [str(photos / "bars" / "0.png"), *(f"{site}/{name}" for name in names)]
    file = tmp_path / "a.csv"
    refused = shell("predict", small_bundle, *paths, "--out", file)
    assert (refused.code, asked) == (2, [])
    assert f"'{site}/a.png' is an address, and nothing is downloaded unless it is asked for: --urls" in refused.err
    with pytest.raises(hs.UsageError, match="urls=True"):
        hs.predict_table(small_bundle, paths, file)
    done = shell("predict", small_bundle, *paths, "--urls", "--out", file)
    assert done.code == 3
    lines = file.read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == paths
    assert lines[0].split(",")[1:] == lines[1].split(",")[1:]
    assert all(",False," in line and ": " in line for line in lines[2:])
    assert "missing: the server answered 404" in lines[2]


def test_latency_does_not_add_up(small_bundle: Path, site: str, tmp_path: Path) -> None:
    urls = [f"{site}/slow-start.png?{row}" for row in range(40)]
    found = hs.predict_table(small_bundle, urls, tmp_path / "a.csv", urls=True)
    assert (found.unreadable, len(asked)) == (0, 40)
    assert together["most"] > 8  # more than the processors of a small machine
