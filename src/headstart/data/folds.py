"""Folds for cross-validation: every image or row is measured on once, by a network that has not seen it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError, UsageError
from headstart.data.hold_out import shuffled


def folds_of(
    labels: Sequence[int] | NDArray[np.int_],
    keys: Sequence[bytes],
    groups: Sequence[int] | NDArray[np.int_],
    count: int,
    seed: int,
    classes: Sequence[str],
) -> NDArray[np.int_]:
    """The fold of each, (N,), from 0: as many of every class in each as can be, whole groups in one.

    The order is that of `hold_out`.

    Raises:
        UsageError: fewer than two folds.
        DataError: a class with fewer groups than there are folds.
    """
    labels, groups = np.asarray(labels, np.int_), np.asarray(groups, np.int_)
    if count < 2:
        raise UsageError(f"--folds: expected 2 or more. Received: {count}.")
    for label in range(len(classes)):
        if (there := len(np.unique(groups[labels == label]))) < count:
            raise DataError(
                f"--folds {count}: class '{classes[label]}' has only {there} that are not copies of each other, so "
                f"some folds would have none of it. Take {max(there, 2)} folds or fewer, or leave the class out."
            )
    filled = np.zeros((count, len(classes)), int)
    fold = np.empty(len(labels), np.int_)
    for group in shuffled(keys, groups, seed):
        need = np.bincount(labels[group], minlength=filled.shape[1])
        # the fold that lacks most of what the group brings; of equals the emptiest, then the first
        best = min(range(count), key=lambda k: (int(filled[k] @ need), int(filled[k].sum()), k))
        fold[group] = best
        filled[best] += need
    return fold
