"""A model as people give it: the object, or the path of its folder, which is opened."""

from __future__ import annotations

import os

from headstart.core.arguments import instance, shown
from headstart.core.errors import UsageError
from headstart.data.sources import PathLike
from headstart.model.classifier import Classifier
from headstart.model.opened import load
from headstart.model.tabular_classifier import TabularClassifier, load_rows

CLASSIFIER = instance("a classifier of photos: hs.fit, hs.load and hs.pretrained make one", Classifier)


def photo_model(given: Classifier | PathLike, what: str) -> Classifier:
    """A classifier of photos, which is opened where it is a path; ``what`` is what a sentence calls it.

    Raises:
        UsageError: it is something else, or there is none at the path.
        CheckError: the one at the path is damaged.
    """
    if isinstance(given, TabularClassifier):
        raise UsageError(
            f"{what}: expected a model of photos. Received: one of rows of numbers, which is trained longer with "
            "hs.train_rows(…, start=model), and whose weights are plain NumPy arrays: model.weights"
        )
    if isinstance(given, str | os.PathLike):
        return load(given)
    if not isinstance(given, Classifier):
        raise UsageError(f"{what}: expected a model of photos, or the path of one. Received: {shown(given)}.")
    return given


def rows_model(given: TabularClassifier | PathLike, what: str) -> TabularClassifier:
    """A classifier of rows of numbers, which is opened where it is a path.

    Raises:
        UsageError: it is something else, or there is none at the path.
        CheckError: the one at the path is damaged.
    """
    if isinstance(given, Classifier):
        raise UsageError(
            f"{what}: expected a model of rows of numbers. Received: one of photos, which is trained longer with "
            "hs.train_photos(…, start=model) or hs.finetune(model, …)"
        )
    if isinstance(given, str | os.PathLike):
        return load_rows(given)
    if not isinstance(given, TabularClassifier):
        raise UsageError(f"{what}: expected a model of rows, or the path of one. Received: {shown(given)}.")
    return given


def check_order(second: object, call: str) -> None:
    """Refuse a model in the second place, where photos or a path belong; ``call`` shows the right order."""
    if isinstance(second, Classifier | TabularClassifier):
        raise UsageError(f"The model comes first: {call}")
