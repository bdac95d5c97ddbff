"""The complexity curve: the error in training and left out in turn along the regularisation path."""

from __future__ import annotations

import numpy as np

from headstart.diagnose.records import ComplexityCurve, ComplexityPoint
from headstart.diagnose.refits import Refits
from headstart.learn.heads import HeadFit

ROWS = 2000  # training images at most, whose errors are counted


def complexity_curve(refits: Refits, fit: HeadFit, seed: int = 0) -> ComplexityCurve:
    """The path that the strength of ``fit`` was chosen on, with the error of the training images at every strength."""
    count = len(refits.labels)
    sums = refits.sums(np.arange(count))
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:ROWS])
    points = []
    heads = refits.along(sums, [strength for strength, _ in fit.path])
    for (strength, nll), right, head in zip(fit.path, fit.right, heads, strict=True):
        points.append(ComplexityPoint(strength, refits.error(head, rows), float(1 - right.mean()), nll))
    return ComplexityCurve(tuple(points), fit.strength, len(fit.rows))
