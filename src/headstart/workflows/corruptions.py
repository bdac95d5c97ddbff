"""The accuracy of a classifier on photos that were made worse: with noise, blurred, compressed, too bright, turned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np

from headstart.core.arguments import PROGRESS, SEED, checks, several, whole
from headstart.core.progress import Shown, function_of, shows_progress, stage
from headstart.data.inputs import Images, labelled_dataset
from headstart.data.load import in_chunks
from headstart.diagnose.corruptions import CORRUPTIONS, STRENGTHS, Pixels, corrupt
from headstart.diagnose.records import Corrupted
from headstart.learn.evaluate import accuracy_of
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER
from headstart.model.held_out import held_out

IMAGES = 200


@checks(
    classifier=CLASSIFIER,
    images=whole(1),
    strengths=several(whole(1, len(STRENGTHS)), "whole numbers from 1 to 5, one or more", least=1),
    seed=SEED,
    progress=PROGRESS,
)
@shows_progress
def corrupted(
    classifier: Classifier,
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    images: int = IMAGES,
    strengths: Sequence[int] | int = (1, 3, 5),
    seed: int = 0,
    progress: Shown = True,
) -> tuple[Corrupted, ...]:
    """The accuracy on labelled photos that were made worse in five ways (Hendrycks and Dietterich 2019).

    Photos of the training set are passed over, as in `Classifier.evaluate`. Each photo is made worse as the network
    sees it, cut and scaled. docs/different_photos.md shows what is usual.

    Args:
        data, labels: as `Classifier.evaluate` takes them.
        images: at most so many, a share of each class.
        strengths: 1 (little) to 5, or one of them.
        seed: of the draw, the noise and the side to turn to.

    Returns:
        each kind at each strength, the least first.

    Raises:
        UsageError: a number out of range.
        DataError: there is no photo to count.
    """
    report = function_of(progress)
    levels = sorted({*cast("Sequence[int]", strengths)})
    dataset = labelled_dataset(data, labels, classifier.label_kind)
    photos = held_out(classifier, dataset, images, seed, progress=stage(report, "reading"))
    tries = [(kind, strength) for kind in CORRUPTIONS for strength in levels]
    found = []
    for done, (kind, strength) in enumerate(tries):
        answers = classifier.network.forward(_made_worse(photos.images, kind, strength, seed)).argmax(axis=1)
        found.append(Corrupted(kind, strength, accuracy_of(answers == photos.labels, photos.groups)))
        if report:
            report("corruptions", done + 1, len(tries))
    return tuple(found)


def _made_worse(images: Pixels, kind: str, strength: int, seed: int) -> Pixels:
    """All images (N, size, size, 3), on threads."""
    rows = range(len(images))
    return np.stack([*in_chunks(lambda chunk: [corrupt(kind, images[row], strength, seed) for row in chunk], rows)])
