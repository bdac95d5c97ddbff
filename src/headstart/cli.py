"""The command line: each command turns its words into one call of the library, and the answer into a screen or JSON."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart import __version__, finetune_command, looking, train_command
from headstart.errors import HeadstartError, UsageError
from headstart.options import (
    Backbone,
    Cache,
    Data,
    Engine,
    Head,
    Holdout,
    Json,
    Model,
    Pixels,
    Precision,
    Prior,
    Seed,
    Weights,
    answer_with,
    figures_of,
    files_of,
    names_of,
    open_model,
    say,
    sizes_of,
)

if TYPE_CHECKING:
    from headstart.classifier import Classifier

app = typer.Typer(
    name="headstart",
    help="A folder of labelled photos becomes an image classifier you can trust, in seconds, on an ordinary machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130


def main() -> None:
    """Run a command and end with its exit code; errors are a sentence, never a traceback (but with --debug)."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name that the terminal has no letters for is no reason to stop
                stream.reconfigure(errors="backslashreplace")
        code = app(args=arguments, prog_name="headstart", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer turns Ctrl-C into an exit code
            raise KeyboardInterrupt
    except HeadstartError as error:
        if debug:
            raise
        say(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted. What was computed is kept: the same command goes on from there.")
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit):  # whoever read the output has had enough; typer and rich make it an exit
        _mute()
        code = 0
    except OSError as error:  # a disk or a file gave up where nothing better could be said
        if debug:
            raise
        say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
        _mute()
        code = UsageError.exit_code
    except Exception as error:
        if debug:
            raise
        code = _unforeseen(error)
    sys.exit(code if isinstance(code, int) else 0)


def _unforeseen(error: Exception) -> int:
    if hasattr(error, "exit_code") and hasattr(error, "show"):  # the command line itself was wrong
        error.show()
        return int(error.exit_code)
    say(f"{type(error).__name__}: {error}. This was not foreseen; with --debug it shows where it happened.")
    return 1


def _mute() -> None:
    """Let nothing that is still in the buffer of standard output complain on the way out."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """A folder of labelled photos becomes an image classifier you can trust, in seconds, on an ordinary machine."""


app.command()(looking.check)


@app.command()
def fit(
    data: Data,
    out: Annotated[str, typer.Option(metavar="MODEL", help="Where the model goes.")] = "model",
    backbone: Backbone = "efficientnet_lite0",
    weights: Weights = None,
    pixels: Pixels = None,
    head: Head = "lda",
    prior: Prior = "flat",
    holdout: Holdout = 0.2,
    seed: Seed = 0,
    engine: Engine = "auto",
    precision: Precision = "auto",
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Fit a classifier on labelled photos, measure it on photos it has not seen, and save it."""
    from headstart import screens
    from headstart.bundle import save, why_not_writable
    from headstart.fitting import fit as fit_classifier

    if problem := why_not_writable(out):
        raise UsageError(problem)
    start = time.perf_counter()
    with screens.progress() as report:
        model = fit_classifier(
            data, backbone=backbone, weights=weights, pixels=pixels, head=head, prior=prior, holdout=holdout,
            seed=seed, engine=engine, precision=precision, cache=cache, progress=report,
        )  # fmt: skip
    saving = time.perf_counter()
    where = save(model, out)
    now = time.perf_counter()
    model.record["seconds"]["save"] = round(now - saving, 3)
    answer = _fit_answer(model, str(where), now - start)
    answer_with(answer, as_json, lambda: screens.show_fit(model, answer))


def _fit_answer(model: Classifier, where: str, seconds: float) -> dict[str, Any]:
    record = model.record
    result = record["result"]
    return {
        **figures_of(result),
        "images": record["images"],
        "classes": list(model.classes_),
        "seconds": round(seconds, 3),
        "stages": record["seconds"],
        "model": where,
        "confusions": result["confusions"] if result else [],
        "left_out": record["left_out"],
        "near_duplicates": record["near_duplicates"],
        "computed": record["computed"],
        "from_store": record["from_store"],
        "choice": record["choice"],
        **{key: record[key] for key in ("backbone", "pixels", "precision", "train", "test", "head", "store_problem")},
    }


@app.command()
def compare(
    data: Data,
    backbones: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="See: headstart backbones. Without it: all at hand.")
    ] = None,
    pixels: Annotated[
        str | None, typer.Option(metavar="SIZE,…", help="Scale images to each of these; else to each network's own.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Weights of your own for one of them; may be repeated."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="SPEED", help="Choose the most accurate with so many images a second.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(metavar="POINTS", help="Choose the fastest so near to the most accurate.")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Draw the plot into this folder.")] = None,
    head: Head = "lda",
    prior: Prior = "flat",
    holdout: Holdout = 0.2,
    seed: Seed = 0,
    engine: Engine = "auto",
    precision: Precision = "auto",
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Fit several networks and sizes on the same photos, and say which is the lightest that is not worse."""
    from headstart import comparison_screen
    from headstart.comparing import compare as compare_networks
    from headstart.plots import plot_comparison, why_no_folder

    if out is not None and (problem := why_no_folder(out)):
        raise UsageError(problem)
    own = files_of(weights or [])
    with comparison_screen.progress() as report:
        found = compare_networks(
            data, backbones=None if backbones is None else names_of(backbones), pixels=sizes_of(pixels or ""),
            weights=own, budget=budget, within=within, head=head, prior=prior, holdout=holdout,
            seed=seed, engine=engine, precision=precision, cache=cache, progress=report,
        )  # fmt: skip
    files = [] if out is None else [str(path) for path in plot_comparison(found.rows, found.chosen, out)]
    answer_with(found.as_json() | {"files": files}, as_json, lambda: comparison_screen.show(found, files, data, own))
    if found.chosen is None:
        raise UsageError(found.sentence)


@app.command()
def evaluate(
    model: Model,
    data: Data,
    fitted_on_too: Annotated[
        bool, typer.Option("--fitted-on-too", help="Count images that the model was fitted on.")
    ] = False,
    engine: Engine = "auto",
    weights: Weights = None,
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model on labelled photos that it was not fitted on: on the test part, where the data has one."""
    from dataclasses import asdict

    from headstart import screens

    classifier = open_model(model, weights, engine, precision)
    with screens.progress() as report:
        result = classifier.evaluate(data, fitted_on_too=fitted_on_too, progress=report)
    answer = asdict(result) | {
        "accuracy": result.accuracy.value,
        "interval": [result.accuracy.low, result.accuracy.high],
        "images": result.accuracy.images,
    }
    answer_with(answer, as_json, lambda: screens.show_evaluation(result))


