"""`headstart train`: a small network from random weights, on photos or on rows of numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.figures import add_left_out, add_seconds, add_training, figures_of, loading, still_falls
from headstart.cli.terminal import Rows, accuracy_text, console, quoted
from headstart.core.counts import counted
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.missing import why_missing
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.model.classifier import Classifier
    from headstart.model.records import FitRecord, ScratchRecord, TabularRecord
    from headstart.model.tabular_classifier import TabularClassifier

WIDEST = 65_536  # units of a hidden layer


TrainingData = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Photos, as fit takes them; or numbers: a CSV file with a line of names, iris, wine, breast_cancer.",
    ),
]
Network = Annotated[
    str | None, typer.Option(metavar="NAME", help="mlp or small_cnn. Default: small_cnn for photos, mlp for numbers.")
]
Hidden = Annotated[
    str | None,
    typer.Option(
        metavar="UNITS,…",
        help="Hidden layers of the mlp, as in 64,32, or none. Default: 512,256 for photos, 16 for numbers.",
    ),
]
Pixels = Annotated[
    int | None,
    typer.Option(metavar="N", help="Scale images to this size in pixels. Default: their own where small, else 64."),
]
Grey = Annotated[
    bool | None,
    typer.Option(
        "--grey/--colours", help="See photos as one channel, or as three. Default: one where they have no colours."
    ),
]
Start = Annotated[
    str | None,
    typer.Option("--from", metavar="MODEL", help="Go on with a model that train made, from the weights that it has."),
]
Holdout = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share held out as test set, where the data has none. Default: 0.2, or as for the model of --from.",
    ),
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Seed of the split. Default: 0, or that of the model of --from.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="scratch (for photos; small grey pictures, such as digits, are neither mirrored nor turned), table "
        '(for numbers), or a JSON file that begins with {"preset": "scratch"}.',
    ),
]
Folds = Annotated[
    int, typer.Option(metavar="K", help="Measure by K-fold cross-validation: K trainings, and one more on all.")
]
Label = Annotated[str | None, typer.Option(metavar="NAME", help="For numbers: the column of the labels.")]


def train(
    data: TrainingData,
    out: Annotated[str, typer.Option(metavar="MODEL", help="Where the model is written.")] = "model",
    network: Network = None,
    hidden: Hidden = None,
    pixels: Pixels = None,
    grey: Grey = None,
    start: Start = None,
    recipe: RecipeName = None,
    trainer: options.Trainer = "pytorch",
    device: options.Device = "auto",
    devices: options.Devices = 1,
    nodes: options.Nodes = 1,
    strategy: options.Strategy = "auto",
    find_rate: options.FindRate = False,
    folds: Folds = 0,
    label: Label = None,
    holdout: Holdout = None,
    seed: Seed = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Train a small network from random weights: for comparison, or for digits and rows of numbers."""
    from headstart.cli.ended_early import ended_early, folder_beside, write_result
    from headstart.data.rows import is_rows
    from headstart.model.files import why_not_writable
    from headstart.plots.curves import plot_curves
    from headstart.train.recipe import open_recipe
    from headstart.train.screen import training_screen
    from headstart.train.training_run import TrainingRun, is_main_process
    from headstart.workflows.train_images import SCRATCH, train_photos
    from headstart.workflows.train_tables import TABLE, train_rows

    began = time.perf_counter()
    numbers = is_rows(data)
    _check(data, numbers, label, network=network, pixels=pixels, grey=grey)
    if problem := why_not_writable(out, overwrite=overwrite):
        raise UsageError(problem)
    name = recipe or (TABLE if numbers else SCRATCH)
    folder = folder_beside(out)
    model: Classifier | TabularClassifier
    with ended_early(folder), training_screen(open_recipe(name).epochs, quiet=as_json) as screen:
        run = TrainingRun(
            trainer, device=device, devices=devices, nodes=nodes, strategy=strategy, find_rate=find_rate,
            folder=folder, resume=resume, callbacks=[screen], say=screen.say,
        )  # fmt: skip
        common: dict[str, Any] = {"recipe": name, "trainer": run, "folds": folds, "holdout": holdout, "seed": seed}
        common |= {"hidden": _units(hidden), "start": start and _open(start, numbers=numbers), "progress": screen}
        if numbers:
            model = train_rows(data, label=label, **common)
        else:
            model = train_photos(data, network=network, pixels=pixels, grey=grey, **common)
    if not is_main_process():  # of several processes that trained together, one answers
        return
    where = write_result(lambda: model.save(out, overwrite=overwrite), folder)
    plot, failed = options.attempted(lambda: str(plot_curves(_training_of(model.record), folder)))
    answer = _answer(model, str(where), folder, time.perf_counter() - began) | {"plot": plot}
    options.answer_with(answer, as_json, lambda: _show(model.record, answer, "row" if numbers else "image"), failed)


