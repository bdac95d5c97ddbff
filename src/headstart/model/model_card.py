"""The model card: what a person who finds the folder wants to know of the classifier in it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.core.counts import counted, each_kind
from headstart.core.types import Evaluation
from headstart.engines.protocol import LIVE, LIVE_KERAS
from headstart.model.records import FinetuneRecord, FitRecord, ImageCounts, Side
from headstart.train.training_record import TrainingRecord

if TYPE_CHECKING:
    from headstart.model.classifier import Classifier

SURE = 0.05  # of a p-value; above it a difference may be chance


def model_card(classifier: Classifier) -> str:
    """Markdown with Hugging Face's front matter: data, split, figures, limits, licence, how to make it again."""
    record = classifier.record
    sections = [
        "---\nlibrary_name: headstart\npipeline_tag: image-classification\ntags: [image-classification]\n---",
        f"# {_plain(record.data)}: an image classifier",
        _classes(classifier.classes),
        _data(record),
        _figures(record),
        *_trainings(classifier),
        _limits(classifier),
        _how_it_was_made(record),
    ]
    return "\n\n".join(sections) + "\n"


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(_plain(name) for name in names[:50])
    return f"Tells {counted(len(names), 'class')} apart: {shown}{' …' if len(names) > 50 else ''}."


def _data(record: FitRecord) -> str:
    how = {"held out": "held out", "cross-validation": "by cross-validation"}
    where = how.get(record.test_part, f"the {record.test_part} part of the data")
    parts = f"training set {record.train}, test set {record.test} ({where}). Copies of one photo are never in both."
    if not record.test:
        parts = f"training set {record.train}, and no test set."
    text = f"## Data\n\n{counted(record.images, 'image')}: {parts}"
    if record.left_out:
        text += f"\n\nLeft out: {each_kind(problem.kind for problem in record.left_out)}."
    return text


def _figures(record: FitRecord) -> str:
    result = record.result
    if result is None and record.left_one_out is not None:
        alone = record.left_one_out
        return (
            "## Figures\n\nNo test set. Leave-one-out accuracy on the training set: "
            f"{alone.accuracy:.3f} on {counted(alone.images, 'image')}, on which the head's settings were chosen too."
        )
    if result is None:
        known = record.validation
        figure = f"accuracy {known.accuracy:.3f} on {counted(known.images, 'image')}" if known else "not measured"
        return f"## Figures\n\nNo test set. On the validation set, which chose the epoch: {figure}."
    accuracy = result.accuracy
    rows = [
        ("accuracy", f"{accuracy.value:.3f} (95 % interval {accuracy.low:.3f} to {accuracy.high:.3f})"),
        ("macro F1", f"{result.macro_f1:.3f}"),
        ("negative log-likelihood", f"{result.nll:.3f}"),
        ("expected calibration error", _calibration(result)),
        ("share of the test images called unknown", f"{result.unknown:.3f}"),
    ]
    if result.unknown and result.known_accuracy is not None:
        rows.append(("accuracy on the others", f"{result.known_accuracy:.3f}"))
    return f"## Figures\n\nOn the {counted(accuracy.images, 'image')} of the test set.\n\n{_table(rows)}"


def _calibration(result: Evaluation) -> str:
    noise = result.calibration_noise
    chance = "" if noise is None else f"; chance alone gives {noise:.3f} where the calibration is perfect"
    return f"{result.calibration_error:.3f}{chance}"


def _trainings(classifier: Classifier) -> list[str]:
    """A section for each training that the network went through."""
    record, sections = classifier.record, []
    if scratch := record.scratch:
        best = f"epoch {scratch.best + 1}" if scratch.best >= 0 else "the weights that it began with"
        best += f", after {counted(scratch.epochs_before, 'epoch')} before" if scratch.epochs_before else ""
        sections.append(_training("Training", scratch, scratch.images, [("kept", best)]))
    if finetune := record.finetune:
        rows = [
            ("kept", f"{finetune.chosen}: {why_kept(finetune)}"),
            ("before", _side(finetune.before)),
            ("after", _side(finetune.after)),
            ("difference", difference(finetune)),
            ("what was trained", moved(finetune, sum(classifier.blueprint.parameters().values()))),
        ]
        sections.append(_training("Fine-tuning", finetune, finetune.images, rows))
    return sections


def _training(title: str, training: TrainingRecord, images: ImageCounts, rows: list[tuple[str, str]]) -> str:
    epochs = len(training.epochs)
    rows = [
        *rows,
        ("what the curves say", training.verdict.sentence),
        ("trainer", f"{training.trainer}, {counted(epochs, 'epoch')}"),
        ("images", parts_of(training, images)),
    ]
    recipe = json.dumps(training.recipe, indent=2)
    return f"## {title}\n\n{_table(rows, plain=True)}\n\nIts recipe:\n\n```json\n{recipe}\n```"


def _table(rows: Sequence[tuple[str, str]], *, plain: bool = False) -> str:
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {_plain(text) if plain else text} |" for name, text in rows)


