"""A fitted classifier: labels, calibrated probabilities, "unknown"; in scikit-learn's manners."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.backbones.catalogue import Pretrained, load_pretrained
from headstart.backbones.imagenet import class_names
from headstart.data.sources import PathLike, from_arrays, from_pairs, open_source, unlabelled
from headstart.engines.base import get_engine
from headstart.errors import DataError, UsageError
from headstart.learn.calibrate import softmax
from headstart.learn.evaluate import evaluate
from headstart.learn.features import observe
from headstart.learn.unknown import Unknown
from headstart.types import Evaluation, ImageSpec, Prediction, Problem, Table

Images = PathLike | Sequence[PathLike] | NDArray[Any] | Sequence[NDArray[Any]] | Table
Matrix = NDArray[np.floating]


@dataclass(frozen=True)
class Golden:
    """A few images with the logits that the classifier gave when it was saved."""

    images: NDArray[np.uint8]  # (N, size, size, 3)
    logits: NDArray[np.float32]  # (N, K), fp32


@dataclass
class Classifier:
    """A network with a head for ``classes_``, on one engine.

    Images are given as a path, a list of paths, a folder, or arrays (NHWC or a list of HWC: uint8, or floats in
    [0, 1]); photos of any size. `hs.fit`, `hs.load` and `hs.pretrained` make one.
    """

    blueprint: Blueprint
    weights: Mapping[str, NDArray[np.float32]]  # calibrated: the softmax of the logits is the probability
    spec: ImageSpec
    classes_: tuple[str, ...]
    unknown: Unknown | None = None
    neighbours: tuple[str, ...] = ()  # names of the training photos that ``unknown`` keeps
    record: dict[str, Any] = field(default_factory=dict)  # how it was fitted, and how it did; JSON values
    golden: Golden | None = None
    engine: str = "fast"
    precision: str = "auto"

    def __post_init__(self) -> None:
        self.use_precision(self.precision)

    def use_precision(self, precision: str) -> None:
        """Compute in "auto", "bf16" or "fp32" from now on."""
        self.precision = precision
        self.network = get_engine(self.engine, self.blueprint, self.weights, self.spec, precision)

    def predict(self, images: Images) -> NDArray[np.str_]:
        """The most probable class of each image, (N,).

        Raises:
            DataError: an image that cannot be read; `predictions` goes on past those.
        """
        return np.array(self.classes_)[self.predict_proba(images).argmax(axis=1)]

    def predict_proba(self, images: Images) -> Matrix:
        """Calibrated probabilities (N, K), float64, in the order of ``classes_``."""
        rows = []
        for item in self._see(images):
            if isinstance(item, Problem):
                raise DataError(f"'{item.name}' cannot be read: {item.detail}.")
            rows.append(item[1])
        return np.stack(rows) if rows else np.zeros((0, len(self.classes_)))

    def predictions(self, images: Images) -> Iterator[Prediction | Problem]:
        """Image by image: label, probability and whether it is unlike the training photos; or what is wrong with it."""
        for item in self._see(images):
            if isinstance(item, Problem):
                yield item
                continue
            name, probabilities, x = item
            best = int(probabilities.argmax())
            yield Prediction(
                name, self.classes_[best], float(probabilities[best]), bool(self._strange(x[None], probabilities[None])[0])
            )

    def evaluate(self, data: Images, labels: Sequence[str] | None = None) -> Evaluation:
        """Hold the classifier against labelled images: those of a source, or ``data`` with ``labels``.

        Of a source that has a test part (or else a validation part) only that part counts.

        Raises:
            DataError: a label that the classifier does not know, or no image that can be read.
        """
        return self.evaluate_table(labelled_table(data, labels))

    def evaluate_table(self, table: Table) -> Evaluation:
        """As `evaluate`, of a table as it is."""
        place = {name: k for k, name in enumerate(self.classes_)}
        strangers = sorted({sample.label for sample in table.samples} - set(place))
        if strangers:
            raise DataError(
                f"The classifier does not know {len(strangers)} of the labels, '{strangers[0]}' first. "
                f"It knows: {', '.join(self.classes_[:10])}{' …' if len(self.classes_) > 10 else ''}."
            )
        rows, truth, strange = [], [], []
        for sample, item in zip(table.samples, self._see(table), strict=True):
            if isinstance(item, Problem):
                continue
            _, probabilities, x = item
            rows.append(probabilities)
            truth.append(place[sample.label])
            strange.append(self._strange(x[None], probabilities[None])[0])
        if not rows:
            raise DataError(f"None of the {len(table)} images in '{table.root}' can be read.")
        return evaluate(np.stack(rows), np.array(truth), self.classes_, np.array(strange))

    def score(self, data: Images, labels: Sequence[str] | None = None) -> float:
        """The accuracy of `evaluate`."""
        return self.evaluate(data, labels).accuracy.value

    def nearest(self, images: Images, count: int = 5) -> list[list[tuple[str, float]]]:
        """For each image the names of the most similar training photos that were kept, with their cosine."""
        if self.unknown is None:
            raise UsageError("This classifier was not fitted on photos of yours, so it has none to show.")
        found = []
        for item in self._see(images):
            if isinstance(item, Problem):
                raise DataError(f"'{item.name}' cannot be read: {item.detail}.")
            cosines = self.unknown.similarities(item[2][None])[0]
            found.append([(self.neighbours[i], float(cosines[i])) for i in np.argsort(-cosines)[:count]])
        return found

    def save(self, path: PathLike) -> None:
        """Write a bundle: a folder that `hs.load` opens. An older bundle there is replaced, anything else is not."""
        from headstart.bundle import save

        save(self, path)

    def _see(self, images: Images) -> Iterator[Problem | tuple[str, Matrix, NDArray[np.float32]]]:
        """Name, probabilities and what the head saw, of each image."""
        table = _table(images)
        for item, values in observe(table, self.network, (LOGITS, self.blueprint[LOGITS].inputs[0])):
            name = table.samples[item.index].name
            if item.error is not None or values is None:
                yield Problem(name, item.error.kind, item.error.detail) if item.error else Problem(name, "unreadable", "")
            else:
                yield name, softmax(values[0]), values[1]

    def _strange(self, x: Matrix, probabilities: Matrix) -> NDArray[np.bool_]:
        if self.unknown is None:
            return np.zeros(len(x), bool)
        return self.unknown.score(x, probabilities) < self.unknown.threshold


def pretrained(
    backbone: str,
    weights: PathLike | None = None,
    *,
    pixels: int | None = None,
    engine: str = "fast",
    precision: str = "auto",
) -> Classifier:
    """A catalogued network with its own head: a classifier for the thousand classes of ImageNet."""
    found: Pretrained = load_pretrained(backbone, weights, pixels)
    return Classifier(
        found.blueprint, found.weights, found.spec, class_names(), engine=engine, precision=precision,
        record={"backbone": backbone},
    )


def labelled_table(data: Images, labels: Sequence[str] | None) -> Table:
    """Labelled images as one table; of a source with a test part (else a validation part) only that part."""
    if isinstance(data, Table):
        return data
    if labels is not None:
        if isinstance(data, np.ndarray) or (len(data) and isinstance(data[0], np.ndarray)):  # type: ignore[arg-type,index]
            return from_arrays(data, labels)  # type: ignore[arg-type]
        return from_pairs(data, labels)  # type: ignore[arg-type]
    if not isinstance(data, str | os.PathLike):
        raise UsageError("Images without labels cannot be scored: name a folder with a folder for each class, or give labels.")
    return open_source(data)


def _table(images: Images) -> Table:
    if isinstance(images, Table):
        return images
    if isinstance(images, str | os.PathLike):
        return unlabelled([images])
    if isinstance(images, np.ndarray) or (len(images) and isinstance(images[0], np.ndarray)):
        return from_arrays(images)  # type: ignore[arg-type]
    return unlabelled(images)  # type: ignore[arg-type]
