"""Labels that are probably wrong: confident learning on predictions of heads that were fitted without each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.diagnose.records import Suspect, WrongLabels
from headstart.learn.regularisation_path import Labels

LISTED, MOST = 0.25, 500  # share of the images that is listed at most, and how many
FEWEST = 10  # images, for an estimate


def wrong_labels(
    probabilities: NDArray[np.floating], labels: Labels, classes: tuple[str, ...], names: Sequence[str]
) -> WrongLabels:
    """List images whose own label is not the most probable one, and estimate how many labels are wrong.

    Args:
        probabilities: (N, K), of heads that were fitted without the image.
        labels: (N,) in 0 … K − 1.
        names: (N,) of the images.
    """
    joint = confident_joint(probabilities, labels, len(classes))
    share = float(1 - np.trace(joint) / joint.sum()) if joint.sum() >= FEWEST else 0.0
    suggested = probabilities.argmax(axis=1)
    order = [row for row in ranked(probabilities, labels).tolist() if suggested[row] != labels[row]]
    suspects = [
        Suspect(
            names[row],
            classes[labels[row]],
            classes[suggested[row]],
            float(probabilities[row, labels[row]]),
            float(probabilities[row, suggested[row]]),
        )
        for row in order[: min(MOST, -int(-LISTED * len(labels) // 1))]
    ]
    return WrongLabels(share, len(labels), tuple(suspects))


def ranked(probabilities: NDArray[np.floating], labels: Labels) -> Labels:
    """The images (N,), those with the least probable label first."""
    return np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")


def sure_mistakes(probabilities: NDArray[np.floating], labels: Labels) -> float:
    """The share of the mistakes that are surer than half of the right answers; arguments as for `wrong_labels`.

    About a half where labels were mixed up at random; little where classes overlap, as mistakes lie between them then.
    """
    right, sure = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    if right.all() or not right.any():
        return 0.0
    return float((sure[~right] > np.median(sure[right])).mean())


def confident_joint(probabilities: NDArray[np.floating], labels: Labels, classes: int) -> NDArray[np.float64]:
    """How many images of each label (rows) are of each class (columns), as many of each label as there are.

    An image counts as one of a class where the probability of that class is as large as it is on average for images
    labelled so, and larger than of every other class that is (Northcutt et al. 2021, "Confident Learning").
    """
    counts = np.bincount(labels, minlength=classes)
    own = np.bincount(labels, probabilities[np.arange(len(labels)), labels], classes)
    threshold = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    above = np.where(probabilities >= threshold, probabilities, -1.0)
    counted = above.max(axis=1) > 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], above[counted].argmax(axis=1)), 1)
    joint *= (counts / np.maximum(joint.sum(axis=1), 1))[:, None]
    return joint
