"""Shortcuts: whether something that is not what the images show predicts their class (Geirhos et al. 2020).

Such as: all cats are PNG files and all dogs JPEG, or one class has black borders. A network may learn that in place of
cats and dogs, and its accuracy on photos of the same source does not tell.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset
from headstart.data.file_headers import FileHeader, read_headers
from headstart.data.threads import on_threads
from headstart.diagnose.records import Shortcut
from headstart.learn.significance import mcnemar

MOST = 1000  # images that are looked at
LEAST = 20  # fewer say nothing
SURE = 0.01  # the probability that any of the four is called a shortcut where none is
GAIN = 0.05  # over chance, that matters,
# and its share of the gain that is possible: a file is never what a photo shows, brightness and border are in part
SHARE = {"size": 0.1, "file type": 0.1, "brightness": 0.5, "border": 0.5}
OF_THE_FILE = ("size", "file type")
LEAD = 1.5  # votes that the most frequent class has more: the one of the row itself, which is left out, decides nothing

Columns = NDArray[np.float64]


def shortcuts(
    dataset: ImageDataset,
    rows: NDArray[np.int_],
    labels: NDArray[np.int_],
    groups: NDArray[np.int_],
    thumbnails: NDArray[np.uint8],
) -> tuple[Shortcut, ...]:
    """How well size, file type, brightness and border of the images each predict their class.

    Each image gets the most frequent class of those that are most alike in that one fact, itself left out. One image of
    each group is looked at, for near copies would find each other. The answers are compared with the most frequent
    class by McNemar's test, with Bonferroni's correction.

    Args:
        rows: the training set.
        labels: (N,) of all images of the data set, in 0 … classes − 1.
        groups: (N,) near copies, and photos of one patient or object, share a number.
        thumbnails: (N, 16, 16) grey, of the square that the network sees.

    Returns:
        nothing where there are fewer than 20 images.

    Raises:
        DataError: an image that could be read before now cannot.
    """
    first = np.sort(rows[np.unique(groups[rows], return_index=True)[1]])
    chosen = np.array(evenly_spread(first, MOST), np.intp)
    if len(chosen) < LEAST:
        return ()
    truth = np.unique(labels[chosen], return_inverse=True)[1]
    headers = read_headers(dataset, chosen.tolist())
    facts = {
        "size": sizes(headers),
        "file type": file_types(headers),
        "brightness": brightness(thumbnails[chosen]),
        "border": borders(thumbnails[chosen]),
    }
    return tuple(on_threads(lambda fact: judge(*fact, truth, len(facts)), facts.items()))


def judge(what: str, columns: Columns, labels: NDArray[np.intp], tries: int) -> Shortcut:
    """Whether the columns (N, D) of a fact predict the labels (N,); ``tries`` facts are asked in all."""
    right = neighbours_vote(columns, labels) == labels
    usual = labels == np.bincount(labels).argmax()
    accuracy, chance = float(right.mean()), float(usual.mean())
    p = mcnemar(int((right & ~usual).sum()), int((usual & ~right).sum()))
    matters = accuracy - chance > max(GAIN, SHARE[what] * (1 - chance))
    return Shortcut(what, accuracy, chance, len(labels), is_one=matters and p < SURE / tries)


def neighbours_vote(columns: Columns, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each row the most frequent label of its nearest rows, without its own (N,).

    All rows that are as near as the last of them vote too, so that facts of which there are only a few work as well.
    """
    count, classes = len(labels), int(labels.max()) + 1
    spread = columns.std(axis=0)
    scaled = (columns - columns.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)
    squares = (scaled**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * scaled @ scaled.T
    np.fill_diagonal(distance, np.inf)
    asked = min(count - 1, max(3, round(min(math.sqrt(count) / 2, count / classes))))
    limit = np.partition(distance, asked - 1, axis=1)[:, asked - 1, None]
    votes = (distance <= limit + 1e-9) @ np.eye(classes)[labels]  # beyond the limit by rounding alone
    votes[:, np.bincount(labels).argmax()] += LEAD
    found: NDArray[np.intp] = votes.argmax(axis=1)
    return found


def sizes(headers: list[FileHeader]) -> Columns:
    """Width, height and their ratio, as logarithms (N, 3)."""
    sides = np.log([(header.width, header.height) for header in headers])
    return np.column_stack([sides, sides[:, 0] - sides[:, 1]])


def file_types(headers: list[FileHeader]) -> Columns:
    """A column for each kind of file, and how strongly it is compressed (N, kinds + 1)."""
    kinds = np.unique([header.kind for header in headers], return_inverse=True)[1]
    return np.column_stack([np.eye(kinds.max() + 1)[kinds], np.log1p([header.compression for header in headers])])


def brightness(thumbnails: NDArray[np.uint8]) -> Columns:
    """Mean and deviation of each image (N, 2)."""
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.float64)
    return np.column_stack([pixels.mean(axis=1), pixels.std(axis=1)])


def borders(thumbnails: NDArray[np.uint8]) -> Columns:
    """Mean and deviation of the outermost pixels of each side (N, 8)."""
    pixels = thumbnails.astype(np.float64)
    sides = [pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]]
    return np.column_stack([value for side in sides for value in (side.mean(axis=1), side.std(axis=1))])
