"""Predictions of any number of images as a table: in little memory, and the same call goes on after a kill."""

from __future__ import annotations

import functools
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import __version__
from headstart.backbones.weights import weights_digest
from headstart.core.arguments import PATH, PROGRESS, YES_NO, checks, expanded, shown, whole
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.processors import CHUNK
from headstart.core.progress import Shown, function_of, shows_progress, stage
from headstart.core.text import say
from headstart.core.types import Problem
from headstart.data.listing import Listing, list_images
from headstart.data.sources import PathLike
from headstart.data.threads import HALF_OF_THE_CORES
from headstart.model.answers import (
    Answer,
    as_text,
    cannot_be_written,
    check_table,
    columns_of,
    row_of,
    write_table,
)
from headstart.model.classifier import Classifier
from headstart.model.given import photo_model
from headstart.model.partial_table import PartialTable, alone_at, partial_name

FORMAT = 1  # of the rows of an unfinished table
KEPT = " What was computed is kept: the same command goes on from there."

Told = Callable[[int, int, Answer | Problem], None]  # the row of an image, how many are done, and its answer


@dataclass(frozen=True, slots=True)
class PredictedTable:
    """A table of predictions that was written."""

    path: Path
    images: int  # rows
    labels: dict[str, int]  # images of each label that were not unknown, the most frequent first
    unknown: int
    unreadable: int  # rows with an error
    kept: int  # rows that an earlier, interrupted call had computed


@checks(path=PATH, top=whole(1), every=YES_NO, crop=YES_NO, urls=YES_NO, overwrite=YES_NO, progress=PROGRESS)
@shows_progress
def predict_table(
    classifier: Classifier | PathLike,
    images: PathLike | Iterable[PathLike],
    path: PathLike,
    *,
    top: int = 1,
    every: bool = False,
    crop: bool = True,
    urls: bool = False,
    overwrite: bool = False,
    progress: Shown = True,
) -> PredictedTable:
    """Write a table, .csv or .parquet, with a row for each image, however many there are.

    Columns: path, label, probability, unknown, and error, which is empty but for an image that cannot be read; with
    ``top`` label_2, probability_2 and so on; with ``every`` one for the probability of each class. While it is made,
    the rows are in a hidden file beside it: after a kill the same call goes on from there. Rows with an error, and of
    files whose size or time changed, are computed anew. The table is there when it is whole.

    Args:
        classifier: or the path of one.
        images: a folder, a pattern or a file, or a list of them; files of a list that are not there are rows too.
        crop: as for `Classifier.predict`.
        urls: whether addresses among the images, http and https, are fetched.

    Raises:
        UsageError: the table is there and not to be replaced, cannot be written, or is being made by another process.
        DataError: a folder without images.
    """
    check_table(os.fspath(path))
    target = Path(path).absolute()
    if os.path.lexists(target) and not overwrite:
        raise UsageError(f"'{target}' exists already. Choose another place: --out. Or replace it: --overwrite")
    listing = _listed(images)
    listing.check(urls=urls)
    model = photo_model(classifier, "classifier")
    report = stage(function_of(progress), "images")
    told = (lambda row, done, item: report(done, len(listing))) if report else None
    return fill_table(model, listing, target, top=top, every=every, crop=crop, told=told)


def _listed(images: PathLike | Iterable[PathLike]) -> Listing:
    if isinstance(images, str | os.PathLike):
        return list_images([images])
    return list_images(check_paths(images), missing_too=True)


def check_paths(images: PathLike | Iterable[PathLike]) -> list[str]:
    """One path or several, as a list.

    Raises:
        UsageError: they are none.
    """
    given: Any = images
    several = isinstance(given, Iterable) and not isinstance(given, str | os.PathLike)
    paths = [*given] if several else [given]
    if any(not isinstance(each, str | os.PathLike) for each in paths):
        raise UsageError(f"images: expected paths. Received: {shown(images)}. For others: model.predictions(images)")
    return [*map(expanded, paths)]


