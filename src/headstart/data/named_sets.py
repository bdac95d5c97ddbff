"""Named data sets. Each is part of an installed package, or was fetched by one before; none is downloaded."""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.core.errors import DataError, needs
from headstart.core.types import ImageDataset, Sample
from headstart.data.idx import idx_dataset, idx_pairs
from headstart.data.tables import file_dataset

# where torchvision.datasets.MNIST(".") or MNIST("data"), and keras.datasets.mnist, leave their files
TORCHVISIONS = (os.path.join("MNIST", "raw"), os.path.join("data", "MNIST", "raw"))
KERAS_FILE = os.path.join("~", ".keras", "datasets", "mnist.npz")


def from_sklearn(name: str) -> Any:
    """A data set of scikit-learn, as its loader returns it."""
    with needs("scikit-learn", "data", f"The data set '{name}'"):
        datasets = importlib.import_module("sklearn.datasets")
    return getattr(datasets, f"load_{name}")()


def elpv() -> ImageDataset:
    """2 624 photos of solar cells, "functional" or "defective" (Deitsch et al., Solar Energy 185, 2019).

    A cell is defective if the experts' probability of a defect is above one half.
    """
    from importlib.metadata import distribution

    with needs("elpv-dataset", "demo", "The data set 'elpv'"):
        package = distribution("elpv-dataset")
    root = str(package.locate_file("elpv_dataset/data"))
    found = []
    try:
        with open(os.path.join(root, "labels.csv"), encoding="utf-8") as lines:
            for line in lines:
                name, probability, _ = line.split()
                label = "defective" if float(probability) > 0.5 else "functional"
                found.append((Sample(name, label), os.path.join(root, name)))
    except (OSError, ValueError) as error:
        raise DataError(f"The installed elpv-dataset is damaged ({error}). Install it again.") from error
    return file_dataset(root, found)


def digits() -> ImageDataset:
    """1 797 handwritten digits of 8 × 8 pixels, from scikit-learn."""
    data = from_sklearn("digits")
    images = np.round(data.images * (255 / 16)).astype(np.uint8)  # counts of 0 to 16
    samples = [Sample(f"digits#{index}", str(label)) for index, label in enumerate(data.target.tolist())]
    return ImageDataset("digits", samples, images.__getitem__)


def mnist() -> ImageDataset:
    """70 000 handwritten digits of 28 × 28 pixels (LeCun et al. 1998), where torchvision or Keras left them.

    Raises:
        DataError: they are in none of those places.
    """
    for folder in TORCHVISIONS:
        if os.path.isdir(folder) and (pairs := idx_pairs(folder, os.listdir(folder))):
            return replace(idx_dataset(folder, pairs), root="mnist")
    file = os.path.expanduser(KERAS_FILE)
    if os.path.isfile(file):
        return _of_keras(file)
    raise DataError(
        f"The digits of MNIST are not at hand, and nothing is downloaded. Looked for torchvision's in "
        f"{' and '.join(TORCHVISIONS)}, and for Keras' in {KERAS_FILE}. Fetch them with either, or name the folder of "
        "its files: headstart train FOLDER"
    )


def _of_keras(file: str) -> ImageDataset:
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            parts = [(part, arrays[f"x_{part}"], arrays[f"y_{part}"].tolist()) for part in ("train", "test")]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"'{file}' is damaged or not Keras' file of MNIST: {error}. Fetch it again.") from error
    samples = [
        Sample(f"{part}#{row}", str(label), part) for part, _, labels in parts for row, label in enumerate(labels)
    ]
    images = np.concatenate([pixels for _, pixels, _ in parts])
    return ImageDataset("mnist", samples, images.__getitem__)


NAMED: dict[str, Callable[[], ImageDataset]] = {"digits": digits, "elpv": elpv, "mnist": mnist}
# 150 irises of 3 species, 4 lengths each (Fisher 1936); 178 wines of 3 growers; 569 tumours, malignant or benign
NAMED_ROWS = ("iris", "wine", "breast_cancer")
