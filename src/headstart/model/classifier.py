"""A fitted classifier: labels, calibrated probabilities, "unknown"; in scikit-learn's manners."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.core.arguments import PROGRESS, YES_NO, checks, whole
from headstart.core.display import Described, names_in_short
from headstart.core.errors import DataError, UsageError
from headstart.core.labels import TEXT, as_given
from headstart.core.progress import Shown, function_of, shows_progress
from headstart.core.types import Evaluation, ImageSpec, Prediction, Problem
from headstart.data.inputs import Images, labelled_dataset, unlabelled_dataset
from headstart.data.load import THUMBNAIL
from headstart.data.sources import PathLike
from headstart.engines.names import resolve_engine
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine, keras_engine, torch_engine
from headstart.learn.calibrate import softmax
from headstart.learn.features import run_network
from headstart.learn.unknown import Unknown
from headstart.model.answers import check_unknown, top_of, with_unknown
from headstart.model.golden import Golden
from headstart.model.measure import UNKNOWN_CLASS, Judged, measure
from headstart.model.records import FitRecord

if TYPE_CHECKING:
    from headstart import Exported, PredictedTable, Recipe, TrainingRun

Matrix = NDArray[np.floating]
TOGETHER = 32  # images that are compared with the training photos at a time


def no_thumbnails() -> NDArray[np.uint8]:
    """The thumbnails of no photos."""
    return np.zeros((0, THUMBNAIL, THUMBNAIL), np.uint8)


@dataclass(eq=False, repr=False)
class Classifier(Described):
    """A network with a head for its classes, on one engine.

    Images are given as a path, a folder, a list or column of paths, arrays (NHWC or a list of HWC: uint8, or floats in
    [0, 1]), Pillow's images or the bytes of files; photos of any size. `hs.fit`, `hs.load` and `hs.pretrained` make
    one. It can be copied and sent to another process; to keep it, `save` it. Two are equal where they are one object.
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
    running: InitVar[Network | None] = None  # the network, where it is being compiled already

    def __post_init__(self, running: Network | None) -> None:
        self.engine = resolve_engine(self.engine, self.blueprint, self.device)
        if running is None:
            self.use_precision(self.precision)
        else:
            self.network = running

    def use_precision(self, precision: str) -> None:
        """Compute in "auto", "bf16", "int8" or "fp32" from now on."""
        self.precision = precision
        self.network = get_engine(
            self.engine, self.blueprint, self.weights, self.spec, precision, self.device, module=self.module
        )

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes in their order (K,), as the labels were given: whole numbers stay whole numbers."""
        return as_given(self.classes, self.label_kind)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "network"}  # compiled for this process

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.use_precision(self.precision)

    @overload
    def predict(self, images: Images, *, unknown: object = None, crop: bool = True) -> NDArray[Any]: ...

    @overload
    def predict(self, images: Images, *, top: int, crop: bool = True) -> list[list[tuple[Any, float]]]: ...

    @checks(top=whole(1), crop=YES_NO)
    def predict(
        self, images: Images, *, unknown: object = None, top: int | None = None, crop: bool = True
    ) -> NDArray[Any] | list[list[tuple[Any, float]]]:
        """The most probable class of each image (N,), as the labels were given.

        Args:
            unknown: the answer for images that are unlike the training photos, such as "unknown" or -1; None: the
                most probable class, as for all others.
            top: so many classes of each image with their probabilities, the most probable first, as a list of (label,
                probability), instead.
            crop: False: the whole image is seen, scaled to the network's size, not its middle: for pixels that are a
                network's input already. Squares of ``spec.size`` pixels then go in exactly as they are.

        Raises:
            DataError: an image that cannot be read; `predictions` goes on past those.
            UsageError: a ``top`` below 1, or both.
        """
        check_unknown(unknown, self.classes_)
        if top is not None:
            if unknown is not None:
                raise UsageError("top= and unknown= do not go together: `predictions` gives both.")
            return top_of(self.predict_proba(images, crop=crop), self.classes_, top)
        if unknown is None:
            chosen: NDArray[Any] = self.classes_[self.predict_proba(images, crop=crop).argmax(axis=1)]
            return chosen
        judged = [
            (int(_readable(item).probabilities.argmax()), strange) for item, strange in self.judge(images, crop=crop)
        ]
        return with_unknown([k for k, _ in judged], [strange for _, strange in judged], self.classes_, unknown)

    @checks(crop=YES_NO)
    def predict_proba(self, images: Images, *, crop: bool = True) -> Matrix:
        """Calibrated probabilities (N, K), float64, in the order of ``classes_``. ``crop`` is as for `predict`."""
        rows = [_readable(item).probabilities for item in self._see(images, crop)]
        return np.stack(rows) if rows else np.zeros((0, len(self.classes)))

    @checks(crop=YES_NO)
    def embed(self, images: Images, *, crop: bool = True) -> NDArray[np.float32]:
        """The features of each image (N, D) that the head is given, for a classifier or a search of one's own.

        ``crop`` is as for `predict`.
        """
        rows = [_readable(item).x for item in self._see(images, crop)]
        width = self.blueprint.weight_shapes()[f"{LOGITS}.weight"][1]
        return np.stack(rows) if rows else np.zeros((0, width), np.float32)

    def predictions(self, images: Images, *, crop: bool = True) -> Iterator[Prediction | Problem]:
        """Image by image: label, probability and whether it is unlike the training photos; or what is wrong with it.

        Also of a list's files that are not there, and of what in a folder cannot be read. ``crop`` is as for `predict`.
        """
        for item, unknown in self.judge(unlabelled_dataset(images, all_listed=True), crop=crop):
            if isinstance(item, Problem):
                yield item
                continue
            best = int(item.probabilities.argmax())
            yield Prediction(item.name, self.classes[best], float(item.probabilities[best]), unknown)

    def predict_table(
        self, images: PathLike | Iterable[PathLike], path: PathLike, *, top: int = 1, every: bool = False,
        crop: bool = True, urls: bool = False, overwrite: bool = False, progress: Shown = True,
    ) -> PredictedTable:  # fmt: skip
        """Write a table, .csv or .parquet, with a row for each image; see `headstart.predict_table`."""
        import headstart

        more: dict[str, Any] = {"top": top, "every": every, "crop": crop, "urls": urls}
        return headstart.predict_table(self, images, path, overwrite=overwrite, progress=progress, **more)

    def unlike_training(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the images (N, size, size, 3), a network's input as it is, `predictions` calls unknown (N,)."""
        return np.array([unknown for _, unknown in self.judge(pixels, crop=False)], bool)

    @checks(fitted_on_too=YES_NO, progress=PROGRESS)
    @shows_progress
    def evaluate(
        self,
        data: Images,
        labels: Iterable[object] | None = None,
        *,
        fitted_on_too: bool = False,
        progress: Shown = True,
    ) -> Evaluation:
        """Hold the classifier against labelled images: those of a source, or ``data`` with ``labels``.

        Of a source that has a test part (or else a validation part) only that part counts. Images that are in the
        training set, or of which it has a near copy, are passed over, unless ``fitted_on_too``; images of other classes
        and those that cannot be read are left out and named. ``progress`` is as for `fit`.

        Raises:
            DataError: none of the labels is known, or there is no image to count.
        """
        dataset = labelled_dataset(data, labels, self.label_kind)
        if dataset.own_test and not fitted_on_too:
            dataset = dataset.part(
                [row for row, sample in enumerate(dataset.samples) if sample.split == dataset.own_test]
            )
        report = function_of(progress)
        return measure(self, dataset, training_set_too=fitted_on_too, progress=report)

    def score(self, data: Images, labels: Iterable[object] | None = None) -> float:
        """The accuracy of `evaluate`; with ``labels`` over every image, those of the training set too.

        So scikit-learn has it; `evaluate` passes those of the training set over, with ``labels`` or without.
        A label among ``labels`` that the classifier does not know counts as a wrong answer.
        """
        result = self.evaluate(data, labels, fitted_on_too=labels is not None)
        others = sum(problem.kind == UNKNOWN_CLASS for problem in result.left_out or ()) if labels is not None else 0
        images = result.accuracy.images
        return result.accuracy.value * images / (images + others)

    @checks(count=whole(1))
    def nearest(self, images: Images, count: int = 5) -> list[list[tuple[str, float]]]:
        """For each image the names of the most similar training photos that were kept, with their cosine."""
        if self.unknown is None:
            raise UsageError("This classifier was not fitted on photos of yours, so it has none to show.")
        found = []
        for item in self._see(images):
            cosines = self.unknown.similarities(_readable(item).x[None])[0]
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

    def export(
        self, to: str, path: PathLike, *, takes: str = "auto", int8: bool = False, data: Images | None = None,
        overwrite: bool = False, progress: Shown = True,
    ) -> Exported:  # fmt: skip
        """Write the classifier to ``path`` for other runtimes, once a replay there gives its own answers.

        Formats: onnx, openvino, keras, savedmodel, tflite, torch, web; and weights alone for keras-applications,
        torchvision or timm. Most take photos of any size (``takes``). tflite may be had in ``int8``, with labelled
        photos as ``data``. See `export.export.export_model`.
        """
        import headstart

        more: dict[str, Any] = {"takes": takes, "int8": int8, "data": data}
        return headstart.export_model(self, to, path, overwrite=overwrite, progress=progress, **more)

    def finetune(
        self,
        data: Images,
        labels: Iterable[object] | None = None,
        *,
        recipe: str | PathLike | Recipe = "careful",
        trainer: str | TrainingRun = "auto",
        refit: bool | None = None,
        holdout: float | None = None,
        seed: int | None = None,
        cache: bool = True,
        progress: Shown = True,
    ) -> Classifier:
        """Train more of the network than its head on labelled photos; it stays as it is where that is not better.

        The arguments are those of `headstart.finetune`.
        """
        import headstart

        return headstart.finetune(
            self, data, labels,
            recipe=recipe, trainer=trainer, refit=refit, holdout=holdout, seed=seed, cache=cache, progress=progress,
        )  # fmt: skip

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write a folder that `hs.load` opens, and return its path. With ``overwrite`` a model there is replaced."""
        import headstart

        return headstart.save(self, path, overwrite=overwrite)

    def _see(self, images: Images, crop: bool = True, rows: Sequence[int] | None = None) -> Iterator[Judged | Problem]:
        dataset = unlabelled_dataset(images)
        network = self.network.for_images(len(dataset))
        if not crop:
            network = network.seeing_all()
        for item, values in run_network(dataset, network, (LOGITS, self.blueprint[LOGITS].inputs[0]), rows):
            name = dataset.samples[item.index].name
            if item.error is not None:
                yield Problem(name, item.error.kind, item.error.detail)
            elif values is not None and item.thumbnail is not None:
                yield Judged(name, item.key, item.thumbnail, softmax(values[0]), values[1])

    def judge(
        self, images: Images, *, crop: bool = True, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[Judged | Problem, bool]]:
        """Each image, and whether it is unlike the training photos: many at a time, which is one matrix product.

        Args:
            rows: only these of the images, in this order, computed as if all were asked for.
        """
        items = self._see(images, crop, rows)
        while batch := list(islice(items, TOGETHER)):
            margins = iter(self._margins([item for item in batch if isinstance(item, Judged)]))
            for item in batch:
                if isinstance(item, Problem):
                    yield item, False
                    continue
                margin = next(margins)
                yield replace(item, margin=margin), margin < 0

    def _margins(self, seen: Sequence[Judged]) -> list[float]:
        if self.unknown is None or not seen:
            return [0.0] * len(seen)
        margins = self.unknown.margin(np.stack([one.x for one in seen]), np.stack([one.probabilities for one in seen]))
        found: list[float] = margins.tolist()
        return found

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        result = self.record.result
        return {
            "classes": names_in_short(self.classes),
            "network": f"{self.record.backbone or self.blueprint.name} at {self.spec.size} pixels",
            "test set": result.accuracy.in_words("image") if result else "accuracy not measured",
        }


def _readable(item: Judged | Problem) -> Judged:
    """The image, as the network saw it.

    Raises:
        DataError: it could not be read.
    """
    if isinstance(item, Problem):
        raise DataError(f"'{item.name}' cannot be read: {item.detail}.")
    return item