def fill_table(
    classifier: Classifier,
    listing: Listing,
    target: Path,
    *,
    top: int,
    every: bool,
    crop: bool,
    told: Told | None = None,
) -> PredictedTable:
    """`predict_table` of what was checked."""
    columns = columns_of(classifier.classes, top=top, every=every, errors=True)
    about = {**identity_of(classifier), "crop": crop, "columns": [*columns]}
    writing = functools.partial(cannot_be_written, target, KEPT)
    with alone_at(target):
        with writing():
            partial = PartialTable(partial_name(target), about, len(classifier.classes) if every else 0)
        try:
            places, rows = _to_do(listing, partial)
            if partial.other:
                say(f"starts anew: '{partial.file}' is of another model, of other options, or damaged.")
            if kept := len(listing) - len(rows):
                say(f"goes on: {kept} of {counted(len(listing), 'image')} were done.")
            for row, item in answers(classifier, listing, rows, crop=crop):
                kept += 1
                if told and places[row] < 0:  # else it was told before, and is computed for its last digits alone
                    told(row, kept, item)
                values = row_without_path(item, classifier, len(columns), top=top, every=every)
                with writing():
                    places[row] = partial.keep(0 if isinstance(item, Problem) else listing.stamps[row], values)
            with writing():
                counts = _assemble(target, columns, listing, partial, places)
                partial.remove()
        finally:
            partial.close()
    unknown, unreadable = counts.pop(True, 0), counts.pop(None, 0)
    return PredictedTable(
        target, len(listing), dict(counts.most_common()), unknown, unreadable, len(listing) - len(rows)
    )


def identity_of(classifier: Classifier) -> dict[str, Any]:
    """All that an answer depends on but the image."""
    arrays: dict[str, Any] = {f"network.{name}": array for name, array in classifier.weights.items()}
    if unknown := classifier.unknown:
        arrays |= {f"unknown.{name}": getattr(unknown, name) for name in ("centre", "kept", "rows", "sure", "near")}
    return {
        "format": FORMAT,
        "headstart": __version__,
        "weights": weights_digest(arrays),
        "threshold": unknown.threshold if unknown else None,
        "blueprint": classifier.blueprint.to_json(),
        "image": classifier.spec.as_json(),
        "classes": list(classifier.classes),
        "running": [classifier.engine, classifier.network.precision, classifier.device],
    }


def _to_do(listing: Listing, partial: PartialTable) -> tuple[NDArray[np.int64], array[int]]:
    """The places of rows that are there already (N,), and the rows that are to be computed.

    Images go through the network several at a time, so of those that go together all are kept or none: a row then has
    the same digits wherever the work was interrupted.
    """
    if not len(partial.stamps):
        return np.full(len(listing), -1, np.int64), array("q", range(len(listing)))
    places = partial.find(listing.stamps_now())
    lacking = np.logical_or.reduceat(places < 0, np.arange(0, len(places), CHUNK))
    rows = np.flatnonzero(np.repeat(lacking, CHUNK)[: len(places)])
    return places, array("q", rows.astype(np.int64).tobytes())


def answers(
    classifier: Classifier, listing: Listing, rows: Sequence[int] | None = None, *, crop: bool = True
) -> Iterator[tuple[int, Answer | Problem]]:
    """The answers of these rows in their order, each with its row; default: of all."""
    rows = range(len(listing)) if rows is None else rows
    few = len(listing) <= CHUNK  # for which finding the libraries of BLAS would take longer than all products
    with nullcontext() if few else HALF_OF_THE_CORES, listing.opened(rows) as dataset:  # the rest wait for the network
        judged = classifier.judge(dataset, crop=crop, rows=rows)
        for row, (item, unknown) in zip(rows, judged, strict=True):
            yield row, item if isinstance(item, Problem) else Answer(item.name, item.probabilities, unknown)


def row_without_path(
    item: Answer | Problem, classifier: Classifier, columns: int, *, top: int, every: bool
) -> list[Any]:
    """What stands in the columns after the path; of an image that cannot be read only the error."""
    if isinstance(item, Problem):
        empty = [None] * (columns - 5)
        return [None, None, False, as_text(f"{item.kind}: {item.detail}"), *empty]
    return row_of(item, classifier.classes, top=top, every=every, errors=True)


def _assemble(
    target: Path, columns: dict[str, type], listing: Listing, partial: PartialTable, places: NDArray[np.int64]
) -> Counter[Any]:
    """Write the table, and put it in its place in one step.

    Returns how many there are of each label; of True, which stands for unknown; and of None, which cannot be read.
    """
    counts: Counter[Any] = Counter()

    def rows() -> Iterator[list[Any]]:
        for sample, place in zip(listing.samples, places, strict=True):
            values = partial.row_at(int(place))
            label, _, unknown, *_ = values
            counts[unknown or label] += 1
            yield [as_text(sample.name), *values]

    made = partial.file.with_name(f"{partial.file.name}{target.suffix}")
    write_table(made, columns, rows())
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    made.replace(target)
    return counts
