"""The commands that only look: at data, networks, and what is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.errors import UsageError
from headstart.options import Data, Json, Model, Pixels, answer_with


def check(data: Data, as_json: Json = False) -> None:
    """Look for unreadable, wrongly named and repeated images, tiny classes and imbalance."""
    from headstart import screens
    from headstart.data.check import check as check_data

    with screens.progress() as report:
        health = check_data(data, lambda done, count: report("looking", done, count))
    answer_with(health.as_json(), as_json, lambda: screens.show_health(health, data))


def show(
    name: Model,
    graph: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw its computational graph, too: FILE.svg or FILE.html.")
    ] = None,
    pixels: Pixels = None,
    as_json: Json = False,
) -> None:
    """Print a network as a table: layers, shapes, parameters, multiply-adds. Or draw it."""
    from headstart import screens
    from headstart.backbones.catalogue import find_backbone
    from headstart.bundle import is_bundle, load
    from headstart.drawing.page import draw, why_not_drawable
    from headstart.terminal import one_line

    if graph is not None and (problem := why_not_drawable(graph)):
        raise UsageError(problem)
    blueprint = load(name).blueprint if is_bundle(name) else find_backbone(name).blueprint()
    answer = screens.blueprint_rows(blueprint, pixels)
    answer["graph"] = None if graph is None else str(draw(blueprint, graph, pixels))
    answer_with(answer, as_json, lambda: screens.show_blueprint(blueprint, pixels))
    if graph is not None and not as_json:
        typer.echo(f"graph: {one_line(answer['graph'])}")


def backbones(as_json: Json = False) -> None:
    """List the networks to start from, and whether their weights are at hand."""
    from headstart import screens

    rows = screens.backbone_rows()
    answer_with({"backbones": rows}, as_json, lambda: screens.show_backbones(rows))


def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove all, or the features that the next options name.")
    ] = False,
    days: Annotated[float | None, typer.Option(help="With --prune: those not used for so many days.")] = None,
    max_gb: Annotated[
        float | None, typer.Option(help="With --prune: the longest unused, until so many GB are left.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how much is kept of earlier fits, and of weights that were fetched, and remove it."""
    from headstart import screens
    from headstart.backbones.download import kept_files
    from headstart.backbones.download import prune as prune_weights
    from headstart.learn.store import prune as prune_spaces
    from headstart.learn.store import spaces

    if not prune and (days is not None or max_gb is not None):
        raise UsageError("--days and --max-gb say what to remove; add --prune to remove it.")
    freed = 0
    if prune:
        limit = None if max_gb is None else int(max_gb * 1e9)
        freed = prune_spaces(older_than_days=days, max_bytes=limit, everything=days is None and max_gb is None)
        freed += prune_weights() if days is None and max_gb is None else 0
    kept, weights = spaces(), kept_files()
    answer = {
        "freed": freed,
        "bytes": sum(space.size for space in kept) + sum(weights.values()),
        "spaces": [
            {"id": s.space, "images": s.rows, "bytes": s.size, "last_used": s.last_used, **s.description} for s in kept
        ],
        "weights": [{"file": str(path), "bytes": size} for path, size in weights.items()],
    }
    answer_with(answer, as_json, lambda: screens.show_cache(kept, weights.values(), freed if prune else None))
