"""Which images are held out: seeded, stratified, and whole groups together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

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
    machine, under any name and in any order. All images of a group are on one side, also where it spans classes:
    first those groups that the share has room for, then those that bring a class nearer to its share. A class of two
    groups or more has one held out, if the others leave it `FEWEST` images.
    """
    labels = np.asarray(labels, np.int_)
    sizes = np.bincount(labels)
    wanted = np.maximum(np.round(sizes * share).astype(int), least)
    most = np.maximum(sizes - FEWEST, 0)
    room = np.minimum(wanted, most)
    out = np.zeros(len(labels), bool)
    left: list[list[int]] = []
    for group in shuffled(keys, groups, seed):
        need = np.bincount(labels[group], minlength=len(room))
        if (need <= room).all():
            out[group] = True
            room -= need
        else:
            left.append(group)
    if share or least:
        held = np.bincount(labels[out], minlength=len(sizes))
        for group in _nearest(labels, left, held, wanted, most):
            out[group] = True
    return out


def _nearest(
    labels: NDArray[np.int_],
    groups: list[list[int]],
    held: NDArray[np.int_],
    wanted: NDArray[np.int_],
    most: NDArray[np.int_],
) -> Iterator[list[int]]:
    """Further groups to hold out: of each class the one that brings ``held`` nearest to ``wanted``, and so on.

    Of a class of which none is held out, that may be more than is wanted; ``most`` is all that can be held out.
    """
    short = np.flatnonzero(((held < wanted) | (held == 0)) & (most > 0))
    of_class: dict[int, list[list[int]]] = {label: [] for label in short.tolist()}
    for group in groups:
        for label in {*labels[group].tolist()} & of_class.keys():
            of_class[label].append(group)
    taken: set[int] = set()  # by their first image
    for label, own in of_class.items():
        while held[label] < wanted[label] or not held[label]:
            best, least = None, np.abs(held - wanted).sum() if held[label] else np.inf
            for group in own:
                after = held + np.bincount(labels[group], minlength=len(held))
                off = np.abs(after - wanted).sum()
                if group[0] not in taken and off < least and (after <= most).all():
                    best, least = group, off
            if best is None:
                break
            yield best
            taken.add(best[0])
            held = held + np.bincount(labels[best], minlength=len(held))


def shuffled(keys: Sequence[bytes], groups: Sequence[int] | NDArray[np.int_], seed: int) -> list[list[int]]:
    """The indices of each group's images, in an order that depends on a hash of seed and content alone."""
    ranks = [hashlib.blake2b(key, digest_size=8, salt=seed.to_bytes(8, "little")).digest() for key in keys]
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(ranks)), key=ranks.__getitem__):  # a group is at the place of its first image
        members.setdefault(int(groups[index]), []).append(index)
    return [*members.values()]
