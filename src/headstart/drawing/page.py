"""The picture as a file: SVG, or one self-contained HTML page to move about and search in."""

from __future__ import annotations

import html
import os
from pathlib import Path

from headstart.backbones.blueprint import Blueprint
from headstart.core.atomic_files import beside, probe, put
from headstart.core.errors import UsageError
from headstart.drawing.boxes import clean
from headstart.drawing.picture import svg

MARK = "<!-- Drawn by Headstart -->"  # by which a file of ours is known again
STARTS = {".svg": f'<?xml version="1.0" encoding="UTF-8"?>\n{MARK}\n', ".html": f"<!DOCTYPE html>\n{MARK}\n"}

STYLE = """
html,body{margin:0;height:100%;overflow:hidden;font:13px Verdana,'DejaVu Sans',sans-serif;color:#222}
svg{display:block;width:100%;height:100%;cursor:grab;touch-action:none}
nav{position:fixed;top:8px;right:8px;padding:6px 8px;background:#fffd;border:1px solid #cfd6dd;border-radius:6px}
nav input{font:inherit;width:15em}
pre{position:fixed;left:8px;bottom:8px;margin:0;padding:6px 8px;max-width:95%;overflow:hidden;background:#fffd;
border:1px solid #cfd6dd;border-radius:6px;font:inherit;pointer-events:none}
pre:empty{display:none}
.box.dim{opacity:.25}
.box.found>rect,.box.here>rect{stroke-width:2.5}
.line.here{stroke:#c8481f;stroke-width:2.2}
.shape.here{fill:#c8481f;font-weight:bold}
"""

SCRIPT = """
const svg = document.querySelector("svg"), find = document.querySelector("input");
const count = document.querySelector("output"), said = document.querySelector("pre");
const whole = svg.getAttribute("viewBox").split(" ").map(Number);
const boxes = [...document.querySelectorAll(".box")].map(box => ({
  box, text: box.querySelector("title").textContent,
  names: [...box.querySelectorAll("[data-name]")].map(each => each.dataset.name)}));
for (const {box} of boxes) box.querySelector("title").remove();  // the panel says it instead
let view = [...whole], grip = null, found = [], at = -1;

const show = () => svg.setAttribute("viewBox", view.join(" "));
const scale = () => 1 / svg.getScreenCTM().a;
function zoom(by, x, y) {
  view = [x - (x - view[0]) * by, y - (y - view[1]) * by, view[2] * by, view[3] * by];
  show();
}
function go(box) {
  const place = box.getBBox(), to = svg.getScreenCTM().inverse().multiply(box.getScreenCTM());
  const middle = new DOMPoint(place.x + place.width / 2, place.y + place.height / 2).matrixTransform(to);
  const size = [svg.clientWidth, svg.clientHeight];
  view = [middle.x - size[0] / 2, middle.y - size[1] / 2, ...size];
  show();
}
svg.addEventListener("wheel", event => {
  event.preventDefault();
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  zoom(Math.exp(event.deltaY * 0.0015), point.x, point.y);
}, {passive: false});
svg.addEventListener("pointerdown", event => {
  grip = [event.clientX, event.clientY, view[0], view[1], scale()];
  svg.setPointerCapture(event.pointerId);
});
svg.addEventListener("pointermove", event => {
  if (!grip) return;
  view[0] = grip[2] - (event.clientX - grip[0]) * grip[4];
  view[1] = grip[3] - (event.clientY - grip[1]) * grip[4];
  show();
});
for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => grip = null);
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  found = wanted ? boxes.filter(({text}) => text.toLowerCase().includes(wanted)) : [];
  at = -1;
  for (const each of boxes) {
    each.box.classList.toggle("found", found.includes(each));
    each.box.classList.toggle("dim", wanted !== "" && !found.includes(each));
  }
  count.textContent = wanted ? `${found.length} of ${boxes.length}` : "";
});
find.addEventListener("keydown", event => {
  if (event.key === "Enter" && found.length) go(found[at = (at + 1) % found.length].box);
});
document.querySelector("button").addEventListener("click", () => { view = [...whole]; show(); });
for (const {box, text, names} of boxes) for (const [kind, on] of [["pointerenter", true], ["pointerleave", false]])
  box.addEventListener(kind, () => {
    said.textContent = on ? text : "";
    box.classList.toggle("here", on);
    for (const each of document.querySelectorAll("[data-from]"))
      each.classList.toggle("here", on && (names.includes(each.dataset.from) || names.includes(each.dataset.to)));
  });
"""


def draw(blueprint: Blueprint, path: str | os.PathLike[str], pixels: int | None = None) -> Path:
    """Write the picture of a network for images of ``pixels`` (default: the native size) as .svg or .html.

    Returns:
        where it lies. Equal blueprints give equal bytes.

    Raises:
        UsageError: another ending, a place that cannot be written, a file there that is none of ours; a size that the
            network does not take.
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
    """A sentence if no picture can be put at ``path``, before any work is done for it."""
    target = Path(os.path.realpath(path))
    if target.suffix.lower() not in STARTS:
        return f"--graph: expected a file that ends in .svg or .html. Received: '{path}'."
    try:
        if not target.parent.is_dir():
            return f"--graph: there is no folder '{target.parent}'. Make it first, or choose another place."
        if target.exists() and not _is_ours(target):
            return (
                f"--graph: '{path}' is there already and is no picture that Headstart drew; it is not overwritten. "
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
    return (
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{picture}"
        '<nav><input type="search" placeholder="find a layer, an op, a shape" aria-label="find"> '
        "<output></output> <button>whole</button></nav>\n<pre></pre>\n"
        f'<script type="module">{SCRIPT}</script>\n</body>\n</html>\n'
    )
