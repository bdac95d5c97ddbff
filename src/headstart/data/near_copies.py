"""Finds near copies of a photo by thumbnails, compared with the other photos of the data set.

All solar cells have bars, and all leaves a dark background: with plain correlation, different photos look like copies.
Whitened by the data set's own covariance, what all images share counts little. Distances are in units of the distance
to the 5th neighbour, so that one limit serves for digits and for photos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.core.types import Sample
from headstart.data.chains import GAP, LINK, Links
from headstart.data.load import THUMBNAIL
from headstart.data.threads import ONE_BLAS_THREAD, on_threads

AXES = 32  # of the whitened thumbnails
ALIKE = 0.1  # the largest distance of copies, in units of the usual distance around them
SAME = 0.01  # a copy in any data set: does not count as a neighbour
FAR = 0.5  # the largest unit, used where neighbours are far or few
CROP = 0.9  # share of its side that a cropped copy keeps
BLUR = 0.3  # weight of each neighbouring pixel: reduces the effect of small shifts of the pixel grid
PRIOR = 128  # weight of the usual covariance of photos, in thumbnails; it matters where there are few images
FLAT = 1.0  # grey levels of contrast after blurring; a thumbnail with less cannot be compared

TINY = 1e-9  # the least unit: 0 is one that is not known

_SAMPLE = 2048  # images that the covariance and the usual unit are taken from
_TILE = 512
_BLOCK = 2**21  # distances held at a time

Floats = NDArray[np.floating]
Index = NDArray[np.intp]
Views = Sequence[Floats]  # unit vectors (N, AXES) of the whole, the mirrored and the inner picture
Pairs = Callable[[Views, float], Iterator[tuple[Index, Index, Floats]]]  # see `near_pairs`


class Components:
    """Connected components: ``group_of[i]`` is the smallest index of i's component."""

    def __init__(self, size: int) -> None:
        self.group_of = np.arange(size)

    def join(self, i: Index, j: Index) -> None:
        """Unite the components of ``i[k]`` and ``j[k]`` for every k."""
        parent = self.group_of
        while len(i):
            a, b = parent[i], parent[j]
            np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(above := parent[parent], parent):
                parent[:] = above
            apart = parent[i] != parent[j]
            i, j = i[apart], j[apart]


def join_groups(first: NDArray[np.int_], second: NDArray[np.int_]) -> Index:
    """Groups in which two images are together if they are so in ``first`` or ``second``, also through other images.

    Both are group numbers (N,); the result is for each image the smallest index of its group.
    """
    components = Components(len(first))
    for groups in (first, second):
        _, place, number = np.unique(groups, return_index=True, return_inverse=True)
        components.join(np.arange(len(groups)), place[number])
    return components.group_of


def named_groups(samples: Sequence[Sample]) -> Index:
    """Group numbers by the groups that the data names (N,); a sample without one is alone."""
    return np.unique([sample.group or f"\0{row}" for row, sample in enumerate(samples)], return_inverse=True)[1]


def near_copies(thumbnails: NDArray[np.uint8], pairs: Pairs | None = None) -> Index:
    """Group copies of one photo, and frames of one video or burst.

    ``thumbnails`` uint8 (N, 16, 16), grey. The distance of two photos is 1 - cosine of their blurred and whitened
    thumbnails: the smallest of as they are, mirrored, and one against the inner part of the other. They are copies
    (re-encoded, resized, brightened, mirrored, or cropped by about 5 % a side) if it is below ``ALIKE`` times the
    distance from one of them to its 5th neighbour. Frames have many near neighbours: `chains` finds those. Returns for
    each photo the smallest index of its group (N,); the groups do not depend on the order of the photos.

    Compares all pairs, a tile at a time. Memory: about 500 bytes a photo, and tiles. ``pairs`` does it in another way.
    """
    if thumbnails.shape[1:] != (THUMBNAIL, THUMBNAIL):
        raise ValueError(f"Expected thumbnails of shape (N, {THUMBNAIL}, {THUMBNAIL}). Received: {thumbnails.shape}.")
    components = Components(len(thumbnails))
    if len(thumbnails) < 2:
        return components.group_of
    with ONE_BLAS_THREAD:
        views, sample = _whitened_views(thumbnails), _sample_of(thumbnails, _SAMPLE)
        units, links = _Units(views[0], sample), Links(len(thumbnails))
        for i, j, distance in (pairs or near_pairs)(views, max(ALIKE * FAR, LINK)):
            near = distance < ALIKE * FAR  # the others are no copies, whatever their units
            one, other = i[near], j[near]
            copies = distance[near] < ALIKE * np.maximum(units[one], units[other])
            components.join(one[copies], other[copies])
            links.add(i, j, distance)
        for members in _chains(views, links):
            components.join(members[:-1], members[1:])
    return components.group_of


