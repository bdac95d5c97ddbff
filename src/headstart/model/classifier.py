"""A fitted classifier: labels, calibrated probabilities, "unknown"; in scikit-learn's manners."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.core.errors import DataError, UsageError
from headstart.core.labels import TEXT, as_given
from headstart.core.types import Evaluation, ImageSpec, Normalisation, Prediction, Problem
from headstart.data.inputs import Images, labelled_dataset, unlabelled_dataset
from headstart.data.load import THUMBNAIL
from headstart.data.sources import PathLike
from headstart.engines.names import check_running, resolve_engine
from headstart.engines.registry import get_engine, keras_engine, open_backbone, torch_engine
from headstart.engines.sound import check_sound
from headstart.learn.calibrate import softmax
from headstart.learn.features import run_network
from headstart.learn.unknown import Unknown
from headstart.model.measure import UNKNOWN_CLASS, Judged, measure
from headstart.model.records import FitRecord

if TYPE_CHECKING:
    from headstart import Exported

Matrix = NDArray[np.floating]
TOGETHER = 32  # images that are compared with the training photos at a time


def no_thumbnails() -> NDArray[np.uint8]:
    """The thumbnails of no photos."""
    return np.zeros((0, THUMBNAIL, THUMBNAIL), np.uint8)


@dataclass(frozen=True)
class Golden:
    """A few images with the logits that the classifier gave when it was saved."""

    images: NDArray[np.uint8]  # (N, size, size, 3)
    logits: NDArray[np.float32]  # (N, K), fp32


@dataclass
class Classifier:
    """A network with a head for its classes, on one engine.

    Images are given as a path, a list of paths, a folder, or arrays (NHWC or a list of HWC: uint8, or floats in
    [0, 1]); photos of any size. `hs.fit`, `hs.load` and `hs.pretrained` make one.
    """

    blueprint: Blueprint
    weights: Mapping[str, NDArray[np.float32]]  # calibrated: the softmax of the logits is the probability
    spec: ImageSpec
    classes: tuple[str, ...]
    unknown: Unknown | None = None
    neighbours: tuple[str, ...] = ()  # names of the training photos that ``unknown`` keeps
    record: FitRecord = field(default_factory=FitRecord)  # how it was fitted, and how it did
    golden: Golden | None = None
    fitted_on: frozenset[bytes] = frozenset()  # content keys of the training photos
    thumbnails: NDArray[np.uint8] = field(default_factory=no_thumbnails, repr=False)  # of the training photos
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    module: object | None = field(default=None, repr=False)  # the live one, where the network is a module
    label_kind: str = TEXT  # what the labels were that it was fitted on, see `core.labels`

    def __post_init__(self) -> None:
        self.engine = resolve_engine(self.engine, self.blueprint, self.device)
        self.use_precision(self.precision)

    def use_precision(self, precision: str) -> None:
        """Compute in "auto", "bf16" or "fp32" from now on."""
        self.precision = precision
        self.network = get_engine(
            self.engine, self.blueprint, self.weights, self.spec, precision, self.device, module=self.module
        )

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes in their order (K,), as the labels were given: whole numbers stay whole numbers."""
        return as_given(self.classes, self.label_kind)

    def predict(self, images: Images) -> NDArray[Any]:
        """The most probable class of each image (N,), as the labels were given.

        Raises:
            DataError: an image that cannot be read; `predictions` goes on past those.
        """
        chosen: NDArray[Any] = self.classes_[self.predict_proba(images).argmax(axis=1)]
        return chosen

    def predict_proba(self, images: Images) -> Matrix:
        """Calibrated probabilities (N, K), float64, in the order of ``classes_``."""
        rows = [item.probabilities for item in self._readable(images)]
        return np.stack(rows) if rows else np.zeros((0, len(self.classes)))

    def predictions(self, images: Images) -> Iterator[Prediction | Problem]:
        """Image by image: label, probability and whether it is unlike the training photos; or what is wrong with it."""
        for item, unknown in self.judge(images):
            if isinstance(item, Problem):
                yield item
                continue
            best = int(item.probabilities.argmax())
            yield Prediction(item.name, self.classes[best], float(item.probabilities[best]), unknown)

    def evaluate(
        self,
        data: Images,
        labels: Iterable[object] | None = None,
        *,
        fitted_on_too: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Evaluation:
        """Hold the classifier against labelled images: those of a source, or ``data`` with ``labels``.

        Of a source that has a test part (or else a validation part) only that part counts. Images that are in the
        training set, or of which it has a near copy, are passed over, unless ``fitted_on_too``; images of other classes
        and those that cannot be read are left out and named. ``progress`` is called with (stage, done, of how many).

        Raises:
            DataError: none of the labels is known, or there is no image to count.
        """
        dataset = labelled_dataset(data, labels, self.label_kind)
        if dataset.own_test and not fitted_on_too:
            dataset = dataset.part(
                [row for row, sample in enumerate(dataset.samples) if sample.split == dataset.own_test]
            )
        return measure(self, dataset, training_set_too=fitted_on_too, progress=progress)

    def score(self, data: Images, labels: Iterable[object] | None = None) -> float:
        """The accuracy of `evaluate`; with ``labels`` on every image, as scikit-learn has it.

        A label among ``labels`` that the classifier does not know counts as a wrong answer.
        """
        result = self.evaluate(data, labels, fitted_on_too=labels is not None)
        others = sum(problem.kind == UNKNOWN_CLASS for problem in result.left_out or ()) if labels is not None else 0
        images = result.accuracy.images
        return result.accuracy.value * images / (images + others)

    def nearest(self, images: Images, count: int = 5) -> list[list[tuple[str, float]]]:
        """For each image the names of the most similar training photos that were kept, with their cosine."""
        if self.unknown is None:
            raise UsageError("This classifier was not fitted on photos of yours, so it has none to show.")
        found = []
        for item in self._readable(images):
            cosines = self.unknown.similarities(item.x[None])[0]
            found.append([(self.neighbours[i], float(cosines[i])) for i in np.argsort(-cosines)[:count]])
        return found

    def to_torch(self) -> Any:
        """The classifier as an ordinary `torch.nn.Module`, in evaluation mode, trainable; it shares nothing with this.

        Images in, (N, height, width, 3) or (N, 3, height, width), whichever has a 3 in its place, of ``spec.size``
        pixels, uint8 or floats in [0, 1]; normalisation is inside. Calibrated logits (N, K) out, in the order of
        ``classes_``: their softmax is `predict_proba`.
        """
        resolve_engine("torch", self.blueprint)
        return torch_engine().to_module(self.blueprint, self.weights, self.spec, self.module)

    def to_keras(self) -> Any:
        """The classifier as an ordinary `keras.Model` of Keras' own layers, trainable; it shares nothing with this.

        Pixels in, (N, height, width, 3) of ``spec.size``, from 0 to 255, bytes or floats; normalisation is inside.
        Calibrated logits (N, K) out, in the order of ``classes_``: their softmax is `predict_proba`.
        """
        resolve_engine("keras", self.blueprint)
        return keras_engine().to_model(self.blueprint, self.weights, self.spec, self.module)

    def export(self, to: str, path: PathLike, *, int8: bool = False, data: Images | None = None) -> Exported:
        """Write the classifier to ``path`` for other runtimes, once a replay there gives its own answers.

        Formats: onnx, openvino, keras, savedmodel, tflite, torch; and weights alone for keras-applications, torchvision
        or timm. tflite may be had in ``int8``, with labelled photos as ``data``. See `export.export.export_model`.
        """
        import headstart

        return headstart.export_model(self, to, path, int8=int8, data=data)

    def finetune(self, data: Images, labels: Iterable[object] | None = None, **settings: Any) -> Classifier:
        """Train more of the network than its head on labelled photos; it stays as it is where that is not better.

        ``settings`` are those of `headstart.finetune`: a ``recipe``, a ``trainer``, a ``holdout``, and others.
        """
        import headstart

        return headstart.finetune(self, data, labels, **settings)

    def save(self, path: PathLike) -> None:
        """Write a bundle: a folder that `hs.load` opens. An older bundle there is replaced, anything else is not."""
        import headstart

        headstart.save(self, path)

    def _see(self, images: Images) -> Iterator[Judged | Problem]:
        dataset = unlabelled_dataset(images)
        network = self.network.for_images(len(dataset))
        for item, values in run_network(dataset, network, (LOGITS, self.blueprint[LOGITS].inputs[0])):
            name = dataset.samples[item.index].name
            if item.error is not None:
                yield Problem(name, item.error.kind, item.error.detail)
            elif values is not None and item.thumbnail is not None:
                yield Judged(name, item.key, item.thumbnail, softmax(values[0]), values[1])

    def _readable(self, images: Images) -> Iterator[Judged]:
        for item in self._see(images):
            if isinstance(item, Problem):
                raise DataError(f"'{item.name}' cannot be read: {item.detail}.")
            yield item

    def judge(self, images: Images) -> Iterator[tuple[Judged | Problem, bool]]:
        """Each image, and whether it is unlike the training photos: many at a time, which is one matrix product."""
        items = self._see(images)
        while batch := list(islice(items, TOGETHER)):
            unknown = iter(self._are_unknown([item for item in batch if isinstance(item, Judged)]))
            yield from ((item, bool(next(unknown)) if isinstance(item, Judged) else False) for item in batch)

    def _are_unknown(self, seen: Sequence[Judged]) -> NDArray[np.bool_]:
        if self.unknown is None or not seen:
            return np.zeros(len(seen), bool)
        scores = self.unknown.score(np.stack([one.x for one in seen]), np.stack([one.probabilities for one in seen]))
        return np.asarray(scores < self.unknown.threshold)


def pretrained(
    backbone: str,
    weights: PathLike | None = None,
    *,
    pixels: int | None = None,
    spec: ImageSpec | Normalisation | None = None,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> Classifier:
    """A catalogued network, "timm/NAME" or "keras/NAME", with its own head, mostly for ImageNet's thousand classes.

    It has no images to try bf16 on, so "auto" is fp32. ``device`` is as for `fit`. ``progress`` is called with (stage,
    done, of how many) while weights are fetched.
    """
    check_running(engine, precision, device)
    found, module = open_backbone(backbone, weights, pixels, head=True, spec=spec, progress=progress)
    classifier = Classifier(
        blueprint=found.blueprint,
        weights=found.weights,
        spec=found.spec,
        classes=found.backbone.classes(),
        engine=engine,
        precision="fp32" if precision == "auto" else precision,
        device=device,
        record=FitRecord(backbone=found.backbone.name, assumed=found.assumed or None),
        module=module,
    )
    if weights is not None:
        check_sound(classifier.network, LOGITS)
    return classifier
