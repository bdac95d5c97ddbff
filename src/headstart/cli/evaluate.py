"""`headstart evaluate`: how a model does on labelled photos."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.figures import add_confusions, add_figures, add_left_out
from headstart.cli.terminal import FEW, Rows, console
from headstart.core.text import one_line
from headstart.core.types import Evaluation


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
    as_json: options.Json = False,
) -> None:
    """Measure a model on labelled photos that are not in its training set: on the test part, where the data has one."""
    normalisation = options.normalisation(mean, std)
    classifier = options.open_model(model, weights, engine, precision, device, normalisation)
    source = options.source(data, label, image, group, split, label_from)
    result = classifier.evaluate(source, fitted_on_too=training_set_too or fitted_on_too)
    answer = asdict(result) | {
        "accuracy": result.accuracy.value,
        "interval": [result.accuracy.low, result.accuracy.high],
        "images": result.accuracy.images,
    }
    options.answer_with(answer, as_json, lambda: _show(result))


def _show(result: Evaluation) -> None:
    """How a model did."""
    rows = Rows()
    add_figures(rows, result)
    rows.add("macro F1", f"{result.macro_f1:.3f}")
    rows.add("NLL", f"{result.nll:.3f}")
    passed = result.passed_over
    apart = f" (not counted: {passed} in the training set, or near copies of those)" if passed else ""
    rows.add("images", f"{result.accuracy.images}{apart}")
    add_left_out(rows, result.left_out or ())
    add_confusions(rows, result.confusions)
    worst = sorted(result.per_class.items(), key=lambda item: item[1].value)[:FEW]
    if len(result.per_class) > 2:
        rows.add("hardest", Text(", ".join(f"{one_line(name)} {figure.value:.0%}" for name, figure in worst)))
    rows.show(console())
