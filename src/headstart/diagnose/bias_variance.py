"""Bias and variance of a head, by bootstrap: what of its error is in every head of such a training set, and what is in
this one by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.data.threads import on_threads
from headstart.diagnose.records import BiasVariance, Decomposition
from headstart.diagnose.refits import Refits
from headstart.learn.calibrate import softmax
from headstart.learn.regularisation_path import Labels

RESAMPLES = 30
WIDTH = 384  # dimensions of the subspace at most: it is many heads
JUDGED = 2000  # images at most

Values = NDArray[np.float64]


def bias_and_variance(
    refits: Refits,
    classes: tuple[str, ...],
    *,
    groups: Labels,
    test: tuple[NDArray[np.float32], Labels] | None = None,
    seed: int = 0,
) -> BiasVariance | None:
    """Refit the head on `RESAMPLES` resamples of the training set, drawn with replacement within each class.

    Args:
        groups: (N,) near copies share a number, and are drawn together.
        test: the test set in the subspace (T, r), and its classes (T,); None: each training image is judged by the
            heads of the resamples that do not hold it.

    Returns:
        None where every resample holds every image, as where each class is one group.
    """
    rng = np.random.default_rng(seed)
    z, labels = (refits.z, refits.labels) if test is None else test
    chosen = np.sort(rng.permutation(len(labels))[:JUDGED])
    z, labels, width = z[chosen, :WIDTH], labels[chosen], min(WIDTH, z.shape[1])
    votes, mean, squares = (np.zeros((len(labels), len(classes))) for _ in range(3))
    heads = np.zeros(len(labels))

    def judged_by(weights: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.floating]]:
        rows = np.flatnonzero(weights)
        return weights, refits.head(refits.sums(rows, weights[rows], width=width)).logits(z)

    resamples = (_resample(refits.labels, groups, rng) for _ in range(RESAMPLES))
    for weights, logits in on_threads(judged_by, resamples):
        judges = np.ones(len(labels), bool) if test is not None else weights[chosen] == 0
        probabilities = np.where(judges[:, None], softmax(logits), 0.0)
        votes[np.flatnonzero(judges), logits[judges].argmax(axis=1)] += 1
        mean += probabilities
        squares += probabilities**2
        heads += judges
    judged = heads > 0
    if not judged.any():
        return None
    share = heads[judged, None]
    return _decomposed(
        votes[judged] / share, mean[judged] / share, squares[judged] / share, labels[judged], classes, test is not None
    )


def _resample(labels: Labels, groups: Labels, rng: np.random.Generator) -> NDArray[np.int_]:
    """How often each row is drawn (N,): of each class as many groups as there are."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    drawn = np.zeros(len(first), int)
    for label in np.unique(labels[first]):
        own = np.flatnonzero(labels[first] == label)
        drawn[own] = np.bincount(rng.integers(len(own), size=len(own)), minlength=len(own))
    return drawn[member]


def _decomposed(
    votes: Values, mean: Values, squares: Values, labels: Labels, classes: tuple[str, ...], tested: bool
) -> BiasVariance:
    """The three decompositions of shares of votes, mean probabilities and mean squared probabilities, each (N, K)."""
    rows = np.arange(len(labels))
    truth = np.eye(len(classes))[labels]
    loss = 1 - votes[rows, labels]
    main_wrong = (votes.argmax(axis=1) != labels).astype(float)
    squared_bias, squared_variance = ((truth - mean) ** 2).sum(axis=1), (squares - mean**2).sum(axis=1)
    bias, variance = 0.5 * ((truth - votes) ** 2).sum(axis=1), 0.5 * (1 - (votes**2).sum(axis=1))
    per_class = {
        classes[k]: Decomposition(*(float(part[labels == k].mean()) for part in (loss, bias, variance)))
        for k in np.unique(labels)
    }
    return BiasVariance(
        resamples=RESAMPLES,
        images=len(labels),
        judged_on="test set" if tested else "left out of the resample",
        zero_one=Decomposition(float(loss.mean()), float(main_wrong.mean()), float((loss - main_wrong).mean())),
        squared=Decomposition(
            float((squared_bias + squared_variance).mean()), float(squared_bias.mean()), float(squared_variance.mean())
        ),
        per_class=per_class,
    )
