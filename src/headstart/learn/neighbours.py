"""Near-duplicates by what the network sees and what a thumbnail shows, so that no split tears a photo from its copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from headstart.data.copies import SAME_THUMB, TYPICAL_THUMB, Components, Thumbs, fifth, sample_of, scale
from headstart.data.load import THUMB

AGREE = 0.06  # the product of both distances, each in units of the set's typical one
MAX_THUMB = 0.15  # 1 - correlation
MAX_FEATURES = 0.5  # 1 - cosine
TYPICAL_FEATURES = 0.4  # 1 - cosine to the 5th neighbour in sets of photos; the unit is never larger
CROP = 0.9  # share of its side that a cropped copy keeps

_SAMPLE = 512  # rows that the typical distances are taken from
_THUMB_AXES, _FEATURE_AXES = 32, 64
_TILE = 512
_PAIRS = 2048
_SLACK = 1e-4  # what rounding may take from a bound in float32

Floats = NDArray[np.floating]
Rows = NDArray[np.intp] | slice
Units = tuple[float, float]  # of the thumbnails' and of the features' distance


def near_duplicates(features: Floats, thumbs: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Group copies of one photo: re-encoded, resized, brightened, mirrored, or cropped by about 5 % a side.

    ``features`` (N, D) as the network gives them, not centred; ``thumbs`` uint8 (N, 16, 16), grey. Two photos are
    copies when the thumbnails correlate (as they are, mirrored, or one against the inner part of the other) and the
    product of 1 - cosine and 1 - correlation, each in units of the set's own median to the 5th neighbour, is below
    ``AGREE``. Returns for each photo the smallest index of its group (N,); the order of the photos changes no group.

    All pairs are bounded from below in a projection, and only those that pass are computed in full. Memory: about
    2 KB a photo, and tiles.
    """
    if thumbs.shape != (len(features), THUMB, THUMB):
        raise ValueError(f"Expected thumbs of shape ({len(features)}, {THUMB}, {THUMB}). Received: {thumbs.shape}.")
    components = Components(len(features))
    if len(features) < 2:
        return components.group_of
    seen = _Features(features)
    views = _Views(thumbs)
    usable = seen.usable & ~views.whole.flat
    rows = sample_of(thumbs, _SAMPLE)
    rows = rows[usable[rows]]
    if not len(rows):
        return components.group_of
    units = _typical(seen, views, rows)

    for i, j in _candidates(seen, views, rows, units):
        wanted = components.apart(i, j) & usable[i] & usable[j]
        _join_copies(components, seen, views, units, np.stack((i[wanted], j[wanted])))
    return components.group_of


def _join_copies(
    components: Components, features: _Features, views: _Views, units: Units, pairs: NDArray[np.intp]
) -> None:
    """Unite those of ``pairs`` (2, count) that are copies."""
    for start in range(0, pairs.shape[1], _PAIRS):
        i, j = pairs[:, start : start + _PAIRS]
        wanted = components.apart(i, j)  # the pairs before may have settled these
        i, j = i[wanted], j[wanted]
        thumb = views.distance(i, j)
        alike = thumb < MAX_THUMB  # cheaper to know than the cosine
        i, j, thumb = i[alike], j[alike], thumb[alike]
        near = _copies(thumb, features.distance(i, j), units)
        components.join(i[near], j[near])


