"""The model card: what a person who finds the folder wants to know of the classifier in it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.engines.base import LIVE, LIVE_KERAS

if TYPE_CHECKING:
    from headstart.classifier import Classifier


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
    lines = [
        "## Data",
        f"{record['images']} images; {record['train']} fitted on, {record['test']} measured on "
        f"({'the ' + record['test_part'] + ' part of the data' if record['test_part'] != 'held out' else 'held out'}; "
        "copies of one photo are never on both sides).",
    ]
    if left_out:
        lines.append("Left out: " + ", ".join(f"{count} {kind}" for kind, count in left_out.most_common()) + ".")
    return "\n\n".join(lines)


def _figures(record: dict[str, Any]) -> str:
    result = record["result"]
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


def _limits(classifier: Classifier) -> str:
    return (
        '## Limits\n\n"Unknown" finds images that are unlike the training photos as a whole; of things that merely are '
        "finer kinds of the same (another breed of an animal) it finds few. Probabilities are calibrated for photos "
        f"like the training photos. An image is seen as its centred square at {classifier.spec.size} pixels."
    )


def _making(record: dict[str, Any]) -> str:
    head = record["head"]
    settings = {"pixels": record["pixels"], "head": head["kind"], "prior": head["prior"]}
    settings |= {"holdout": record["holdout"], "seed": record["seed"]}
    if record["backbone"].startswith((LIVE, LIVE_KERAS)):  # which no command line can name
        command = f"hs.fit(DATA, backbone=MODULE, {', '.join(f'{key}={value!r}' for key, value in settings.items())})"
    else:
        options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        command = shlex.join(["headstart", "fit", "DATA", "--backbone", record["backbone"], *options])
    return (
        f"## How it was made\n\n    {command}\n\nBackbone: {record['backbone']}, licence {record['licence']}, frozen; "
        f"features computed in {record['precision']}. Head: {head['kind']}, strength {head['strength']:.3g}, "
        f"temperature {head['temperature']:.3g}, both chosen on predictions for images left out of the fit."
    )


def _plain(text: str) -> str:
    """A name that cannot break the page it stands on."""
    text = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return text
