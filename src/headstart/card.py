"""The model card: what a person who finds the folder wants to know of the classifier in it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.engines.base import LIVE, LIVE_KERAS

if TYPE_CHECKING:
    from headstart.classifier import Classifier

SURE = 0.05  # of a p-value; above it a difference may be chance


def model_card(classifier: Classifier) -> str:
    """Markdown with Hugging Face's front matter: data, split, figures, limits, licence, how to make it again."""
    record = classifier.record
    return (
        "\n\n".join(
            [
                "---\nlibrary_name: headstart\npipeline_tag: image-classification\ntags: [image-classification]\n---",
                f"# {_plain(str(record['data']))}: an image classifier",
                _classes(classifier.classes_),
                _data(record),
                _figures(record),
                *_trainings(classifier),
                _limits(classifier),
                _making(record),
            ]
        )
        + "\n"
    )


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(_plain(name) for name in names[:50])
    return f"Tells {len(names)} classes apart: {shown}{' …' if len(names) > 50 else ''}."


def _data(record: dict[str, Any]) -> str:
    left_out = Counter(problem["kind"] for problem in record["left_out"])
    how = {"held out": "held out", "cross-validation": "by cross-validation"}
    lines = [
        "## Data",
        f"{record['images']} images; {record['train']} fitted on, {record['test']} measured on "
        f"({how.get(record['test_part'], 'the ' + record['test_part'] + ' part of the data')}; "
        "copies of one photo are never on both sides).",
    ]
    if left_out:
        lines.append("Left out: " + ", ".join(f"{count} {kind}" for kind, count in left_out.most_common()) + ".")
    return "\n\n".join(lines)


