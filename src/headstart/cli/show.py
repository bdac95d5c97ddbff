"""`headstart show`: a network's layers as a table, and its graph as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from headstart.cli import options
from headstart.cli.terminal import console
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.backbones.blueprint import Blueprint
    from headstart.engines.summary import Summary

CLASSES = 10  # of a network that is trained from scratch, and has as many as the photos have
EMPTY = "Identity"  # a layer that gives what it gets; timm's networks are full of them


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model's folder, the name of a backbone, mlp, small_cnn, timm/NAME, keras/NAME or a .keras file.",
        ),
    ],
    graph: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw its computational graph, too: FILE.svg or FILE.html.")
    ] = None,
    pixels: Annotated[
        int | None, typer.Option(metavar="N", help="Of images of this size. Default: the network's own.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print a network as a table: layers, shapes, parameters, multiply-adds. Or draw it."""
    from headstart.drawing.page import draw, why_not_drawable

    if graph is not None and (problem := why_not_drawable(graph)):
        raise UsageError(problem)
    shown = _of_library(name, graph, pixels) or _of_blueprint(name, pixels)
    if graph is not None and shown.blueprint is not None:
        shown.drawn = str(draw(shown.blueprint, graph, pixels))
    options.answer_with(shown.as_json(), as_json, lambda: _show(shown))


@dataclass(frozen=True)
class _Row:
    """A layer."""

    name: str
    op: str
    what: str  # the op with its kernel, for a person
    shape: list[int] | None  # None: it was not run
    parameters: int
    multiply_adds: int | None  # None: not known
    inputs: list[str] | None  # None: not known

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "what"}


@dataclass
class _Shown:
    """What is shown of a network."""

    name: str
    pixels: int
    rows: list[_Row]
    notes: list[str]
    blueprint: Blueprint | None = None  # what can be drawn of it
    drawn: str | None = None  # the picture

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds or 0 for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pixels": self.pixels,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "layers": [row.as_json() for row in self.rows],
            "notes": self.notes,
            "graph": self.drawn,
        }


def _of_library(name: str, graph: str | None, pixels: int | None) -> _Shown | None:
    """A network of timm or Keras by name, or a file of Keras; None where it is none of them."""
    from headstart.engines.names import framework_of
    from headstart.engines.protocol import APPLICATIONS, TIMM
    from headstart.engines.registry import summary_of

    if os.path.isdir(name) or not (name.startswith((APPLICATIONS, TIMM)) or os.path.isfile(name)):
        return None
    if not framework_of(name):
        return None
    if graph is not None:
        raise UsageError(
            f"--graph draws the networks of headstart backbones, mlp, small_cnn and saved models. '{name}' is built by "
            "its library's own code; without --graph its layers are listed."
        )
    summary = summary_of(name, pixels)
    return _Shown(name, summary.pixels, [*_inner_rows(summary)], _notes(summary))


def _of_blueprint(name: str, pixels: int | None) -> _Shown:
    """A network that a blueprint describes; of one with a module of another library, with the layers inside it."""
    from headstart.engines.registry import summary_of

    blueprint, notes = _blueprint_of(name, pixels)
    size = pixels or blueprint.size
    shapes, parameters, work = blueprint.shapes(pixels), blueprint.parameters(), blueprint.multiply_adds(pixels)
    rows: list[_Row] = []
    for node in blueprint.nodes:
        if node.op == "module":
            summary = summary_of(node, size)
            rows += _inner_rows(summary)
            notes += _notes(summary)
        what = "features" if node.op == "module" else _describe(node.op, dict(node.attrs))
        own = 0 if node.op == "module" else parameters.get(node.name, 0)
        shape, inputs = list(shapes[node.name]), list(node.inputs)
        rows.append(_Row(node.name, node.op, what, shape, own, work.get(node.name, 0), inputs))
    return _Shown(blueprint.name, size, rows, notes, blueprint)


def _blueprint_of(name: str, pixels: int | None) -> tuple[Blueprint, list[str]]:
    """A network, and what was assumed."""
    from headstart.backbones.catalogue import BACKBONES, find_backbone
    from headstart.model.mistaken import no_model
    from headstart.model.opened import is_bundle, load
    from headstart.model.stored import is_tabular_model
    from headstart.model.tabular_classifier import load_rows
    from headstart.workflows.picture_statistics import SMALL
    from headstart.workflows.train_images import HIDDEN, NETWORKS, small_network

    if is_tabular_model(name):
        return load_rows(name).blueprint, []
    if is_bundle(name):
        return load(name).blueprint, []
    if name in NETWORKS:
        hidden = f" and hidden layers of {' and '.join(map(str, HIDDEN))}" if name == "mlp" else ""
        note = f"As headstart train PHOTOS --network {name} builds it, for {CLASSES} classes{hidden}."
        return small_network(name, CLASSES, pixels or SMALL), [note]
    if name in BACKBONES:
        return find_backbone(name).blueprint(), []
    raise no_model(name, networks=True)


def _inner_rows(summary: Summary) -> Iterator[_Row]:
    for layer in summary.layers:
        what = f"{layer.kind} {layer.window}".rstrip()
        shape = None if layer.shape is None else list(layer.shape)
        yield _Row(layer.name, layer.kind, what, shape, layer.parameters, layer.multiply_adds, None)


def _notes(summary: Summary) -> list[str]:
    """What is to be known of the layers inside a module."""
    notes = [
        f"Layers as {summary.library} has them, maps as {summary.axes}; parameters without running statistics, "
        "multiply-adds of convolutions and dense layers alone."
    ]
    if summary.headless:
        notes.append(f"Its own head fits images of another size than {summary.pixels} pixels, and is left out.")
    if any(layer.multiply_adds is None for layer in summary.layers):
        notes.append("?: a layer of another kind that has matrices; its multiply-adds are not known.")
    return notes


def _show(shown: _Shown) -> None:
    """`headstart show`: layers, shapes, parameters, multiply-adds."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("layer", "op", "output"):
        table.add_column(title, overflow="fold")
    for title in ("parameters", "multiply-adds"):
        table.add_column(title, justify="right", no_wrap=True)
    listed = [row for row in shown.rows if row.op != EMPTY]
    for row in listed:
        output = "not run" if row.shape is None else "×".join(map(str, row.shape))
        work = "?" if row.multiply_adds is None else _number(row.multiply_adds)
        table.add_row(row.name, row.what, output, _number(row.parameters), work)
    rows, count = shown.pixels == 1, shown.multiply_adds
    kind = "of numbers" if rows else f"at {shown.pixels} pixels"
    work = f"{count / 1e6:,.0f} million" if count >= 1e6 else f"{count:,}"
    out = console()
    out.print(table)
    out.print(
        Text(f"{one_line(shown.name)} {kind}: ", "bold")
        + Text(f"{shown.parameters:,} parameters, {work} multiply-adds {'a row' if rows else 'an image'}")
    )
    if count := len(shown.rows) - len(listed):
        shown.notes.append(f"Not listed: {counted(count, f'{EMPTY} layer')}.")
    for note in shown.notes:
        out.print(Text(note, "dim"))
    if shown.drawn is not None:
        typer.echo(f"graph: {one_line(shown.drawn)}")


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _describe(op: str, attrs: dict[str, Any]) -> str:
    if op == "conv":
        kernel = "×".join(map(str, attrs["kernel"]))
        stride = f" / {attrs['stride']}" if attrs["stride"] > 1 else ""
        return f"{'depthwise' if attrs['groups'] > 1 else 'conv'} {kernel}{stride}"
    return str(attrs.get("kind", op)).replace("_", " ")
