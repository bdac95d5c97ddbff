"""`headstart report`: one page on a model, for people, and the same for machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.figures import add_left_out
from headstart.cli.terminal import Rows, accuracy_text, console
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.report.records import Report

MEASURES = {"corrupted": "--corruptions", "from_scratch": "--from-scratch", "robustness": "--attack"}


def report(
    model: options.Model,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="Labelled photos to measure on and to show; else the fit's figures."),
    ] = None,
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
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the page goes.")] = "report",
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also measure on noisy, blurred, turned photos: a minute.")
    ] = False,
    scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Also train a small network from random weights: a minute.")
    ] = False,
    attack: Annotated[bool, typer.Option("--attack", help="Also measure under attack: minutes.")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write a page on a model: how accurate it is, its worst mistakes, and what to do next. It opens in any browser."""
    from headstart.report.records import FILES
    from headstart.report.write import write_report

    options.check_new_files(out, FILES, overwrite)
    wanted = {"corrupted": corruptions, "from_scratch": scratch, "robustness": attack}
    measures = [name for name, on in wanted.items() if on]
    if data is None and measures:
        option = MEASURES[measures[0]]
        raise UsageError(f"{option} goes with DATA: headstart report MODEL DATA {option}")
    columns = {"label": label, "image": image, "group": group, "split": split, "label-from": label_from}
    if data is None and (given := [name for name, value in columns.items() if value is not None]):
        raise UsageError(f"--{given[0]} goes with DATA: headstart report MODEL DATA")
    normal = options.normalisation(mean, std)
    source = None if data is None else options.source(data, label, image, group, split, label_from)
    classifier = options.open_model(model, weights, engine, precision, device, normal)
    measured = _measured(classifier, source, measures, not as_json)
    found = write_report(classifier, source, out=out, overwrite=overwrite, progress=not as_json, **measured)
    options.answer_with(_answer(found), as_json, lambda: _show(found, _in_words(measured)))


def _measured(classifier: Any, source: Any, measures: Sequence[str], progress: bool) -> dict[str, Any]:
    """What takes its time, and is measured only where it is asked for."""
    from headstart.attack.robustness import robustness
    from headstart.workflows.corruptions import corrupted
    from headstart.workflows.transfer import from_scratch

    functions: dict[str, Callable[..., Any]] = {
        "corrupted": corrupted,
        "from_scratch": from_scratch,
        "robustness": robustness,
    }
    return {name: functions[name](classifier, source, progress=progress) for name in measures}


def _in_words(measured: Mapping[str, Any]) -> dict[str, str]:
    """What was measured beside, in a line each."""
    said = {}
    if photos := measured.get("corrupted"):
        kinds = {each.kind: [one for one in photos if one.kind == each.kind] for each in photos}
        said["bad quality"] = "; ".join(
            f"{kind} " + ", ".join(f"{one.accuracy.value:.0%}" for one in each) for kind, each in kinds.items()
        )
    if scratch := measured.get("from_scratch"):
        said["from scratch"] = scratch.sentence
    if attacked := measured.get("robustness"):
        from headstart.attack.plan import epsilon_text

        text = partial(epsilon_text, norm=attacked.norm)
        said["under attack"] = ", ".join(
            f"{point.accuracy.value:.0%} at {text(point.epsilon)}" for point in attacked.curve
        )
    return said


def _answer(found: Report) -> dict[str, Any]:
    accuracy = found.accuracy
    return {
        "report": str(found.html),
        "json": str(found.json),
        "verdict": found.verdict,
        "next_step": found.next_step,
        "accuracy": accuracy.value if accuracy else None,
        "interval": [accuracy.low, accuracy.high] if accuracy else None,
        "size_mb": found.size_mb,
        "pictures": found.pictures,
        "note": found.note or None,
    }


def _show(found: Report, measured: Mapping[str, str]) -> None:
    """The verdict, the next step, and where the page is."""
    rows = Rows()
    if found.verdict:
        rows.add("verdict", Text(found.verdict, "bold green" if found.verdict == "healthy" else "bold yellow"))
        rows.add("", one_line(found.sentence))
    else:
        rows.add("verdict", Text("none: this model has no diagnosis", "dim"))
    if found.accuracy:
        rows.add("accuracy", accuracy_text(found.accuracy.value, found.accuracy.low, found.accuracy.high))
    add_left_out(rows, found.left_out)
    for name, words in measured.items():
        rows.add(name, words)
    if found.note:
        rows.add("note", Text(one_line(found.note), "yellow"))
    if found.next_step:
        rows.add("next", Text(one_line(found.next_step), "bold"))
    rows.add("page", Text(f"{one_line(str(found.html))}  {found.size_mb:.2f} MB"), whole=True)
    rows.add("", Text(one_line(str(found.json))), whole=True)
    rows.show(console())
