"""Copies of one photo among many, from what it looks like: perceptual hash, grey thumbnail, groups.

How alike two *different* photos are depends on the set: digits and solar cells differ by less than a photo and its
crop. So every distance is measured in units of the set's own typical distance, and two witnesses have to agree.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.load import THUMB

GREY = 32  # side of the grey picture that is hashed
MARGIN = 0.05  # the second view leaves out this share at each edge: what the first view of a cropped copy shows
VIEWS = 2

MAX_BITS = 10  # of 64: beyond that even photos of one set collide
MAX_THUMB = 0.1  # 1 - correlation
MAX_BITS_SHARE = 0.6  # of the typical distance
AGREE = 0.05  # the product of both distances, each in units of the typical one
TYPICAL_BITS, TYPICAL_THUMB = 22.0, 0.5  # what sets of photos show; the scale of a set is never larger
SAME_THUMB = 0.01  # so near that it is a copy in any set: left out of the scale
SAMPLE = 1024  # images that the typical distances are taken from

_ROWS, _COLUMNS = 64, 4096  # a tile of the pair search: 2 MB of distances, so that it stays in the cache
_PAIRS = 8192  # pairs verified at a time

_FREQUENCIES = 12
_DCT = np.cos(np.pi * np.outer(np.arange(_FREQUENCIES), 2 * np.arange(GREY) + 1) / (2 * GREY))
_LOWEST = sorted((i + j, i, j) for i in range(_FREQUENCIES) for j in range(_FREQUENCIES) if i + j)[:64]
_I, _J = (np.array(index) for index in list(zip(*_LOWEST, strict=True))[1:])


class Components:
    """Connected components under union: ``group_of[i]`` is the smallest index of i's component."""

    def __init__(self, size: int) -> None:
        self.group_of = np.arange(size)
        self._lock = Lock()

    def join(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> None:
        """Unite the components of ``i[k]`` and ``j[k]`` for every k."""
        parent = self.group_of
        with self._lock:
            while len(i):
                a, b = parent[i], parent[j]
                np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
                while not np.array_equal(above := parent[parent], parent):
                    parent[:] = above
                apart = parent[i] != parent[j]
                i, j = i[apart], j[apart]

    def apart(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which pairs are not known to belong together; never wrong about one that is."""
        apart: NDArray[np.bool_] = self.group_of[i] != self.group_of[j]
        return apart


class Thumbs:
    """Grey thumbnails (N, side, side) uint8, and the correlation of any two, exact on every machine.

    A sum of 256 products of two bytes stays below 2**24, so float32 holds it without rounding in whatever order.
    """

    def __init__(self, thumbs: NDArray[np.uint8]) -> None:
        self.pixels = thumbs.reshape(len(thumbs), THUMB * THUMB)
        self.mean = self.pixels.mean(axis=1)
        squares = np.einsum("ij,ij->i", self.pixels, self.pixels, dtype=np.float64)
        self.norm = np.sqrt(np.maximum(squares - THUMB * THUMB * self.mean**2, 0))
        self.flat = self.norm < 2 * THUMB  # contrast of under two grey levels: nothing to compare

    def apart(self, i: NDArray[np.intp], other: Thumbs, j: NDArray[np.intp]) -> NDArray[np.float64]:
        """1 - correlation of pairs; 1 where one of the two is flat."""
        dots = np.einsum("ij,ij->i", self.pixels[i].astype(np.float32), other.pixels[j].astype(np.float32))
        return self._distance(dots, i, other, j)

    def all_apart(self, i: NDArray[np.intp], other: Thumbs) -> NDArray[np.float64]:
        """1 - correlation of some with all: (len(i), N)."""
        dots = self.pixels[i].astype(np.float32) @ other.pixels.T.astype(np.float32)
        return self._distance(dots, i[:, None], other, np.arange(len(other.pixels))[None, :])

    def _distance(
        self, dots: NDArray[np.float32], i: NDArray[np.intp], other: Thumbs, j: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        covariance = dots - THUMB * THUMB * self.mean[i] * other.mean[j]
        usable = ~(self.flat[i] | other.flat[j])
        distance: NDArray[np.float64] = 1 - np.divide(
            covariance, self.norm[i] * other.norm[j], out=np.zeros(dots.shape), where=usable
        )
        return distance


def phash(grey: NDArray[np.generic]) -> NDArray[np.uint64]:
    """64-bit perceptual hashes of grey pictures (N, 32, 32): the signs of the 64 lowest frequencies about their median.

    The cosine transform without its constant term, hence blind to brightness and contrast (Zauner 2010).
    """
    spectrum = (_DCT @ grey.astype(np.float64) @ _DCT.T)[:, _I, _J]
    bits = spectrum > np.median(spectrum, axis=1, keepdims=True)
    return np.packbits(np.ascontiguousarray(bits), axis=1).view(np.uint64)[:, 0]


def small(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey pictures (N, 32, 32) as thumbnails (N, 16, 16)."""
    k = GREY // THUMB
    means: NDArray[np.float64] = grey.reshape(len(grey), THUMB, k, THUMB, k).mean(axis=(2, 4))
    return (means + 0.5).astype(np.uint8)


def sample_of(thumbs: NDArray[np.uint8], size: int) -> NDArray[np.intp]:
    """Indices of up to ``size`` images, chosen by what they show and not by where they stand in the list."""
    if len(thumbs) <= size:
        return np.arange(len(thumbs))
    keys = np.array([hashlib.blake2b(thumb.tobytes(), digest_size=8).digest() for thumb in thumbs])
    return np.argsort(keys, kind="stable")[:size]


def fifth(distances: NDArray[Any]) -> NDArray[np.float64]:
    """Each row's distance to its 5th nearest; infinite where a row has no five finite ones."""
    if distances.shape[1] < 5:
        return np.full(len(distances), np.inf)
    return np.partition(distances, 4, axis=1)[:, 4].astype(np.float64)


def scale(fifths: NDArray[np.float64], typical: float) -> float:
    """A set's unit of distance: the median to the 5th neighbour, kept within what sets of photos show."""
    return min(max(float(np.median(fifths)), typical / 20), typical) if len(fifths) else typical


def near_copies(hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Group re-encoded, resized, slightly cropped and brightened copies of one picture.

    ``hashes`` (N, 2) and ``thumbs`` (N, 2, 16, 16) are of each picture's two views, see `MARGIN`. Two pictures
    count as copies when a view of one and a view of the other are at most ``MAX_BITS`` apart, their thumbnails
    correlate, and the product of both distances, each in units of the set's own median distance to the 5th
    neighbour, is below ``AGREE``. Returns for each picture the smallest index of its group (N,).

    Compares all pairs, a tile at a time: the memory does not grow with their number.
    """
    views = [Thumbs(thumbs[:, view]) for view in range(VIEWS)]
    codes = [np.ascontiguousarray(hashes[:, view]) for view in range(VIEWS)]
    typical_bits, typical_thumb = _typical(codes[0], views[0], sample_of(thumbs[:, 0], SAMPLE))
    most = int(min(MAX_BITS, MAX_BITS_SHARE * typical_bits))
    components = Components(len(hashes))

    def rows(start: int) -> None:
        for column in range(0, len(hashes), _COLUMNS):
            for a, b in ((0, 0), (0, 1)) if column + _COLUMNS > start else ((0, 1),):
                left, right = codes[a][start : start + _ROWS, None], codes[b][None, column : column + _COLUMNS]
                i, j = np.nonzero(np.bitwise_count(left ^ right) <= most)
                i, j = i + start, j + column
                wanted = components.apart(i, j) & ~views[a].flat[i] & ~views[b].flat[j]
                i, j = i[wanted], j[wanted]
                for first in range(0, len(i), _PAIRS):
                    verify(a, b, i[first : first + _PAIRS], j[first : first + _PAIRS])

    def verify(a: int, b: int, i: NDArray[np.intp], j: NDArray[np.intp]) -> None:
        bits = np.bitwise_count(codes[a][i] ^ codes[b][j])
        thumb = views[a].apart(i, views[b], j)
        near = (thumb < MAX_THUMB) & ((bits + 1.0) / typical_bits * thumb / typical_thumb < AGREE)
        components.join(i[near], j[near])

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="pairs") as pool:
        for _ in pool.map(rows, range(0, len(hashes), _ROWS)):
            pass
    return components.group_of


def _typical(codes: NDArray[np.uint64], view: Thumbs, sample: NDArray[np.intp]) -> tuple[float, float]:
    bits, thumb = [np.empty(0)], [np.empty(0)]
    sample = sample[~view.flat[sample]]
    for start in range(0, len(sample), _ROWS):
        i = sample[start : start + _ROWS]
        apart = view.all_apart(i, view)
        left_out = (apart < SAME_THUMB) | view.flat  # itself and copies say nothing of how far others are
        thumb.append(fifth(np.where(left_out, np.inf, apart)))
        bits.append(fifth(np.where(left_out, np.inf, np.bitwise_count(codes[i][:, None] ^ codes))))
    return scale(np.concatenate(bits), TYPICAL_BITS), scale(np.concatenate(thumb), TYPICAL_THUMB)
