"""`headstart backbones`: the networks to start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli.options import Json, answer_with
from headstart.cli.terminal import console
from headstart.core.install import pip_install

if TYPE_CHECKING:
    from headstart.backbones.weights import WeightsRecord

AT_HAND, DOWNLOAD, OWN_FILE = "at hand", "download", "--weights FILE"  # what becomes of a backbone's weights
WIDTHS = (8, 10, 13, 6)  # of the numbers in the table of backbones
ORDER = (AT_HAND, DOWNLOAD)  # what needs least comes first


def backbones(
    every: Annotated[bool, typer.Option("--all", help="List every set of weights, under its publisher.")] = False,
    as_json: Json = False,
) -> None:
    """List the networks to start from: how accurate, how large, and whether their weights are at hand."""
    rows = backbone_rows()
    answer_with({"backbones": rows}, as_json, lambda: _show(rows, every=every))


def backbone_rows() -> list[dict[str, Any]]:
    """The catalogue as plain values."""
    from headstart.backbones.accuracies import TOP1
    from headstart.backbones.catalogue import BACKBONES, DEFAULT

    rows = []
    for backbone in BACKBONES.values():
        blueprint, record = backbone.blueprint(), backbone.weights
        shapes = blueprint.shapes()
        rows.append(
            {
                "name": backbone.name,
                "architecture": backbone.architecture,
                "default": backbone.name == DEFAULT,
                "imagenet_top1": TOP1.get(backbone.name),
                "parameters": sum(blueprint.parameters().values()),
                "multiply_adds": sum(blueprint.multiply_adds().values()),
                "features": sum(shapes[layer][0] for layer in backbone.layers),
                "pixels": backbone.spec.size,
                "licence": record.licence,
                "origin": record.origin,
                "weights": _weights(record),
            }
        )
    return rows


def _weights(record: WeightsRecord) -> str:
    """Whether they are at hand, and else how to come by them."""
    from headstart.backbones.download import at_hand

    if at_hand(record):
        return AT_HAND
    if record.url:
        return DOWNLOAD
    return pip_install(record.distribution) if record.distribution else OWN_FILE


def _show(rows: Sequence[dict[str, Any]], *, every: bool) -> None:
    """`headstart backbones`: the network of each architecture that is nearest at hand, or all under their origins."""
    out, wide = console(), max(len(row["name"]) for row in rows)
    short = {AT_HAND: "at hand", DOWNLOAD: "online", OWN_FILE: "yours"}
    counts = Counter(row["architecture"] for row in rows)

    def line(*cells: str) -> str:
        name, *numbers, weights = cells
        beside = "".join(f" {cell:>{size}}" for cell, size in zip(numbers, WIDTHS, strict=True))
        return f"{name:<{wide}}{beside}  {weights}"

    def show(row: Mapping[str, Any], others: int = 0) -> None:
        top1 = f"{row['imagenet_top1']:.1f}%" if row["imagenet_top1"] else "–"
        millions = (f"{row[key] / 1e6:,.1f} M" for key in ("parameters", "multiply_adds"))
        weights = f"{short.get(row['weights'], 'install')}{f'  +{others}' if others else ''}"
        text = line(row["name"], top1, *millions, str(row["pixels"]), weights)
        out.print(Text(text, "bold" if row["default"] else ""), soft_wrap=True)

    out.print(Text(line("name", "ImageNet", "parameters", "multiply-adds", "pixels", "weights"), "bold"))
    if every:
        for (origin, licence), group in groupby(rows, lambda row: (row["origin"], row["licence"])):
            out.print(Text(f"{origin} ({licence})", "dim"))
            for row in group:
                show(row)
    else:
        rows = _one_each(rows)
        for row in rows:
            show(row, counts[row["architecture"]] - 1)
        out.print("\n+3: three other sets of weights. All of them: headstart backbones --all")
    default = next(row["name"] for row in rows if row["default"])
    out.print(f"{default} is what fit takes by itself. ImageNet: top-1, as published.")
    if any(row["weights"] == DOWNLOAD for row in rows):
        out.print("online: fetched from its publisher when it is first asked for.", soft_wrap=True)
    if own := [row["name"] for row in rows if row["weights"] == OWN_FILE]:
        out.print(f"yours: headstart fit DATA --backbone {own[0]} --weights FILE", soft_wrap=True)
    for row in rows:
        if row["weights"] not in short:
            out.print(f"{row['name']}: {row['weights']}", soft_wrap=True)


def _one_each(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each architecture the weights that need least; what is at hand first, else in the catalogue's order."""

    def need(row: Mapping[str, Any]) -> int:
        return ORDER.index(row["weights"]) if row["weights"] in ORDER else len(ORDER)

    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        kept = found.get(row["architecture"])
        if kept is None or need(row) < need(kept):
            found[row["architecture"]] = row
    return sorted(found.values(), key=need)
