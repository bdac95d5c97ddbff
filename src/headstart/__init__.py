"""Headstart: a folder of labelled photos becomes an image classifier you can trust, in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from headstart.bundle import load
    from headstart.classifier import Classifier, pretrained
    from headstart.comparing import Comparison, compare
    from headstart.data.check import check
    from headstart.data.sources import open_source
    from headstart.errors import CheckError, DataError, HeadstartError, MissingExtraError, UsageError
    from headstart.fitting import fit
    from headstart.row_classifier import load_rows
    from headstart.scratch import train_photos
    from headstart.scratch_rows import train_rows
    from headstart.train.recipe import Recipe
    from headstart.types import Accuracy, Evaluation, ImageSpec, Prediction, Problem, Sample, Table

_HOME = {  # public name -> the module that has it; imported when first asked for
    "Accuracy": "types",
    "CheckError": "errors",
    "Classifier": "classifier",
    "Comparison": "comparing",
    "DataError": "errors",
    "Evaluation": "types",
    "HeadstartError": "errors",
    "ImageSpec": "types",
    "MissingExtraError": "errors",
    "Prediction": "types",
    "Problem": "types",
    "Recipe": "train.recipe",
    "Sample": "types",
    "Table": "types",
    "UsageError": "errors",
    "check": "data.check",
    "compare": "comparing",
    "fit": "fitting",
    "load": "bundle",
    "load_rows": "row_classifier",
    "open_source": "data.sources",
    "pretrained": "classifier",
    "train_photos": "scratch",
    "train_rows": "scratch_rows",
}
__all__ = [
    "Accuracy",
    "CheckError",
    "Classifier",
    "Comparison",
    "DataError",
    "Evaluation",
    "HeadstartError",
    "ImageSpec",
    "MissingExtraError",
    "Prediction",
    "Problem",
    "Recipe",
    "Sample",
    "Table",
    "UsageError",
    "check",
    "compare",
    "fit",
    "load",
    "load_rows",
    "open_source",
    "pretrained",
    "train_photos",
    "train_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'headstart' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"headstart.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
