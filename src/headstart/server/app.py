"""The application: its addresses, behind what every request passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request

from headstart import __version__
from headstart.server import addresses, inference_protocol, mlflow
from headstart.server.middleware import OPEN, Middleware, refused_of
from headstart.server.models import Models
from headstart.server.server import Server
from headstart.server.settings import Settings

TITLE = "Headstart"


def create_app(models: Models, settings: Settings, *, watch: bool = False) -> FastAPI:
    """An ASGI application for models, which are opened when it starts, unless they are open."""
    server = Server(models, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with server.running(watch=watch):
            yield

    app = FastAPI(
        title=TITLE, version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    router = APIRouter()
    addresses.add_predict(router, server)
    addresses.add_states(router, server)
    addresses.add_facts(router, server, app)
    inference_protocol.add_routes(router, server)
    mlflow.add_routes(router, server)
    app.include_router(router)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_middleware(Middleware, server=server)
    app.state.server = server
    app.openapi = lambda: _openapi(app, settings, list(models.sources))  # type: ignore[method-assign]
    return app


async def _refuse(_: Request, error: Exception) -> Any:
    """What the router refuses, as `Middleware` tells it."""
    found = refused_of(getattr(error, "status_code", 500))
    found.headers.update(getattr(error, "headers", None) or {})
    if methods := found.headers.get("Allow"):
        found.message = f"This address takes {methods} alone."
    raise found from error


def _openapi(app: FastAPI, settings: Settings, names: Sequence[str]) -> dict[str, Any]:
    """FastAPI's document, with the names of the models and the token in it."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    found = get_openapi(title=TITLE, version=__version__, routes=app.routes)
    if settings.token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            if settings.token and path not in OPEN:
                operation["security"] = [{"token": []}]
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in ("model", "name"):
                    parameter["schema"] = {"type": "string", "enum": list(names)}
                parameter["required"] = parameter["required"] or (parameter["name"] == "model" and len(names) > 1)
    app.openapi_schema = found
    return found
