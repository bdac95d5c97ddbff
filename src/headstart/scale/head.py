"""The head of a classifier from shards of features: split, fit, measured and saved by one task of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headstart.core.timing import StageTimer
from headstart.core.types import ImageDataset
from headstart.data.split import make_split
from headstart.engines.sound import check_not_all_alike
from headstart.model.bundle import save
from headstart.model.classifier import Classifier
from headstart.model.records import FitRecord
from headstart.plots.files import write_files
from headstart.report.records import Content
from headstart.report.write import report_files
from headstart.scale.extract import Done, Work
from headstart.scale.matrix import SpreadDesign
from headstart.scale.whole import whole_of
from headstart.workflows.backbone_features import FitSettings, FrozenBackbone
from headstart.workflows.fit import fit_features

ALIKE = 4096  # images that are looked at to see whether the network tells any apart


@dataclass(frozen=True, eq=False)
class FittedOnCluster:
    """What is known of a model that was fitted on a cluster; the model itself is a folder."""

    path: Path
    classes: tuple[str, ...]
    record: FitRecord


def fit_shards(work: Work, done: Sequence[Done], settings: FitSettings, name: str, out: Path) -> FittedOnCluster:
    """Split the images, fit the head on the training set, measure it, and save the model as ``out``."""
    timer = StageTimer()
    with timer("open"):
        dataset, seen = whole_of(work, done)
        frozen = FrozenBackbone(work.pretrained, work.network())
        some = np.flatnonzero(seen.usable)[:ALIKE]
        check_not_all_alike(frozen.network.name, seen.values[some], seen.thumbnails[some])
    with timer("split"):
        split = make_split(dataset, seen, settings.holdout, settings.seed)
    model = fit_features(frozen, dataset, seen, split, settings, timer, design=SpreadDesign)
    model.record = replace(model.record, data=name)
    with timer("save"):
        path = save(model, out, overwrite=True)
    if settings.diagnose:
        with timer("report"):
            _write_page(model, dataset, path)
    return FittedOnCluster(path, model.classes, model.record)


def _write_page(model: Classifier, dataset: ImageDataset, folder: Path) -> None:
    content = Content(model, model.record.result, model.record.diagnosis, photos=dataset)
    write_files(report_files(content, maps=False).writers(), folder)
