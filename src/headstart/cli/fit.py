"""`headstart fit`: a classifier from labelled photos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.figures import add_confusions, add_figures, add_left_out, add_seconds, figures_of
from headstart.cli.terminal import Rows, console, names_of_classes, quoted
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.core.types import ImageDataset
    from headstart.diagnose.records import Diagnosis
    from headstart.model.classifier import Classifier
    from headstart.scale.head import FittedOnCluster


def fit(
    data: options.Data,
    out: Annotated[str, typer.Option(metavar="MODEL", help="Where the model is written.")] = "model",
    backbone: options.Backbone = "efficientnet_lite0",
    weights: options.Weights = None,
    pixels: options.Pixels = None,
    mean: options.Mean = None,
    std: options.Std = None,
    head: options.Head = "lda",
    prior: options.Prior = "flat",
    holdout: options.Holdout = 0.2,
    seed: options.Seed = 0,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    cache: options.Cache = True,
    label: options.LabelColumn = None,
    image: options.ImageColumn = None,
    group: options.GroupColumn = None,
    split: options.SplitColumn = None,
    label_from: options.LabelFrom = None,
    report: Annotated[
        bool, typer.Option(help="Find out how far to trust the model, and write report.html into its folder.")
    ] = True,
    runner: options.Runner = None,
    store: options.Store = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Fit a classifier on labelled photos, measure it on photos it has not seen, and save it."""
    from headstart.data.inputs import labelled_dataset, name_of
    from headstart.model.bundle import save
    from headstart.model.files import PAGE, why_not_writable
    from headstart.workflows.fit import fit as fit_classifier

    start = time.perf_counter()
    if problem := why_not_writable(out, overwrite=overwrite):
        raise UsageError(problem)
    chosen: dict[str, Any] = {
        "backbone": backbone, "weights": weights, "pixels": pixels, "spec": options.normalisation(mean, std),
        "head": head, "prior": prior, "holdout": holdout, "seed": seed, "precision": precision, "diagnose": report,
    }  # fmt: skip
    _check_for_cluster(runner, store, engine, device, cache=cache)
    if runner is not None:
        chosen |= {"image_column": image, "label_column": label, "group_column": group, "split_column": split}
        chosen |= {"runner": runner, "store": store, "label_from": label_from, "overwrite": overwrite}
        fitted = _fitted_on_cluster(data, out, **chosen)
        answer = _answer(fitted, str(fitted.path), str(fitted.path / PAGE) if report else None, start)
        options.answer_with(answer, as_json, lambda: _show(fitted, answer))
        return
    dataset = labelled_dataset(source := options.source(data, label, image, group, split, label_from), None)
    opened = time.perf_counter()
    model = fit_classifier(dataset, engine=engine, device=device, cache=cache, **chosen)
    model.record = replace(model.record, data=name_of(source, dataset))
    seconds, saving = model.record.seconds, time.perf_counter()
    seconds["open"] += round(opened - start, 3)
    where = save(model, out, overwrite=overwrite)
    seconds["save"] = round(time.perf_counter() - saving, 3)
    page, failed = options.attempted(lambda: _write_page(model, dataset, where) if report else None)
    answer = _answer(model, str(where), page, start)
    options.answer_with(answer, as_json, lambda: _show(model, answer), failed)


def _check_for_cluster(runner: str | None, store: str | None, engine: str, device: str, *, cache: bool) -> None:
    """Refuse what does not go with --runner, or without it."""
    if runner is None:
        if store is not None:
            raise UsageError("--store goes with --runner: without it, features are kept in the cache.")
        return
    if engine not in ("auto", "fast") or device not in ("auto", "cpu"):
        raise UsageError("--runner: on a cluster the network runs on CPUs, on the fast engine.")
    if not cache:
        raise UsageError("--no-cache does not go with --runner, which goes on from features that are kept: --store DIR")


def _fitted_on_cluster(data: str, out: str, **more: Any) -> FittedOnCluster:
    from headstart.scale.fit import fit_on_ray

    return fit_on_ray(data, out, **more)


def _write_page(model: Classifier, dataset: ImageDataset, folder: Path) -> str:
    """The report, into the model's folder; its path."""
    from headstart.plots.files import write_files
    from headstart.report.records import Content
    from headstart.report.write import report_files

    begun = time.perf_counter()
    content = Content(model, model.record.result, model.record.diagnosis, photos=dataset)
    page, _ = write_files(report_files(content, maps=False).writers(), folder)
    model.record.seconds["report"] = round(time.perf_counter() - begun, 3)
    return str(page)


