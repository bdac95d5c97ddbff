"""The server's own addresses: /predict, /model, /health, /ready, /metrics and /docs."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response

from headstart.server import schemas
from headstart.server.page import page_of
from headstart.server.read_request import uploads_of
from headstart.server.refused import Refused
from headstart.server.server import Server, predictions

MODEL = schemas.query("model", "Name of the model; needed where several are served.", {"type": "string"})
MOST = 1_000_000  # classes that may be asked for
TOP = schemas.query(
    "top",
    "So many classes of each image, the most probable first.",
    {"type": "integer", "minimum": 1, "maximum": MOST, "default": 1},
)


class Json(Response):
    """An answer in JSON, in ASCII."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def settings_of(request: Request, *known: str) -> dict[str, str]:
    """What stands behind the question mark.

    Raises:
        Refused: 422, something that is not known, or twice.
    """
    found: dict[str, str] = {}
    text = request.scope["query_string"].decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True) if text else ():
        if name not in known or name in found:
            raise Refused(422, "parameter", f"Known parameters, once each: {', '.join(known)}.")
        found[name] = value
    return found


def top_of(given: dict[str, str]) -> int:
    """How many classes are asked for.

    Raises:
        Refused: 422, no whole number in that range.
    """
    text = given.get("top", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= MOST):
        raise Refused(422, "parameter", f"top: expected a whole number, 1 to {MOST}.")
    return int(text)


def add_predict(router: APIRouter, server: Server) -> None:
    """What is on images."""

    @router.post(
        "/predict",
        response_model=schemas.Predictions,
        response_model_exclude_unset=True,
        responses=schemas.refusals(400, 404, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra={**schemas.IMAGES, "parameters": [MODEL, TOP]},
    )
    async def predict(request: Request) -> Response:
        """Say what is on images: files of a form, the bytes of one image, or base64 in JSON.

        With several images the answer is 200, and each has its own answer or error.
        """
        given = settings_of(request, "model", "top")
        top, served = top_of(given), server.models.of(given.get("model"))
        async with server.body(request.scope, request.receive) as body:
            uploads = await uploads_of(request.scope, body, server.settings)
            outcomes = await server.ask(request.scope, request.receive, served, [each.raw for each in uploads])
        found = predictions(uploads, outcomes, served, top)
        return Json({"model": served.name, "version": served.version, "predictions": found})


def add_states(router: APIRouter, server: Server) -> None:
    """Whether the server is there, and ready."""

    @router.get("/health", response_model=schemas.State)
    async def health() -> Response:
        """Whether the server runs."""
        return Json({"status": "ok"})

    @router.get("/ready", response_model=schemas.State, responses={503: {"model": schemas.State}})
    async def ready() -> Response:
        """Whether it answers: not while it loads or stops."""
        state = "stopping" if server.stopping else "ready" if server.models.ready else "loading"
        return Json({"status": state}, HTTPStatus.OK if state == "ready" else HTTPStatus.SERVICE_UNAVAILABLE)


def add_facts(router: APIRouter, server: Server, app: Any) -> None:
    """What is served, and how."""

    @router.get(
        "/model",
        response_model=schemas.Model,
        responses=schemas.refusals(404, 422, 503),
        openapi_extra={"parameters": [MODEL]},
    )
    async def model(request: Request) -> Response:
        """The model's card, classes and pixels."""
        served = server.models.of(settings_of(request, "model").get("model"))
        return Json(served.facts() | {"models": list(server.models.sources)})

    @router.get("/metrics", response_class=Response, responses=schemas.refusals())
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(server.metrics.text(), media_type=None, headers={"Content-Type": server.metrics.TYPE})

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Json(app.openapi())

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page, policy = page_of(app.openapi())
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
        return Response(page, media_type="text/html", headers=headers)
