"""Where on a photo the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.blueprint import LOGITS
from headstart.core.arguments import LABEL, PROGRESS, YES_NO, checks, text
from headstart.core.errors import DataError
from headstart.core.progress import Shown, function_of, shows_progress
from headstart.core.text import shortened
from headstart.core.types import Problem
from headstart.data.inputs import Images, unlabelled_dataset
from headstart.data.load import Decoded
from headstart.explain.closed_form import evidence
from headstart.explain.gradients import (
    GAP,
    WithGradients,
    gradient_times_input,
    integrated_gradients,
    layer_evidence,
    with_gradients,
)
from headstart.explain.request import METHODS, Plan, plan_of
from headstart.learn.calibrate import softmax
from headstart.learn.features import run_network
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER

Map = NDArray[np.float32]  # (height, width)

NAME = 32  # characters of a class in a sentence


@dataclass(frozen=True, eq=False)
class LayerMap:
    """The evidence in one layer."""

    layer: str
    values: Map  # at the layer's size
    share: float  # of the evidence of all layers, for or against


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where on one photo the evidence for a class lies: above 0 it speaks for the class, below 0 against it."""

    name: str  # of the photo
    label: str  # the class that is explained
    index: int  # of this class
    probability: float
    predicted: str  # the most probable class
    pixels: NDArray[np.uint8]  # (size, size, 3), as the network saw the photo
    values: Map  # the sum of the layers and of what lies in no place, at the size of the finest layer, or of the photo
    layers: tuple[LayerMap, ...]  # empty for "gradient" and "integrated"
    method: str  # one of `METHODS`, "auto" resolved
    at: str | None = None  # the layer that was asked for
    steps: int | None = None  # of integrated gradients
    gap: float | None = None  # how far their sum is from the difference of the logits, relative to it

    @property
    def empty(self) -> bool:
        """Whether the map is the same everywhere, so that it tells nothing."""
        return bool(self.values.min() == self.values.max())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is wrong with it by itself; `check_explanations` finds more."""
        found = []
        if self.empty:
            found.append(f"The map is empty: no place speaks for or against '{shortened(self.label, NAME)}'.")
        elif self.values.max() <= 0:
            found.append(f"No place speaks for '{shortened(self.label, NAME)}', so nothing is bright on the map.")
        if self.gap is not None and self.gap > GAP:
            found.append(
                f"After {self.steps} steps the attributions miss the difference of the logits by {self.gap:.0%}."
            )
        return tuple(found)

    def at_size(self, size: int) -> Map:
        """The values scaled to ``size`` pixels, bilinear."""
        return scaled(self.values, (size, size))


@checks(
    classifier=CLASSIFIER,
    label=LABEL,
    method=text(f"one of {', '.join(METHODS)}"),
    at=text("the name of a layer"),
    crop=YES_NO,
    progress=PROGRESS,
)
@shows_progress
def explain_photos(
    classifier: Classifier,
    images: Images,
    label: object = None,
    *,
    method: str = "auto",
    at: str | None = None,
    crop: bool = True,
    progress: Shown = True,
) -> list[Explanation]:
    """Where on each photo the evidence for a class lies.

    Args:
        label: the class; None: the most probable one of each photo.
        method: "hirescam" (gradient times activation of a layer, Draelos & Carin 2020), "gradcam" (Selvaraju et al.
            2017), "gradient" (times the pixels), "integrated" (Sundararajan et al. 2017). "auto" is hirescam. Where the
            head is linear in averages of layers, it and gradcam are the same and need one forward pass; all else needs
            an engine with gradients.
        at: a layer for hirescam and gradcam; None: the layers whose averages are the features, or else the last layer
            with more than one place.
        crop: as for `Classifier.predict`. ``progress`` is as for `fit`.

    Raises:
        UsageError: an unknown class, method or layer, a layer without places, an engine without gradients.
        DataError: an image that cannot be read; `explanations` goes on past those.
    """
    dataset = unlabelled_dataset(images)
    report, found = function_of(progress), []
    for item in explanations(classifier, dataset, label, method=method, at=at, crop=crop):
        if isinstance(item, Problem):
            raise DataError(f"'{item.name}' cannot be read: {item.detail}.")
        found.append(item)
        if report:
            report("photos", len(found), len(dataset))
    return found


def explanations(
    classifier: Classifier,
    images: Images,
    label: object = None,
    *,
    method: str = "auto",
    at: str | None = None,
    crop: bool = True,
) -> Iterator[Explanation | Problem]:
    """As `explain_photos`, photo by photo; what is wrong with one that cannot be read."""
    plan = plan_of(classifier, label, method=method, at=at)
    dataset = unlabelled_dataset(images)
    network = classifier.network.for_images(len(dataset))
    if not crop:
        network = network.seeing_all()
    nodes: tuple[str, ...] = (LOGITS,)
    if plan.head:
        nodes = (LOGITS, *([plan.head.root] if plan.head.root else []), *plan.head.layers)
    for item, values in run_network(dataset, network, nodes):
        name = dataset.samples[item.index].name
        if item.error is not None:
            yield Problem(name, item.error.kind, item.error.detail)
        elif values is not None:
            found = _begun(classifier, name, item, values[0], plan)
            if plan.head:
                maps, rest = evidence(plan.head, classifier.weights, values[1:], found.index)
                yield replace(found, values=_added(maps, rest), layers=_parts(plan.head.layers, maps))
            else:
                yield _by_gradients(with_gradients(classifier.network), found, plan.layer)


def scaled(values: Map, shape: tuple[int, int]) -> Map:
    """A map at another size (height, width), bilinear."""
    if values.shape == shape:
        return values
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def _begun(classifier: Classifier, name: str, item: Decoded, logits: NDArray[np.float32], plan: Plan) -> Explanation:
    """What is known before there is a map."""
    chances = softmax(logits)
    best = int(chances.argmax())
    index = best if plan.index is None else plan.index
    pixels = item.pixels if item.pixels is not None else np.zeros((0, 0, 3), np.uint8)
    return Explanation(
        name=name,
        label=classifier.classes[index],
        index=index,
        probability=float(chances[index]),
        predicted=classifier.classes[best],
        pixels=pixels,
        values=np.zeros((1, 1), np.float32),
        layers=(),
        method=plan.method,
        at=plan.at,
    )


def _by_gradients(network: WithGradients, begun: Explanation, layer: str) -> Explanation:
    pixels, index = begun.pixels, begun.index
    if begun.method == "gradient":
        return replace(begun, values=_plain(gradient_times_input(network, pixels, index)))
    if begun.method == "integrated":
        values, steps, gap = integrated_gradients(network, pixels, index)
        return replace(begun, values=_plain(values), steps=steps, gap=gap)
    values = _plain(layer_evidence(network, pixels, index, layer, averaged=begun.method == "gradcam"))
    return replace(begun, values=values, layers=_parts((layer,), [values]))


def _parts(layers: Sequence[str], maps: Sequence[Map]) -> tuple[LayerMap, ...]:
    sizes = [float(np.abs(each).sum()) for each in maps]
    total = sum(sizes) or 1.0
    return tuple(LayerMap(*part) for part in zip(layers, maps, (size / total for size in sizes), strict=True))


def _plain(values: NDArray[np.floating]) -> Map:
    return np.asarray(values, np.float32)


def _added(maps: Sequence[Map], rest: float) -> Map:
    """The sum at the size of the finest: a coarse place shares its evidence among the fine ones that it covers.

    ``rest`` lies in no place, and is spread evenly.
    """
    finest = max((each.shape for each in maps), key=lambda shape: shape[0] * shape[1])
    total = np.full(finest, rest / (finest[0] * finest[1]), np.float32)
    for each in maps:
        total += scaled(each, (finest[0], finest[1])) * np.float32(each.size / total.size)
    return total
