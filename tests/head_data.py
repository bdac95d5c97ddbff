"""Features made for tests, and heads computed in the plain way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.learn.regularisation_path import (
    Labels,
    LdaRegularisationPath,
    RidgeRegularisationPath,
)

Array = NDArray[np.float64]


PATHS: dict[str, Any] = {"lda": LdaRegularisationPath, "ridge": RidgeRegularisationPath}


def photos(counts: tuple[int, ...], width: int, seed: int = 0, apart: float = 1.0) -> tuple[Array, Labels]:
    """Features as a network gives them, correlated and of unequal sizes, with the classes apart; rows shuffled."""
    r = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    mix = np.linalg.qr(r.normal(size=(width, width)))[0] * np.geomspace(1, 0.2, width)
    x = r.normal(size=(len(labels), width)) @ mix + apart * r.normal(size=(len(counts), width))[labels] + 3
    order = r.permutation(len(labels))
    return x[order], labels[order]


def plain_lda(x: Array, labels: Labels, classes: int, a: float, freedom: float, query: Array) -> Array:
    means = np.stack([x[labels == k].mean(axis=0) for k in range(classes)])
    within = (x - means[labels]).T @ (x - means[labels])
    inverse = np.linalg.inv(within + a * np.eye(x.shape[1]))
    away = query[:, None] - means
    scores: Array = -0.5 * freedom * np.einsum("nkd,de,nke->nk", away, inverse, away)
    return scores


def everyone(labels: Labels) -> Labels:
    return np.arange(len(labels))


def relative(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Only differences between the classes count."""
    centred: NDArray[np.floating] = scores - scores.mean(axis=-1, keepdims=True)
    return centred


def close(got: NDArray[np.floating], expected: NDArray[np.floating], tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
