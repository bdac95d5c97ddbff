"""The two addresses of MLflow's scoring server, for clients that speak to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from headstart.server import schemas
from headstart.server.addresses import MODEL, TOP, Json, settings_of, top_of
from headstart.server.read_request import Upload, beside, from_texts, header, read_json
from headstart.server.refused import Refused, malformed
from headstart.server.server import Server, predictions

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
COLUMN = "image"
_ROWS = {"type": "array", "minItems": 1, "items": schemas.TEXT}
_BODY = schemas.json_body(
    {
        "oneOf": [
            schemas.only("inputs", _ROWS),
            schemas.only("instances", _ROWS),
            schemas.only(
                "dataframe_records", {"type": "array", "minItems": 1, "items": schemas.only(COLUMN, schemas.TEXT)}
            ),
            schemas.only(
                "dataframe_split",
                {
                    "type": "object",
                    "required": ["columns", "data"],
                    "properties": {
                        "columns": {"type": "array", "items": {"enum": [COLUMN]}, "minItems": 1, "maxItems": 1},
                        "data": {"type": "array", "minItems": 1, "items": {**_ROWS, "maxItems": 1}},
                    },
                },
            ),
        ]
    }
)


def add_routes(router: APIRouter, server: Server) -> None:
    """/ping and /invocations."""

    @router.get("/ping", responses={503: {"description": "It loads or stops."}})
    async def ping() -> Response:
        """Whether the server answers."""
        fine = server.models.ready and not server.stopping
        return Json({"status": "ok" if fine else "not ready"}, 200 if fine else 503)

    @router.post(
        "/invocations",
        response_model=schemas.Invocations,
        responses=schemas.refusals(400, 404, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra={**_BODY, "parameters": [MODEL, TOP]},
    )
    async def invocations(request: Request) -> Response:
        """Answers to images in base64: dataframe_split or dataframe_records with a column 'image', inputs, instances.

        With several images the answer is 200, and each has its own answer or error.
        """
        given = settings_of(request, "model", "top")
        top, served = top_of(given), server.models.of(given.get("model"))
        if header(request.scope, b"content-type").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "content type", "Expected application/json.")
        async with server.body(request.scope, request.receive) as body:
            uploads: list[Upload] = await beside(body, lambda: uploads_of(read_json(body), server.settings.max_images))
            outcomes = await server.ask(request.scope, request.receive, served, [each.raw for each in uploads])
        return Json({"predictions": predictions(uploads, outcomes, served, top)})


def uploads_of(value: Any, most: int) -> list[Upload]:
    """The images of a body in one of the four forms.

    Raises:
        Refused: 413 too many, 422 malformed.
    """
    found = [key for key in value if key != "params"] if isinstance(value, Mapping) else []
    if len(found) != 1 or found[0] not in FORMS:
        raise malformed(f"Expected one of {', '.join(FORMS)}.")
    if value.get("params"):
        raise malformed("params: there are none.")
    rows = value[found[0]]
    if found[0] == "dataframe_split":
        rows = _column(rows)
    elif isinstance(rows, Mapping):  # columns by their names
        rows = rows.get(COLUMN)
    if isinstance(rows, str):
        rows = [rows]
    return from_texts([_text(row) for row in rows] if isinstance(rows, list) else rows, most)


def _column(table: Any) -> list[Any]:
    """The column of a DataFrame that has the images: "image", or the only one."""
    columns, data = (table.get("columns"), table.get("data")) if isinstance(table, Mapping) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list):
        raise malformed('dataframe_split: expected {"columns": […], "data": [[…], …]}.')
    if len(columns) != 1 and COLUMN not in columns:
        raise malformed(f"dataframe_split: expected a column '{COLUMN}'.")
    place = columns.index(COLUMN) if COLUMN in columns else 0
    if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        raise malformed("dataframe_split: expected as many values in each row as there are columns.")
    return [row[place] for row in data]


def _text(row: Any) -> Any:
    """The base64 of a row: as it is, under "image" or "b64", or alone in a list."""
    for _ in range(3):
        if isinstance(row, Mapping):
            row = row.get(COLUMN, row.get("b64"))
        elif isinstance(row, list) and len(row) == 1:
            row = row[0]
    return row
