"""`headstart compare`: several networks and sizes on the same photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from headstart.cli import options
from headstart.cli.fit import fit
from headstart.cli.terminal import Rows, console, quoted
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.workflows.compare import Comparison
    from headstart.workflows.ranking import Candidate

RIGHT = ("px", "accuracy", "95 %", "points", "p", "LogME", "img/s", "MB", "s")


Budget = Annotated[
    float | None,
    typer.Option(metavar="SPEED", help="Choose the most accurate with at least this many images a second."),
]
Within = Annotated[
    float | None,
    typer.Option(metavar="POINTS", help="Choose the fastest at most so many points below the best. Default: 1."),
]


def compare(
    data: options.Data,
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…", help="Names from: headstart backbones. Default: all whose weights are installed."
        ),
    ] = None,
    pixels: Annotated[
        str | None,
        typer.Option(metavar="SIZE,…", help="Scale images to each of these sizes. Default: each network's own."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Weights of your own for one of them; may be repeated."),
    ] = None,
    budget: Budget = None,
    within: Within = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Draw the plot into this folder.")] = None,
    head: options.Head = "lda",
    prior: options.Prior = "flat",
    holdout: options.Holdout = 0.2,
    seed: options.Seed = 0,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    cache: options.Cache = True,
    label: options.LabelColumn = None,
    image: options.ImageColumn = None,
    group: options.GroupColumn = None,
    split: options.SplitColumn = None,
    label_from: options.LabelFrom = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Fit several networks and sizes on the same photos, and choose the fastest within a point of the best."""
    from headstart.plots.comparison import FILES, plot_comparison
    from headstart.workflows.compare import compare as compare_networks

    if out is not None:
        options.check_new_files(out, FILES, overwrite)
    own = options.files_of(weights or [])
    names = None if backbones is None else options.names_of("--backbones", backbones)
    sizes = () if pixels is None else options.sizes_of(pixels)
    columns = {"label": label, "image": image, "group": group, "split": split, "label_from": label_from}
    settings: dict[str, Any] = {
        "head": head, "prior": prior, "holdout": holdout, "seed": seed,
        "engine": engine, "precision": precision, "device": device,
    }  # fmt: skip
    found = compare_networks(
        options.source(data, **columns), backbones=names, pixels=sizes, weights=own,
        budget=budget, within=within, cache=cache, **settings,
    )  # fmt: skip
    again = "" if found.chosen is None else _next(found.chosen, data, own, settings | columns)
    paths, failed = options.attempted(lambda: plot_comparison(found.rows, found.chosen, out) if out else [])
    files = [*map(str, paths or [])]
    options.answer_with(found.as_json() | {"files": files}, as_json, lambda: _show(found, files, again), failed)
    if found.chosen is None:
        raise UsageError(found.sentence)


def _show(found: Comparison, files: Sequence[str], again: str) -> None:
    """The table, what its signs mean, the choice and how to go on from it."""
    out, rows = console(), Rows()
    left = f", test set {found.test} (untouched: it is for the fit)" if found.test else ""
    rows.add("data", f"{counted(len(found.classes), 'class')}; training set {found.train}{left}")
    rows.add("measured", f"on {counted(found.images, 'image')} of the training set, each left out in turn")
    for problem in found.skipped:
        rows.add("passed over", Text(f"{problem.name}: {one_line(problem.detail)}", "yellow"))
    for assumed in dict.fromkeys(row.assumed for row in found.rows if row.assumed):
        rows.add("assumed", Text(one_line(assumed), "yellow"))
    rows.show(out)
    out.print()
    out.print(_table(found))
    out.print()

    rows = Rows()
    if any(row.difference and row.may_be_noise for row in found.rows):
        rows.add("≈", "the difference may be noise (McNemar, mid-p)")
    rows.add("LogME", "what the features promise without a fit; more is better")
    if len(found.rows) > 1:
        rows.add("•", "no other is both faster and more accurate")
    if found.chosen is not None:
        rows.add("choice", Text(found.sentence, "bold"))
    if files:
        rows.add("plot", Text("  ".join(one_line(file) for file in files)), whole=True)
    if found.chosen is not None:
        rows.add("next", Text(again, "cyan"), whole=True)
    rows.show(out)


def _table(found: Comparison) -> Table:
    table = Table("", "network", box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for title in RIGHT:
        table.add_column(title, justify="right", no_wrap=True)
    for row in found.rows:
        chosen = row is found.chosen
        low, high = f"{100 * row.accuracy.low:.1f}", f"{100 * row.accuracy.high:.1f}"
        table.add_row(
            "→" if chosen else "",
            row.backbone,
            str(row.pixels),
            f"{row.accuracy.value:.1%}",
            f"{low}–{high}",
            *_beside(row, found.rows[0]),
            f"{row.logme:.2f}".replace("-", "−"),
            f"{_short(row.images_per_second)}{'•' if row.pareto and len(found.rows) > 1 else ' '}",
            _short(row.megabytes),
            _short(row.seconds),
            style="bold green" if chosen else "",
        )
    return table


def _beside(row: Candidate, best: Candidate) -> tuple[str, str]:
    """How many points below the best, and how sure that is."""
    if row is best:
        return "best", ""
    noise = "≈" if row.may_be_noise else ""
    return f"{noise}{100 * row.difference:.1f}".replace("-", "−"), "<.001" if row.p < 0.001 else f"{row.p:.2g}"


def _short(value: float) -> str:
    """Three digits, about."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _next(chosen: Candidate, data: str, weights: Mapping[str, str], others: Mapping[str, object]) -> str:
    """The fit of the candidate, split as it was here."""
    which = f"--backbone {chosen.backbone} --pixels {chosen.pixels}"
    options_given = options.again(fit, weights=weights.get(chosen.backbone), **others)
    return f"headstart fit {quoted(data)} {which}{options_given}"
