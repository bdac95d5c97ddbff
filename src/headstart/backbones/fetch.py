"""Downloads one file over an unreliable connection: failures are retried, a partial file is continued; https only."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from io import FileIO
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from headstart.core.errors import UsageError
from headstart.core.progress import StageProgress

TRIES = 4  # in a row that bring nothing new
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another try
RANGE_NOT_SATISFIABLE = 416  # the file is complete already
PIECE = 1 << 18  # bytes
LOCAL = {"localhost", "127.0.0.1", "::1"}


class FetchError(Exception):
    """A download failed. The message is the end of a sentence that begins with the address."""


def fetch(
    url: str, part: Path, progress: StageProgress | None = None, *, timeout: float = 30.0, pause: float = 1.0
) -> None:
    """Download the rest of a file into ``part``. On an error, what was received stays there for the next time.

    Args:
        url: https, or http on this machine.
        part: the file, its beginning, or nothing yet. Its content is not checked here.
        progress: called with (bytes done, bytes in all), the latter 0 where the server does not say.
        timeout: seconds without an answer from the server.
        pause: seconds before the second try; doubled for each further one.

    Raises:
        FetchError: the file cannot be downloaded.
        UsageError: it cannot be written.
    """
    if not _allowed(url, url):
        raise FetchError("is not downloaded: only https is allowed")
    furthest, failures, met = _size(part), 0, False
    while True:
        try:
            _receive(url, part, progress, timeout)
            return
        except HTTPError as error:
            error.close()
            if error.code == RANGE_NOT_SATISFIABLE and _size(part):
                return
            why = f"answered {error.code} {error.reason}"
            if error.code not in TEMPORARY:
                raise FetchError(why) from error
        except (OSError, HTTPException) as error:
            why = f"cannot be reached ({_reason(error)})"
            if isinstance(error, URLError) and not met:  # no network: do not make the user wait for more tries
                raise FetchError(why) from error
        met = True
        failures = 0 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures == TRIES:
            raise FetchError(why)
        time.sleep(pause * 2 ** max(failures - 1, 0))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into a `UsageError` that names the path."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"'{path}' cannot be written: {error.strerror or error}. Another place for it: HEADSTART_HOME."
        ) from error


class _Redirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not _allowed(newurl, req.full_url):
            fp.close()
            raise FetchError(f"redirects to {newurl[:200]}, and only https is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _allowed(url: str, origin: str) -> bool:
    """Whether it is https, or from this machine to this machine."""
    scheme, local = urlsplit(url).scheme, all(urlsplit(each).hostname in LOCAL for each in (url, origin))
    return scheme == "https" or (scheme == "http" and local)


def _receive(url: str, part: Path, progress: StageProgress | None, timeout: float) -> None:
    have = _size(part)
    request = Request(url, headers={"User-Agent": "headstart", "Accept-Encoding": "identity"})  # noqa: S310  # `_allowed`
    if have:
        request.add_header("Range", f"bytes={have}-")
    answer: HTTPResponse
    with build_opener(_Redirects).open(request, timeout=timeout) as answer:
        have, total = _place(answer, part, have)
        with writing(part):
            if (total or 0) - have > shutil.disk_usage(part.parent).free:
                raise UsageError(
                    f"'{part.parent}' lacks room for {(total or 0) / 1e6:.0f} MB. Another place for it: HEADSTART_HOME."
                )
            file = FileIO(part, "a" if have else "w")
        with file:
            while piece := answer.read1(PIECE):
                _write(file, part, piece)
                have += len(piece)
                if progress is not None:
                    progress(have, total or 0)
    if have < (total or 0):
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _place(answer: HTTPResponse, part: Path, asked: int) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the length of the file: servers may ignore the range asked for."""
    if answer.status != 206:
        return 0, answer.length
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if span is None or int(span[1]) != asked:
        part.unlink(missing_ok=True)
        raise ConnectionError("it sent another part of the file than was asked for")
    return asked, None if span[2] == "*" else int(span[2])


def _write(file: FileIO, part: Path, piece: bytes) -> None:
    """Write without a buffer: what was received is kept if the process is killed, and a full disk is noticed."""
    left = memoryview(piece)
    while left:
        with writing(part):
            left = left[file.write(left) :]


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # of a URLError
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
