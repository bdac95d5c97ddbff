"""`headstart evaluate`: how a model does on labelled photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.figures import add_confusions, add_figures, add_left_out
from headstart.cli.terminal import FEW, Rows, console
from headstart.core.text import all_shortened, one_line
from headstart.core.types import Evaluation

WRONG = 5  # images with a wrong label that a screen shows


def evaluate(
    model: options.Model,
    data: options.Data,
    training_set_too: Annotated[
        bool, typer.Option("--include-training-set", help="Include images of the training set.")
    ] = False,
    fitted_on_too: Annotated[bool, typer.Option("--fitted-on-too", hidden=True)] = False,  # its first name
    engine: options.Engine = "auto",
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    label: options.LabelColumn = None,
    image: options.ImageColumn = None,
    group: options.GroupColumn = None,
    split: options.SplitColumn = None,
    label_from: options.LabelFrom = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write confusions, wrong images and calibration here."),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Measure a model on labelled photos that are not in its training set: on the test part, where the data has one."""
    from headstart.model.stored import is_tabular_model
    from headstart.plots import calibration, confusion

    if out is not None:
        options.check_new_files(out, (*confusion.FILES, *calibration.FILES), overwrite)
    things = "rows" if is_tabular_model(model) else "images"
    if things == "rows":
        from headstart.model.tabular_classifier import load_rows

        rows = load_rows(model)
        result, classes = rows.evaluate(data, label=label), rows.classes
    else:
        normalisation = options.normalisation(mean, std)
        classifier = options.open_model(model, weights, engine, precision, device, normalisation)
        source = options.source(data, label, image, group, split, label_from)
        result = classifier.evaluate(source, fitted_on_too=training_set_too or fitted_on_too)
        classes = classifier.classes

    def write(folder: str) -> list[Path]:
        return [*confusion.write_confusions(result, classes, folder), *calibration.write_calibration(result, folder)]

    paths, failed = options.attempted(lambda: write(out) if out else [])
    files = [*map(str, paths or [])]
    screen = partial(_show, result, things, classes, files)
    options.answer_with(_answer(result) | {"files": files}, as_json, screen, failed)


def _answer(result: Evaluation) -> dict[str, Any]:
    return asdict(result) | {
        "accuracy": result.accuracy.value,
        "interval": [result.accuracy.low, result.accuracy.high],
        "images": result.accuracy.images,
    }


def _show(result: Evaluation, things: str, classes: Sequence[str], files: Sequence[str]) -> None:
    """How a model did."""
    rows, short = Rows(), all_shortened(classes)
    add_figures(rows, result, things)
    rows.add("macro F1", f"{result.macro_f1:.3f}")
    rows.add("NLL", f"{result.nll:.3f}")
    passed = result.passed_over
    apart = f" (not counted: {passed} in the training set, or near copies of those)" if passed else ""
    if things == "rows":
        apart = " (those that it was trained on count too: a model of rows keeps none of them)"
    rows.add(things, f"{result.accuracy.images}{apart}")
    add_left_out(rows, result.left_out or ())
    add_confusions(rows, result.confusions, classes)
    worst = sorted(result.per_class.items(), key=lambda item: item[1].value)[:FEW]
    if len(result.per_class) > 2:
        rows.add("hardest", Text(", ".join(f"{short[name]} {figure.value:.0%}" for name, figure in worst)))
    for place, each in enumerate((result.wrong or ())[:WRONG]):
        text = f"{short[each.truth]} as {short[each.label]} {each.probability:.1%}  "
        rows.add("" if place else "surest", Text(text) + Text(one_line(each.name), "dim"))
    if (more := len(result.wrong or ()) - WRONG) > 0:
        rows.add("", Text(f"and {more} more: --json or --out DIR has them all", "dim"))
    if files:
        rows.add("files", Text("  ".join(map(one_line, files))), whole=True)
    rows.show(console())
