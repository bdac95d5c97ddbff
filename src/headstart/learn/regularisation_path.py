"""Linear heads in closed form: one factorisation gives every strength and every leave-one-out score."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.ops import SQRT_EPSILON
from headstart.data.threads import HALF_OF_THE_CORES, on_threads

Matrix = NDArray[np.floating]
Labels = NDArray[np.int_]
T = TypeVar("T")
R = TypeVar("R")
BLOCK = 512  # rows worked on at a time: limits the memory beyond the features
PANEL = 256  # features whose products with others one thread adds up
COLUMNS = 2048  # of one product of rows with class means: of several strengths, where classes are few


class FeatureRows(Protocol):
    """Features (N, D) whose rows are taken by their numbers: an array, or one that stays on the disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any: ...

    def min(self) -> Any:
        """The least value."""
        ...


class Design:
    """The matrix that a head is fitted on, made block by block from features that stay in float16.

    ``design[rows]`` is float32 (float64 for float64 features), through the square root where ``sqrt``. Sums are added
    up in the order of the rows, by as many threads as there are cores, or by the caller ``alone``.
    """

    def __init__(
        self, features: Matrix | FeatureRows, rows: Labels | None = None, *, sqrt: bool = False, alone: bool = False
    ) -> None:
        self._features, self._rows, self._sqrt, self._alone = features, rows, sqrt, alone
        self.shape = (len(features) if rows is None else len(rows), features.shape[1])
        self.dtype = np.dtype(np.float64 if features.dtype == np.float64 else np.float32)

    def __getitem__(self, rows: Labels) -> Matrix:
        block = self._features[rows if self._rows is None else self._rows[rows]]
        return transform(block.astype(self.dtype), self._sqrt)

    def of(self, rows: Labels) -> Design:
        """The design of some of the rows."""
        rows = rows if self._rows is None else self._rows[rows]
        return Design(self._features, rows, sqrt=self._sqrt, alone=self._alone)

    def sum(self, labels: Labels, classes: int) -> Matrix:
        """The sum of the rows of each class (classes, D), added up in float64."""
        return self.exact_sum(labels, classes).astype(self.dtype)

    def exact_sum(self, labels: Labels, classes: int) -> NDArray[np.float64]:
        """As `sum`, in float64."""
        sums = np.zeros((classes, self.shape[1]))

        def of_block(rows: Labels) -> tuple[Labels, NDArray[np.float64]]:
            order = rows[np.argsort(labels[rows], kind="stable")]
            starts = run_starts(labels[order])
            return labels[order[starts]], np.add.reduceat(self[order], starts, axis=0, dtype=np.float64)

        for there, added in self._each(of_block, blocks(self.shape[0])):
            sums[there] += added
        return sums

    def scatter(self, centres: Matrix, labels: Labels | None = None) -> NDArray[np.float64]:
        """The sum of the outer products (D, D) of the rows, less a centre (D,) or that of their class (K, D)."""
        width = self.shape[1]
        scatter = np.zeros((width, width))
        panels = [slice(start, min(start + PANEL, width)) for start in range(0, width, PANEL)]

        def centred(rows: Labels) -> Matrix:
            block = self[rows]
            block -= centres if labels is None else centres[labels[rows]]
            return block

        for block in self._each(centred, blocks(self.shape[0]), 3):
            deque(self._each(partial(_add_products, scatter, block), panels), 0)
        for panel in panels:
            scatter[: panel.start, panel] = scatter[panel, : panel.start].T
        return scatter

    def _each(self, function: Callable[[T], R], parts: Iterable[T], most: int | None = None) -> Iterator[R]:
        return map(function, parts) if self._alone else on_threads(function, parts, most)


def _add_products(scatter: NDArray[np.float64], block: Matrix, panel: slice) -> None:
    """Add the products of some features of the rows with all features up to them; the others are the same mirrored."""
    scatter[panel, : panel.stop] += block[:, panel].T @ block[:, : panel.stop]


def transform(features: Matrix, sqrt: bool) -> Matrix:
    """The input of the head: the features, or their square root, which shortens the long tail of activations."""
    if not sqrt:
        return features
    roots: Matrix = np.maximum(features, 0)
    roots += features.dtype.type(SQRT_EPSILON)
    return np.sqrt(roots, out=roots)


