"""What other networks see on an ideal image: the network that it was made with is deceived by mere noise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.download import at_hand
from headstart.backbones.imagenet import class_names
from headstart.backbones.published import BACKBONES
from headstart.model.classifier import Classifier
from headstart.model.pretrained import pretrained

TOP = 5  # classes that a judge names


@dataclass(frozen=True)
class Judgement:
    """What another network says of an ideal image."""

    judge: str  # its name
    top: tuple[tuple[str, float], ...]  # its five most probable classes with their probabilities
    place: int | None = None  # of the image's class among all of its classes, from 1 on; None: it has no such class
    probability: float | None = None  # of that class

    @property
    def among_first(self) -> bool | None:
        """Whether it names the class among its first five; None: it has no such class."""
        return None if self.place is None else self.place <= TOP


def judgements(judge: Classifier, images: Sequence[NDArray[np.uint8]], classes: Sequence[str]) -> list[Judgement]:
    """What ``judge`` says of each of the images (height, width, 3), which were made for these classes.

    A class that it does not know has no place and no probability.
    """
    name = judge.record.backbone or judge.blueprint.name
    found = []
    for row, wanted in zip(judge.predict_proba(images, crop=False), classes, strict=True):
        order = np.argsort(-row, kind="stable").tolist()
        top = tuple((judge.classes[k], float(row[k])) for k in order[:TOP])
        known = judge.classes.index(wanted) if wanted in judge.classes else None
        place, chance = (None, None) if known is None else (order.index(known) + 1, float(row[known]))
        found.append(Judgement(name, top, place, chance))
    return found


def judge_for(model: Classifier) -> Classifier | None:
    """A network for ImageNet's classes whose weights are on this machine, of another family than ``model`` if there
    is one; None where there is no other at all.
    """
    own = model.record.backbone or model.blueprint.name
    others = [name for name in _known() if name != own]
    name = next((name for name in others if family(name) != family(own)), others[0] if others else None)
    return None if name is None else pretrained(name, progress=False)


def _known() -> Iterator[str]:
    """Networks for ImageNet's classes whose weights are on this machine, in the order of the catalogue."""
    return (
        name for name, backbone in BACKBONES.items() if backbone.classes is class_names and at_hand(backbone.weights)
    )


def family(name: str) -> str:
    """The first word of a network's name, without the library: "mobilenet" of "timm/mobilenetv2_100"."""
    return re.split(r"v?[0-9_.]", name.rpartition("/")[2].lower(), maxsplit=1)[0]
