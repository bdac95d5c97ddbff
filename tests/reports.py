"""Hand-made diagnoses and evaluations for reports, and a reader of the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any, TypedDict

import numpy as np

from headstart.attack.checks import NOISE, Check
from headstart.attack.robustness import Point, Robustness
from headstart.core.types import (
    Accuracy,
    Confusion,
    CoveragePoint,
    Evaluation,
    Mistake,
    Problem,
    ReliabilityBin,
)
from headstart.data.check import Repeat
from headstart.diagnose.records import (
    BiasVariance,
    ComplexityCurve,
    ComplexityPoint,
    Corrupted,
    CurvePoint,
    Decomposition,
    Diagnosis,
    Forecast,
    FromScratch,
    ImageNetDistance,
    LearningCurve,
    Outlier,
    Shortcut,
    Suspect,
    Verdict,
    WrongLabels,
)
from headstart.learn.evaluate import evaluate, mistakes_of
from headstart.model.records import FinetuneRecord, ImageCounts, ScratchRecord, Side, ViewsRecord
from headstart.train.overfitting_watch import watch
from headstart.train.protocol import Epoch

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" 'both' & more",
    "</title></style><b>",
    "שלום עולם",
    "x" * 200,
    "\u202eturned",
    "two\nlines",
    "{{ 7 * 7 }}",
    "\udcff is no letter",
)


def full_diagnosis(names: Sequence[str], classes: Sequence[str]) -> Diagnosis:
    """A diagnosis with all parts, of images of these names (four at least)."""
    sizes = (20, 40, 80, 160, 320)
    points = [CurvePoint(n, 0.3 / n, 0.02 + 1.5 / n, 0.012 + 1.2 / n, 0.028 + 1.8 / n) for n in sizes]
    strengths = np.logspace(-6, 1, 12)
    path = [
        ComplexityPoint(float(s), 0.002 + 0.01 * k, 0.02 + 0.004 * (k - 5) ** 2 / 5, 0.1 + 0.01 * abs(k - 5))
        for k, s in enumerate(strengths)
    ]
    part = Decomposition(0.021, 0.015, 0.006)
    wrong = [Suspect(names[k], classes[0], classes[1], 0.02 * k, 0.97 - 0.02 * k) for k in range(3)]
    return Diagnosis(
        verdict=Verdict(
            "too little data",
            "The error still falls with more photos: 2.5% now, 1.6% expected with twice as many.",
            "Add photos: 320 more are expected to bring the accuracy from 97.5% to 98.4%.",
            {"error": 0.025},
        ),
        learning_curve=LearningCurve(
            tuple(points), 5, 280, "test set", 0.01, 2.5, Forecast(640, 0.984, 0.97, 0.992), "It falls: 2.5% now."
        ),
        complexity=ComplexityCurve(tuple(path), float(strengths[5]), 320),
        bias_variance=BiasVariance(
            30, 280, "test set", part, Decomposition(0.032, 0.025, 0.007),
            {name: Decomposition(0.01 * (k % 7), 0.006 * (k % 7), 0.004 * (k % 7)) for k, name in enumerate(classes)},
        ),
        wrong_labels=WrongLabels(0.012, 540, tuple(wrong)),
        look_alikes=(
            Repeat((names[0], names[1]), (classes[0], classes[1]), ("train",)),
            Repeat((names[2], names[3]), (classes[0],), ("train", "test")),
        ),
        outliers=tuple(Outlier(name, classes[0], 0.002 * k) for k, name in enumerate(names[:4])),
        shortcuts=(Shortcut("size", 0.52, 0.5, 540, False), Shortcut("brightness", 0.71, 0.5, 540, True)),
    )  # fmt: skip


class Measures(TypedDict):
    """What `Content` holds beside the diagnosis."""

    corrupted: tuple[Corrupted, ...]
    distance: ImageNetDistance
    from_scratch: FromScratch
    robustness: Robustness


def full_measures() -> Measures:
    """All that is measured only where it is asked for."""
    kinds = ("noise", "blur", "JPEG", "brightness", "rotation")
    return {
        "corrupted": tuple(
            Corrupted(kind, s, Accuracy.of(round(100 - place * s * 3), 100))
            for place, kind in enumerate(kinds, 1) for s in range(1, 6)
        ),
        "distance": ImageNetDistance(0.31, 540, "About as far as photos of pets."),
        "from_scratch": FromScratch(
            "small_cnn", Accuracy.of(190, 280), Accuracy.of(276, 280), "It is 31 points behind."
        ),
        "robustness": full_robustness(),
    }  # fmt: skip


def full_robustness() -> Robustness:
    """A curve with a check that failed."""
    points = []
    for epsilon, right in ((0.1, 95), (0.5, 60), (1, 22), (4, 0)):
        worst, noise = Accuracy.of(right, 100), Accuracy.of(97, 100)
        points.append(Point(epsilon / 255, worst, {"pgd": worst, NOISE: noise}))
    checks = (Check("gradients", True, "All are there."), Check("more steps", False, "Twice the steps fool 9 more."))
    return Robustness("linf", Accuracy.of(97, 100), tuple(points), checks, 280, 3, ())


def evaluated(classes: Sequence[str], count: int = 400, right: float = 0.85, names: Sequence[str] = ()) -> Evaluation:
    """An evaluation of random answers, with bins and coverage."""
    rng = np.random.default_rng(7)
    truth = rng.integers(0, len(classes), count)
    scores = rng.normal(size=(count, len(classes)))
    scores[np.arange(count), truth] += np.where(rng.random(count) < right, 12, 0)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    result = evaluate(probabilities, truth, tuple(classes), rng.random(count) - 0.05)
    files = [*names, *(f"photos/{k}.jpg" for k in range(len(names), count))]
    bins = [ReliabilityBin(0.5 + 0.1 * k, 0.48 + 0.11 * k, 0.4 + 0.1 * k, 0.6 + 0.1 * k - 0.02 * k, 50)
            for k in range(5)]  # fmt: skip
    return replace(
        result,
        wrong=mistakes_of(probabilities, truth, tuple(classes), files),
        calibration_noise=0.02,
        reliability=tuple(bins),
        coverage=tuple(CoveragePoint(0.1 * k, 0.99 - 0.01 * k) for k in range(1, 11)),
        left_out=(Problem("broken.jpg", "unreadable", "no image"),),
        passed_over=3,
    )


def mistaken(names: Sequence[str], classes: Sequence[str]) -> Evaluation:
    """An evaluation in which the images of these names are wrong: the first class taken for the second."""
    right = Accuracy.of(20, 20 + len(names))
    return Evaluation(
        right, 0.9, 0.1, 0.01, 0.0,
        (Confusion(classes[0], classes[1], len(names)),),
        {classes[0]: right, classes[1]: Accuracy.of(20, 20)},
        wrong=tuple(Mistake(name, classes[0], classes[1], 0.9, 0.1) for name in names),
    )  # fmt: skip


def trained() -> tuple[ScratchRecord, FinetuneRecord]:
    """Two trainings, the second without a validation loss in its first epoch."""
    epochs = [
        Epoch(k, 1.2 * 0.7**k, 0.4 * 0.7**k, math.nan if k == 0 else 1.1 * 0.8**k + 0.1, 0.35 * 0.8**k, 0.01, 1.0)
        for k in range(8)
    ]
    common: dict[str, Any] = {
        "trainer": "pytorch", "recipe": {"epochs": 8}, "rate": 0.01, "epochs": tuple(epochs), "best": 6,
        "stopped": "", "verdict": watch(epochs), "moving": 100, "images": ImageCounts(400, 60, 280),
    }  # fmt: skip
    tuned = FinetuneRecord(
        **common, chosen="fine-tuned", kept=7, before=Side(0.98, (0.96, 0.99), 0.07, 0.08),
        after=Side(0.99, (0.97, 0.995), 0.05, 0.06), p=0.2, refit=False, cut="", views=ViewsRecord(0, 0.0), seconds={},
    )  # fmt: skip
    return ScratchRecord(**common, network="small_cnn"), tuned


@dataclass
class Page(HTMLParser):
    """A page as it is read: its tags, and what is wrong with it."""

    text: str
    tags: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    attributes: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]
        self.faults += [f"id {name!r} is there {count} times" for name, count in Counter(self.ids).items() if count > 1]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        found = dict(attrs)
        self.attributes.append((tag, found))
        if len(found) < len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        if "id" in found:
            self.ids.append(str(found["id"]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing at line {self.getpos()[0]}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def shown(self) -> str:
        """The text without markup, with single blanks."""
        return " ".join("".join(self.words).split())
