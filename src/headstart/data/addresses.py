"""Images at addresses, http and https alone: fetched by threads ahead, so that nobody waits for one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO
from urllib import request
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from headstart.core.errors import UnreadableImageError
from headstart.data.web_address import is_address

SECONDS = 20.0  # without an answer, and for a whole image
LARGEST = 100 * 10**6  # bytes of an image
REDIRECTS = 5
TRIES = 2
PAUSE = 1.0  # seconds before the second try
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another try
GONE = {404, 410}
PIECE = 1 << 18  # bytes
THREADS = 16
AHEAD = 32  # rows: with LARGEST it bounds the memory


class _TemporaryError(Exception):
    """What may work at the second try; the message says why it did not."""


def fetch_image(url: str) -> bytes:
    """The content at an address.

    Raises:
        UnreadableImageError: there is none, it is too large, or the server is too slow.
    """
    for again in reversed(range(TRIES)):
        try:
            return _fetch(url)
        except _TemporaryError as error:
            if not again:
                raise UnreadableImageError("unreadable", str(error)) from error
            time.sleep(PAUSE)
    raise AssertionError("the last try returns or raises")


class FetchAhead:
    """Calls ``fetch`` on threads for rows that are read soon; ``rows`` are in the order in which they are read."""

    def __init__(self, fetch: Callable[[int], bytes], rows: Sequence[int]) -> None:
        self._fetch, self._rows, self._next = fetch, rows, 0
        self._waiting: dict[int, Future[bytes]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="headstart-fetch")

    def read(self, row: int) -> bytes:
        """What ``fetch`` gives for a row; each is read once."""
        with self._lock:
            while self._next < len(self._rows) and self._rows[self._next] <= row + AHEAD:
                ahead = self._rows[self._next]
                self._waiting[ahead] = self._pool.submit(self._fetch, ahead)
                self._next += 1
            future = self._waiting.pop(row)
        return future.result()

    def close(self) -> None:
        """Fetch no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Redirects(request.HTTPRedirectHandler):
    max_redirections = max_repeats = REDIRECTS

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> request.Request | None:
        if not is_address(newurl):  # ftp, which urllib follows
            fp.close()
            raise _elsewhere(newurl)
        if _has_login(newurl):
            fp.close()
            raise UnreadableImageError("unreadable", "redirects to an address with a login in it, which is not fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> request._UrlopenRet | None:
        place = headers.get("location") or headers.get("uri") or ""
        if urlsplit(place).scheme not in ("", "http", "https"):  # which urllib refuses in words that do not say why
            fp.close()
            raise _elsewhere(place)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _elsewhere(place: str) -> UnreadableImageError:
    return UnreadableImageError("unreadable", f"redirects to {place[:200]}, and only http(s) is followed")


def _has_login(url: str) -> bool:
    """Whether it is http://NAME:PASSWORD@host: urllib would take all of that for the host's name."""
    return "@" in urlsplit(url).netloc


def _opener() -> request.OpenerDirector:
    """One that knows no other schemes: `urllib.request.urlopen` also opens files."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(), request.HTTPHandler(), request.HTTPSHandler(), request.HTTPDefaultErrorHandler(),
        _Redirects(), request.HTTPErrorProcessor(), request.UnknownHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


def _fetch(url: str) -> bytes:
    headers = {"User-Agent": "headstart", "Accept-Encoding": "identity"}
    try:
        if _has_login(url):
            raise UnreadableImageError("unreadable", "an address with a login in it is not fetched")
        asked = request.Request(quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers=headers)  # noqa: S310  # `is_address`
        end = time.monotonic() + SECONDS
        answer: HTTPResponse
        with _opener().open(asked, timeout=SECONDS) as answer:
            return _content(answer, end)
    except HTTPError as error:
        error.close()
        why = f"the server answered {error.code} {error.reason}"
        if 300 <= error.code < 400:
            why = f"redirects more than {REDIRECTS} times"
        if error.code in TEMPORARY:
            raise _TemporaryError(why) from error
        raise UnreadableImageError("missing" if error.code in GONE else "unreadable", why) from error
    except (OSError, HTTPException, ValueError) as error:  # of an address that is none, too
        reason = getattr(error, "reason", error)  # of a URLError
        if isinstance(reason, TimeoutError):
            raise UnreadableImageError("unreadable", _too_slow()) from error
        words = str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
        raise _TemporaryError(f"cannot be fetched ({words})") from error


def _content(answer: HTTPResponse, end: float) -> bytes:
    too_large = UnreadableImageError("unreadable", f"larger than {LARGEST / 1e6:.0f} MB")
    if (answer.length or 0) > LARGEST:
        raise too_large
    length, pieces, size = answer.length, list[bytes](), 0
    while piece := answer.read1(PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise too_large
        if time.monotonic() > end:
            raise UnreadableImageError("unreadable", _too_slow())
    if length is not None and size < length:
        raise _TemporaryError(f"the connection ended after {size} of {length} bytes")
    return b"".join(pieces)


def _too_slow() -> str:
    return f"not received within {SECONDS:g} s"
