"""The picture as a file: SVG, or a self-contained HTML page in which one can zoom and search."""

from __future__ import annotations

import html
import os
from importlib import resources
from pathlib import Path

from headstart.backbones.blueprint import Blueprint
from headstart.core.atomic_files import beside, probe, put
from headstart.core.errors import UsageError
from headstart.drawing.boxes import clean
from headstart.drawing.picture import svg

MARK = "<!-- Drawn by Headstart -->"  # marks the files that may be overwritten
STARTS = {".svg": f'<?xml version="1.0" encoding="UTF-8"?>\n{MARK}\n', ".html": f"<!DOCTYPE html>\n{MARK}\n"}


def draw(blueprint: Blueprint, path: str | os.PathLike[str], pixels: int | None = None) -> Path:
    """Write the picture of a network for images of ``pixels`` (default: the native size) as .svg or .html.

    Returns:
        its path. Equal blueprints give equal bytes.

    Raises:
        UsageError: another ending, a path that cannot be written, or a file there that Headstart did not draw; a size
            that the network does not take.
    """
    if problem := why_not_drawable(path):
        raise UsageError(problem)
    target = Path(os.path.realpath(path))
    ending, text = target.suffix.lower(), svg(blueprint, pixels)
    whole = STARTS[ending] + (text if ending == ".svg" else _page(clean(blueprint.name), text))
    try:
        with beside(target) as folder:
            made = folder / target.name
            made.write_text(whole, encoding="utf-8", newline="\n")
            put(made, target)
    except OSError as error:
        raise UsageError(f"The picture cannot be written to '{target}': {error.strerror or error}.") from error
    return target


def why_not_drawable(path: str | os.PathLike[str]) -> str | None:
    """A sentence if no picture can be written to ``path``, before any work is done for it."""
    target = Path(os.path.realpath(path))
    if target.suffix.lower() not in STARTS:
        return f"--graph: expected a file that ends in .svg or .html. Received: '{path}'."
    try:
        if not target.parent.is_dir():
            return f"--graph: there is no folder '{target.parent}'. Make it first, or choose another place."
        if target.exists() and not _is_ours(target):
            return (
                f"--graph: '{path}' exists already and is no picture that Headstart drew; it is not overwritten. "
                "Choose another name, or remove it first."
            )
        probe(target)
    except OSError as error:
        return f"--graph: '{path}' cannot be written to: {error.strerror or error}. Choose another place."
    return None


def _is_ours(target: Path) -> bool:
    if not target.is_file():
        return False
    with target.open("rb") as file:
        return file.read(100).startswith(tuple(start.encode() for start in STARTS.values()))


def _page(title: str, picture: str) -> str:
    style, script = (resources.files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return (
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{picture}"
        '<nav><input type="search" placeholder="find a layer, an op, a shape" aria-label="find"> '
        "<output></output> <button>whole</button></nav>\n<pre></pre>\n"
        f'<script type="module">\n{script}</script>\n</body>\n</html>\n'
    )
