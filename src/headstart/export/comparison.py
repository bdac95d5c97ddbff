"""Whether a file that was written gives the answers of its classifier, on golden images and on photos made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.blueprint import LOGITS
from headstart.core.errors import CheckError
from headstart.data.load import decode
from headstart.engines.protocol import Network
from headstart.export.formats import PHOTOS, PIXELS, TOLERANCE
from headstart.export.package import OUTPUTS, UNKNOWN_OUTPUTS, Package
from headstart.learn.calibrate import softmax
from headstart.model.golden import Golden
from headstart.model.stored import greatest_difference

CLOSE = {PIXELS: 1e-3, PHOTOS: 2e-2}  # probabilities and cosines; nearer ones may be in the other order
FEW = 2  # golden images that are made into larger photos
SIDES = ((3, 4), (5, 3), (1, 2))  # of those photos, times the network's

_, PROBABILITIES, LABEL = OUTPUTS
SCORE, UNLIKE = UNKNOWN_OUTPUTS
Answers = Mapping[str, NDArray[Any]]
Replay = Callable[[NDArray[np.uint8]], Answers]


def compare(package: Package, network: Network, answers: Replay, name: str, tolerance: float | None) -> float:
    """The greatest difference of a logit, relative to the largest.

    Args:
        network: in fp32, whose answers are the right ones.
        answers: what the file answers for a batch, (N, size, size, 3), or of photos of one size.
        tolerance: the greatest that is allowed; None: any, and what follows from the logits is not compared either.

    Raises:
        CheckError: a greater difference; an output is missing, or does not follow from the logits as it should.
    """
    golden, at = package.golden, (LOGITS, package.blueprint[LOGITS].inputs[0])
    worst = difference_of(network.forward(golden.images), golden.logits, name)
    check_within(worst, TOLERANCE, golden, name)  # the right answers themselves
    for batch in _batches(package):
        found = answers(batch)
        if missing := [output for output in package.outputs if output not in found]:
            raise CheckError(f"The {name} file gives no '{missing[0]}'. Nothing was written.")
        pixels = np.stack([decode(photo, package.spec) for photo in batch]) if package.takes == PHOTOS else batch
        logits, features = network.forward_many(pixels, at)
        difference = difference_of(found[LOGITS], logits, name)
        worst = max(worst, difference)
        if tolerance is not None:
            check_within(difference, tolerance, golden, name)
            _check_consequences(package, found, softmax(logits), features, name)
    return worst


def check_within(difference: float, tolerance: float, golden: Golden, name: str) -> None:
    """Refuse a greater difference, or one that is no number."""
    if not difference <= tolerance:
        raise CheckError(
            f"The {name} file gives other answers than the model: {len(golden.images)} images differ by up to "
            f"{difference:.2g} of the largest value, {tolerance:g} is allowed. Nothing was written."
        )


def difference_of(values: NDArray[Any], expected: NDArray[Any], name: str) -> float:
    """The greatest, relative to the largest value.

    Raises:
        CheckError: they have other shapes, or are not numbers.
    """
    if values.shape != expected.shape:
        raise CheckError(f"The {name} file gives values of shape {values.shape}, not {expected.shape}.")
    return greatest_difference(values, expected)


def _batches(package: Package) -> Iterator[NDArray[np.uint8]]:
    """Golden images; where the file takes photos, also a few of them enlarged, of other shapes."""
    images = package.golden.images
    yield images
    if package.takes == PHOTOS:
        size = package.spec.size
        for down, across in SIDES:
            shape = (across * size - 1, down * size + 2)
            yield np.stack([np.asarray(Image.fromarray(image).resize(shape)) for image in images[:FEW]])


def _check_consequences(
    package: Package, found: Answers, probabilities: NDArray[Any], features: NDArray[Any], name: str
) -> None:
    """Hold probabilities, label and "unknown" against those of the classifier."""
    unknown, close = package.unknown, CLOSE[package.takes]
    chosen = np.take_along_axis(probabilities, found[LABEL][:, None], axis=1)[:, 0]
    if not max(np.abs(found[PROBABILITIES] - probabilities).max(), (probabilities.max(1) - chosen).max()) <= close:
        raise CheckError(f"The {name} file gives other labels or probabilities than the model. Nothing was written.")
    if unknown is None:
        return
    low, high = unknown.score_within(features, probabilities, close)
    score = found[SCORE]
    if ((score < low) | (score > high) | (found[UNLIKE] != (score < np.float32(unknown.threshold)))).any():
        raise CheckError(f'The {name} file calls other images "unknown" than the model. Nothing was written.')
