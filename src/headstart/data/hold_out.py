"""Which images are held out: seeded, stratified, and whole groups together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST = 2  # images of a class that the training set needs


def hold_out(
    labels: Sequence[int] | NDArray[np.int_],
    keys: Sequence[bytes],
    groups: Sequence[int] | NDArray[np.int_],
    share: float,
    seed: int,
    *,
    least: int = 0,
) -> NDArray[np.bool_]:
    """Hold out about ``share`` of every class, and at least ``least`` images where it has so many: a mask (N,).

    The order depends on a hash of seed and content alone, so the same photos are split in the same way on every
    machine, under any name and in any order. All images of a group are on one side, also where it spans classes.
    """
    labels = np.asarray(labels, np.int_)
    sizes = np.bincount(labels)
    wanted = np.maximum(np.round(sizes * share).astype(int), least)
    room = np.maximum(np.minimum(wanted, sizes - FEWEST), 0)
    out = np.zeros(len(labels), bool)
    for group in shuffled(keys, groups, seed):
        need = np.bincount(labels[group], minlength=len(room))
        if (need <= room).all():
            out[group] = True
            room -= need
    return out


def shuffled(keys: Sequence[bytes], groups: Sequence[int] | NDArray[np.int_], seed: int) -> list[list[int]]:
    """The indices of each group's images, in an order that depends on a hash of seed and content alone."""
    ranks = [hashlib.blake2b(key, digest_size=8, salt=seed.to_bytes(8, "little")).digest() for key in keys]
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(ranks)), key=ranks.__getitem__):  # a group is at the place of its first image
        members.setdefault(int(groups[index]), []).append(index)
    return [*members.values()]