def _figures(record: dict[str, Any]) -> str:
    result = record["result"]
    if result is None and record["left_one_out"] is None:
        known = record["validation"]
        return (
            "## Figures\n\nToo few images to hold any out. On the "
            f"{known['images']} images that the training was steered by: accuracy {known['accuracy']:.3f}."
        )
    if result is None:
        alone = record["left_one_out"]
        return (
            "## Figures\n\nToo few images to hold any out. With each image left out of its own fit in turn: accuracy "
            f"{alone['accuracy']:.3f} on {alone['images']} images, on which the head's settings were chosen too."
        )
    accuracy = result["accuracy"]
    rows = [
        ("accuracy", f"{accuracy['value']:.3f} (95 % interval {accuracy['low']:.3f} to {accuracy['high']:.3f})"),
        ("macro F1", f"{result['macro_f1']:.3f}"),
        ("negative log-likelihood", f"{result['nll']:.3f}"),
        ("expected calibration error", f"{result['calibration_error']:.3f}"),
        ("share of the test images called unknown", f"{result['unknown']:.3f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## Figures\n\nOn {accuracy['images']} images that were not fitted on.\n\n| | |\n|---|---|\n{table}"


def _trainings(classifier: Classifier) -> list[str]:
    """A section for each training that the network went through."""
    record, weights = classifier.record, sum(classifier.blueprint.parameters().values())
    sections = []
    if "scratch" in record:
        story = record["scratch"]
        best = f"epoch {story['best'] + 1}" if story["best"] >= 0 else "the weights that it began with"
        sections.append(_training("Training", story, [("kept", best)]))
    if "finetune" in record:
        story = record["finetune"]
        why = "" if story["best"] >= 0 else ": no epoch had a lower validation loss"
        rows = [
            ("kept", f"{story['chosen']}{why}"),
            *((side, _side(story[side])) for side in ("before", "after")),
            ("difference", difference(story)),
            ("what moved", moved(story, weights)),
        ]
        sections.append(_training("Fine-tuning", story, rows))
    return sections


def _training(title: str, story: Mapping[str, Any], rows: list[tuple[str, str]]) -> str:
    images, epochs = story["images"], len(story["epochs"])
    rows = [
        *rows,
        ("what the curves say", story["verdict"]["sentence"]),
        ("trainer", f"{story['trainer']}, {epochs} epoch{'' if epochs == 1 else 's'}"),
        ("images", f"{images['train']} trained on, {images['validation']} chosen by, {images['test']} measured on"),
    ]
    table = "\n".join(f"| {name} | {_plain(value)} |" for name, value in rows)
    recipe = json.dumps(story["recipe"], indent=2)
    return f"## {title}\n\n| | |\n|---|---|\n{table}\n\nIts recipe:\n\n```json\n{recipe}\n```"


def _side(figures: Mapping[str, Any]) -> str:
    loss = f"calibrated validation loss {figures['val_calibrated']:.4f}"
    if figures["accuracy"] is None:
        return loss
    low, high = figures["interval"]
    return f"accuracy {figures['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}), {loss}"


def difference(story: Mapping[str, Any]) -> str:
    """How fine-tuned and given differ on the photos that were held out, and whether that may be chance."""
    before, after, p = story["before"]["accuracy"], story["after"]["accuracy"], story["p"]
    if story["best"] < 0:
        return "none: it is the model that was given"
    if before is None or after is None or p is None:
        return "not known, for no photo was held out"
    points = 100 * (after - before)
    size = f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'}" if points else "as accurate"
    chance = "more than chance" if p < SURE else "which may be chance"
    return f"{size}{f', {chance}' if points else ''} (McNemar, mid-p {'< 0.001' if p < 0.001 else f'{p:.2g}'})"


def moved(story: Mapping[str, Any], weights: int) -> str:
    """How much was trained of a network of so many weights."""
    part = f"{story['moving'] / 1e6:.2f} of {weights / 1e6:.2f} million weights"
    if not story["cut"]:
        return f"{part}; every step went through the whole network"
    views = story["views"]
    return f"{part}, above {story['cut']}; the part below ran once for each of {views['count']} views a photo"


def _limits(classifier: Classifier) -> str:
    return (
        '## Limits\n\n"Unknown" finds images that are unlike the training photos as a whole; of things that merely are '
        "finer kinds of the same (another breed of an animal) it finds few. Probabilities are calibrated for photos "
        f"like the training photos. An image is seen as its centred square at {classifier.spec.size} pixels."
    )


def _making(record: dict[str, Any]) -> str:
    head, scratch = record["head"], record.get("scratch")
    trained = head["kind"] == "trained"
    settings: dict[str, Any] = {"pixels": record["pixels"]}
    settings |= {} if trained else {"head": head["kind"], "prior": head["prior"]}
    settings |= {"holdout": record["holdout"], "seed": record["seed"]}
    if scratch:
        own = {"network": scratch["network"]} | ({"hidden": _joined(scratch["hidden"])} if scratch["hidden"] else {})
        folds = {"folds": len(scratch["folds"])} if scratch["folds"] else {}
        commands = [_command("train DATA", own | settings | folds | {"recipe": "RECIPE.json"})]
    elif record["backbone"].startswith((LIVE, LIVE_KERAS)):  # which no command line can name
        words = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        commands = [f"hs.fit(DATA, backbone=MODULE, {words})"]
    else:
        commands = [_command("fit DATA", {"backbone": record["backbone"]} | settings)]
    if "finetune" in record:
        commands.append(_command("finetune MODEL DATA", {"recipe": "RECIPE.json"}))
    trunk = f"Network: {record['backbone']}, " if scratch else f"Backbone: {record['backbone']}, "
    trunk += f"licence {record['licence']}" + ("" if trained else ", frozen")
    if trained:
        chosen = f"Temperature {head['temperature']:.3g}, chosen on the images that the training was steered by."
    else:
        chosen = (
            f"Head: {head['kind']}, strength {head['strength']:.3g}, temperature {head['temperature']:.3g}, both "
            "chosen on predictions for images left out of the fit."
        )
    lines = "\n".join(f"    {command}" for command in commands)
    return f"## How it was made\n\n{lines}\n\n{trunk}; features computed in {record['precision']}. {chosen}"


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
