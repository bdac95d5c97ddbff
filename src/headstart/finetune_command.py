"""The command that trains more of a model than its head."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.errors import UsageError
from headstart.options import (
    Cache,
    Data,
    Device,
    Devices,
    FindRate,
    Json,
    Nodes,
    RecipeName,
    Resume,
    Strategy,
    Trainer,
    answer_with,
    open_model,
)

if TYPE_CHECKING:
    from headstart.classifier import Classifier


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, as fit made it.")],
    data: Data,
    out: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Where the new model goes; without it: MODEL-finetuned.")
    ] = None,
    recipe: RecipeName = "careful",
    trainer: Trainer = "pytorch",
    device: Device = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    find_rate: FindRate = False,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Whether all is trained once more on the validation photos too; without it: where that is cheap.",
        ),
    ] = None,
    resume: Resume = False,
    holdout: Annotated[
        float | None, typer.Option(help="Share held out, where the data has no test part; without it: as in the fit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split; without it: that of the fit.")] = None,
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Train more of a model than its head. What comes out is not worse by the photos that it is chosen on."""
    from headstart import finetune_screen
    from headstart.bundle import save, why_not_writable
    from headstart.conducting import leads
    from headstart.finetuning import finetune as finetune_classifier
    from headstart.train.checkpoint import discard
    from headstart.train.recipe import open_recipe
    from headstart.training_screen import ended_early, folder_beside, training_screen

    start = time.perf_counter()
    followed = open_recipe(recipe)
    target = f"{os.path.abspath(model)}-finetuned" if out is None else out
    if problem := why_not_writable(target):
        raise UsageError(problem)
    folder = folder_beside(target)
    given = open_model(model, None, "auto", "auto")
    with ended_early(folder), training_screen(followed.epochs) as screen:
        found = finetune_classifier(
            given, data, recipe=followed, trainer=trainer, device=device, devices=devices, nodes=nodes,
            strategy=strategy, find_rate=find_rate, refit=refit, holdout=holdout, seed=seed, folder=folder,
            resume=resume, cache=cache, callbacks=[screen], progress=screen.progress, say=screen.say,
        )  # fmt: skip
    if not leads():  # of several processes that trained together, one answers
        return
    where = save(found, target)
    discard(folder)
    answer = _answer(found, str(where), folder, time.perf_counter() - start)
    answer_with(answer, as_json, lambda: finetune_screen.show(found, answer))


def _answer(found: Classifier, where: str, folder: str, seconds: float) -> dict[str, Any]:
    story: dict[str, Any] = found.record["finetune"]
    return story | {
        "accuracy": story["after"]["accuracy"],
        "interval": story["after"]["interval"],
        "tested_on": story["images"]["test"],
        "classes": list(found.classes_),
        "model": where,
        "log": folder,
        "seconds": round(seconds, 3),
        "stages": story["seconds"],
    }
