"""What the attack benchmark attacks: classifiers, and photos that they get right."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import shared

Array = NDArray[Any]
CATS, IMAGENET = "cats and dogs", "ImageNet"
BATCH = 16


@dataclass(frozen=True, eq=False)
class Subject:
    """A classifier, on an engine and as the module that Foolbox gets, with photos that it gets right."""

    name: str
    classifier: Any
    module: Any
    images: Array  # uint8 (N, size, size, 3)
    labels: Array  # (N,)

    @property
    def network(self) -> Any:
        from headstart.attack.examples import victim_of

        return victim_of(self.classifier)


def cats_and_dogs(engine: str, count: int) -> Subject:
    """Fitted on the training set; photos of the test set, as many cats as dogs."""
    import headstart as hs

    fitted = hs.fit(str(shared("data", "cats_dogs")), progress=False)
    classifier = on_engine(fitted, engine)
    folders = [shared("data", "cats_dogs", "test", name) for name in classifier.classes]
    paths = [path for pair in zip(*(sorted(folder.iterdir()) for folder in folders), strict=True) for path in pair]
    truth = np.arange(len(paths)) % 2
    return subject(CATS, classifier, paths, truth, count)


def imagenet(engine: str, count: int) -> Subject:
    """A published network with its own head; a photo of every tenth class or so."""
    import headstart as hs

    weights = shared("weights", "mobilenet_v2.timm.safetensors")
    classifier = hs.pretrained("mobilenet_v2", weights, engine=engine, progress=False)
    paths = sorted(shared("data", "imagenet_sample").glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))
    return subject(IMAGENET, classifier, [paths[k] for k in order], order, count)


def on_engine(classifier: Any, engine: str) -> Any:
    """The same classifier on another engine."""
    import headstart as hs

    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "model")
        return hs.load(Path(folder) / "model", engine=engine)


def subject(name: str, classifier: Any, paths: list[Path], truth: Array, count: int) -> Subject:
    """The first ``count`` photos whose label is right."""
    from headstart.attack.examples import victim_of
    from headstart.attack.plan import in_floats
    from headstart.data.inputs import unlabelled_dataset
    from headstart.model.held_out import pixels_of

    images: list[Array] = []
    labels: list[int] = []
    network = victim_of(classifier)
    for start in range(0, len(paths), BATCH):
        pixels = pixels_of(classifier, unlabelled_dataset(paths[start : start + BATCH]))
        right = network.forward(in_floats(pixels)).argmax(axis=1) == truth[start : start + BATCH]
        images += [*pixels[right]]
        labels += truth[start : start + BATCH][right].tolist()
        if len(images) >= count:
            break
    return Subject(name, classifier, classifier.to_torch(), np.stack(images[:count]), np.array(labels[:count]))
