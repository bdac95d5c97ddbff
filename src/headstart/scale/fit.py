"""`fit` on a cluster: features by workers where the images are, the head from sums of their features."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from headstart.backbones.blueprint import FEATURES
from headstart.backbones.catalogue import DEFAULT, Pretrained
from headstart.backbones.weights import weights_digest
from headstart.core.arguments import PATH, PIXELS, TEXT, YES_NO, checks
from headstart.core.counts import counted, verb
from headstart.core.errors import UsageError
from headstart.core.missing import why_missing
from headstart.core.progress import Shown, StageProgress, function_of, one_step, shows_progress, stage
from headstart.core.text import say
from headstart.core.timing import StageTimer
from headstart.core.types import SPEC, ImageSpec, Normalisation
from headstart.data.columns import Columns
from headstart.data.depth import MOST, common_levels
from headstart.data.patterns import matches
from headstart.data.remote import is_remote
from headstart.data.scan import printable
from headstart.data.shards import in_braces
from headstart.data.sources import PathLike
from headstart.data.split import HOLDOUT
from headstart.engines.names import framework_of
from headstart.engines.protocol import LOW
from headstart.engines.registry import get_engine, open_backbone
from headstart.learn.features import TRIAL, describe, passes_trial
from headstart.model.files import copy_folder, why_not_writable
from headstart.scale.address import check_runner
from headstart.scale.cluster import cluster
from headstart.scale.extract import Done, Work, Worker
from headstart.scale.head import FittedOnCluster, fit_shards
from headstart.scale.plan import Source, make_plan
from headstart.scale.pool import Pool, make_pool, on_cluster
from headstart.scale.store import LISTS, MODELS, SHARDS, place_of, remove_left
from headstart.scale.unit import hashed
from headstart.scale.whole import some_of
from headstart.workflows.automatic import AUTO
from headstart.workflows.backbone_features import RULES, FitSettings


@checks(
    data=PATH,
    out=PATH,
    runner=TEXT,
    store=PATH,
    backbone=TEXT,
    weights=PATH,
    pixels=PIXELS,
    spec=SPEC,
    diagnose=YES_NO,
    overwrite=YES_NO,
    image_column=TEXT,
    label_column=TEXT,
    group_column=TEXT,
    split_column=TEXT,
    label_from=TEXT,
    **{name: RULES[name] for name in ("head", "prior", "holdout", "seed", "precision", "progress")},
)
@shows_progress
def fit_on_ray(
    data: PathLike,
    out: PathLike,
    *,
    runner: str = "ray",
    store: PathLike | None = None,
    backbone: str = DEFAULT,
    weights: PathLike | None = None,
    pixels: int | None = None,
    spec: ImageSpec | Normalisation | None = None,
    head: str = "lda",
    prior: str = "flat",
    holdout: float = HOLDOUT,
    seed: int = 0,
    precision: str = "auto",
    diagnose: bool = True,
    overwrite: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    label_from: str | None = None,
    progress: Shown = True,
) -> FittedOnCluster:
    """As `fit`, on a Ray cluster: the same split, and the same head but for rounding. The model is written to ``out``.

    What this process holds does not grow with the number of images. A machine that is lost costs what it was at: its
    work is done again by others, and the result is the same.

    Args:
        data: a folder of class folders, a table of files, or Parquet files; every machine sees it at the same path.
        runner: "ray": a cluster on this machine alone; "ray:HOST:PORT": the one whose head is there.
        store: where features are kept, a folder that every machine sees; default: in the cache folder. Features that
            are there, of an earlier run, are not computed again.
        precision: "auto": bf16 where all machines have it, int8 where none has; fp32 where some have.
        diagnose: whether to find out how far the classifier can be trusted, and write its page.
        overwrite: whether a model that is there is replaced.
        image_column, label_column, group_column, split_column, label_from: as `open_source` takes them.

    Raises:
        UsageError, DataError: as `fit`.
        MachineError: no such cluster, or a machine that does not see the data, has other packages or was lost.
    """
    check_runner(runner)
    settings = FitSettings(head, prior, holdout, seed, "fast", precision, diagnose=diagnose)
    if problem := why_not_writable(out, overwrite=overwrite):
        raise UsageError(problem)
    if backbone == AUTO or framework_of(backbone):
        raise UsageError(f"On a cluster a backbone is one of 'headstart backbones'. Received: '{backbone}'.")
    timer, report = StageTimer(), function_of(progress)
    where, see = _found(os.fspath(data))
    source = Source(where, Columns(image_column, label_column, group_column, split_column), label_from)
    place = place_of(store)
    with timer("open"):
        pretrained, _ = open_backbone(backbone, weights, pixels, head=False, spec=spec, progress=report)
    made = place / MODELS / secrets.token_hex(8)
    with ExitStack() as connected:
        with timer("start"), one_step(report, "start"):
            connected.enter_context(cluster(runner))
            pool = make_pool(precision, [os.fspath(place), *see])
        with timer("plan"), one_step(report, "plan"):
            work = on_cluster(begin, source, pretrained, pool.precision, place)
        with timer("features"):
            done = extract(work, pool, stage(report, "features"))
        try:
            with one_step(report, "head"):
                name = printable(os.path.basename(source.data))
                fitted: FittedOnCluster = on_cluster(fit_shards, work, done, settings, name, made, cpus=pool.threads)
            with timer("save"):
                path = copy_folder(fitted.path, out, overwrite=overwrite)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    stages = [*timer.seconds, *fitted.record.seconds]
    seconds = {name: round(timer.seconds.get(name, 0) + fitted.record.seconds.get(name, 0), 3) for name in stages}
    record = replace(fitted.record, seconds=seconds)
    return replace(fitted, path=path, record=record)


def _found(data: str) -> tuple[str, list[str]]:
    """The data as every machine may find it, and the paths that each must see.

    Raises:
        UsageError: nothing is there.
    """
    if is_remote(data):
        return data, []
    path = os.path.abspath(data)
    if not os.path.exists(path):
        if in_braces(path) or matches(path):
            return path, []
        raise UsageError(why_missing(data) or f"'{data}' is not a folder or a file.")
    return path, [path]


def begin(source: Source, pretrained: Pretrained, precision: str, place: Path) -> Work:
    """The plan of the work, once a few images were looked at: their depth, and whether bf16 or int8 suits them."""
    remove_left(place / LISTS)
    plan = make_plan(source, place / LISTS)
    levels = pretrained.spec.levels or common_levels(some_of(plan, MOST))
    pretrained = replace(pretrained, spec=replace(pretrained.spec, levels=levels))
    network = get_engine("fast", pretrained.blueprint, pretrained.weights, pretrained.spec, precision)
    if network.precision in LOW:
        passes_trial(network, some_of(plan, TRIAL))  # else it computes in fp32 from now on
    space = describe(network, weights_digest(pretrained.weights), FEATURES) | {"openvino": version("openvino")}
    folder = place / SHARDS / hashed(repr(space).encode())  # all that features depend on but the image
    remove_left(folder)
    return Work(plan, pretrained, network.precision, space, folder)


def extract(work: Work, pool: Pool, progress: StageProgress | None) -> list[Done]:
    """Have the shards of all units written; what is there already stays. The units in their order."""
    units, done, images = work.plan.units, dict[int, Done](), 0
    expected = sum(unit.images for unit in units)
    for row in pool.results(Worker, len(units), work):
        done[row["number"]] = Done(**row)
        images += row["images"]
        if progress:
            progress(min(images, expected), expected)
    if damaged := sum(each.damaged for each in done.values()):
        say(f"{counted(damaged, 'shard')} in '{work.folder}' {verb(damaged, 'was')} damaged, and computed again.")
    return [done[number] for number in range(len(units))]
