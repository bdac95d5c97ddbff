"""What the tests of export formats share: small packages, and what their networks say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.data.inputs import unlabelled_dataset
from headstart.data.load import decode
from headstart.engines.fast import FastNetwork
from headstart.export.package import Package
from headstart.model.golden import Golden
from making import picture
from referee import EVERY_OP, SPEC, photos, slow_forward, weights_for

BATCHES = (1, 3, 17)
AWKWARD = ("bar", "a b", "naïve ☃", "two\nlines", '"quoted"')  # names of classes


def every_op() -> Package:
    """A network of every operation, with awkwardly named classes; its golden logits are the referee's."""
    weights, images = weights_for(EVERY_OP), photos(4)
    logits = slow_forward(EVERY_OP, weights, SPEC, images)["logits"].astype(np.float32)
    return Package(EVERY_OP, weights, SPEC, AWKWARD, Golden(images, logits))


def of_bundle(bundle: Path) -> Package:
    return Package.of(hs.load(bundle, engine="fast", precision="fp32"))


def pictures(folder: Path, package: Package, count: int) -> NDArray[np.uint8]:
    """The first photos of each class, as the network sees them."""
    files = [file for place in sorted(folder.iterdir()) for file in sorted(place.iterdir())[: -(-count // 3)]]
    return np.stack([decode(file.read_bytes(), package.spec) for file in files[:count]])


def fp32(package: Package, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits that every format is held against."""
    network = FastNetwork(package.blueprint, package.weights, package.spec, "fp32")
    return np.asarray(network.forward(images), np.float32)


def difference(logits: NDArray[Any], expected: NDArray[Any]) -> float:
    """The greatest, relative to the largest logit."""
    assert logits.shape == expected.shape
    assert logits.dtype == np.float32
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def assorted_photos() -> list[NDArray[np.uint8]]:
    """Photos of several shapes and kinds, of which the classes of `making` are some."""
    shapes = ((100, 150), (150, 97), (64, 64), (333, 71), (40, 30), (500, 640))
    known = [picture(kind, *shape) for kind, shape in zip(("bars", "discs", "waves") * 2, shapes, strict=True)]
    rng = np.random.default_rng(5)
    return [*known, *(rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in ((120, 90), (70, 211)))]


def answers_of(model: hs.Classifier, photos: list[NDArray[np.uint8]]) -> tuple[NDArray[np.floating], list[bool]]:
    """The probabilities (N, K) of the classifier itself, and which photos it calls unknown."""
    judged = [*model.judge(unlabelled_dataset(photos))]
    return model.predict_proba(photos), [unknown for _, unknown in judged]


def check_answers(model: hs.Classifier, photos: list[NDArray[np.uint8]], replay: Callable[..., Any]) -> None:
    """Hold what a file says of photos, one by one, against the classifier itself."""
    probabilities, strange = answers_of(model, photos)
    for photo, expected, unknown in zip(photos, probabilities, strange, strict=True):
        found = replay(photo[None])
        assert set(found) == {"logits", "probabilities", "label", "unknown_score", "unknown"}
        np.testing.assert_allclose(found["probabilities"][0], expected, atol=2e-3)
        assert found["label"][0] == expected.argmax()
        assert found["unknown"][0] == unknown
    assert {*strange} == {False, True}