def _side(side: Side) -> str:
    loss = f"calibrated loss on held-out images {side.val_calibrated:.4f}"
    if side.accuracy is None or side.interval is None:
        return loss
    low, high = side.interval
    return f"accuracy {side.accuracy:.3f} (95 % interval {low:.3f} to {high:.3f}), {loss}"


def parts_of(training: TrainingRecord, images: ImageCounts) -> str:
    """How many images were trained on, held out and tested on."""
    folds = training.folds if isinstance(training, FinetuneRecord) else 1
    test = f"test set {images.test}" if images.test else "no test set"
    if folds == 1:
        return f"training set {images.train}, validation set {images.validation}, {test}"
    held_out = "all" if images.validation == images.train else str(images.validation)
    turns = f"{held_out} of it held out in turn by {folds} trainings"
    return f"training set {images.train}, {turns}, {test}"


def why_kept(record: FinetuneRecord) -> str:
    """The losses that the choice was made by."""
    given = f"{record.before.val_calibrated:.4f}"
    if record.kept:
        return f"calibrated loss on held-out images {given} → {record.after.val_calibrated:.4f}"
    if record.tuned_loss is None:
        return f"no epoch had a lower calibrated loss on held-out images than its {given}"
    return f"its calibrated loss on held-out images is {given}, that of the fine-tuned {record.tuned_loss:.4f}"


def difference(record: FinetuneRecord) -> str:
    """How fine-tuned and given differ on the test set, and whether that may be chance."""
    before, after, p = record.before.accuracy, record.after.accuracy, record.p
    if not record.kept:
        return "none: it is the model that was given"
    if before is None or after is None or p is None:
        return "not known: there is no test set"
    points = 100 * (after - before)
    size = f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'}" if points else "as accurate"
    chance = "more than chance" if p < SURE else "which may be chance"
    return f"{size}{f', {chance}' if points else ''} (McNemar, mid-p {'< 0.001' if p < 0.001 else f'{p:.2g}'})"


def moved(record: FinetuneRecord, weights: int) -> str:
    """How much was trained of a network of so many weights."""
    part = f"{record.moving / 1e6:.2f} of {weights / 1e6:.2f} million weights"
    if not record.cut:
        return f"{part}; every step went through the whole network"
    return (
        f"{part}, above {record.cut}; the part below ran once for each of {counted(record.views.count, 'view')} a photo"
    )


def _limits(classifier: Classifier) -> str:
    return (
        '## Limits\n\n"Unknown" finds images that are unlike the training photos as a whole; of things that merely are '
        "finer kinds of the same (another breed of an animal) it finds few. Probabilities are calibrated for photos "
        f"like the training photos. An image is seen as its centred square at {classifier.spec.size} pixels."
    )


def commands_of(record: FitRecord) -> list[str]:
    """How the same model is made again: what is typed, or called from Python, one after the other."""
    head, scratch = record.head, record.scratch
    settings: dict[str, Any] = {"pixels": record.pixels}
    if head is not None and head.kind != "trained":
        settings |= {"head": head.kind, "prior": head.prior}
    settings |= {"holdout": record.holdout, "seed": record.seed}
    if scratch:
        own = {"network": scratch.network} | ({"hidden": _joined(scratch.hidden)} if scratch.hidden else {})
        folds = {"folds": len(scratch.folds)} if scratch.folds else {}
        commands = [_command("train DATA", own | settings | folds | {"recipe": "RECIPE.json"})]
    elif record.backbone.startswith((LIVE, LIVE_KERAS)):  # which no command line can name
        words = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        commands = [f"hs.fit(DATA, backbone=MODULE, {words})"]
    else:
        commands = [_command("fit DATA", {"backbone": record.backbone} | settings)]
    if record.finetune:
        commands.append(_command("finetune MODEL DATA", {"recipe": "RECIPE.json"}))
    return commands


def _how_it_was_made(record: FitRecord) -> str:
    head, scratch = record.head, record.scratch
    trained = head is None or head.kind == "trained"
    trunk = f"{'Network' if scratch else 'Backbone'}: {record.backbone}, licence {record.licence}"
    if head is None:
        chosen = ""
    elif trained:
        chosen = f" Temperature {head.temperature:.3g}, fitted on the validation set."
    else:
        chosen = (
            f" Head: {head.kind}, strength {head.strength:.3g}, temperature {head.temperature:.3g}, both "
            "chosen on predictions for images left out of the fit."
        )
    lines = "\n".join(f"    {command}" for command in commands_of(record))
    frozen = "" if trained else ", frozen"
    return f"## How it was made\n\n{lines}\n\n{trunk}{frozen}; features computed in {record.precision}.{chosen}"


def _command(words: str, options: Mapping[str, Any]) -> str:
    named = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return shlex.join(["headstart", *words.split(), *named])


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _plain(text: str) -> str:
    """A name that cannot break the page it stands on."""
    text = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return text
