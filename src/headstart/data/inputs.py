"""Images as a caller may pass them: a path, paths, arrays, or a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import UsageError
from headstart.core.types import ImageDataset
from headstart.data.sources import PathLike, from_arrays, from_pairs, open_source, unlabelled

Images = PathLike | Sequence[PathLike] | NDArray[Any] | Sequence[NDArray[Any]] | ImageDataset


def labelled_dataset(data: Images, labels: Sequence[str] | None) -> ImageDataset:
    """Labelled images as one data set."""
    if isinstance(data, ImageDataset):
        return data
    if labels is not None:
        if isinstance(data, np.ndarray) or (len(data) and isinstance(data[0], np.ndarray)):  # type: ignore[arg-type,index]
            return from_arrays(data, labels)  # type: ignore[arg-type]
        return from_pairs(data, labels)  # type: ignore[arg-type]
    if not isinstance(data, str | os.PathLike):
        raise UsageError(
            "Images without labels cannot be scored: name a folder with a folder for each class, or give labels."
        )
    return open_source(data)


def unlabelled_dataset(images: Images) -> ImageDataset:
    """Images without labels as one data set, in their order."""
    if isinstance(images, ImageDataset):
        return images
    if isinstance(images, str | os.PathLike):
        return unlabelled([images])
    if isinstance(images, np.ndarray) or not len(images) or isinstance(images[0], np.ndarray):
        return from_arrays(images)  # type: ignore[arg-type]
    return unlabelled(images)  # type: ignore[arg-type]


def name_of(data: Images, dataset: ImageDataset) -> str:
    """A short name of the data: of the folder, the file or the named set."""
    place = data if isinstance(data, str | os.PathLike) else dataset.root
    return os.path.basename(os.path.abspath(place)) if place else "in memory"
