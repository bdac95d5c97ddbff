"""The content of a report as plain values, for `report.json` and the page."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from typing import Any

from headstart import __version__
from headstart.model.model_card import commands_of
from headstart.model.records import to_json
from headstart.report.records import Content

PACKAGES = ("numpy", "openvino", "pillow")  # whose versions a figure may depend on


def answer_of(content: Content) -> dict[str, Any]:
    """All that the report says, without its pictures; what is not finite is None."""
    record, verdict = content.classifier.record, content.diagnosis.verdict if content.diagnosis else None
    values = {
        "data": record.data,
        "measured_on": content.measured_on or record.data,
        "classes": list(content.classifier.classes),
        "verdict": asdict(verdict) if verdict else None,
        "next_step": verdict.next_step if verdict else None,
        "evaluation": to_json(content.evaluation) if content.evaluation else None,
        "left_one_out": asdict(record.left_one_out) if record.left_one_out else None,
        "validation": asdict(record.validation) if record.validation else None,
        "diagnosis": to_json(content.diagnosis) if content.diagnosis else None,
        "robustness": asdict(content.robustness) if content.robustness else None,
        "corrupted": [asdict(each) for each in content.corrupted],
        "distance": asdict(content.distance) if content.distance else None,
        "from_scratch": asdict(content.from_scratch) if content.from_scratch else None,
        "trainings": {name: to_json(made) for name in ("scratch", "finetune") if (made := getattr(record, name))},
        "left_out": [asdict(problem) for problem in record.left_out],
        "note": content.note or None,
        "reproduce": reproduction(content),
    }
    return dict(_finite(values))


def reproduction(content: Content) -> dict[str, Any]:
    """What is needed to make the same model again, and to see whether it is the same."""
    classifier, record = content.classifier, content.classifier.record
    keys = b"".join(sorted(classifier.fitted_on))
    return {
        "commands": commands_of(record) if record.train else [],
        "seed": record.seed,
        "backbone": record.backbone,
        "licence": record.licence,
        "pixels": record.pixels,
        "precision": record.precision,
        "train": record.train,
        "test": record.test,
        "test_part": record.test_part,
        "training_set_sha256": hashlib.sha256(keys).hexdigest() if keys else None,
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    """Of Headstart, Python, and the packages that compute."""
    found = {"headstart": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # it may be installed in another way
            continue
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
