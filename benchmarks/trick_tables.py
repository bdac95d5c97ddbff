"""The figures of `tricks.py` in Markdown, as docs/training_tricks.md has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness import ROOT
from trick_labs import LABS

Record = Mapping[str, Any]
SHOWN = 8  # epochs of a curve, about
PAGE = ROOT / "docs" / "training_tricks.md"
_PLACE = re.compile(r"(<!-- figures: (.+) -->\n)((?:\|.*\n)*)")  # a name, and the table below it


def page_tables(result: Record) -> dict[str, list[str]]:
    """Name -> the lines of its table, of all that a result holds."""
    found = {"optimiser": optimiser_table(result["optimisers"])} if result["optimisers"] else {}
    for trick in result["tricks"]:
        found[trick["name"]] = trick_table(trick)
        if trick["name"].startswith("overfitting"):
            found[f"{trick['name']}: curves"] = curve_table(trick)
    return found


def filled(page: str, result: Record) -> str:
    """The page with the figures of a result; a table of which the result knows nothing stays as it is."""
    tables = page_tables(result)
    return _PLACE.sub(lambda m: m[1] + ("\n".join([*tables[m[2]], ""]) if m[2] in tables else m[3]), page)


def places(page: str) -> dict[str, str]:
    """Name -> the table below it, which may be empty."""
    return {name: table for _, name, table in _PLACE.findall(page)}


def trick_table(trick: Record) -> list[str]:
    """A trick's settings, each against the first."""
    steps = any(row["reached"] for row in trick["rows"])
    head = [f"{trick['name']} ({trick['lab']})", "training error", "test error", "test loss"]
    head += [f"steps to a training loss of {LABS[trick['lab']].reach:g}"] if steps else []
    rows = []
    for row in trick["rows"]:
        cells = [row["setting"], _share(row["train_error"][:1]), _share(row["test_error"]), _loss(row["test_loss"])]
        cells += [str(row["reached"] or "never")] if steps else []
        rows.append([*cells, row["against"]])
    return _lines([*head, "against the first"], rows)


def optimiser_table(rows: Sequence[Record]) -> list[str]:
    """Each optimiser at its best rate."""
    head = ["optimiser (digits)", "best of five rates", "the finder proposes", "test error", "test loss"]
    return _lines(
        head,
        [
            [
                row["optimiser"],
                f"{row['rate']:g}",
                "none" if row["proposed"] is None else f"{row['proposed']:.1g}",
                _share(row["test_error"]),
                _loss(row["test_loss"]),
            ]
            for row in rows
        ],
    )


def curve_table(trick: Record) -> list[str]:
    """Training and validation side by side, of the first seed of each setting."""
    curves = {row["setting"]: row["curve"] for row in trick["rows"]}
    epochs = min(map(len, curves.values()))
    every = max(1, epochs // SHOWN)
    head = ["epoch", *(f"{name}: training, validation" for name in curves)]
    rows = []
    for place in sorted({0, *range(every - 1, epochs, every), epochs - 1}):
        sides = [[f"{c[place][f'{side}_loss']:.2f}" for side in ("train", "val")] for c in curves.values()]
        errors = [[f"{100 * c[place][f'{side}_error']:.0f} %" for side in ("train", "val")] for c in curves.values()]
        cells = [f"{a[0]} ({b[0]}), {a[1]} ({b[1]})" for a, b in zip(sides, errors, strict=True)]
        rows.append([str(place + 1), *cells])
    return _lines(head, rows)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]]


def _share(values: Sequence[float]) -> str:
    low_high = f" ({100 * values[1]:.1f} to {100 * values[2]:.1f})" if len(values) > 1 else ""
    return f"{100 * values[0]:.1f} %{low_high}"


def _loss(values: Sequence[float]) -> str:
    middle, least, most = (f"{value:.2f}" if value < 100 else f"{value:.0e}" for value in values)
    return f"{middle} ({least} to {most})"
