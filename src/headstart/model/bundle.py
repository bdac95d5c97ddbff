"""A classifier of photos as a folder, and its golden images, which are replayed on opening, see `model/opened.py`."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.blueprint import LOGITS
from headstart.core.arguments import PATH, YES_NO, checks, shown
from headstart.core.errors import CheckError, UsageError
from headstart.data.load import KEY
from headstart.data.sources import PathLike
from headstart.engines.protocol import Network
from headstart.learn.calibrate import softmax
from headstart.learn.unknown import Unknown
from headstart.model import files, stored
from headstart.model.classifier import Classifier, no_thumbnails
from headstart.model.golden import Golden
from headstart.model.model_card import model_card
from headstart.model.records import FitRecord, from_json, to_json
from headstart.model.tabular_classifier import TabularClassifier

TOLERANCE = {"fp32": 1e-3, "bf16": 0.05, "int8": 0.25}  # of golden logits, relative to the largest
CLOSE = {"fp32": 0.01, "bf16": 0.15, "int8": 0.3}  # probabilities and cosines that such logits may have


@checks(overwrite=YES_NO)
def save(classifier: Classifier | TabularClassifier, path: PathLike, *, overwrite: bool = False) -> Path:
    """Write a model's folder, which `load` opens, or `load_rows`.

    Until it is whole nothing is at ``path``, or what was there before.

    Args:
        overwrite: whether a model that is there is replaced. Anything else that is there never is.

    Raises:
        UsageError: there is something at ``path``, or it cannot be written.
    """
    if isinstance(path, Classifier | TabularClassifier):
        raise UsageError("The model comes first, then the path: hs.save(model, path)")
    if isinstance(classifier, TabularClassifier):
        return classifier.save(path, overwrite=overwrite)
    if not isinstance(classifier, Classifier):
        raise UsageError(f"classifier: expected a model. Received: {shown(classifier)}.")
    path = PATH.of("--out", path)
    unknown, golden = classifier.unknown, classifier.golden
    if golden is None:
        raise UsageError("This classifier was not fitted on photos, so there is nothing to hold a saved copy against.")
    arrays: dict[str, Any] = {f"network.{name}": array for name, array in classifier.weights.items()}
    if unknown is not None:
        arrays |= {f"unknown.{name}": getattr(unknown, name) for name in ("centre", "kept", "rows", "sure", "near")}
    arrays["fitted_on"] = np.frombuffer(b"".join(sorted(classifier.fitted_on)), np.uint8).reshape(-1, KEY)
    if len(classifier.thumbnails):
        arrays["thumbnails"] = classifier.thumbnails
    config = {
        **files.labels_of(classifier.classes, classifier.label_kind),
        "image": classifier.spec.as_json(),
        "precision": classifier.network.precision,
        "blueprint": classifier.blueprint.to_json(),
        "unknown": None if unknown is None else {"threshold": unknown.threshold, "photos": list(classifier.neighbours)},
        "fit": to_json(classifier.record),
    }
    return files.write_folder(
        path, arrays, golden.as_arrays(unknown), config, model_card(classifier), overwrite=overwrite
    )


def preflight(classifier: Classifier, name: str) -> float:
    """Replay the golden images; returns the greatest difference of a logit, relative to the largest.

    bf16 or int8 that strays too far is replaced by fp32, and fp32 that does is refused.

    Raises:
        CheckError: the answers are not those that were recorded.
    """
    if classifier.golden is None:
        return 0.0
    difference, typical = _replayed_by(classifier, classifier.golden)
    holds = difference <= TOLERANCE[classifier.network.precision] and typical
    if not holds and classifier.network.precision != "fp32":
        classifier.use_precision("fp32")
        difference, typical = _replayed_by(classifier, classifier.golden)
    if not difference <= TOLERANCE[classifier.network.precision]:
        raise CheckError(
            f"'{name}' gives other answers here than where it was saved: its golden images differ by {difference:.2g} "
            f"of the largest logit, {TOLERANCE['fp32']} is allowed. The model or the engine is damaged; it is not used."
        )
    if not typical:
        raise CheckError(
            f"'{name}' calls other images unknown here than where it was saved: those of its golden images. The model "
            "is damaged; it is not used."
        )
    return difference


def _replayed_by(classifier: Classifier, golden: Golden) -> tuple[float, bool]:
    """The greatest difference of a logit, and whether each image is as typical as it was.

    int8 is too coarse to tell a damaged model from a sound one, so fp32 is run beside it: that takes hardly longer, for
    compiling takes one core.
    """
    network = classifier.network
    if network.precision != "int8":
        return _replayed_on(classifier, network, golden)
    exact = network.at_precision("fp32")
    with ThreadPoolExecutor(2) as pool:
        low, high = pool.map(lambda each: _replayed_on(classifier, each, golden), (network, exact))
    exact.release()
    return low if high[0] <= TOLERANCE["fp32"] and high[1] else (np.inf, False)


def _replayed_on(classifier: Classifier, network: Network, golden: Golden) -> tuple[float, bool]:
    """As `_replayed_by`, of one network."""
    network, unknown = network.for_images(len(golden.images)), classifier.unknown  # as predict does it
    logits, x = network.forward_many(golden.images, (LOGITS, classifier.blueprint[LOGITS].inputs[0]))
    difference = stored.greatest_difference(logits, golden.logits)
    if unknown is None or golden.scores is None:
        return difference, True
    low, high = unknown.score_within(x, softmax(logits), CLOSE[network.precision])
    return difference, bool(((low <= golden.scores) & (golden.scores <= high)).all())


def classifier_of(
    config: Mapping[str, Any], model: stored.Arrays, golden: stored.Arrays, network: Mapping[str, Any]
) -> Classifier:
    """The classifier of a folder, whose golden images are still to be replayed.

    Args:
        model, golden: the arrays of its files.
        network: the arguments of `Classifier` that say what computes, and where.

    Raises:
        ValueError, TypeError, KeyError: the files do not hold together; see `stored.assembling`.
    """
    classes, kind = stored.read_classes(config)
    kept = config["unknown"]
    unknown = (
        None
        if kept is None
        else Unknown(
            centre=model["unknown.centre"],
            kept=model["unknown.kept"].astype(np.float16),
            rows=model["unknown.rows"],
            sure=model["unknown.sure"],
            near=model["unknown.near"],
            threshold=float(kept["threshold"]),
        )
    )
    record = from_json(FitRecord, config["fit"])
    if not record.train:
        raise ValueError("it does not say what it was fitted on")
    return Classifier(
        classes=classes,
        label_kind=kind,
        unknown=unknown,
        neighbours=tuple(kept["photos"]) if kept is not None else (),
        record=record,
        golden=Golden.from_arrays(golden, network["spec"], len(classes), unknown),
        fitted_on=frozenset(row.tobytes() for row in model["fitted_on"]),
        thumbnails=model.get("thumbnails", no_thumbnails()),
        **network,
    )
