"""One file over an unreliable line: tried again where it fails, gone on with where it was cut, over https alone."""

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
PASSING = {408, 425, 429, 500, 502, 503, 504}  # what a server answers that may answer otherwise in a moment
BEYOND = 416  # there is nothing from the place that was asked for
PIECE = 1 << 18  # bytes
LOCAL = {"localhost", "127.0.0.1", "::1"}


class FetchError(Exception):
    """The file did not come. The message says why, as the end of a sentence about its address."""


def fetch(
    url: str, part: Path, progress: StageProgress | None = None, *, timeout: float = 30.0, pause: float = 1.0
) -> None:
    """Receive what ``part`` lacks of a file. Whatever happens, what came stays there for the next time.

    Args:
        url: https, or http on this machine.
        part: the file, or its beginning, or nothing yet. Whether the bytes are the right ones is not known here.
        progress: called with (bytes done, bytes in all), the latter 0 where the server does not say.
        timeout: seconds that the other side may be silent.
        pause: seconds before the second try; each further one waits twice as long.

    Raises:
        FetchError: it cannot be had there, or not now.
        UsageError: the disk does not take it.
    """
    if not _allowed(url, url):
        raise FetchError("is not fetched: only https is")
    furthest, failures, met = _size(part), 0, False
    while True:
        try:
            _receive(url, part, progress, timeout)
            return
        except HTTPError as error:
            error.close()
            if error.code == BEYOND and _size(part):
                return
            why = f"answered {error.code} {error.reason}"
            if error.code not in PASSING:
                raise FetchError(why) from error
        except (OSError, HTTPException) as error:
            why = f"cannot be reached ({_reason(error)})"
            if isinstance(error, URLError) and not met:  # no network: nobody should wait for that to be tried again
                raise FetchError(why) from error
        met = True
        failures = 0 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures == TRIES:
            raise FetchError(why)
        time.sleep(pause * 2 ** max(failures - 1, 0))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure of the disk into an error that names the place."""
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
    """https, or from this machine to this machine."""
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
        raise ConnectionError(f"the line was cut after {have} of {total} bytes")


def _place(answer: HTTPResponse, part: Path, asked: int) -> tuple[int, int | None]:
    """Where in the file an answer begins, and how long the file is: servers may ignore what they are asked."""
    if answer.status != 206:
        return 0, answer.length
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if span is None or int(span[1]) != asked:
        part.unlink(missing_ok=True)
        raise ConnectionError("it sent another part of the file than was asked for")
    return asked, None if span[2] == "*" else int(span[2])


def _write(file: FileIO, part: Path, piece: bytes) -> None:
    """Unbuffered: what came is in the file when the process is killed, and a full disk is known at once."""
    left = memoryview(piece)
    while left:
        with writing(part):
            left = left[file.write(left) :]


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # of a URLError
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
