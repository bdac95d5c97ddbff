"""Predictions on a cluster: each worker holds the whole model, and writes the rows of a unit whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.arguments import PATH, PROGRESS, TEXT, YES_NO, checks, whole
from headstart.core.atomic_files import beside, put
from headstart.core.errors import CheckError, UsageError
from headstart.core.processors import THREADS
from headstart.core.progress import Shown, StageProgress, function_of, one_step, shows_progress, stage
from headstart.core.types import Problem
from headstart.data.remote import is_remote
from headstart.data.sources import PathLike
from headstart.data.threads import HALF_OF_THE_CORES
from headstart.model.answers import (
    Answer,
    arrow_types,
    as_text,
    cannot_be_written,
    check_table,
    columns_of,
    write_table,
)
from headstart.model.batch import KEPT, PredictedTable, check_paths, identity_of, row_without_path
from headstart.model.bundle import preflight
from headstart.model.classifier import Classifier, no_thumbnails
from headstart.model.given import photo_model
from headstart.scale.address import check_runner
from headstart.scale.cluster import answers, cluster
from headstart.scale.plan import Plan, plan_of_paths
from headstart.scale.pool import Pool, make_pool, on_cluster
from headstart.scale.shards import SUFFIX, DamagedError, read_whole, write_whole
from headstart.scale.store import LISTS, PREDICTIONS, place_of
from headstart.scale.unit import Unit, hashed


@dataclass(frozen=True, eq=False)
class Job:
    """What every worker needs to know."""

    plan: Plan
    classifier: Classifier
    columns: dict[str, type]
    top: int
    every: bool
    crop: bool
    folder: Path  # of the rows, of this model and these columns alone

    def path(self, unit: Unit) -> Path:
        """Where the rows of a unit are."""
        return self.folder / f"{unit.name}{SUFFIX}"

    def done(self, unit: Unit) -> Any:
        """The rows of a unit, None where they are not there or damaged."""
        try:
            return read_whole(self.path(unit))[1]
        except DamagedError:
            return None


class Predictor:
    """One process: opens the model, holds it against its golden images, and answers."""

    def __init__(self, shared: Any, threads: int) -> None:
        os.environ[THREADS] = str(threads)
        (self._job,) = answers(shared)
        model: Classifier = self._job.classifier
        wanted = model.precision
        preflight(model, "the model")
        if model.network.precision != wanted:
            raise CheckError(
                f"A machine gives other answers in {wanted} than where the model was saved. Take --precision fp32"
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do some units, by their numbers."""
        done = [self._one(self._job.plan.units[int(number)]) for number in batch["unit"]]
        images, computed = (np.array(each) for each in zip(*done, strict=True))
        return {"number": batch["unit"], "images": images, "computed": computed}

    def _one(self, unit: Unit) -> tuple[int, int]:
        """How many rows a unit has, and how many are new."""
        job = self._job
        if (there := job.done(unit)) is not None:
            return int(there.num_rows), 0
        dataset = job.plan.open(unit)
        with HALF_OF_THE_CORES:  # the others wait for the network
            rows = [self._row(item, unknown) for item, unknown in job.classifier.judge(dataset, crop=job.crop)]
        names = [as_text(sample.name) for sample in dataset.samples]
        _write(job.path(unit), job.columns, [[name, *row] for name, row in zip(names, rows, strict=True)])
        return len(rows), len(rows)

    def _row(self, item: Any, unknown: bool) -> list[Any]:
        job = self._job
        found = item if isinstance(item, Problem) else Answer(item.name, item.probabilities, unknown)
        return row_without_path(found, job.classifier, len(job.columns), top=job.top, every=job.every)


def _write(path: Path, columns: dict[str, type], rows: list[list[Any]]) -> None:
    import pyarrow as pa

    arrays = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(arrow_types(columns))]
    write_whole(path, pa.RecordBatch.from_arrays(arrays, [*map(str, range(len(columns)))]), {})


