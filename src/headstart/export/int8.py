"""The loss of accuracy of int8: calibrated on some photos, compared with fp32 on others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import CheckError, DataError
from headstart.core.types import Accuracy, ImageSpec
from headstart.data.inputs import Images, labelled_dataset
from headstart.data.load import Decoded, in_chunks, load_images
from headstart.learn.significance import mcnemar

CALIBRATION, MEASURED = 200, 1000  # photos at most
LEAST = 20  # photos to calibrate on, and to measure on
LIMIT, CHANCE = 0.03, 0.05  # accuracy that may be lost; below this p-value a greater loss is no chance

Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # images (N, size, size, 3), any N -> logits (N, K)


@dataclass(frozen=True, eq=False)
class Photos:
    """Labelled photos as input of the network, (N, size, size, 3); none is in both parts."""

    calibration: NDArray[np.uint8]
    images: NDArray[np.uint8]
    truth: NDArray[np.intp]  # of ``images``: indices of classes
    fitted_on: bool  # whether ``images`` are from the training set, because there are no others


@dataclass(frozen=True)
class Loss:
    """fp32 and int8 on the same photos."""

    before: Accuracy
    after: Accuracy
    agreement: float  # share of photos with the same label from both
    chance: float  # mid-p value of McNemar's test
    calibration: int  # photos calibrated on
    fitted_on: bool

    @property
    def points(self) -> float:
        """Accuracy lost, in percentage points."""
        return 100 * (self.before.value - self.after.value)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"points": self.points}


def gather(data: Images, classes: Sequence[str], spec: ImageSpec, fitted_on: Collection[bytes]) -> Photos:
    """Choose photos to calibrate on, if possible from the training set, and others to measure on.

    Raises:
        DataError: a label that is not among ``classes``, or too few readable photos.
    """
    dataset = labelled_dataset(data, None)
    if unknown_labels := sorted({sample.label for sample in dataset.samples} - {*classes}):
        raise DataError(
            f"The classifier does not know the label '{unknown_labels[0]}'. Give it photos of its own classes."
        )
    place = {name: k for k, name in enumerate(classes)}
    old: list[tuple[NDArray[np.uint8], int]] = []  # fitted on
    new: list[tuple[NDArray[np.uint8], int]] = []

    def read(rows: Sequence[int]) -> list[Decoded]:
        known = fitted_on if len(old) >= CALIBRATION + MEASURED else ()
        return load_images(dataset, rows, spec, known)

    for item in in_chunks(read, np.random.default_rng(0).permutation(len(dataset)).tolist()):
        kind = old if item.key in fitted_on else new
        if item.pixels is not None and len(kind) < CALIBRATION + MEASURED:
            kind.append((item.pixels, place[dataset.samples[item.index].label]))
        if len(old) >= CALIBRATION and len(new) >= MEASURED:
            break
    if min(len(old), len(new)) >= LEAST:
        calibration, measured, seen = old[:CALIBRATION], new[:MEASURED], False
    else:  # one kind must do for both
        most, seen = max((new, False), (old, True), key=lambda kind: len(kind[0]))
        half = min(CALIBRATION, len(most) // 2)
        calibration, measured = most[:half], most[half : half + MEASURED]
    if len(calibration) < LEAST:
        raise DataError(
            f"int8 needs {LEAST} labelled photos to be calibrated on and {LEAST} others to be measured on. "
            f"Received: {len(old) + len(new)} readable ones."
        )
    images, truth = zip(*measured, strict=True)
    return Photos(np.stack([pixels for pixels, _ in calibration]), np.stack(images), np.array(truth), seen)


def measure(photos: Photos, fp32: Forward, int8: Forward) -> Loss:
    """Compare ``int8`` with ``fp32`` on the photos that it was not calibrated on.

    Raises:
        CheckError: it loses more accuracy than `LIMIT`, and not by chance.
    """
    before, after = (run(photos.images).argmax(1) for run in (fp32, int8))
    right, still = before == photos.truth, after == photos.truth
    loss = Loss(
        Accuracy.of(int(right.sum()), len(right)),
        Accuracy.of(int(still.sum()), len(still)),
        float((before == after).mean()),
        mcnemar(int((right & ~still).sum()), int((still & ~right).sum())),
        len(photos.calibration),
        photos.fitted_on,
    )
    if loss.points > 100 * LIMIT and loss.chance < CHANCE:
        raise CheckError(
            f"int8 would lose {loss.points:.1f} points of accuracy: {loss.before.value:.3f} in fp32, "
            f"{loss.after.value:.3f} in int8 on {loss.before.images} photos; {100 * LIMIT:.0f} are allowed. "
            "Take fp32, or a network made for int8: --backbone efficientnet_lite0"
        )
    return loss
