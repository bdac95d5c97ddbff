"""A report is written: beside a model, or wherever it is wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.core.arguments import PATH, PROGRESS, YES_NO, Rule, checks, instance, several
from headstart.core.errors import DataError, UsageError
from headstart.core.progress import Progress, Shown, function_of, shows_progress
from headstart.core.types import ImageDataset
from headstart.data.inputs import Images, labelled_dataset, name_of
from headstart.data.sources import PathLike
from headstart.diagnose.distance import distance_to_imagenet
from headstart.diagnose.records import Corrupted, FromScratch, ImageNetDistance
from headstart.model.classifier import Classifier
from headstart.model.files import PAGE, PAGE_VALUES
from headstart.model.given import CLASSIFIER
from headstart.model.measure import of_known_classes
from headstart.plots.files import write_files
from headstart.plots.style import why_no_folder
from headstart.report.answers import answer_of
from headstart.report.page import page_of
from headstart.report.photos import pictures_of
from headstart.report.records import FILES, Content, Report

NONE_COUNTED = (
    "The figures are those of the fit: of the photos that were given, none can be counted. The training set has them, "
    "or they cannot be read."
)

if TYPE_CHECKING:
    from headstart.attack.robustness import Robustness


def _robustness(value: object) -> object:
    from headstart.attack.robustness import Robustness  # a fit that writes a report does not wait for attacks

    if not isinstance(value, Robustness):
        raise TypeError
    return value


ROBUSTNESS = Rule("what hs.robustness gives", _robustness)


@dataclass(frozen=True)
class Written:
    """The two files of a report, and what of them is told."""

    files: dict[str, bytes]  # by their names
    pictures: int

    def writers(self) -> dict[str, Callable[[Path], object]]:
        """As `write_files` takes them."""
        return {name: partial(_write, content) for name, content in self.files.items()}


@checks(
    classifier=CLASSIFIER,
    out=PATH,
    robustness=ROBUSTNESS,
    corrupted=several(instance("what hs.corrupted gives", Corrupted), "what hs.corrupted gives"),
    from_scratch=instance("what hs.from_scratch gives", FromScratch),
    overwrite=YES_NO,
    progress=PROGRESS,
)
@shows_progress
def write_report(
    classifier: Classifier,
    data: Images | None = None,
    *,
    out: PathLike = "report",
    robustness: Robustness | None = None,
    corrupted: Sequence[Corrupted] = (),
    from_scratch: FromScratch | None = None,
    overwrite: bool = False,
    progress: Shown = True,
) -> Report:
    """Write a report of a classifier into a folder: `report.html`, one page that needs no network, and `report.json`.

    Args:
        data: labelled photos, on which the classifier is measured again, and of which the page shows the worst
            mistakes; those of the fit also have what the diagnosis found. None: the figures of the fit, no photos.
        out: the folder.
        robustness, corrupted, from_scratch: what the functions of `hs` with these names gave, for a section on each.
        overwrite: whether a report that is there is replaced.
        progress: as for `fit`.

    Raises:
        UsageError: a report is there already, or the folder cannot be written to.
        DataError: the classifier knows none of the classes of the data.
    """
    folder = os.fspath(out)
    check_place(folder, overwrite)
    report = function_of(progress)
    content = content_of(classifier, data, report)
    content = replace(content, robustness=robustness, corrupted=tuple(corrupted), from_scratch=from_scratch)
    written = report_files(content, progress=report)
    html, values = write_files(written.writers(), folder)
    verdict = content.diagnosis.verdict if content.diagnosis else None
    return Report(
        html=html,
        json=values,
        verdict=verdict.kind if verdict else None,
        sentence=verdict.sentence if verdict else "",
        next_step=verdict.next_step if verdict else None,
        accuracy=content.evaluation.accuracy if content.evaluation else None,
        left_out=(content.evaluation.left_out or ()) if content.evaluation else (),
        note=content.note,
        size=len(written.files[PAGE]),
        pictures=written.pictures,
    )


def report_files(content: Content, *, maps: bool = True, progress: Progress | None = None) -> Written:
    """The files of a report whose content is at hand, such as at the end of a fit; nothing is written.

    Args:
        maps: whether the network runs on the worst mistakes, for class activation.
    """
    pictures = pictures_of(content, maps=maps, progress=progress)
    values = json.dumps(answer_of(content), allow_nan=False, indent=1) + "\n"
    page = page_of(content, pictures)
    return Written({PAGE: page.encode("utf-8"), PAGE_VALUES: values.encode("ascii")}, pictures.count)


def content_of(classifier: Classifier, data: Images | None, progress: Progress | None = None) -> Content:
    """What a classifier remembers; with ``data`` it is measured on these photos."""
    record = classifier.record
    content = Content(classifier, record.result, record.diagnosis)
    if data is None:
        return content
    dataset = labelled_dataset(data, None, classifier.label_kind)
    of_known_classes(classifier, dataset)
    evaluation, note = record.result, ""
    try:
        evaluation = classifier.evaluate(dataset, progress=progress or False)
    except DataError:  # there is still a diagnosis to show
        note = NONE_COUNTED
    name = name_of(data, dataset)
    return replace(
        content,
        evaluation=evaluation,
        distance=_distance(classifier, dataset),
        photos=dataset,
        measured_on=name if name != record.data and not note else "",
        note=note,
    )


def _distance(classifier: Classifier, dataset: ImageDataset) -> ImageNetDistance | None:
    """How far the photos are from those of ImageNet, where the network is as it was trained on them."""
    trained = classifier.record.scratch or (classifier.record.finetune and classifier.record.finetune.kept)
    return None if trained else distance_to_imagenet(dataset, np.arange(len(dataset)), classifier.network)


def check_place(folder: str, overwrite: bool) -> None:
    """Refuse a folder that cannot be written to, or has a report already, before any work is done.

    Raises:
        UsageError: with what to do.
    """
    if problem := why_no_folder(folder, "Choose another folder."):
        raise UsageError(problem)
    there = [name for name in FILES if os.path.lexists(os.path.join(folder, name))]
    if there and not overwrite:
        raise UsageError(
            f"'{os.path.join(folder, there[0])}' exists already. Choose another folder, or replace it: --overwrite"
        )


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