class _Features:
    """Feature vectors, made unit length a few rows at a time: a copy of all would double the memory of a fit."""

    def __init__(self, values: Floats) -> None:
        self._values = values
        lengths = np.empty(len(values))
        for start in range(0, len(values), _TILE):
            tile = values[start : start + _TILE].astype(np.float64)
            lengths[start : start + _TILE] = np.sqrt(np.einsum("ij,ij->i", tile, tile))
        self.usable = np.isfinite(lengths) & (lengths > 0)
        self.lengths = np.where(self.usable, lengths, 1).astype(np.float32)

    def unit(self, rows: Rows) -> NDArray[np.float32]:
        """Unit vectors; zero where there is no direction."""
        vectors: NDArray[np.float32] = self._values[rows].astype(np.float32) / self.lengths[rows, None]
        vectors[~self.usable[rows]] = 0
        return vectors

    def cosines(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Cosines of some with all: (len(rows), N)."""
        some, count = self.unit(rows), len(self.lengths)
        cosines = np.empty((len(rows), count), np.float32)
        for start in range(0, count, _TILE):
            cosines[:, start : start + _TILE] = some @ self.unit(slice(start, start + _TILE)).T
        return cosines

    def distance(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.float32]:
        """1 - cosine of pairs."""
        cosine: NDArray[np.float32] = np.einsum("ij,ij->i", self.unit(i), self.unit(j))
        return np.float32(1) - cosine


class _Views:
    """Thumbnails as they are, mirrored, and the inner part alone: what a mirrored and a cropped copy show."""

    def __init__(self, thumbs: NDArray[np.uint8]) -> None:
        self.whole = Thumbs(thumbs)
        self.mirrored = Thumbs(np.ascontiguousarray(thumbs[:, :, ::-1]))
        self.inner = Thumbs(_inner(thumbs))

    def distance(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.float64]:
        """1 - correlation of pairs, of the views that fit best."""
        whole, mirrored, inner = self.whole, self.mirrored, self.inner
        pairs = ((whole, whole), (whole, mirrored), (whole, inner), (inner, whole))
        distance: NDArray[np.float64] = np.min([a.apart(i, b, j) for a, b in pairs], axis=0)
        return distance


def _copies(thumb: Floats, seen: Floats, units: Units, slack: float = 0.0) -> NDArray[np.bool_]:
    thumb, seen = np.maximum(thumb - slack, 0), np.maximum(seen - slack, 0)
    agree = thumb * seen < AGREE * units[0] * units[1]
    near: NDArray[np.bool_] = agree & (thumb < MAX_THUMB) & (seen < MAX_FEATURES)
    return near


def _inner(thumbs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The central part of each thumbnail at the size of the whole."""
    at = (np.arange(THUMB) + 0.5) * CROP + THUMB * (1 - CROP) / 2 - 0.5
    low = np.floor(at).astype(int)
    weights = np.zeros((THUMB, THUMB), np.float32)
    weights[np.arange(THUMB), low] = 1 - (at - low)
    weights[np.arange(THUMB), low + 1] = at - low
    out = np.empty_like(thumbs)
    for start in range(0, len(thumbs), _TILE):
        out[start : start + _TILE] = weights @ thumbs[start : start + _TILE].astype(np.float32) @ weights.T + 0.5
    return out


def _typical(features: _Features, views: _Views, rows: NDArray[np.intp]) -> Units:
    """The set's units: median distances of a sample to the 5th neighbour among all, evident copies left out."""
    thumb, seen = [np.empty(0)], [np.empty(0)]
    whole, cosines = views.whole, features.cosines(rows)
    for start in range(0, len(rows), 64):
        i = rows[start : start + 64]
        apart = whole.all_apart(i, whole)
        copies = (apart < SAME_THUMB) | (whole.all_apart(i, views.mirrored) < SAME_THUMB)
        left_out = copies | whole.flat | ~features.usable
        thumb.append(fifth(np.where(left_out, np.inf, apart)))
        seen.append(fifth(np.where(left_out, np.inf, 1 - cosines[start : start + 64])))
    return scale(np.concatenate(thumb), TYPICAL_THUMB), scale(np.concatenate(seen), TYPICAL_FEATURES)


def _candidates(
    features: _Features, views: _Views, rows: NDArray[np.intp], units: Units
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs i < j, a tile at a time, with all copies among them."""
    count = len(features.lengths)
    seen = _Projection(features.unit(rows), _FEATURE_AXES).of(features.unit, count)
    axes = _Projection(views.whole.unit(rows), _THUMB_AXES)
    whole, mirrored, inner = (axes.of(view.unit, count) for view in (views.whole, views.mirrored, views.inner))
    for top in range(0, count, _TILE):
        for left in range(top, count, _TILE):
            i, j = slice(top, top + _TILE), slice(left, left + _TILE)
            nearest = _minus_bound(whole[i], whole[j])
            for a, b in ((whole, mirrored), (whole, inner), (inner, whole)):
                np.maximum(nearest, _minus_bound(a[i], b[j]), out=nearest)
            alike = np.flatnonzero(nearest > -MAX_THUMB - _SLACK)
            thumb, feature = -nearest.ravel()[alike], -_minus_bound(seen[i], seen[j]).ravel()[alike]
            row, column = np.divmod(alike[_copies(thumb, feature, units, _SLACK)], nearest.shape[1])
            above = row + top < column + left
            yield row[above] + top, column[above] + left


class _Projection:
    """Vectors on the principal axes of a sample, with the length of what is left as one more coordinate.

    The axes are orthonormal, so neither step lengthens a distance: no pair is lost by looking here first.
    """

    def __init__(self, sample: NDArray[np.float32], axes: int) -> None:
        self._mean = sample.mean(axis=0)
        centred = sample - self._mean
        principal = np.linalg.eigh(centred @ centred.T)[1][:, ::-1][:, :axes]
        self._axes = np.linalg.qr(centred.T @ principal)[0]

    def of(self, vectors: Callable[[Rows], NDArray[np.float32]], count: int) -> NDArray[np.float32]:
        """Points (count, axes + 1)."""
        points = np.empty((count, self._axes.shape[1] + 1), np.float32)
        for start in range(0, count, _TILE):
            centred = vectors(slice(start, start + _TILE)) - self._mean
            on_axes = centred @ self._axes
            points[start : start + _TILE, :-1] = on_axes
            points[start : start + _TILE, -1] = np.linalg.norm(centred - on_axes @ self._axes.T, axis=1)
        return points


def _minus_bound(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Minus half the squared distance of all pairs; its opposite bounds 1 - cosine of unit vectors from below."""
    ones = np.ones(len(a), np.float32), np.ones(len(b), np.float32)
    a = np.column_stack((a, np.einsum("ij,ij->i", a, a) / -2, ones[0]))  # one product instead of three passes
    b = np.column_stack((b, ones[1], np.einsum("ij,ij->i", b, b) / -2))
    product: NDArray[np.float32] = a @ b.T
    return product
