"""The overfitting watch: what the learning curves of a training mean, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.train.protocol import Epoch

PATIENCE = 3  # epochs that must agree: one bump is not overfitting
RECENT = 5  # second differences that measure how noisy a curve is now
RISE = 0.05  # of the lowest validation loss, as a share; a smaller rise is not overfitting
FLOOR = 0.01  # nats, for losses near zero
FLAT = 0.02  # of a loss, as a share: a smaller change over some epochs counts as none
POOR = 0.5  # of the errors of guessing; more errors, that no longer fall, are underfitting
GONE_WRONG = ("overfitting", "diverging")  # kinds after which the last epochs are not to be trusted
KINDS = ("healthy", "overfitting", "underfitting", "diverging", "too early to say")

Curve = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the curves of a training say."""

    kind: str  # one of KINDS
    sentence: str
    since: int | None = None  # the first epoch that went wrong, counted from 0

    @property
    def gone_wrong(self) -> bool:
        """Whether the epochs since then are worse than those before."""
        return self.kind in GONE_WRONG and self.since is not None


def watch(epochs: Sequence[Epoch], *, images: int = 0, classes: int = 2) -> Verdict:
    """The verdict on a training from its epochs so far.

    Overfitting is when the validation loss, as a mean of `PATIENCE` epochs, has risen above its lowest by more than its
    own noise and `RISE`, while the training loss still fell. Diverging is when it does not, or rises itself.

    Args:
        images: of the validation set, where known: few of them make a noisy loss.
        classes: their number, for the error of guessing.
    """
    train, val = (np.array([getattr(e, f"{part}_loss") for e in epochs], np.float64) for part in ("train", "val"))
    if verdict := _diverging(epochs, train):
        return verdict
    if len(epochs) <= PATIENCE:
        return Verdict("too early to say", f"Too early to say: {len(epochs)} of at least {PATIENCE + 1} epochs.")
    if np.isfinite(val).all():
        if verdict := _turned(epochs, train, val, images):
            return verdict
        if verdict := _underfitting(epochs, train, val, classes):
            return verdict
    training = f"training loss went from {epochs[0].train_loss:.3g} to {epochs[-1].train_loss:.3g}"
    if not np.isfinite(val).all():
        return Verdict("healthy", f"Healthy: {training}, unvalidated.")
    return Verdict("healthy", _nothing_wrong(epochs, training))


def _nothing_wrong(epochs: Sequence[Epoch], training: str) -> str:
    """The validation loss first, at its lowest and last; and the error, where it rose."""
    first, last = epochs[0], epochs[-1]
    lowest = min(epochs, key=lambda epoch: epoch.val_loss)
    if lowest is last:
        loss = f"validation loss from {first.val_loss:.3g} to {last.val_loss:.3g}, its lowest"
    else:
        fell = "" if lowest is first else f" to {lowest.val_loss:.3g} in epoch {lowest.number + 1},"
        loss = f"validation loss from {first.val_loss:.3g}{fell} to {last.val_loss:.3g} in the last"
    few = min(epoch.val_error for epoch in epochs)
    error = f"; validation error {few:.1%} at its lowest, {last.val_error:.1%} in the last" * (last.val_error > few)
    rose = last.val_loss > lowest.val_loss + max(RISE * lowest.val_loss, FLOOR) or last.val_error > few + FLAT / 2
    if rose:
        return f"No clear overfitting, though validation rose in the end: {training}, {loss}{error}."
    return f"Healthy: {training}, {loss}{error}."


def selection_losses(epochs: Sequence[Epoch]) -> list[float]:
    """The losses by which the best epoch is chosen: the calibrated validation loss; without one, the plain loss.

    Overconfidence raises the plain loss, but one temperature corrects it in the end, so it is no reason to choose an
    earlier epoch. Where the plain loss is above its lowest by more than `FLAT`, the network overfits, and the loss is
    infinite.
    """
    found, lowest = list[float](), math.inf
    for epoch in epochs:
        lowest = min(lowest, epoch.val_loss)
        overfitted = epoch.val_loss > lowest + max(FLAT * lowest, FLOOR)
        own = epoch.val_loss if math.isnan(epoch.val_calibrated) else epoch.val_calibrated
        found.append(math.inf if overfitted else own)
    return found


