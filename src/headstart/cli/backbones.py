"""`headstart backbones`: the networks to start from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from headstart.cli.options import Json, answer_with
from headstart.cli.terminal import console
from headstart.core.install import pip_install

if TYPE_CHECKING:
    from headstart.backbones.weights import WeightsRecord

AT_HAND, DOWNLOAD, OWN_FILE = "at hand", "download", "--weights FILE"  # what becomes of a backbone's weights
WIDTHS = (10, 13, 8, 6)  # of the numbers in the table of backbones


def backbones(as_json: Json = False) -> None:
    """List the networks to start from, and whether their weights are installed."""
    rows = backbone_rows()
    answer_with({"backbones": rows}, as_json, lambda: _show(rows))


def backbone_rows() -> list[dict[str, Any]]:
    """The catalogue as plain values."""
    from headstart.backbones.catalogue import BACKBONES, DEFAULT

    rows = []
    for backbone in BACKBONES.values():
        blueprint, record = backbone.blueprint(), backbone.weights
        shapes = blueprint.shapes()
        rows.append(
            {
                "name": backbone.name,
                "default": backbone.name == DEFAULT,
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


def _show(rows: Sequence[dict[str, Any]]) -> None:
    """`headstart backbones`: under each origin its networks."""
    out, wide = console(), max(len(row["name"]) for row in rows)

    def line(*cells: str) -> str:
        name, *numbers, weights = cells
        beside = "".join(f"  {cell:>{size}}" for cell, size in zip(numbers, WIDTHS, strict=True))
        return f"{name:<{wide}}{beside}  {weights}"

    out.print(Text(line("name", "parameters", "multiply-adds", "features", "pixels", "weights"), "bold"))
    short = {AT_HAND: "at hand", DOWNLOAD: "online", OWN_FILE: "yours"}
    for (origin, licence), group in groupby(rows, lambda row: (row["origin"], row["licence"])):
        out.print(Text(f"{origin} ({licence})", "dim"))
        for row in group:
            millions = (f"{row[key] / 1e6:,.1f} M" for key in ("parameters", "multiply_adds"))
            numbers = (*millions, str(row["features"]), str(row["pixels"]))
            text = line(row["name"], *numbers, short.get(row["weights"], "install"))
            out.print(Text(text, "bold" if row["default"] else ""), soft_wrap=True)
    default = next(row["name"] for row in rows if row["default"])
    out.print(f"\n{default} is what fit takes by itself.")
    if any(row["weights"] == DOWNLOAD for row in rows):
        out.print("online: fetched from its publisher when it is first asked for.", soft_wrap=True)
    if own := [row["name"] for row in rows if row["weights"] == OWN_FILE]:
        out.print(f"yours: headstart fit DATA --backbone {own[0]} --weights FILE", soft_wrap=True)
    for row in rows:
        if row["weights"] not in short:
            out.print(f"{row['name']}: {row['weights']}", soft_wrap=True)
