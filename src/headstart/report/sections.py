"""What the template shows, section by section; one that has nothing to say is None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core.counts import counted
from headstart.core.text import all_shortened, shortened
from headstart.core.types import Accuracy, Evaluation, Problem
from headstart.diagnose.records import BiasVariance, Decomposition
from headstart.model.model_card import difference, why_kept
from headstart.model.records import FitRecord
from headstart.plots.confusion import confusion_matrix
from headstart.report.answers import reproduction
from headstart.report.charts import bar, draw, interval
from headstart.report.figures import (
    complexity_chart,
    corruption_chart,
    coverage_chart,
    learning_chart,
    reliability_chart,
    robustness_chart,
    training_charts,
)
from headstart.report.photos import MISTAKES, OUTLIERS, PAIRS, SUSPECTS, TOGETHER, Pictures
from headstart.report.records import Content

IN_FULL, NAMED = 40, 6  # classes up to which the matrix is shown, and up to which its columns have names
PAIRS_SHOWN, PAIRS_OF_MANY = 10, 30  # of classes that are confused; the second where there is no matrix
OPEN, ROWS = 12, 300  # rows of a table of classes: that are seen at once, and in all
LONGEST = 60  # characters of a name of a file
FIRST = 5  # names of each kind of what was left out


@dataclass(frozen=True)
class Row:
    """A class in a table."""

    name: str
    cells: tuple[str, ...]
    picture: str  # SVG


@dataclass(frozen=True)
class Rows:
    """Classes in a table: the first are seen at once."""

    first: tuple[Row, ...]
    more: tuple[Row, ...]
    others: int  # that are in the JSON only

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rows:
        """Not a single one behind a button: it would take more room than the row."""
        cut = len(rows) if len(rows) <= OPEN + 3 else OPEN
        return cls(tuple(rows[:cut]), tuple(rows[cut:ROWS]), max(0, len(rows) - ROWS))


def percent(value: float, digits: int = 1) -> str:
    """A share for a person: "98.6%"."""
    return f"{value:.{digits}%}"


def context_of(content: Content, pictures: Pictures) -> dict[str, Any]:
    """The variables of the template."""
    record, evaluation, diagnosis = content.classifier.record, content.evaluation, content.diagnosis
    classes = content.classifier.classes
    return {
        "title": shortened(record.data if record.train else record.backbone, LONGEST),
        "measured_on": shortened(content.measured_on, LONGEST),
        "pixels": content.classifier.spec.size,
        "classes": classes,
        "record": record,
        "note": content.note,
        "evaluation": evaluation,
        "diagnosis": diagnosis,
        "verdict": diagnosis.verdict if diagnosis else None,
        "mistakes": _mistakes(evaluation, pictures),
        "without_photos": content.photos is None,
        "confusion": _confusion(evaluation, classes) if evaluation and evaluation.confusions else None,
        "per_class": _per_class(evaluation) if evaluation and len(evaluation.per_class) > 1 else None,
        "learning": _learning(content),
        "complexity": _complexity(content),
        "bias_variance": _bias_variance(diagnosis.bias_variance) if diagnosis and diagnosis.bias_variance else None,
        "trainings": _trainings(record),
        "data": _data(content, pictures),
        "calibration": _calibration(evaluation) if evaluation else None,
        "corrupted": _corrupted(content),
        "distance": content.distance,
        "from_scratch": content.from_scratch,
        "robustness": _robustness(content),
        "left_out": _left_out(content),
        "reproduce": reproduction(content),
    }


def _mistakes(evaluation: Evaluation | None, pictures: Pictures) -> dict[str, Any] | None:
    if evaluation is None or not evaluation.wrong:
        return None
    wrong = evaluation.wrong
    shown = [(each, pictures.mistakes.get(each.name)) for each in wrong[:MISTAKES]]
    return {
        "count": max(len(wrong), sum(each.images for each in evaluation.confusions)),  # a fit remembers some names only
        "shown": shown,
        "maps": any(picture and picture.evidence for _, picture in shown),
        "pictures": any(picture for _, picture in shown),
    }


def _confusion(evaluation: Evaluation, classes: Sequence[str]) -> dict[str, Any]:
    """The matrix of up to `IN_FULL` classes, and the most confused pairs where there are more than two classes."""
    names, matrix = confusion_matrix(evaluation, classes)
    count = len(names)
    short, found = all_shortened(names), None
    if count <= IN_FULL:
        totals = matrix.sum(axis=1)
        rows = [
            [(int(value), float(value / (total or 1)), row == column) for column, value in enumerate(values)]
            for row, (values, total) in enumerate(zip(matrix, totals, strict=True))
        ]
        found = [*zip(range(1, count + 1), [short[name] for name in names], rows, strict=True)]
    most = 0 if count <= 2 else PAIRS_SHOWN if found else PAIRS_OF_MANY
    pairs = [(each.truth, each.label, each.images) for each in evaluation.confusions[:most]]
    return {"matrix": found, "named": count <= NAMED, "pairs": pairs, "kinds": len(evaluation.confusions)}


def _per_class(evaluation: Evaluation) -> Rows:
    worst = sorted(evaluation.per_class.items(), key=lambda item: (item[1].value, item[0]))
    return Rows.of([Row(name, (percent(each.value), str(each.images)), _interval(each)) for name, each in worst])


def _interval(accuracy: Accuracy) -> str:
    return interval(accuracy.low, accuracy.value, accuracy.high, accuracy.in_words("photo"))


def _learning(content: Content) -> dict[str, Any] | None:
    curve = content.diagnosis.learning_curve if content.diagnosis else None
    return {"curve": curve, "chart": draw(learning_chart(curve))} if curve and curve.points else None


def _complexity(content: Content) -> dict[str, Any] | None:
    curve = content.diagnosis.complexity if content.diagnosis else None
    if curve is None or not any(point.strength > 0 for point in curve.points):
        return None
    return {"curve": curve, "chart": draw(complexity_chart(curve))}


def _bias_variance(found: BiasVariance) -> dict[str, Any]:
    largest = max([each.loss for each in (found.zero_one, found.squared, *found.per_class.values())] + [0.01])
    overall = [("errors", found.zero_one), ("Brier score", found.squared)]
    worst = sorted(found.per_class.items(), key=lambda item: (-item[1].loss, item[0]))
    return {
        "found": found,
        "overall": [_parts(name, each, largest) for name, each in overall],
        "per_class": Rows.of([_parts(name, each, largest) for name, each in worst if each.loss > 0]),
        "without": sum(each.loss <= 0 for each in found.per_class.values()),
        "full": percent(largest),
    }


def _parts(name: str, each: Decomposition, largest: float) -> Row:
    bias, variance = max(each.bias, 0.0), max(each.variance, 0.0)
    says = f"{name}: {percent(each.loss)}, of which bias {percent(each.bias)}, variance {percent(each.variance)}"
    picture = bar([(bias / largest, "b"), (variance / largest, "a")], says)
    return Row(name, (percent(each.loss), percent(each.bias), percent(each.variance)), picture)


def _trainings(record: FitRecord) -> list[dict[str, Any]]:
    """From random weights, then the fine-tuning, where there was one."""
    found = []
    for title, training in (("Training from random weights", record.scratch), ("Fine-tuning", record.finetune)):
        if training and training.epochs:
            charts = [draw(chart) for chart in training_charts(training)]
            kept = f"epoch {training.best + 1}" if training.best >= 0 else "the weights that it began with"
            found.append({"title": title, "training": training, "charts": charts, "kept": kept, "facts": []})
    if record.finetune and found:
        found[-1]["facts"] = [
            f"Kept: {record.finetune.chosen}: {why_kept(record.finetune)}.",
            f"Difference on the test set: {difference(record.finetune)}.",
        ]
    return found


def _data(content: Content, pictures: Pictures) -> dict[str, Any] | None:
    """Labels that are probably wrong, look-alikes, outliers and shortcuts."""
    found = content.diagnosis
    if found is None or not (found.wrong_labels or found.look_alikes or found.outliers or found.shortcuts):
        return None
    suspects = found.wrong_labels.suspects if found.wrong_labels else ()
    alike = [
        (group, [(name, pictures.data.get(name)) for name in group.names[:TOGETHER]])
        for group in found.look_alikes[:PAIRS]
    ]
    return {
        "wrong_labels": found.wrong_labels,
        "suspects": [(each, pictures.data.get(each.name)) for each in suspects[:SUSPECTS]],
        "more_suspects": max(0, len(suspects) - SUSPECTS),
        "alike": alike,
        "more_alike": max(0, len(found.look_alikes) - PAIRS),
        "outliers": [(each, pictures.data.get(each.name)) for each in found.outliers[:OUTLIERS]],
        "more_outliers": max(0, len(found.outliers) - OUTLIERS),
        "shortcuts": found.shortcuts,
        "pictures": bool(pictures.data),
    }


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "reliability": draw(reliability_chart(evaluation.reliability)) if evaluation.reliability else None,
        "coverage": draw(coverage_chart(evaluation.coverage)) if evaluation.coverage else None,
    }


def _corrupted(content: Content) -> dict[str, Any] | None:
    found = content.corrupted
    if not found:
        return None
    kinds = dict.fromkeys(each.kind for each in found)
    strengths = sorted({each.strength for each in found})
    value = {(each.kind, each.strength): each.accuracy.value for each in found}
    table = [(kind, [value.get((kind, strength)) for strength in strengths]) for kind in kinds]
    return {"chart": draw(corruption_chart(found)), "strengths": strengths, "table": table}


def _robustness(content: Content) -> dict[str, Any] | None:
    found = content.robustness
    return {"found": found, "chart": draw(robustness_chart(found))} if found and found.curve else None


def _left_out(content: Content) -> list[tuple[str, list[str]]]:
    """What was not counted: a title, and a sentence for each kind."""
    evaluation, record = content.evaluation, content.classifier.record
    parts = [("When the model was fitted", _kinds(record.left_out))]
    if record.not_measured:
        classes = ", ".join(all_shortened(record.not_measured[:FIRST]).values())
        more = " …" if len(record.not_measured) > FIRST else ""
        text = f"{counted(len(record.not_measured), 'class')} without a test photo: {classes}{more}"
        parts[0][1].append(text)
    if evaluation and evaluation is not record.result:
        said = _kinds(evaluation.left_out or ())
        if evaluation.passed_over:
            said.append(f"{counted(evaluation.passed_over, 'photo')} of the training set, or near copies of those")
        parts.append(("When it was measured for this report", said))
    return [part for part in parts if part[1]]


def _kinds(problems: Sequence[Problem]) -> list[str]:
    found = []
    for kind, count in Counter(problem.kind for problem in problems).most_common():
        names = [shortened(problem.name, LONGEST) for problem in problems if problem.kind == kind]
        found.append(f"{count} × {kind}: {', '.join(names[:FIRST])}{' …' if count > FIRST else ''}")
    return found
