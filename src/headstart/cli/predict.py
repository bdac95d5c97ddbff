"""`headstart predict`: what is on photos, a line each."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.terminal import console
from headstart.core.text import one_line, shortened
from headstart.core.types import Prediction, Problem

LABEL = 24  # characters of the column of labels; of a longer one the middle is left out


def predict(
    model: options.Model,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, or folders of images; for a model of numbers, CSV files."),
    ],
    engine: options.Engine = "auto",
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say what is on photos: label and calibrated probability, or "unknown". A line, or a JSON object, a photo."""
    from headstart.data.sources import unlabelled
    from headstart.model.tabular_classifier import is_tabular_model, load_rows

    if is_tabular_model(model):
        rows = load_rows(model)
        for path in paths:
            for said in rows.predict_file(path):
                show_prediction(said, as_json)
        return
    normalisation = options.normalisation(mean, std)
    classifier = options.open_model(model, weights, engine, precision, device, normalisation)
    dataset = unlabelled(paths)
    unreadable = len(dataset.problems)
    for problem in dataset.problems:
        show_problem(problem, as_json)
    for item in classifier.predictions(dataset):
        if isinstance(item, Problem):
            unreadable += 1
            show_problem(item, as_json)
        else:
            show_prediction(item, as_json)
    if unreadable:
        raise typer.Exit(3)


def show_prediction(item: Prediction, as_json: bool) -> None:
    """One line for one image."""
    if as_json:
        _json(asdict(item))
        return
    label, path = shortened(item.label, LABEL), one_line(item.path)
    if item.unknown:
        why = f"   (unlike the training photos; closest class: {label})"
        line = Text(f"{'unknown':<{LABEL}}", "yellow") + Text(f" {'':6}  {path}") + Text(why, "dim")
    else:
        line = Text(f"{label:<{LABEL}}", "bold") + Text(f" {item.probability:6.1%}  {path}")
    console().print(line, soft_wrap=True)


def show_problem(item: Problem, as_json: bool) -> None:
    """One line for one image that could not be read: an object with an error in it, or words on standard error."""
    if as_json:
        _json({"path": item.name, "error": item.kind, "detail": item.detail})
    else:
        sys.stderr.write(f"{item.kind}: {one_line(item.name)}: {one_line(item.detail)}\n")


def _json(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