@app.command()
def predict(
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, or folders of images; for a model of numbers, CSV files."),
    ],
    engine: Engine = "auto",
    weights: Weights = None,
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Say what is on photos: label and calibrated probability, or "unknown". A line, or a JSON object, a photo."""
    from headstart import screens
    from headstart.data.sources import unlabelled
    from headstart.row_classifier import is_row_model, load_rows
    from headstart.types import Problem

    if is_row_model(model):
        rows = load_rows(model)
        for path in paths:
            for said in rows.predict_file(path):
                screens.show_prediction(said, as_json)
        return
    classifier = open_model(model, weights, engine, precision)
    table = unlabelled(paths)
    unreadable = len(table.problems)
    for problem in table.problems:
        screens.show_problem(problem, as_json)
    for item in classifier.predictions(table):
        if isinstance(item, Problem):
            unreadable += 1
            screens.show_problem(item, as_json)
        else:
            screens.show_prediction(item, as_json)
    if unreadable:
        raise typer.Exit(3)


@app.command()
def export(
    model: Model,
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="onnx, openvino, keras, savedmodel, tflite or torch; or weights for keras-applications, torchvision "
            "or timm.",
        ),
    ],
    out: Annotated[str | None, typer.Option(metavar="PATH", help="Where it goes; nothing may be there.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="tflite: in int8, with labelled photos as --data.")] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labelled photos for int8: its ranges, and what it costs.")
    ] = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Write a model for another runtime, open it there, and hold its answers against the model's own."""
    from headstart.export.formats import default_path, find_format, target_of
    from headstart.export_screen import show_export

    found = find_format(to, int8=int8)
    path = default_path(found, model, int8=int8) if out is None else out
    target_of(found, path)  # before anything is loaded
    done = open_model(model, weights, "auto", "fp32").export(to, path, int8=int8, data=data)
    answer_with(done.as_json(), as_json, lambda: show_export(done))


app.command()(finetune_command.finetune)
app.command()(train_command.train)
for command in (looking.show, looking.backbones, looking.cache):
    app.command()(command)
