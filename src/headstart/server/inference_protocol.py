"""The open inference protocol, version 2, which clients of Triton, KServe and others speak; with binary tensors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from headstart import __version__
from headstart.model.answers import Answer
from headstart.server import schemas
from headstart.server.addresses import Json
from headstart.server.read_request import beside, header
from headstart.server.refused import Refused
from headstart.server.served import Served
from headstart.server.server import Server
from headstart.server.tensors import HEADER, INPUTS, InferRequest, output_of, response_of

EXTENSIONS = ["binary_tensor_data"]
_TENSOR: dict[str, Any] = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "enum": ["image", "pixels"]},
        "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
        "data": {"type": "array", "items": {}},
    },
}
_INFER = schemas.json_body(
    {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": {"type": "object"}},
        },
    }
)
_ERRORS = (400, 404, 408, 413, 415, 422, 429, 503, 504)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return schemas.refusals(*statuses, model=schemas.ProtocolRefusal)


def add_routes(router: APIRouter, server: Server) -> None:
    """The addresses of the protocol."""
    _add_states(router, server)
    _add_models(router, server)

    @router.post("/v2/models/{name}/infer", responses=_refusals(*_ERRORS), openapi_extra=_INFER)
    async def infer(request: Request, name: str) -> Response:
        """Answers to images: the input 'image' of BYTES, each the bytes of a file (in JSON in base64), or 'pixels' of
        UINT8, images × height × width × 3. Outputs: probabilities, label, unknown. One bad image refuses all.
        """
        return await _infer(request, server, server.models.of(name))

    @router.post("/v2/models/{name}/versions/{version}/infer", responses=_refusals(*_ERRORS), openapi_extra=_INFER)
    async def infer_version(request: Request, name: str, version: str) -> Response:
        """The same of one version, as long as it is served."""
        return await _infer(request, server, server.models.of(name, version))


def _add_states(router: APIRouter, server: Server) -> None:
    @router.get("/v2")
    async def about() -> Response:
        """The server, and which extensions of the protocol it has."""
        return Json({"name": "headstart", "version": __version__, "extensions": EXTENSIONS})

    @router.get("/v2/health/live")
    async def live() -> Response:
        """Whether the server runs."""
        return Json({"live": True})

    @router.get("/v2/health/ready", responses={503: {"description": "It loads or stops."}})
    async def ready() -> Response:
        """Whether it answers."""
        fine = server.models.ready and not server.stopping
        return Json({"ready": fine}, HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE)


def _add_models(router: APIRouter, server: Server) -> None:
    @router.get("/v2/models/{name}", responses=_refusals(404, 503))
    async def model(name: str) -> Response:
        """The inputs and outputs of a model."""
        return Json(_metadata(server.models.of(name)))

    @router.get("/v2/models/{name}/versions/{version}", responses=_refusals(404, 503))
    async def model_version(name: str, version: str) -> Response:
        """The same of one version."""
        return Json(_metadata(server.models.of(name, version)))

    @router.get("/v2/models/{name}/ready", responses=_refusals(404, 503))
    async def model_ready(name: str) -> Response:
        """Whether a model answers."""
        return Json({"name": server.models.of(name).name, "ready": True})

    @router.get("/v2/models/{name}/versions/{version}/ready", responses=_refusals(404, 503))
    async def version_ready(name: str, version: str) -> Response:
        """The same of one version."""
        return Json({"name": server.models.of(name, version).name, "ready": True})


def _metadata(served: Served) -> dict[str, Any]:
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(served.classes)]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "unknown", "datatype": "BOOL", "shape": [-1]},
    ]
    platform = f"headstart_{served.classifier.engine}"
    return {
        "name": served.name, "versions": [served.version], "platform": platform,
        "inputs": list(INPUTS), "outputs": outputs,
    }  # fmt: skip


async def _infer(request: Request, server: Server, served: Served) -> Response:
    scope = request.scope
    async with server.body(scope, request.receive) as body:
        length = header(scope, HEADER)
        asked: InferRequest = await beside(body, lambda: InferRequest(body, length, server.settings))
        wanted = asked.outputs
        outcomes = await server.ask(scope, request.receive, served, asked.images)
    answers: list[Answer] = []
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, Refused):
            where = f"Image {place}: " if len(outcomes) > 1 else ""
            raise Refused(outcome.status, outcome.kind, f"{where}{outcome.message}")
        answers.append(outcome)
    values: dict[str, Any] = {"model_name": served.name, "model_version": served.version}
    if isinstance(given := asked.values.get("id"), str):
        values["id"] = given[:200]
    outputs = [output_of(name, answers, served.classes, binary=binary) for name, binary in wanted]
    content, headers = response_of(values, outputs)
    return Response(content, headers=headers)