def noise_of(curve: Curve) -> float:
    """The standard deviation of a curve about a smooth one, from its second differences, which a slope does not change.

    The larger of two: a robust one of all epochs, and one of the last few.
    """
    if len(curve) < 4:
        return 0.0
    bends = np.abs(np.diff(curve, 2)) / math.sqrt(6)
    return max(_usual_noise(curve), float(np.sqrt(np.mean(bends[-RECENT:] ** 2)) * (1 + 3 / len(bends))))


def _usual_noise(curve: Curve) -> float:
    """That of most epochs, which a single jump does not change."""
    bends = np.abs(np.diff(curve, 2)) / math.sqrt(6)
    return float(1.4826 * np.median(bends) * (1 + 3 / len(bends)))  # of a normal distribution; wider for few epochs


def _means(curve: Curve, window: int = PATIENCE) -> Curve:
    """Means over ``window`` epochs that end with each one; fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], curve]))
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _diverging(epochs: Sequence[Epoch], train: Curve) -> Verdict | None:
    if not np.isfinite(train).all():
        since = int(np.argmin(np.isfinite(train)))
        return Verdict("diverging", f"Diverging: the training loss is not a number in epoch {since + 1}.", since)
    if len(train) <= PATIENCE:
        return None
    best = int(np.argmin(train))
    late = train[-PATIENCE:]
    if best < len(train) - PATIENCE and late.min() > max(1.5 * train[best], train[best] + 3 * noise_of(train)) + 0.1:
        return Verdict(
            "diverging",
            f"Diverging since epoch {epochs[best].number + 2}: training loss rose from {train[best]:.3g} to "
            f"{train[-1]:.3g}. A lower learning rate, or more warm-up, helps.",
            epochs[best].number + 1,
        )
    return None


def _turned(epochs: Sequence[Epoch], train: Curve, val: Curve, images: int) -> Verdict | None:
    """Looks at the mean of a few epochs; then of twice as many, for a slow rise or a jump that looked like noise."""
    turn = _turn(val, PATIENCE, noise_of(val), images)
    if turn is None:
        turn = _turn(val, 2 * PATIENCE, _usual_noise(val), images)
    if turn is None:
        return None
    before, now = epochs[turn], epochs[-1]
    rose = f"since epoch {before.number + 2}: validation loss rose from {before.val_loss:.3g} to {now.val_loss:.3g}"
    if _means(train)[-1] >= train[turn] * (1 - FLAT):
        sentence = f"Diverging {rose}, and the training loss no longer falls. A lower learning rate helps."
        return Verdict("diverging", sentence, before.number + 1)
    if now.train_error < before.train_error:
        still = f"error still fell from {before.train_error:.1%} to {now.train_error:.1%}"
    else:
        still = f"loss still fell from {before.train_loss:.3g} to {now.train_loss:.3g}"
    return Verdict("overfitting", f"Overfitting {rose} while training {still}.", before.number + 1)


def _turn(val: Curve, window: int, noise: float, images: int) -> int | None:
    """The lowest epoch, where the mean of the last ``window`` epochs is clearly above the lowest such mean."""
    smooth = _means(val, window)
    best = int(np.argmin(smooth))
    low = smooth[best]
    chance = 3 * noise * math.sqrt(PATIENCE / window)
    tolerance = max(RISE * low, FLOOR, chance, low / math.sqrt(images) if images else 0.0)
    if smooth[-1] <= low + tolerance or val[-PATIENCE:].min() <= low:
        return None
    first = max(0, best - window + 1)
    return first + int(np.argmin(val[first : best + 1]))


def _underfitting(epochs: Sequence[Epoch], train: Curve, val: Curve, classes: int) -> Verdict | None:
    """Many errors in training and validation, that no longer fall."""
    smooth, guessing = _means(train), 1 - 1 / max(classes, 2)
    errors = [np.mean([getattr(e, f"{part}_error") for e in epochs[-PATIENCE:]]) for part in ("train", "val")]
    if len(epochs) < 2 * PATIENCE or min(errors) < POOR * guessing:
        return None
    if smooth[-1] < smooth[-1 - PATIENCE] * (1 - FLAT) or val[-PATIENCE:].min() < val[:-PATIENCE].min() * (1 - FLAT):
        return None
    return Verdict(
        "underfitting",
        f"Underfitting: training error stays at {errors[0]:.1%}, validation error at {errors[1]:.1%}. "
        "More unfrozen, a higher learning rate, or less augmentation and dropout helps.",
    )
