"""The page at /docs: the OpenAPI document for people, with nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template


def page_of(document: Mapping[str, Any]) -> tuple[str, str]:
    """The page as HTML, and the Content-Security-Policy that it needs."""
    style = _read("docs.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    addresses = [
        {"path": path, "method": method.upper(), **_of_operation(operation)}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return _template().render(info=document["info"], addresses=addresses, style=style), policy


def _of_operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {})
    return {
        "what": operation.get("description", operation.get("summary", "")),
        "parameters": operation.get("parameters", []),
        "takes": list(body),
        "answers": [(code, answer["description"]) for code, answer in sorted(operation["responses"].items())],
        "token": bool(operation.get("security")),
    }


def _read(name: str) -> str:
    assert __package__  # noqa: S101  (it is a file of one)
    return resources.files(__package__).joinpath(name).read_text("utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["css"] = Markup  # a file of the package
    return environment.from_string(_read("docs.html"))
