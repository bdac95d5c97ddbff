"""The page: one HTML file with all that it runs, and a policy by which the browser lets nothing else in or out."""

from __future__ import annotations

import gzip
import hashlib
import json
from base64 import b64encode
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from headstart import __version__
from headstart.core.counts import counted
from headstart.core.errors import CheckError
from headstart.core.text import all_shortened, one_line
from headstart.export.package import Package
from headstart.export.web.runtime import Runtime

if TYPE_CHECKING:
    from jinja2 import Template

RUNTIME, MODEL = "runtime", "model"  # blocks of the page, base64 of gzip
PARTS = {MODEL: "the model is", RUNTIME: "its runtime"}  # in words
SCRIPTS = ("resample", "exif", "network", "page")  # in order; each uses those before it
NAMED = 3  # classes in the title
ALONE = {  # directives of the page's Content-Security-Policy beside its hashes
    "default-src": "'none'",
    "img-src": "data: blob:",
    "media-src": "blob: mediastream:",
    "connect-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


def page_of(package: Package, model: bytes, weights: str, runtime: Runtime) -> tuple[bytes, str]:
    """The page's bytes, and a sentence on what they are.

    Args:
        package: of the classifier.
        model: an ONNX file of it.
        weights: what kind its weights are, in words.
        runtime: that runs it.
    """
    from markupsafe import Markup

    style, script = _read("page.css"), _script(runtime)
    blocks = {RUNTIME: _compressed(runtime.wasm), MODEL: _compressed(model)}
    result, names = package.record.result, package.classes
    first = ", ".join(all_shortened(names[:NAMED]).values())
    text = _template().render(
        title=first + (f" and {counted(len(names) - NAMED, 'other')}" if len(names) > NAMED else ""),
        classes=names,
        accuracy=result.accuracy if result else None,
        network=package.record.backbone or package.blueprint.name,
        pixels=package.spec.size,
        crop=package.spec.crop,
        weights=weights,
        unknown=package.unknown is not None,
        version=__version__,
        runtime=runtime,
        policy=Markup(_policy(script, style)),  # noqa: S704  (hashes alone)
        style=Markup(style),  # noqa: S704  (a file of the package)
        script=Markup(script),  # noqa: S704  (files of the package, and the runtime that was checked)
        about=Markup(_as_script(_about(package))),  # noqa: S704  (escaped for its place)
        blocks=blocks.items(),
    )
    parts = (f"{what} {len(blocks[name]) / 1e6:.1f} MB" for name, what in PARTS.items())
    return f"{text}\n".encode(), f"Of the page, {', '.join(parts)}."


def _compressed(content: bytes) -> str:
    return b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _policy(script: str, style: str) -> str:
    allowed = {"script-src": f"{_hash(script)} 'wasm-unsafe-eval'", "style-src": _hash(style)}
    return "; ".join(f"{name} {value}" for name, value in (ALONE | allowed).items())


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _script(runtime: Runtime) -> str:
    """The runtime, and behind it the page's own scripts in a block of their own, so that no name meets another."""
    own = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    text = f"\n{runtime.script}\n{{\n{own}}}\n"
    if "\r" in text or "</script" in text.lower() or "<!--" in text:
        raise CheckError("The script of ONNX Runtime Web does not fit into a page.")
    return text


def _about(package: Package) -> dict[str, Any]:
    """What the page's scripts have to know."""
    spec = package.spec
    return {
        "classes": package.classes,
        "pixels": spec.size,
        "crop": spec.crop,
        "resample": spec.resample,
    }


def _as_script(value: Any) -> str:
    """JSON that ends no script block, whatever the names are."""
    return json.dumps(value).replace("<", "\\u003c")


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _in_one_line(value: Any) -> Any:
    """Names without signs that turn or break a line; markup, and what has lines of its own, as it is."""
    return one_line(value) if type(value) is str and "\n\n" not in value else value


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_in_one_line, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["counted"] = counted
    return environment.from_string(_read("page.html"))
