"""What every request passes: its id, the token, the count and the log; and errors become sentences."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from itertools import count
from typing import Any

from headstart.server.read_request import ClientGone, Receive, Scope, header
from headstart.server.refused import Refused, failed
from headstart.server.server import STATE, Exchange, Server

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
OPEN = frozenset(("/health", "/ready", "/ping", "/v2/health/live", "/v2/health/ready"))  # without the token
HEADERS = [(b"x-content-type-options", b"nosniff")]
_ID = re.compile(r"[\x21-\x7e]{1,128}")
GONE = 499  # what others write in the log where the client did not wait


class Middleware:
    """The outermost layer of the application (ASGI)."""

    def __init__(self, app: App, server: Server) -> None:
        self.app, self.server = app, server
        self._token = server.settings.token.encode()
        self._start, self._number = secrets.token_hex(4), count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            else:  # of web sockets there are none
                await send({"type": "websocket.close", "code": 1000})
            return
        given = header(scope, b"x-request-id")
        exchange = Exchange(given if _ID.fullmatch(given) else f"{self._start}{next(self._number):08x}")
        scope[STATE] = exchange
        begin = time.perf_counter()
        self.server.metrics.in_progress.inc()

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                id_header = (b"x-request-id", exchange.request_id.encode("ascii"))
                message["headers"] = [*message.get("headers", ()), id_header, *HEADERS]
            await send(message)

        try:
            await self._answer(scope, receive, send_with_id, exchange)
        finally:
            self.server.metrics.in_progress.dec()
            self._tell(scope, exchange, time.perf_counter() - begin)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        try:
            self._check_token(scope)
            if scope["method"] == "HEAD" and scope["path"] in OPEN:
                scope = {**scope, "method": "GET"}  # the server leaves the body out
            await self.app(scope, receive, send)
        except ClientGone:
            exchange.status = GONE
        except Refused as refused:
            await send_refused(scope, send, refused)
        except Exception as error:
            self.server.log.fault(error, exchange.request_id)
            if exchange.status:  # the answer began already
                raise
            await send_refused(scope, send, failed())

    def _check_token(self, scope: Scope) -> None:
        if not self._token or scope["path"] in OPEN:
            return
        scheme, _, given = header(scope, b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
            raise Refused(
                401,
                "token",
                "The right bearer token is needed: send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    def _tell(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        route = scope.get("route")
        endpoint = getattr(route, "path", "other")
        self.server.metrics.answered(endpoint, exchange.model, exchange.status, seconds)
        facts: dict[str, Any] = {"model": exchange.model, "images": exchange.images} if exchange.images else {}
        if exchange.kind:
            facts["kind"] = exchange.kind
        self.server.log.say(
            "request",
            request_id=exchange.request_id,
            method=scope["method"],
            path=scope["path"][:200],
            status=exchange.status,
            client=(scope.get("client") or ("",))[0],
            ms=round(seconds * 1000, 2),
            **facts,
        )


async def send_refused(scope: Scope, send: Send, refused: Refused) -> None:
    """The sentence of a refusal, as the protocol of its address has it."""
    exchange: Exchange = scope[STATE]
    exchange.kind = refused.kind
    if scope["path"] == "/v2" or scope["path"].startswith("/v2/"):
        content: dict[str, Any] = {"error": refused.message}
    else:
        content = {"error": {"kind": refused.kind, "message": refused.message, "request_id": exchange.request_id}}
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": int(refused.status), "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def refused_of(status: int) -> Refused:
    """For what the router refuses."""
    found = HTTPStatus(status)
    sentences = {404: "There is nothing at this address. See /docs"}
    return Refused(status, found.phrase.lower(), sentences.get(status, f"{found.phrase}."))
