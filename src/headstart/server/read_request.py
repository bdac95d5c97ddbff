"""The images of a request: its body read with a limit and a deadline, then taken apart by its type."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from headstart.server.refused import Refused, malformed, too_large
from headstart.server.settings import HELD, Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
PASSED_OVER = 16  # times the limit: so much of a body that is too large is read, and not kept
LARGE = 1 << 18  # bytes; a larger body is taken apart beside the event loop
T = TypeVar("T")
RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")  # the last: what curl says unasked
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'\bfilename="((?:[^"\\\r\n]|\\.){0,255})"', re.IGNORECASE)
_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,")


class ClientGone(Exception):  # noqa: N818  (no fault)
    """The client went away before its body was here."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image as it was sent."""

    raw: bytes
    name: str = ""  # that the client gave it


def header(scope: Scope, name: bytes) -> str:
    """The value of a header, "" where there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


class Bodies:
    """Reads bodies, and knows how many bytes all of them hold."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.held = 0

    async def read(self, scope: Scope, receive: Receive) -> bytearray:
        """The whole body. Whoever is done with it takes its length from ``held``.

        Raises:
            Refused: 413 too large, 408 too slow, 415 compressed, 429 no memory for it.
            ClientGone: nobody is there any more.
        """
        if header(scope, b"content-encoding").lower() not in ("", "identity"):
            raise Refused(415, "compressed", "Compressed bodies are not read: images are compressed already.")
        try:
            length = int(header(scope, b"content-length") or 0)
        except ValueError:
            length = 0
        body, end = bytearray(), asyncio.get_running_loop().time() + self.settings.timeout
        fits, more = length <= self.settings.max_bytes, True
        waits = not fits and header(scope, b"expect").lower() == "100-continue"  # and sends nothing unless told to
        try:
            async with asyncio.timeout_at(end):
                if fits:
                    fits, more = await self._receive(receive, body)
        except BaseException as error:
            self.held -= len(body)
            if isinstance(error, TimeoutError):
                raise Refused(
                    HTTPStatus.REQUEST_TIMEOUT, "too slow", "The body did not arrive in time.", {"Connection": "close"}
                ) from None
            raise
        if not fits:
            self.held -= len(body)
            body.clear()
            if more and not waits:
                await self._pass_over(receive, end)
            raise self._too_large()
        return body

    async def _receive(self, receive: Receive, body: bytearray) -> tuple[bool, bool]:
        """Read the body, until it is too large: whether it fits, and whether there is more of it."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if len(body) + len(chunk) > self.settings.max_bytes:
                return False, more
            if self.held + len(chunk) > HELD:
                raise Refused(429, "busy", "Too many large requests at once.", {"Retry-After": "1"})
            body += chunk
            self.held += len(chunk)
        return True, False

    async def _pass_over(self, receive: Receive, end: float) -> None:
        """Let a client send the rest of what is too large: most read no answer before they have sent all."""
        passed, more = 0, True
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while more and passed < PASSED_OVER * self.settings.max_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    passed, more = passed + len(message.get("body", b"")), message.get("more_body", False)

    def _too_large(self) -> Refused:
        refused = too_large(f"The body is over {self.settings.max_megabytes:g} MB.")
        refused.headers["Connection"] = "close"
        return refused


async def uploads_of(scope: Scope, body: bytearray, settings: Settings) -> list[Upload]:
    """The images of a body: multipart files, JSON with base64, or the bytes of one image.

    Raises:
        Refused: 413 too many, 415 another type, 422 malformed.
    """
    kind = header(scope, b"content-type")
    media = kind.partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        found = _BOUNDARY.search(kind)
        if found is None:
            raise malformed("The content type has no boundary.")
        return from_multipart(body, (found[1] or found[2]).encode("latin-1"), settings.max_images)
    if media == "application/json":
        return await beside(body, lambda: from_json(read_json(body), settings.max_images))
    if media in RAW or media.startswith("image/"):
        return [Upload(bytes(body))]
    raise Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "content type",
        "Expected multipart/form-data, application/json, image/* or application/octet-stream.",
    )


async def beside(body: bytearray, work: Callable[[], T]) -> T:
    """Work on a body, on another thread where it is large."""
    return await asyncio.to_thread(work) if len(body) > LARGE else work()


def from_multipart(body: bytes | bytearray, boundary: bytes, most: int) -> list[Upload]:
    """The files of a multipart body (RFC 2046).

    Raises:
        Refused: 413 too many, 422 malformed.
    """
    mark = b"\r\n--" + boundary
    start = 0 if body.startswith(mark[2:]) else body.find(mark) + 2
    if start == 1:
        raise malformed("The body does not have the boundary that its content type names.")
    found: list[Upload] = []
    at = start + len(mark) - 2
    while not body.startswith(b"--", at):
        end = body.find(mark, at)
        head = body.find(b"\r\n\r\n", at, end) if end >= 0 else -1
        if head < 0:
            raise malformed("The multipart body is cut short.")
        if len(found) == most:
            raise too_large(f"More than {most} images in one request.")
        found.append(_part(bytes(body[at:head]), bytes(memoryview(body)[head + 4 : end])))
        at = end + len(mark)
    if not found:
        raise malformed("Expected one image or more. Received: none.")
    return found


def _part(headers: bytes, content: bytes) -> Upload:
    if not any(word in headers.lower() for word in (b"filename", b"content-type")):
        raise malformed("A field of the form is no file. Send files: curl -F image=@photo.jpg")
    name = _NAME.search(headers)
    return Upload(content, name[1].decode("utf-8", "replace") if name else "")


def read_json(body: bytearray | bytes) -> Any:
    """The value of a JSON body.

    Raises:
        Refused: 422, it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise malformed("The body is no JSON, which its content type says.") from None


def from_json(value: Any, most: int) -> list[Upload]:
    """The images of {"image": "…"} or {"images": ["…", …]}, in base64.

    Raises:
        Refused: 413 too many, 422 malformed.
    """
    if not isinstance(value, dict) or [*value] not in (["image"], ["images"]):
        raise malformed('Expected {"image": "BASE64"} or {"images": ["BASE64", …]}.')
    images = value["images"] if "images" in value else [value["image"]]
    return from_texts(images, most)


def from_texts(images: Any, most: int) -> list[Upload]:
    """A list of images in base64, also as data URLs.

    Raises:
        Refused: 413 too many, 422 malformed.
    """
    if not isinstance(images, list) or not images:
        raise malformed("Expected a list of one image in base64 or more.")
    if len(images) > most:
        raise too_large(f"More than {most} images in one request.")
    return [Upload(_from_base64(text)) for text in images]


def _from_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise malformed("Expected an image in base64.")
    try:
        found = _DATA_URL.match(text[:100])
        return base64.b64decode(text[found.end() :] if found else text, validate=True)
    except (binascii.Error, ValueError):
        raise malformed("An image is not in base64.") from None
