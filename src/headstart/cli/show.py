"""`headstart show`: a network's layers as a table, and its graph as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from headstart.cli import options
from headstart.cli.terminal import console
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.backbones.blueprint import Blueprint


def show(
    name: options.Model,
    graph: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw its computational graph, too: FILE.svg or FILE.html.")
    ] = None,
    pixels: options.Pixels = None,
    as_json: options.Json = False,
) -> None:
    """Print a network as a table: layers, shapes, parameters, multiply-adds. Or draw it."""
    from headstart.drawing.page import draw, why_not_drawable

    if graph is not None and (problem := why_not_drawable(graph)):
        raise UsageError(problem)
    blueprint = _blueprint_of(name)
    answer = blueprint_rows(blueprint, pixels)
    answer["graph"] = None if graph is None else str(draw(blueprint, graph, pixels))
    options.answer_with(answer, as_json, lambda: _show(blueprint, pixels))
    if graph is not None and not as_json:
        typer.echo(f"graph: {one_line(answer['graph'])}")


def _blueprint_of(name: str) -> Blueprint:
    from headstart.backbones.catalogue import BACKBONES, find_backbone
    from headstart.model.bundle import is_bundle, load
    from headstart.model.mistaken import no_model
    from headstart.model.tabular_classifier import is_tabular_model, load_rows

    if is_tabular_model(name):
        return load_rows(name).blueprint
    if is_bundle(name):
        return load(name).blueprint
    if name in BACKBONES:
        return find_backbone(name).blueprint()
    raise no_model(name, networks=True)


def blueprint_rows(blueprint: Blueprint, pixels: int | None) -> dict[str, Any]:
    """A network as plain values: a row a layer, and the sums."""
    shapes, parameters, work = blueprint.shapes(pixels), blueprint.parameters(), blueprint.multiply_adds(pixels)
    layers = [
        {"name": n.name, "op": n.op, "shape": list(shapes[n.name]), "parameters": parameters.get(n.name, 0),
         "multiply_adds": work.get(n.name, 0), "inputs": list(n.inputs)}
        for n in blueprint.nodes
    ]  # fmt: skip
    return {
        "name": blueprint.name,
        "pixels": pixels or blueprint.size,
        "parameters": sum(parameters.values()),
        "multiply_adds": sum(work.values()),
        "layers": layers,
    }


def _show(blueprint: Blueprint, pixels: int | None) -> None:
    """`headstart show`: layers, shapes, parameters, multiply-adds."""
    answer = blueprint_rows(blueprint, pixels)
    table = Table("layer", "op", "output", box=None, header_style="bold", pad_edge=False)
    for title in ("parameters", "multiply-adds"):
        table.add_column(title, justify="right")
    for node, row in zip(blueprint.nodes, answer["layers"], strict=True):
        counts = (f"{row[key]:,}" if row[key] else "" for key in ("parameters", "multiply_adds"))
        table.add_row(row["name"], _describe(node.op, dict(node.attrs)), "×".join(map(str, row["shape"])), *counts)
    rows, count = answer["pixels"] == 1, answer["multiply_adds"]
    kind = "of numbers" if rows else f"at {answer['pixels']} pixels"
    work = f"{count / 1e6:,.0f} million" if count >= 1e6 else f"{count:,}"
    out = console()
    out.print(table)
    out.print(
        Text(f"{answer['name']} {kind}: ", "bold")
        + Text(f"{answer['parameters']:,} parameters, {work} multiply-adds {'a row' if rows else 'an image'}")
    )


def _describe(op: str, attrs: dict[str, Any]) -> str:
    if op == "conv":
        kernel = "×".join(map(str, attrs["kernel"]))
        stride = f" / {attrs['stride']}" if attrs["stride"] > 1 else ""
        return f"{'depthwise' if attrs['groups'] > 1 else 'conv'} {kernel}{stride}"
    return str(attrs.get("kind", op)).replace("_", " ")