def _whitened_views(thumbnails: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Unit vectors (N, AXES) of the whole, the mirrored and the inner picture; zero for flat pictures."""
    blur, crop = _blur(), _blur() @ _inner()
    views = ((blur, blur), (blur, blur[:, ::-1]), (crop, crop))
    sample = thumbnails[_sample_of(thumbnails, _SAMPLE)]
    mean, axes = _whitening(np.concatenate([_shapes(sample, *view) for view in views[:2]]))
    whitened = []
    for view in views:
        points = np.empty((len(thumbnails), axes.shape[1]), np.float32)
        for start in range(0, len(thumbnails), _TILE):
            shapes = _shapes(thumbnails[start : start + _TILE], *view)
            tile = (shapes - mean) @ axes
            length = np.linalg.norm(tile, axis=1, keepdims=True)
            seen = shapes.any(axis=1, keepdims=True) & (length > 0)
            points[start : start + _TILE] = np.divide(tile, length, out=np.zeros_like(tile), where=seen)
        whitened.append(points)
    return whitened


def _shapes(thumbnails: NDArray[np.uint8], rows: Floats, columns: Floats) -> NDArray[np.float64]:
    """Resampled thumbnails as centred vectors (N, 256) of length 1; zero where flat."""
    pixels = (rows @ thumbnails.astype(np.float64) @ columns.T).reshape(len(thumbnails), THUMBNAIL * THUMBNAIL)
    pixels -= pixels.mean(axis=1, keepdims=True)
    length = np.linalg.norm(pixels, axis=1, keepdims=True)
    shapes: NDArray[np.float64] = np.divide(pixels, length, out=np.zeros_like(pixels), where=length >= FLAT * THUMBNAIL)
    return shapes


def _blur() -> NDArray[np.float64]:
    """A side's pixels mixed with their neighbours (16, 16)."""
    at = np.arange(THUMBNAIL)
    blur = np.zeros((THUMBNAIL, THUMBNAIL))
    for offset, weight in ((-1, BLUR), (0, 1 - 2 * BLUR), (1, BLUR)):
        np.add.at(blur, (at, np.clip(at + offset, 0, THUMBNAIL - 1)), weight)
    return blur


def _inner() -> NDArray[np.float64]:
    """The central part of a side at the size of the whole (16, 16): cubic interpolation (Keys 1981), a = -3/4."""
    at = (np.arange(THUMBNAIL) + 0.5) * CROP + THUMBNAIL * (1 - CROP) / 2 - 0.5
    apart = np.abs(at[:, None] - np.arange(-2, THUMBNAIL + 2))
    near = 1.25 * apart**3 - 2.25 * apart**2 + 1
    far = -0.75 * (apart**3 - 5 * apart**2 + 8 * apart - 4)
    weights = np.where(apart < 1, near, np.where(apart < 2, far, 0))
    inner: NDArray[np.float64] = weights[:, 2:-2]
    inner[:, 0] += weights[:, :2].sum(axis=1)  # beyond the edge, the edge pixel is repeated
    inner[:, -1] += weights[:, -2:].sum(axis=1)
    return inner


def _whitening(sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (256,) and scaled principal axes (256, AXES), after which the sample has variance 1 along each."""
    at = np.arange(THUMBNAIL)
    row, column = np.repeat(at, THUMBNAIL), np.tile(at, THUMBNAIL)
    usual = np.exp(-np.hypot(row[:, None] - row, column[:, None] - column) / (THUMBNAIL / 2))
    usual -= usual.mean(axis=0)
    usual -= usual.mean(axis=1, keepdims=True)
    weight = len(sample) + PRIOR
    mean = sample.sum(axis=0) / weight
    covariance = ((sample - mean).T @ (sample - mean) + PRIOR * usual / np.trace(usual)) / weight
    variances, axes = np.linalg.eigh(covariance)
    return mean, axes[:, -AXES:] / np.sqrt(variances[-AXES:])


class _Units:
    """The unit of distance of each photo: to its 5th neighbour without copies, at least half the median of some.

    It takes a comparison with all photos, so only those that are asked for are measured, each once.
    """

    def __init__(self, points: NDArray[np.float32], sample: Index) -> None:
        self._points, self._known = points, np.zeros(len(points), np.float32)
        seen = sample[points[sample].any(axis=1)]
        self._least = np.float32(0)
        self._least = np.float32(np.median(self[seen]) / 2 if len(seen) else FAR)

    def __getitem__(self, rows: Index) -> NDArray[np.float32]:
        new = np.unique(rows[self._known[rows] == 0])
        if len(self._points) < 5:
            self._known[new] = FAR
        else:
            step = max(1, _BLOCK // len(self._points))
            parts = [new[start : start + step] for start in range(0, len(new), step)]
            for part, found in zip(parts, on_threads(self._measured, parts), strict=True):
                self._known[part] = found
        return np.maximum(self._known[rows], self._least)

    def _measured(self, rows: Index) -> NDArray[np.float32]:
        cosines = self._points[rows] @ self._points.T
        cosines[cosines > 1 - SAME] = -1
        cosines.partition(len(self._points) - 5, axis=1)
        found: NDArray[np.float32] = np.clip(1 - cosines[:, -5], TINY, FAR)
        return found


def _distances(views: Sequence[Floats], i: slice | Index, j: slice) -> Floats:
    """Distances of the photos ``i`` from the photos ``j``."""
    whole, mirrored, inner = views
    cosines: Floats = whole[i] @ whole[j].T
    for a, b in ((whole, mirrored), (whole, inner), (inner, whole)):
        np.maximum(cosines, a[i] @ b[j].T, out=cosines)
    return np.subtract(1, cosines, out=cosines)


def near_pairs(views: Views, limit: float) -> Iterator[tuple[Index, Index, Floats]]:
    """Pairs i < j of photos that are less than ``limit`` apart, with their distances; a tile at a time."""
    return on_threads(lambda tile: near_in_tile(views, *tile, limit), tiles_of(len(views[0])))


def tiles_of(count: int) -> Iterator[tuple[int, int]]:
    """Where the tiles of all pairs of so many photos begin."""
    starts = range(0, count, _TILE)
    return ((top, left) for top in starts for left in starts[top // _TILE :])


def number_of_tiles(count: int) -> int:
    """How many those are."""
    side = -(-count // _TILE)
    return side * (side + 1) // 2


def near_in_tile(views: Views, top: int, left: int, limit: float) -> tuple[Index, Index, Floats]:
    """The near pairs of one tile."""
    distances = _distances(views, slice(top, top + _TILE), slice(left, left + _TILE))
    row, column = np.divmod(np.flatnonzero(distances < limit), distances.shape[1])
    wanted = row + top < column + left
    row, column = row[wanted], column[wanted]
    return row + top, column + left, distances[row, column]


def _chains(views: Sequence[Floats], links: Links) -> Iterator[Index]:
    """The photos of each chain."""
    inside, clusters = links.clusters()
    yield from (np.array(members) for members in inside)
    if not clusters:
        return
    number = np.full(len(views[0]), -1)
    for k, cluster in enumerate(clusters):
        number[cluster.members] = k
    limits = np.array([cluster.longest * GAP for cluster in clusters])
    alone = np.ones(len(clusters), bool)
    for left in range(0, len(number), _TILE):
        rows = np.flatnonzero((number >= 0) & alone[number])
        for start in range(0, len(rows), _TILE):
            tile = rows[start : start + _TILE]
            near = _distances(views, tile, slice(left, left + _TILE)) < limits[number[tile], None]
            near &= number[tile, None] != number[left : left + _TILE]
            alone[number[tile[near.any(axis=1)]]] = False
    yield from (np.array(cluster.members) for cluster, stays in zip(clusters, alone, strict=True) if stays)


def _sample_of(thumbnails: NDArray[np.uint8], size: int) -> Index:
    """Indices of up to ``size`` images, chosen by their content and not by their order."""
    if len(thumbnails) <= size:
        return np.arange(len(thumbnails))
    keys = np.array([hashlib.blake2b(thumbnail.tobytes(), digest_size=8).digest() for thumbnail in thumbnails])
    return np.argsort(keys, kind="stable")[:size]
