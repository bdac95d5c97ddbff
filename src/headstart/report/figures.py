"""The charts of a report, from the records that they show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.core.types import CoveragePoint, ReliabilityBin
from headstart.diagnose.records import ComplexityCurve, Corrupted, LearningCurve
from headstart.report.charts import COLOURS, Axis, Chart, Line, Mark
from headstart.train.training_record import TrainingRecord

if TYPE_CHECKING:
    from headstart.attack.robustness import Robustness

TICKS = 8  # of budgets, beside each other

_ACCURACY = Axis("accuracy", 0, 1, percent=True)


def learning_chart(curve: LearningCurve) -> Chart:
    """Error against the number of training images, with what twice as many are expected to give."""
    points, last = curve.points, curve.points[-1]
    lines = [
        Line("error on photos that were held out", [(p.images, p.error) for p in points], "a",
             [(p.low, p.high) for p in points]),
        Line("error on the training photos", [(p.images, p.train_error) for p in points], "b"),
    ]  # fmt: skip
    if curve.twice:
        ahead = curve.twice
        lines.append(
            Line("forecast", [(last.images, last.error), (ahead.images, 1 - ahead.accuracy)], "a",
                 [(last.error, last.error), (1 - ahead.high, 1 - ahead.low)], dashed=True)
        )  # fmt: skip
    return Chart(curve.sentence, Axis("training photos", log=True), _errors(), tuple(lines))


def complexity_chart(curve: ComplexityCurve) -> Chart:
    """Error along the regularisation path, with the strength that was chosen."""
    points = [point for point in curve.points if point.strength > 0]
    lines = (
        Line("error on photos that were left out", [(p.strength, p.error) for p in points], "a"),
        Line("error on the training photos", [(p.strength, p.train_error) for p in points], "b"),
    )
    chosen = min(points, key=lambda point: abs(math.log(point.strength / curve.chosen))) if curve.chosen > 0 else None
    says = f"Error against the strength of regularisation. The chosen strength is {curve.chosen:.3g}"
    says += f", with an error of {chosen.error:.1%}." if chosen else "."
    marks = (Mark("chosen", curve.chosen),) if chosen else ()
    axis = Axis("flexible  ←  strength of regularisation  →  stiff", log=True)
    return Chart(says, axis, _errors(), lines, marks)


def training_charts(training: TrainingRecord) -> list[Chart]:
    """Loss and error, epoch by epoch."""
    epochs, charts = training.epochs, []
    marks = (Mark("kept", training.best + 1),) if training.best >= 0 else ()
    for what, axis in (("loss", Axis("loss", 0)), ("error", _errors())):
        lines = [
            Line(f"{word} set", [(each.number + 1, getattr(each, f"{part}_{what}")) for each in epochs], colour)
            for part, word, colour in (("val", "validation", "a"), ("train", "training", "b"))
        ]
        lines = [line for line in lines if any(math.isfinite(y) for _, y in line.points)]
        says = f"{what.capitalize()} against the epoch. {training.verdict.sentence}"
        charts.append(Chart(says, Axis("epoch", whole=True), axis, tuple(lines), marks))
    return charts


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Chart:
    """How often the answers of each confidence were right."""
    low = min([each.confidence for each in bins] + [each.low for each in bins])
    low = math.floor(10 * low) / 10
    right = Line("the answers of this model", [(each.confidence, each.accuracy) for each in bins], "a",
                 [(each.low, each.high) for each in bins], whiskers=True, joined=False)  # fmt: skip
    perfect = Line("perfectly calibrated", [(low, low), (1, 1)], "quiet", dashed=True, dots=False)
    said = ", ".join(f"{each.accuracy:.0%} right at {each.confidence:.0%}" for each in bins)
    return Chart(
        f"Share of right answers against the probability that was given: {said}.",
        Axis("probability of the answer", low, 1, percent=True),
        Axis("share that was right", low, 1, percent=True),
        (perfect, right),
    )


def coverage_chart(points: Sequence[CoveragePoint]) -> Chart:
    """The accuracy where only the most typical photos get an answer."""
    first, last = points[0], points[-1]
    lowest = min(point.accuracy for point in points)
    return Chart(
        f"Accuracy {first.accuracy:.1%} on the most typical {first.coverage:.0%} of the photos, {last.accuracy:.1%} on "
        f"{last.coverage:.0%}.",
        Axis("share of the photos that get an answer", 0, 1, percent=True),
        Axis("accuracy of these", max(0.0, math.floor(20 * lowest - 1e-9) / 20 - 0.05), 1, percent=True),
        (Line("", [(point.coverage, point.accuracy) for point in points], "a"),),
    )


def corruption_chart(corrupted: Sequence[Corrupted]) -> Chart:
    """Accuracy against the strength of each corruption."""
    kinds = dict.fromkeys(each.kind for each in corrupted)
    lines = []
    for place, kind in enumerate(kinds):
        of_kind = sorted((each for each in corrupted if each.kind == kind), key=lambda each: each.strength)
        points = [(each.strength, each.accuracy.value) for each in of_kind]
        lines.append(Line(kind, points, COLOURS[place % len(COLOURS)], dashed=place >= len(COLOURS)))
    said = "; ".join(f"{line.name} {line.points[-1][1]:.1%}" for line in lines)
    return Chart(
        f"Accuracy on photos that were made worse. At the greatest strength: {said}.",
        Axis("strength", 0.8, 5.2, at=(1, 2, 3, 4, 5)), _ACCURACY, tuple(lines),
    )  # fmt: skip


def robustness_chart(found: Robustness) -> Chart:
    """Accuracy against the largest change that an attack may make."""
    from headstart.attack.checks import NOISE

    levels = found.norm == "linf"
    places = [(255 if levels else 1) * point.epsilon for point in found.curve]
    lines = [
        Line("the worst of all attacks", [*zip(places, (p.accuracy.value for p in found.curve), strict=True)], "a",
             [(p.accuracy.low, p.accuracy.high) for p in found.curve]),
    ]  # fmt: skip
    if all(NOISE in point.attacks for point in found.curve):
        values = [point.attacks[NOISE].value for point in found.curve]
        lines.append(Line("random noise of the same size", [*zip(places, values, strict=True)], "b", dashed=True))
    last, at = found.curve[-1], tuple(places) if len(places) <= TICKS else ()
    label = "largest change of a pixel, in levels of 255" if levels else f"largest change, {found.norm}"
    return Chart(
        f"Accuracy {found.accuracy.value:.1%} on the photos as they are, {last.accuracy.value:.1%} under the largest "
        "change.",
        Axis(label, log=True, at=at),
        _ACCURACY,
        tuple(lines),
    )


def _errors() -> Axis:
    return Axis("error", 0, percent=True)