def _answer(model: Classifier | FittedOnCluster, where: str, page: str | None, start: float) -> dict[str, Any]:
    from headstart.model.records import to_json

    record = to_json(model.record)
    result = record["result"]
    copied = (
        "images",
        "left_out",
        "near_duplicates",
        "not_measured",
        "computed",
        "from_store",
        "choice",
        "backbone",
        "pixels",
    )
    return {
        **figures_of(model.record.result),
        "classes": list(model.classes),
        "seconds": round(time.perf_counter() - start, 3),
        "stages": record["seconds"],
        "model": where,
        "report": page,
        "verdict": record["diagnosis"]["verdict"] if model.record.diagnosis else None,
        "confusions": result["confusions"] if result else [],
        **({"assumed": record["assumed"]} if model.record.assumed else {}),
        **{key: record[key] for key in (*copied, "precision", "train", "test", "head", "store_problem")},
    }


def _show(model: Classifier | FittedOnCluster, answer: dict[str, Any]) -> None:
    """The summary of a fit."""
    from headstart.learn.unknown import FEWEST, FEWEST_IN_ALL

    record, rows = model.record, Rows()
    classes = f"{counted(len(model.classes), 'class')}: {names_of_classes(model.classes)}"
    rows.add("data", f"{one_line(record.data)}: {counted(record.images, 'image')} in {classes}")
    if record.result is None:
        rows.add("split", f"training set {record.train}, no test set")
        why = "too few images to hold any out, or all of one group" if record.holdout else "no image was held out"
        rows.add("accuracy", Text(f"not measured: {why}", "bold yellow"))
        if alone := record.left_one_out:
            rows.add("", f"leave-one-out: {alone.accuracy:.1%} of {alone.images}; the settings were chosen on them too")
    else:
        own = "held out" if record.test_part == "held out" else f"the data's own {record.test_part} part"
        rows.add("split", f"training set {record.train}, test set {record.test} ({own})")
        add_figures(rows, record.result)
        _add_not_measured(rows, record.not_measured)
        add_confusions(rows, record.result.confusions, model.classes)
    if record.train < FEWEST_IN_ALL or min(record.per_class.values(), default=0) < FEWEST:
        few = f"fewer than {FEWEST_IN_ALL} training images, or {FEWEST} of a class"
        text = f"photos of other things are often missed with {few}"
        rows.add("unknown", Text(text, "yellow"))
    add_left_out(rows, record.left_out)
    if record.near_duplicates:
        side = ", kept on the same side of the split" if record.result else ""
        rows.add("near copies", f"{counted(record.near_duplicates, 'image')}{side}")
    _add_diagnosis(rows, record.diagnosis)
    computed = (
        f" ({record.computed / record.seconds['features']:.0f} images/s)" if record.computed else " (from the cache)"
    )
    add_seconds(rows, answer["seconds"], record.seconds, {"features": computed})
    if record.store_problem:
        rows.add("cache", Text(record.store_problem, "yellow"))
    head = record.head.kind if record.head else "none"
    if record.assumed:
        rows.add("assumed", Text(record.assumed, "yellow"))
    rows.add("network", f"{record.backbone} at {record.pixels} pixels, {record.precision}; head {head}")
    if record.choice:
        rows.add(
            "choice", f"{record.choice.sentence} Tried on {counted(record.choice.images, 'image')} of the training set."
        )
    rows.add("model", Text(one_line(answer["model"]), "bold"), whole=True)
    if answer["report"]:
        rows.add("report", Text(one_line(answer["report"])), whole=True)
    rows.add("next", Text(f"headstart predict {quoted(answer['model'])} PHOTO …", "cyan"), whole=True)
    rows.show(console())


def _add_diagnosis(rows: Rows, diagnosis: Diagnosis | None) -> None:
    """The verdict, what to do about it, and what more images would bring."""
    if diagnosis is None:
        return
    verdict = diagnosis.verdict
    healthy = verdict.kind == "healthy"  # then the last row says what to do
    rows.add("verdict", Text(verdict.kind, "bold green" if healthy else "bold yellow") + Text(f": {verdict.sentence}"))
    if not healthy:
        rows.add("", verdict.next_step)
    if diagnosis.learning_curve:
        rows.add("more images", diagnosis.learning_curve.sentence)


def _add_not_measured(rows: Rows, classes: Sequence[str]) -> None:
    if classes:
        why = "too few images, or all of one group (one patient, one video)"
        rows.add("not measured", Text(f"{names_of_classes(classes)}: no image in the test set: {why}", "yellow"))
