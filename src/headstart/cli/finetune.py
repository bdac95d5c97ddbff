"""The command that trains more of a model than its head."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.figures import add_seconds, add_training, loading, still_falls
from headstart.cli.terminal import Rows, accuracy_text, console, quoted
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.model.classifier import Classifier
    from headstart.model.records import FinetuneRecord, Side

Refit = Annotated[
    bool | None,
    typer.Option(
        "--refit/--no-refit",
        help="At the end, train once more on all photos. Default: with few photos, or where most is frozen.",
    ),
]
Holdout = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Share held out as test set, where the data has none. Default: as in the fit."),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of the split. Default: that of the fit.")]


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, as fit made it.")],
    data: options.Data,
    out: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Where the new model is written. Default: MODEL-finetuned.")
    ] = None,
    recipe: options.RecipeName = "careful",
    trainer: options.Trainer = "auto",
    device: options.Device = "auto",
    devices: options.Devices = 1,
    nodes: options.Nodes = 1,
    strategy: options.Strategy = "auto",
    runner: options.Runner = None,
    workers: options.Workers = 1,
    find_rate: options.FindRate = False,
    refit: Refit = None,
    resume: options.Resume = False,
    holdout: Holdout = None,
    seed: Seed = None,
    cache: options.Cache = True,
    label: options.LabelColumn = None,
    image: options.ImageColumn = None,
    group: options.GroupColumn = None,
    split: options.SplitColumn = None,
    label_from: options.LabelFrom = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Train more of a model than its head. It stays as it is where that does no better on photos that were held out."""
    from headstart.cli.ended_early import ended_early, folder_beside, write_result
    from headstart.model.bundle import save
    from headstart.plots.curves import plot_curves
    from headstart.scale.training import training_on
    from headstart.train.recipe import open_recipe
    from headstart.train.screen import training_screen
    from headstart.train.training_run import TrainingRun, is_main_process
    from headstart.workflows.finetune import finetune as finetune_classifier

    start = time.perf_counter()
    followed = open_recipe(recipe)
    target = _target(model, out, overwrite=overwrite)
    folder = folder_beside(target)
    given = _open(model)
    screened = training_screen(followed.epochs, quiet=as_json)
    with ended_early(folder), training_on(runner, workers) as elsewhere, screened as screen:
        run = TrainingRun(
            trainer, device=device, devices=devices, nodes=nodes, strategy=strategy, runner=elsewhere,
            find_rate=find_rate, folder=folder, resume=resume, callbacks=[screen], say=screen.say,
        )  # fmt: skip
        source = options.source(data, label, image, group, split, label_from)
        found = finetune_classifier(
            given, source, recipe=followed, trainer=run, refit=refit, holdout=holdout, seed=seed, cache=cache,
            progress=screen,
        )  # fmt: skip
    if not is_main_process():  # of several processes that trained together, one answers
        return
    where = write_result(lambda: save(found, target, overwrite=overwrite), folder)
    curves = found.record.finetune
    plot, failed = options.attempted(lambda: None if curves is None else str(plot_curves(curves, folder)))
    answer = _answer(found, str(where), folder, time.perf_counter() - start) | {"plot": plot}
    options.answer_with(answer, as_json, lambda: show(found, answer), failed)


def _target(model: str, out: str | None, *, overwrite: bool) -> str:
    """Where the new model goes, which is refused before any work where it cannot be written."""
    from headstart.model.files import why_not_writable

    target = f"{os.path.abspath(model)}-finetuned" if out is None else out
    if problem := why_not_writable(target, overwrite=overwrite):
        raise UsageError(problem)
    return target


def _open(model: str) -> Classifier:
    """A fitted one: a backbone, which other commands take in its place, has no head to go on from."""
    from headstart.backbones.catalogue import BACKBONES
    from headstart.model.opened import load

    if model in BACKBONES and not os.path.exists(model):
        raise UsageError(f"'{model}' is a network. Fit a head on it first: headstart fit PHOTOS --backbone {model}")
    return load(model)


def _answer(found: Classifier, where: str, folder: str, seconds: float) -> dict[str, Any]:
    from headstart.model.records import to_json

    training: dict[str, Any] = to_json(found.record)["finetune"]
    return training | {
        "accuracy": training["after"]["accuracy"],
        "interval": training["after"]["interval"],
        "tested_on": training["images"]["test"],
        "classes": list(found.classes),
        "model": where,
        "log": folder,
        "seconds": round(seconds, 3),
        "stages": training["seconds"],
    }


def show(found: Classifier, answer: Mapping[str, Any]) -> None:
    """Before and after, what was kept and why, what the curves say, where it lies, how to go on."""
    from headstart.model.model_card import difference, moved, parts_of

    record, rows = found.record.finetune, Rows()
    if record is None:
        raise UsageError("This model was not fine-tuned.")
    images = record.images
    rows.add("split", parts_of(record, images))
    rows.add("before", _figures(record.before))
    if record.kept:
        rows.add("after", _figures(record.after))
    rows.add("difference", difference(record))
    _add_choice(rows, record)
    add_training(rows, record)
    rows.add("trained", moved(record, sum(found.blueprint.parameters().values())))
    add_seconds(rows, answer["seconds"], record.seconds, rest=loading(record))
    rows.add("log", Text(one_line(answer["log"])), whole=True)
    if answer["plot"]:
        rows.add("plot", Text(one_line(answer["plot"])), whole=True)
    rows.add("model", Text(one_line(answer["model"]), "bold"), whole=True)
    rows.add("next", Text(f"headstart predict {quoted(answer['model'])} PHOTO …", "cyan"), whole=True)
    rows.show(console())


def _figures(side: Side) -> Text:
    if side.accuracy is None or side.interval is None:
        return Text("not measured: there is no test set", "yellow")
    return accuracy_text(side.accuracy, *side.interval)


def _add_choice(rows: Rows, record: FinetuneRecord) -> None:
    from headstart.model.model_card import why_kept
    from headstart.workflows.finetune_data import ENOUGH

    rows.add("kept", Text(f"{record.chosen}: {why_kept(record)}", "bold"))
    if record.images.validation < ENOUGH:
        rows.add("", f"{counted(record.images.validation, 'photo')} cannot show a small difference; more photos can.")
    if record.refit:
        rows.add("", f"Then it was trained once more on all photos, for as many epochs.{_why_longer(record)}")
    if record.kept and still_falls(record, record.before.val_calibrated):
        rows.add("", "The loss still fell in the last epoch: a recipe with more epochs may do more.")


def _why_longer(record: FinetuneRecord) -> str:
    """Where another epoch than the last was best."""
    if record.kept == record.best + 1:
        return ""
    loss = record.epochs[record.best].val_calibrated
    return f" Epoch {record.best + 1} had {loss:.4f}; so few images cannot tell the two apart."
