"""Folds for cross-validation: every image or row is in the test set of one fold."""

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
    """The fold of each image or row (N,), from 0: stratified, whole groups in one fold, shuffled as by `hold_out`.

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
        # the fold with the fewest of the group's classes; of equals the smallest, then the first
        best = min(range(count), key=lambda k: (int(filled[k] @ need), int(filled[k].sum()), k))
        fold[group] = best
        filled[best] += need
    return fold


def random_folds(groups: NDArray[np.int_], count: int, rng: np.random.Generator) -> NDArray[np.int_]:
    """The fold of each row (N,), from 0: whole groups, as many of them in each fold, whatever their classes."""
    names, member = np.unique(groups, return_inverse=True)
    fold: NDArray[np.int_] = rng.permutation(len(names))[member] % count
    return fold
