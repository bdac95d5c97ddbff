"""`headstart cache`: what is kept of earlier work, and how to remove it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from headstart.cli.options import Json, answer_with, attempted
from headstart.cli.terminal import console
from headstart.core.counts import counted
from headstart.core.errors import UsageError

if TYPE_CHECKING:
    from headstart.learn.feature_cache import SpaceInfo


def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Remove all, or what the next options select.")] = False,
    days: Annotated[
        float | None, typer.Option(metavar="N", help="With --prune: features not used for this many days.")
    ] = None,
    max_gb: Annotated[
        float | None, typer.Option(metavar="N", help="With --prune: the longest unused, until this many GB are left.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the size of the feature cache and of downloaded weights, or remove them."""
    from headstart.backbones.download import kept_files
    from headstart.backbones.download import prune as prune_weights
    from headstart.learn.feature_cache import prune as prune_spaces
    from headstart.learn.feature_cache import spaces
    from headstart.scale.store import kept_spaces, prune_store

    if not prune and (days is not None or max_gb is not None):
        raise UsageError("--days and --max-gb say what to remove; add --prune to remove it.")
    for option, value in (("--days", days), ("--max-gb", max_gb)):
        if value is not None and value < 0:
            raise UsageError(f"{option}: expected 0 or more. Received: {value:g}.")
    everything, size = days is None and max_gb is None, _size([*spaces(), *kept_spaces()], kept_files())
    failed: list[UsageError | None] = []
    if prune:
        limit = None if max_gb is None else int(max_gb * 1e9)
        chosen = partial(prune_spaces, older_than_days=days, max_bytes=limit, everything=everything)
        on_cluster = partial(prune_store, older_than_days=days, max_bytes=limit, everything=everything)
        failed = [attempted(chosen)[1], attempted(on_cluster)[1], attempted(prune_weights)[1] if everything else None]
    kept, weights = [*spaces(), *kept_spaces()], kept_files()
    freed = size - _size(kept, weights) if prune else 0
    answer = {
        "freed": freed,
        "bytes": _size(kept, weights),
        "spaces": [
            {"id": s.space, "images": s.rows, "bytes": s.size, "last_used": s.last_used, **s.description} for s in kept
        ],
        "weights": [{"file": str(path), "bytes": size} for path, size in weights.items()],
    }
    screen = partial(_show, kept, weights.values(), freed if prune else None)
    answer_with(answer, as_json, screen, next(filter(None, failed), None))


def _size(spaces: Sequence[SpaceInfo], weights: Mapping[Path, int]) -> int:
    return sum(space.size for space in spaces) + sum(weights.values())


def _show(spaces: Sequence[SpaceInfo], weights: Collection[int], freed: int | None) -> None:
    """`headstart cache`: features, and files of weights by their bytes."""
    out = console()
    if freed is not None:
        out.print(f"Freed {freed / 1e6:.1f} MB.")
    if not spaces and not weights:
        out.print("Nothing is kept.")
        return
    table = Table("backbone", "pixels", "precision", box=None, header_style="bold", pad_edge=False)
    for title in ("images", "MB"):
        table.add_column(title, justify="right")
    for space in spaces:
        about = space.description
        image = about.get("image")
        size = str(image.get("size", "?")) if isinstance(image, dict) else "?"
        kind = str(about.get("backbone", "damaged"))
        table.add_row(kind, size, str(about.get("precision", "?")), str(space.rows), f"{space.size / 1e6:.1f}")
    if spaces:
        out.print(table)
    if weights:
        out.print(f"weights: {counted(len(weights), 'file')}, {sum(weights) / 1e6:.1f} MB")
    whole = sum(space.size for space in spaces) + sum(weights)
    out.print(f"{whole / 1e6:.1f} MB in all. Remove with: headstart cache --prune")