class RegularisationPath(Protocol):
    """One kind of head for all strengths, factorised once.

    Strengths are multiples of ``scale``, the mean eigenvalue of its scatter matrix.
    """

    scale: float

    def left_out(self, rows: Labels, strengths: Matrix) -> Matrix:
        """Leave-one-out scores (S, rows, K): of each row by a head that was fitted on all other rows."""
        ...

    def solve(self, strength: float) -> tuple[Matrix, Matrix]:
        """Weight (K, D) and bias (K,); the scores are those of `left_out` up to a constant for each row."""
        ...


class LdaRegularisationPath:
    """Shrunken linear discriminant analysis (Friedman 1989): −d²/2 to each class mean under A = (S_w + aI)⁻¹.

    S_w is the within-class scatter. Leaving a row out shifts its class mean and takes a rank-one term from S_w, so its
    distances follow from those of the full fit (Sherman–Morrison). With fewer rows than features only the span of the
    rows has eigenvalues above zero; what the class means have outside of it is divided by a alone.

    Args:
        x: (N, D); every class needs two rows or more.
        labels: (N,) in 0 … classes − 1.
    """

    def __init__(self, x: Design, labels: Labels, classes: int) -> None:
        self._x, self._labels = x, labels
        self._counts = np.bincount(labels, minlength=classes)
        self._means = x.sum(labels, classes) / self._counts[:, None].astype(x.dtype)
        self._values, self._basis = _eigen(x, self._means, labels)
        self.scale = _scale(self._values, x.shape[1])
        self._centre = self._means.mean(axis=0)  # cancels between classes; in float32 only if subtracted before
        means = self._means - self._centre
        self._m = means @ self._basis
        outside = means - self._m @ self._basis.T  # what the means have outside the span
        self._outside = outside if len(self._values) < x.shape[1] else np.zeros_like(outside)
        self._freedom = x.dtype.type(max(x.shape[0] - classes, 1))  # turns the scatter into a covariance

    def left_out(self, rows: Labels, strengths: Matrix) -> Matrix:
        x, labels, epsilon = self._x, self._labels[rows], _epsilon(self._x)
        u = (x[rows] - self._means[labels]) @ self._basis
        gamma = (self._counts / np.maximum(self._counts - 1, 1)).astype(x.dtype)[labels][:, None]
        inverses = _inverses(self._values, strengths * self.scale, x.dtype)
        owns = (u * u) @ inverses.T  # uᵀAu
        scores = np.empty((len(strengths), len(rows), len(self._counts)), x.dtype)
        products = _onto(u, self._m, inverses)  # uᵀA m_k
        for place, (onto_means, inverse, a) in enumerate(zip(products, inverses, strengths * self.scale, strict=True)):
            own = owns[:, place, None]
            towards = np.take_along_axis(onto_means, labels[:, None], 1) - onto_means  # uᵀA(m_c − m_k)
            room = np.maximum(1 - gamma * own, epsilon)
            distance = own + 2 * towards + self._between(labels, inverse, a) + gamma * (own + towards) ** 2 / room
            np.put_along_axis(distance, labels[:, None], gamma**2 * own / room, 1)
            scores[place] = -0.5 * self._freedom * distance
        return scores

    def solve(self, strength: float) -> tuple[Matrix, Matrix]:
        a = strength * self.scale
        inverse = (1 / (self._values + a)).astype(self._x.dtype)
        weight = (self._m * inverse) @ self._basis.T + self._outside / self._x.dtype.type(a)
        weight *= self._freedom
        return weight, -0.5 * np.einsum("kd,kd->k", weight, self._means + self._centre)

    def _between(self, labels: Labels, inverse: Matrix, a: float) -> Matrix:
        """(m_c − m_k)ᵀA(m_c − m_k) from the class c of every row to every class k, (rows, K)."""
        own, place = np.unique(labels, return_inverse=True)
        inside = _squared_distances(self._m * np.sqrt(inverse), own)
        return (inside + _squared_distances(self._outside, own) / self._x.dtype.type(a))[place]


