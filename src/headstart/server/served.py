"""A model that is served: its network compiled once, its version, and answers to decoded images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.core.processors import cores
from headstart.learn.calibrate import softmax
from headstart.model import stored
from headstart.model.answers import Answer
from headstart.model.classifier import Classifier
from headstart.model.model_card import model_card
from headstart.model.opened import is_bundle, open_model

Pixels = NDArray[np.uint8]
VERSION = 12  # digits of the hash by which a version is called


@dataclass(frozen=True, eq=False)
class Served:
    """One version of a model, ready to answer. A change of the folder makes another one."""

    name: str
    version: str
    classifier: Classifier
    seconds: float  # that it took to load
    runners: tuple[Runner, ...]  # one for each thread that may answer

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the probabilities."""
        return self.classifier.classes

    @property
    def at_once(self) -> int:
        """Images that one core takes at a time."""
        return self.classifier.network.micro_batch

    def facts(self) -> dict[str, Any]:
        """What the server says of it."""
        classifier = self.classifier
        record = classifier.record
        accuracy = record.result.accuracy if record.result else None
        return {
            "name": self.name,
            "version": self.version,
            "classes": list(self.classes),
            "pixels": classifier.spec.size,
            "precision": classifier.network.precision,
            "backbone": record.backbone or classifier.blueprint.name,
            "tells_unknown": classifier.unknown is not None,
            "accuracy": accuracy
            and {"value": accuracy.value, "interval": [accuracy.low, accuracy.high], "images": accuracy.images},
            "card": model_card(classifier) if classifier.golden is not None else "",
        }


class Runner:
    """Runs a model for one thread: as many images as go at a time together, fewer one by one."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        at = (LOGITS, classifier.blueprint[LOGITS].inputs[0])
        self._many = classifier.network.runner(at)
        self._few = classifier.network.one_by_one().runner(at)
        self._few_alone = classifier.network.for_images(1).runner(at)

    def answers(self, images: Sequence[Pixels], *, alone: bool = False) -> list[Answer]:
        """An answer to each image (size, size, 3), at most ``at_once`` of them.

        Args:
            alone: whether no other thread has work, so that a few images may have all cores.
        """
        if len(images) == self.classifier.network.micro_batch > 1:
            logits, x = self._many(np.stack(images))
        else:
            run = self._few_alone if alone else self._few
            values = [run(image[None]) for image in images]
            logits, x = (np.concatenate(column) for column in zip(*values, strict=True))
        probabilities = softmax(logits)
        if self.classifier.unknown is None:
            return [Answer("", row, False) for row in probabilities]
        strange = self.classifier.unknown.margin(x, probabilities) < 0
        return [Answer("", row, other) for row, other in zip(probabilities, strange.tolist(), strict=True)]


def open_served(name: str, source: str | Classifier, precision: str) -> Served:
    """Open a model, compile it and run it once on each thread's behalf, so that its first request waits for nothing.

    Raises:
        UsageError: there is no such model.
        CheckError: its folder is damaged, or its golden images get other answers.
    """
    begin = time.perf_counter()
    if isinstance(source, Classifier):
        classifier, version = source, _version_of(source)
    else:
        text = stored.config_bytes(Path(source)) if is_bundle(source) else b""
        classifier = open_model(source, engine="fast", precision=precision)
        version = hashlib.sha256(text).hexdigest()[:VERSION] if text else _version_of(classifier)
    runners = tuple(Runner(classifier) for _ in range(cores()))
    blank = np.zeros((classifier.spec.size, classifier.spec.size, 3), np.uint8)
    for runner in runners:
        for count, alone in ((1, False), (1, True), (classifier.network.micro_batch, False)):
            runner.answers([blank] * count, alone=alone)
    return Served(name, version, classifier, time.perf_counter() - begin, runners)


def _version_of(classifier: Classifier) -> str:
    """By all that its answers depend on."""
    digest = hashlib.sha256(json.dumps([classifier.classes, classifier.spec.as_json()]).encode())
    for name in sorted(classifier.weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(classifier.weights[name]).data)
    return digest.hexdigest()[:VERSION]
