"""The gap between the error in training and on the validation set, once a training has ended: bias and variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.core.types import Accuracy
from headstart.train.overfitting_watch import Verdict
from headstart.train.protocol import Epoch

LARGE = 0.05  # of the images, between the two errors
LEAST = 0.02  # by which the lowest error that the validation set allows is above that in training


@dataclass(frozen=True, slots=True)
class Gap:
    """The errors of the epoch whose weights were kept."""

    train_error: float  # of the images as they were trained on, augmented or not: it stands for the bias
    val_error: float  # what it is above the other stands for the variance
    low: float  # 95 % interval of the validation error
    high: float

    @property
    def large(self) -> bool:
        """Whether the network learned its training images by heart, beyond what chance explains."""
        return self.val_error - self.train_error > LARGE and self.low - self.train_error > LEAST

    @property
    def sentence(self) -> str:
        """Both errors, and what their difference is."""
        return (
            f"Of the training images {self.train_error:.1%} are wrong (bias), of the validation images "
            f"{self.val_error:.1%} ({100 * self.low:.1f} to {100 * self.high:.1f}); the difference is variance."
        )


def gap_of(epochs: Sequence[Epoch], best: int, images: int) -> Gap | None:
    """The gap at the epoch whose weights were kept.

    Args:
        best: its place; -1 where the starting weights were kept, of which nothing is known.
        images: of the validation set.
    """
    if not images or not 0 <= best < len(epochs):
        return None
    train, val = epochs[best].train_error, epochs[best].val_error
    if not (math.isfinite(train) and math.isfinite(val)):
        return None
    interval = Accuracy.of(round(val * images), images)
    return Gap(train, val, interval.low, interval.high)


def with_gap(verdict: Verdict, gap: Gap | None) -> Verdict:
    """The verdict on the curves; curves that go well and end far apart are no healthy ones."""
    if verdict.kind != "healthy" or gap is None or not gap.large:
        return verdict
    return Verdict(
        "overfitting",
        f"Overfitting: {gap.sentence[0].lower()}{gap.sentence[1:]} More images, augmentation or fewer weights help.",
    )