class RidgeRegularisationPath:
    """Ridge regression on one-hot targets with a free intercept; leave-one-out by the hat matrix (Allen 1974)."""

    def __init__(self, x: Design, labels: Labels, classes: int) -> None:
        self._x, self._labels = x, labels
        counts = np.bincount(labels, minlength=classes)
        sums = x.sum(labels, classes)
        self._centre = sums.sum(axis=0) / x.dtype.type(len(labels))
        self._base = (counts / len(labels)).astype(x.dtype)
        self._values, self._basis = _eigen(x, self._centre)
        self.scale = _scale(self._values, x.shape[1])
        self._targets = (sums - counts[:, None].astype(x.dtype) * self._centre) @ self._basis  # (K, r): Yᵀ X V

    def left_out(self, rows: Labels, strengths: Matrix) -> Matrix:
        z = (self._x[rows] - self._centre) @ self._basis
        truth = np.eye(len(self._base), dtype=self._x.dtype)[self._labels[rows]]
        inverses = _inverses(self._values, strengths * self.scale, self._x.dtype)
        leverages = 1 / len(self._labels) + (z * z) @ inverses.T
        scores = np.empty((len(strengths), *truth.shape), self._x.dtype)
        for place, product in enumerate(_onto(z, self._targets, inverses)):
            fitted = product + self._base
            leverage = leverages[:, place, None]
            scores[place] = truth - (truth - fitted) / np.maximum(1 - leverage, _epsilon(self._x))
        return scores

    def solve(self, strength: float) -> tuple[Matrix, Matrix]:
        inverse = (1 / (self._values + strength * self.scale)).astype(self._x.dtype)
        weight = (self._targets * inverse) @ self._basis.T
        return weight, self._base - weight @ self._centre


def blocks(count: int) -> Iterator[Labels]:
    """Row numbers 0 … count − 1, `BLOCK` at a time."""
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))


def run_starts(sorted_labels: Labels) -> Labels:
    """Where each run of equal labels begins."""
    return np.concatenate([[0], np.flatnonzero(np.diff(sorted_labels)) + 1])


def _eigen(x: Design, centres: Matrix, labels: Labels | None = None) -> tuple[NDArray[np.float64], Matrix]:
    """Eigenvalues (r,) and eigenvectors (D, r) of `Design.scatter`; r = D, or fewer than N."""
    count, width = x.shape
    if count > width:
        values, basis = eigh(x.scatter(centres, labels))
        return np.maximum(values, 0), basis.astype(x.dtype)
    u = (x[np.arange(count)] - (centres if labels is None else centres[labels])).astype(np.float64)
    values, rotation = eigh(u @ u.T)
    kept = values > max(values[-1], 0) * 1e-10  # the centring took some directions; rounding leaves them near zero
    return values[kept], (u.T @ (rotation[:, kept] / np.sqrt(values[kept]))).astype(x.dtype)


def _inverses(values: NDArray[np.float64], strengths: Matrix, dtype: np.dtype[Any]) -> Matrix:
    """The eigenvalues of A for each strength (S, r)."""
    return (1 / (values + strengths[:, None])).astype(dtype)


def _onto(u: Matrix, points: Matrix, inverses: Matrix) -> Iterator[Matrix]:
    """``u`` (R, r) times A times the points (K, r) for each strength, (R, K); several strengths in one product."""
    together = max(1, COLUMNS // len(points))
    for start in range(0, len(inverses), together):
        some = inverses[start : start + together]
        turned = (some[:, None] * points).reshape(len(some) * len(points), u.shape[1])
        yield from (u @ turned.T).reshape(len(u), len(some), len(points)).transpose(1, 0, 2)


def _epsilon(x: Design) -> float:
    return float(np.finfo(np.float64 if x.dtype == np.float64 else np.float32).eps)


def eigh(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`numpy.linalg.eigh` on half of the cores.

    Its threads wait for each other thousands of times: one that another program delays makes it many times slower.
    """
    with HALF_OF_THE_CORES:
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def _scale(values: NDArray[np.float64], width: int) -> float:
    return max(float(values.sum()) / width, 1e-12)


def _squared_distances(points: Matrix, some: Labels) -> Matrix:
    squares = np.einsum("kr,kr->k", points, points)
    result: Matrix = np.maximum(squares[some][:, None] + squares - 2 * points[some] @ points.T, 0)
    return result