def _check(
    data: str, numbers: bool, label: str | None, *, network: str | None, pixels: int | None, grey: bool | None
) -> None:
    """Refuse data that are not there, and options that say nothing of such data."""
    from headstart.data.named_sets import NAMED, NAMED_ROWS
    from headstart.data.patterns import matches

    known = (*NAMED, *NAMED_ROWS)
    if data not in known and not matches(data) and (missing := why_missing(data)):
        raise UsageError(f"{missing} {did_you_mean(data, known)}")
    if numbers and network not in (None, "mlp"):
        raise UsageError(f"'{data}' is a table of numbers, which an mlp is trained on. Received: --network {network}.")
    for name, value in (("pixels", pixels), ("grey", grey)):
        if numbers and value is not None:
            typed = "colours" if value is False else name
            raise UsageError(f"'{data}' is a table of numbers, which has no pixels. Leave --{typed} out.")
    if not numbers and label is not None:
        raise UsageError(f"--label names a column of a table of numbers, and '{data}' is none. Leave it out.")


def _open(model: str, *, numbers: bool) -> Classifier | TabularClassifier:
    """The model to go on with, of photos or of rows."""
    from headstart.model.opened import is_bundle, load
    from headstart.model.stored import is_tabular_model
    from headstart.model.tabular_classifier import load_rows

    rows = is_tabular_model(model)
    if rows != numbers and (rows or is_bundle(model)):
        kinds = ("photos", "rows of numbers")
        raise UsageError(f"'{model}' is a model of {kinds[not numbers]}, and the data are {kinds[numbers]}.")
    return load_rows(model) if numbers else load(model)


def _units(text: str | None) -> tuple[int, ...] | None:
    """ "512,256" as (512, 256), "none" as (); None where it was not said."""
    if text is None:
        return None
    words = options.names_of("--hidden", text)
    if words == ["none"]:
        return ()
    if not all(word.isdecimal() and 0 < int(word) <= WIDEST for word in words):
        raise UsageError(f"--hidden: expected units of each layer, as in 512,256, or none. Received: '{text}'.")
    return tuple(map(int, words))


def _answer(model: Classifier | TabularClassifier, where: str, folder: str, seconds: float) -> dict[str, Any]:
    from headstart.model.records import to_json

    record = to_json(model.record)
    training = record.get("scratch", record)
    copied = ("trainer", "recipe", "rate", "epochs", "epochs_before", "best", "stopped", "verdict", "hidden", "moving")
    return {
        **figures_of(model.record.result),
        "images": record["images"],
        "classes": list(model.classes),
        "seconds": round(seconds, 3),
        "stages": record["seconds"],
        "model": where,
        "log": folder,
        "network": model.blueprint.name,
        "folds": [fold["value"] for fold in training["folds"]],
        "left_out": record.get("left_out", []),
        **{key: training[key] for key in copied},
        "parts": training["images"] if "scratch" in record else training["parts"],
    }


def _training_of(record: FitRecord | TabularRecord) -> TabularRecord | ScratchRecord:
    from headstart.model.records import TabularRecord

    training = record if isinstance(record, TabularRecord) else record.scratch
    if training is None:
        raise UsageError("This model was not trained from scratch.")
    return training


def _show(record: FitRecord | TabularRecord, answer: Mapping[str, Any], what: str) -> None:
    """How it did, what was kept, what the curves say, where it lies, how to go on."""
    training = _training_of(record)
    rows, parts = Rows(), answer["parts"]
    amount = f"{counted(answer['images'], what)} in {counted(len(answer['classes']), 'class')}"
    rows.add("data", f"{one_line(record.data)}: {amount}")
    sets = f"training set {parts['train']}, validation set {parts['validation']}"
    rows.add("split", f"{sets}, test set {answer['tested_on']}" if not answer["folds"] else sets)
    if record.result is None:
        rows.add("accuracy", Text("not measured: nothing was held out", "bold yellow"))
    else:
        rows.add("accuracy", accuracy_text(answer["accuracy"], *answer["interval"]))
    if folds := answer["folds"]:
        rows.add("folds", f"mean {sum(folds) / len(folds):.4f} of {len(folds)}: {' '.join(f'{f:.3f}' for f in folds)}")
        rows.add("", Text("the model itself is trained on all of them", "dim"))
    start = Text("the weights it began with: no epoch did better", "yellow")
    before = f", after {counted(training.epochs_before, 'epoch')} before" if training.epochs_before else ""
    rows.add("kept", f"epoch {training.best + 1}{before}" if training.best >= 0 else start)
    if still_falls(training):
        rows.add("", "The loss still fell in the last epoch: a recipe with more epochs may do more.")
    add_training(rows, training)
    hidden = f" ({', '.join(map(str, answer['hidden']))})" if answer["hidden"] else ""
    rows.add("network", f"{answer['network']}{hidden}, {training.moving:,} weight{'' if training.moving == 1 else 's'}")
    add_left_out(rows, getattr(record, "left_out", ()))
    add_seconds(rows, answer["seconds"], record.seconds, rest=loading(training))
    rows.add("log", Text(one_line(answer["log"])), whole=True)
    if answer["plot"]:
        rows.add("plot", Text(one_line(answer["plot"])), whole=True)
    rows.add("model", Text(one_line(answer["model"]), "bold"), whole=True)
    example = "ROWS.csv" if what == "row" else "PHOTO …"
    rows.add("next", Text(f"headstart predict {quoted(answer['model'])} {example}", "cyan"), whole=True)
    rows.show(console())