@checks(
    path=PATH, runner=TEXT, store=PATH, top=whole(1), every=YES_NO, crop=YES_NO, overwrite=YES_NO, progress=PROGRESS
)
@shows_progress
def predict_on_ray(
    classifier: Classifier | PathLike,
    images: PathLike | Iterable[PathLike],
    path: PathLike,
    *,
    runner: str = "ray",
    store: PathLike | None = None,
    top: int = 1,
    every: bool = False,
    crop: bool = True,
    overwrite: bool = False,
    progress: Shown = True,
) -> PredictedTable:
    """As `predict_table`, on a Ray cluster. The model goes to the machines, each holds it against its golden images.

    Args:
        classifier: or the path of one.
        images: folders, patterns or files of images, and Parquet files that hold many; every machine sees them at the
            same path.
        path: of the table, .csv or .parquet, with a row for each image.
        runner, store: as for `fit_on_ray`. Rows that are there, of a run that did not end, are not computed again.
        top, every, crop, overwrite: as for `predict_table`.

    Raises:
        UsageError: the table is there and not to be replaced, or cannot be written.
        DataError: a folder without images.
        CheckError: the model gives other answers on a machine.
        MachineError: no such cluster, or a machine that does not see the images, has other packages or was lost.
    """
    check_runner(runner)
    target = Path(os.path.abspath(path))
    check_table(os.fspath(target))
    if os.path.lexists(target) and not overwrite:
        raise UsageError(f"'{target}' exists already. Choose another place: --out. Or replace it: --overwrite")
    model, report = photo_model(classifier, "classifier"), function_of(progress)
    if model.module is not None or model.engine != "fast":
        raise UsageError(f"On a cluster a model runs on the fast engine. This one runs on {model.engine}.")
    named = [each if is_remote(each) else os.path.abspath(each) for each in check_paths(images)]
    columns = columns_of(model.classes, top=top, every=every, errors=True)
    place = place_of(store)
    with ExitStack() as connected:
        with one_step(report, "start"):
            connected.enter_context(cluster(runner))
            pool = make_pool(model.network.precision, [os.fspath(place)])
        with one_step(report, "plan"):
            plan = on_cluster(plan_of_paths, named, place / LISTS)
        sent = replace(model, precision=pool.precision, fitted_on=frozenset(), thumbnails=no_thumbnails())
        about = [*identity_of(sent).items(), pool.precision, crop, [*columns]]
        job = Job(plan, sent, columns, top, every, crop, place / PREDICTIONS / hashed(repr(about).encode()))
        kept = _all_done(job, pool, stage(report, "images"))
    with cannot_be_written(target, KEPT):
        table = _gathered(job, target, kept)
    shutil.rmtree(job.folder, ignore_errors=True)
    return table


def _all_done(job: Job, pool: Pool, progress: StageProgress | None) -> int:
    """Have the rows of all units written; how many were there."""
    images = kept = 0
    expected = sum(unit.images for unit in job.plan.units)
    for row in pool.results(Predictor, len(job.plan.units), job):
        images, kept = images + row["images"], kept + row["images"] - row["computed"]
        if progress:
            progress(min(images, expected), expected)
    return kept


def _gathered(job: Job, target: Path, kept: int) -> PredictedTable:
    """The table of all units in their order, a unit at a time in memory."""
    counts: Counter[Any] = Counter()

    def rows() -> Iterator[list[Any]]:
        for unit in job.plan.units:
            there = job.done(unit)
            if there is None:
                raise CheckError(f"'{job.path(unit)}' is damaged. Run the same once more: all else is kept.")
            for row in zip(*(column.to_pylist() for column in there.columns), strict=True):
                counts[row[3] or row[1]] += 1  # True stands for unknown, None for what cannot be read
                yield [*row]

    with beside(target) as folder:
        write_table(folder / target.name, job.columns, rows())
        put(folder / target.name, target)
    images, unknown, unreadable = counts.total(), counts.pop(True, 0), counts.pop(None, 0)
    return PredictedTable(target, images, dict(counts.most_common()), unknown, unreadable, kept)
