"""Requests that get no answer, and why: a status, a kind for machines and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from headstart.core.errors import UnreadableImageError
from headstart.data.formats import HEAD, sniff
from headstart.data.opened_image import Raw


class Refused(Exception):  # noqa: N818  (no fault of the server)
    """The answer to a request that cannot be met."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, dict(headers or {})


NO_IMAGE = (
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "no image",
    "These bytes are no image of a known format. Send a JPEG, a PNG or another image file.",
)
_OF_IMAGES = {  # the kinds of `core.types.UNREADABLE`; the words of a decoder stay in the log
    "empty": (HTTPStatus.BAD_REQUEST, "empty", "An image of 0 bytes was received."),
    "truncated": (HTTPStatus.UNPROCESSABLE_ENTITY, "truncated", "The image is cut short or damaged."),
    "bomb": (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too many pixels",
        "The image has more pixels than this server decodes. Make it smaller.",
    ),
    "memory": (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "no memory",
        "The server has not enough memory for this image at the moment. Make it smaller, or send it later.",
    ),
}
_UNREADABLE = (HTTPStatus.UNPROCESSABLE_ENTITY, "unreadable", "The image cannot be decoded.")


def unreadable(raw: Raw, error: UnreadableImageError) -> Refused:
    """Why an image gets no answer. The words of its decoder are left out: they may name what runs here."""
    if error.kind == "unreadable" and isinstance(raw, bytes) and not sniff(raw[:HEAD]):
        return Refused(*NO_IMAGE)
    return Refused(*_OF_IMAGES.get(error.kind, _UNREADABLE))


def too_large(what: str) -> Refused:
    """The body, or what is in it, is over a limit."""
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large", what)


def malformed(what: str) -> Refused:
    """The body is not what its type says."""
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "malformed", what)


def busy(seconds: int) -> Refused:
    """There is no place in the queue."""
    headers = {"Retry-After": str(seconds)}
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, "busy", f"The queue is full. Try again in {seconds} s.", headers)


def too_late() -> Refused:
    """The answer was not there in time."""
    return Refused(HTTPStatus.GATEWAY_TIMEOUT, "too late", "The answer took too long. It was given up.")


def failed() -> Refused:
    """A fault of the server; the log has it."""
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", "The server failed. Its log says more.")
