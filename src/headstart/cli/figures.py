"""The figures of an evaluation or a training, as JSON and as rows of a screen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from headstart.cli.terminal import Rows, accuracy_text
from headstart.core.counts import counted
from headstart.core.text import all_shortened, one_line
from headstart.core.types import Confusion, Evaluation, Problem

if TYPE_CHECKING:
    from headstart.train.training_record import TrainingRecord

CONFUSIONS = 5  # that a screen shows
KINDS = 8  # of images left out
LEAST = 0.05  # seconds of a stage that is shown,
REST = 0.3  # and of what is in none
NUMBERS = ("macro_f1", "nll", "calibration_error", "calibration_noise", "unknown")  # of an evaluation
CURVES = ("reliability", "coverage")
FRAMEWORKS = {"pytorch": "PyTorch", "lightning": "Lightning", "tensorflow": "TensorFlow", "keras": "Keras"}


def figures_of(result: Evaluation | None) -> dict[str, Any]:
    """What JSON tells of an evaluation; None of each where nothing was measured."""
    accuracy = result.accuracy if result else None
    curves = {name: getattr(result, name, None) for name in CURVES}
    return {
        "accuracy": accuracy.value if accuracy else None,
        "interval": [accuracy.low, accuracy.high] if accuracy else None,
        "tested_on": accuracy.images if accuracy else 0,
        **{name: getattr(result, name, None) for name in NUMBERS},
        **{name: curve and [asdict(point) for point in curve] for name, curve in curves.items()},
    }


def add_figures(rows: Rows, result: Evaluation, things: str = "images") -> None:
    """Accuracy, calibration error, share of unknown and how often the others are right."""
    accuracy, few = result.accuracy, result.accuracy.groups
    by_groups = Text(f", counted by {counted(few, 'group')} of images" if few else "")
    rows.add("accuracy", accuracy_text(accuracy.value, accuracy.low, accuracy.high) + by_groups)
    rows.add("calibration", f"error (ECE) {result.calibration_in_words()}")
    rows.add("unknown", result.unknown_in_words(things))


def add_confusions(rows: Rows, confusions: Sequence[Confusion], classes: Sequence[str]) -> None:
    """The most frequent mistakes."""
    short = all_shortened(classes)
    for place, each in enumerate(confusions[:CONFUSIONS]):
        text = f"{each.images} × {short[each.truth]} predicted as {short[each.label]}"
        rows.add("" if place else "mistakes", text)
    if others := sum(each.images for each in confusions[CONFUSIONS:]):
        rows.add("", Text(f"and {others} others", "dim"))


def add_left_out(rows: Rows, problems: Sequence[Problem]) -> None:
    """What was left out: of each kind how many, and the first; of unreadable files, of each reason."""

    def kind_of(problem: Problem) -> tuple[str, str]:
        return problem.kind, problem.detail if problem.kind == "unreadable" else ""

    counts = Counter(map(kind_of, problems)).most_common()
    for place, (kind, count) in enumerate(counts[:KINDS]):
        first = next(problem for problem in problems if kind_of(problem) == kind)
        text = f": {one_line(first.name)}{' …' if count > 1 else ''} ({one_line(first.detail)})"
        rows.add("" if place else "left out", Text(f"{count} {first.kind}", "yellow") + Text(text))
    if others := sum(count for _, count in counts[KINDS:]):
        rows.add("", Text(f"and {others} others", "dim"))


def add_seconds(
    rows: Rows, seconds: float, stages: Mapping[str, float], notes: Mapping[str, str] | None = None, rest: str = ""
) -> None:
    """How long it took, and each stage of it; ``notes`` stand behind a stage, and ``rest`` names what is left."""
    shown = [f"{name} {took:.1f}{(notes or {}).get(name, '')}" for name, took in stages.items() if took >= LEAST]
    left = seconds - sum(stages.values())
    if rest and left >= REST:
        shown.append(f"{rest} {left:.1f}")
    rows.add("seconds", Text(f"{seconds:.1f}", "bold") + Text(f"  = {' + '.join(shown)}", "dim"))


def add_training(rows: Rows, record: TrainingRecord) -> None:
    """What the curves say, and how long who trained."""
    verdict, epochs = record.verdict, len(record.epochs)
    rows.add("curves", Text(verdict.sentence, "" if verdict.kind == "healthy" else "yellow"))
    if record.gap and record.gap.sentence[1:] not in verdict.sentence:
        rows.add("gap", record.gap.sentence)
    early = f". It ended early: {record.stopped}" if record.stopped else ""
    rate = f"learning rate {record.rate:.2g}"
    rows.add("training", f"{counted(epochs, 'epoch')}, trainer {record.trainer}, {rate}{early}")


def loading(record: TrainingRecord) -> str:
    """What a training's seconds outside of its stages go to, mostly."""
    return f"loading {FRAMEWORKS.get(record.trainer, record.trainer)} and saving"


def still_falls(record: TrainingRecord, before: float = math.inf) -> bool:
    """Whether the last epoch was the best, and more than a little better than what it went on from.

    ``before`` is the calibrated validation loss that the training began with.
    """
    from headstart.train.overfitting_watch import FLAT

    if record.stopped or record.best + 1 < len(record.epochs):
        return False
    losses = [before, *(epoch.val_calibrated for epoch in record.epochs)]
    return losses[-1] < (1 - FLAT) * losses[-2]
