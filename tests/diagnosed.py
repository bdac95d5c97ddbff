"""Heads on made-up features, for tests of the diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import ImageDataset, Sample
from headstart.data.load import THUMBNAIL
from headstart.data.split import Split
from headstart.diagnose.diagnose import FittedHead
from headstart.learn.heads import fit_head
from headstart.learn.regularisation_path import Design
from headstart.learn.unknown import fit_unknown

Values = NDArray[np.float64]
Labels = NDArray[np.int_]


def fitted(
    features: Values,
    labels: Labels,
    test: NDArray[np.bool_] | None = None,
    *,
    kind: str = "lda",
    copies: Sequence[tuple[int, int]] = (),
) -> FittedHead:
    """A head on the features that are not in the test set; ``copies`` are rows that show the same."""
    count, classes = len(labels), int(labels.max()) + 1
    test = np.zeros(count, bool) if test is None else test
    groups = np.arange(count)
    for first, second in copies:
        groups[second] = groups[first]
    train = ~test & ~np.isin(groups, groups[test]) if copies else ~test
    names = tuple(f"class {k}" for k in range(classes))
    own = "test" if test.any() else ""
    samples = [
        Sample(f"{row}.jpg", names[labels[row]], ("test" if test[row] else "train") if own else "")
        for row in range(count)
    ]
    split = Split(names, labels, train, test, groups, own, [], 0, groups)
    rows = np.flatnonzero(train)
    fit = fit_head(features.astype(np.float32), labels[rows], classes, rows=rows, kind=kind, groups=groups[rows])
    _, typical = fit_unknown(Design(features.astype(np.float32), rows), labels[rows], groups[rows], fit)
    thumbnails = np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8)
    dataset = ImageDataset("", samples, lambda row: thumbnails[row])
    return FittedHead(dataset, features.astype(np.float32), thumbnails, split, fit, typical)


def blobs(
    count: int, width: int, apart: float, seed: int = 0, classes: int = 2, informative: int | None = None
) -> tuple[Values, Labels]:
    """Gaussian classes whose means are ``apart`` from the origin, each in a direction of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    x = rng.standard_normal((count, width))
    means = np.eye(classes, informative or width) * apart
    x[:, : means.shape[1]] += means[labels]
    return x, labels


def xor(count: int, seed: int = 0, apart: float = 2.0) -> tuple[Values, Labels]:
    """Four clouds in a plane; opposite ones are of one class."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1, 1], (count, 2))
    return signs * apart + rng.standard_normal((count, 2)), (signs[:, 0] * signs[:, 1] > 0).astype(int)
