"""The shapes of answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Problem(BaseModel):
    """Why there is no answer."""

    kind: str
    message: str
    request_id: str


class Refusal(BaseModel):
    """The answer to a request that cannot be met."""

    error: Problem


class ProtocolRefusal(BaseModel):
    """The same in the open inference protocol."""

    error: str


class ImageProblem(BaseModel):
    """Why one image of several has no answer."""

    kind: str
    message: str


class Candidate(BaseModel):
    """A class with its probability."""

    label: str
    probability: float


class Prediction(BaseModel):
    """What is on one image: label, probability and whether it is unlike the training photos; or an error."""

    name: str = ""
    label: str | None = None
    probability: float | None = None
    unknown: bool | None = None
    top: list[Candidate] | None = None
    error: ImageProblem | None = None


class Predictions(BaseModel):
    """An answer for each image, in their order."""

    model: str
    version: str
    predictions: list[Prediction]


class Invocations(BaseModel):
    """The answer of MLflow's address."""

    predictions: list[Prediction]


class State(BaseModel):
    """Whether the server is there, or ready."""

    status: str


class Accuracy(BaseModel):
    """The accuracy on the test set with its 95 % interval."""

    value: float
    interval: list[float]
    images: int


class Model(BaseModel):
    """What a model is."""

    name: str
    version: str
    classes: list[str]
    pixels: int
    precision: str
    backbone: str
    tells_unknown: bool
    accuracy: Accuracy | None
    card: str
    models: list[str]


_WHEN = {
    400: "The image is empty.",
    401: "The bearer token is missing or wrong.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body, the number of images, or the pixels of the image are over the limit.",
    415: "The content type is not taken, or the bytes are no image.",
    422: "The body is malformed, or the image is damaged.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "The server failed.",
    503: "The models are being loaded, or the server stops.",
    504: "The answer took too long.",
}


def refusals(*statuses: int, model: type[BaseModel] = Refusal) -> dict[int | str, dict[str, Any]]:
    """The refusals of an address, for FastAPI's ``responses``."""
    return {status: {"model": model, "description": _WHEN[status]} for status in (401, 500, *statuses)}


def only(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An object with one property."""
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


_FILE = {"type": "string", "format": "binary"}
TEXT = {"type": "string", "format": "byte", "minLength": 1, "description": "An image file in base64, or a data URL."}
IMAGES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "items": _FILE, "minItems": 1}},
                    "required": ["image"],
                    "additionalProperties": False,
                },
                "encoding": {"image": {"contentType": "image/jpeg"}},
            },
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
            "application/json": {
                "schema": {
                    "oneOf": [
                        only("image", TEXT),
                        only("images", {"type": "array", "items": TEXT, "minItems": 1}),
                    ]
                }
            },
        },
    }
}


def json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """An address that takes JSON of this shape."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def query(name: str, what: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter behind the question mark."""
    return {"name": name, "in": "query", "required": False, "description": what, "schema": schema}
