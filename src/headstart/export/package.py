"""The content of an export: a network with its classes and metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart import __version__
from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.core.types import ImageSpec
from headstart.data.load import DRAFT
from headstart.engines.registry import get_engine
from headstart.export.formats import PHOTOS, PIXELS
from headstart.learn.unknown import Unknown
from headstart.model.classifier import Classifier
from headstart.model.golden import Golden
from headstart.model.model_card import model_card
from headstart.model.records import FitRecord

GOLDEN = 8  # images generated where a network has none
INPUT = {
    PHOTOS: "photos: uint8 RGB NHWC, 0 to 255, any height and width; cropped and scaled inside",
    PIXELS: "images: uint8 RGB NHWC, 0 to 255",
}
OUTPUT = "logits, float32 (N, classes); probabilities = softmax(logits); label, int64 (N,), the place of the largest"
IMAGES = "images"  # the input's name where it is pixels; else PHOTOS
OUTPUTS = (LOGITS, "probabilities", "label")
UNKNOWN_OUTPUTS = ("unknown_score", "unknown")
UNKNOWN = "; unknown_score, float32 (N,); unknown, bool (N,): whether it is below unknown_threshold"


@dataclass(frozen=True, eq=False)
class Package:
    """A classifier to be written in another format.

    In every format the input is uint8, any N, and the network normalises it itself: images (N, size, size, 3), or
    photos (N, height, width, 3) of any size, which are cropped and scaled as well.
    """

    blueprint: Blueprint
    weights: Mapping[str, NDArray[np.float32]]  # calibrated: the softmax of the logits is the probability
    spec: ImageSpec
    classes: tuple[str, ...]
    golden: Golden  # images (n, size, size, 3), uint8, and their logits (n, K) in fp32
    record: FitRecord = field(default_factory=FitRecord)  # how it was fitted
    module: object | None = None  # the module object, where the network is a module of another library
    unknown: Unknown | None = None  # tells images unlike the training photos
    card: str = ""  # the model card
    takes: str = PIXELS  # or PHOTOS

    @classmethod
    def of(cls, classifier: Classifier, takes: str = PIXELS) -> Package:
        """A classifier's package; golden images are generated where it has none."""
        golden = classifier.golden or _generated(classifier)
        return cls(
            blueprint=classifier.blueprint,
            weights=classifier.weights,
            spec=classifier.spec,
            classes=classifier.classes,
            golden=golden,
            record=classifier.record,
            module=classifier.module,
            unknown=classifier.unknown,
            card=model_card(classifier),
            takes=takes,
        )

    @property
    def given(self) -> str:
        """The name of the input."""
        return PHOTOS if self.takes == PHOTOS else IMAGES

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """Height and width of the input; None where it is any."""
        return (None, None) if self.takes == PHOTOS else (self.spec.size, self.spec.size)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Their names, in order."""
        return (*OUTPUTS, *(UNKNOWN_OUTPUTS if self.unknown is not None else ()))

    def metadata(self) -> dict[str, str]:
        """Metadata of a file as text; lists are JSON."""
        known = {
            "headstart": __version__,
            "task": "image-classification",
            "network": self.blueprint.name,
            "classes": _listed(self.classes),
            "temperature": "1",
            "temperature_note": "of the logits as they are: the fitted temperature is already inside them",
            "pixels": str(self.spec.size),
            "crop": repr(self.spec.crop),
            "resample": self.spec.resample,
            "levels": json.dumps(self.spec.levels),
            "draft": str(DRAFT),
            "mean": json.dumps(self.spec.mean),
            "std": json.dumps(self.spec.std),
            "normalisation": "inside: (x / 255 - mean) / std",
            "takes": self.takes,
            "input": INPUT[self.takes],
            "output": OUTPUT + (UNKNOWN if self.unknown is not None else ""),
            "card": self.card,
        }
        if self.unknown is not None:
            known["unknown_threshold"] = repr(self.unknown.threshold)
        if self.record.head is not None:
            known["fitted_temperature"] = repr(self.record.head.temperature)
        return known


def _listed(names: tuple[str, ...]) -> str:
    """As JSON; escaped where a name has characters that not every format allows."""
    text = json.dumps(names, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(names)


def _generated(classifier: Classifier) -> Golden:
    """Generated images of waves and noise, always the same, with their logits in fp32."""
    rng, size = np.random.default_rng(0), classifier.spec.size
    places = np.arange(size) / size
    down, across = rng.uniform(1, 9, (2, GOLDEN, 1, 1, 3))
    phase = 2 * np.pi * (down * places[:, None, None] + across * places[:, None] + rng.uniform(size=(GOLDEN, 1, 1, 3)))
    waves = 128 + rng.uniform(30, 110, (GOLDEN, 1, 1, 3)) * np.sin(phase) + rng.normal(0, 12, phase.shape)
    images = waves.clip(0, 255).astype(np.uint8)
    network = get_engine(
        classifier.engine, classifier.blueprint, classifier.weights, classifier.spec, "fp32", module=classifier.module
    )
    return Golden(images, np.asarray(network.forward(images), np.float32))
