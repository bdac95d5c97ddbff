"""A classifier of photos as a folder, and its golden images, which are replayed on opening."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.core.arguments import DEVICE, ENGINE, PATH, PRECISION, YES_NO, checks, shown
from headstart.core.errors import CheckError, HeadstartError, UsageError
from headstart.core.types import ImageSpec
from headstart.data.load import KEY, decode
from headstart.data.sources import PathLike
from headstart.engines.fast import start_beside
from headstart.engines.names import HOME, check_running, resolve_engine
from headstart.engines.protocol import Network, check_module
from headstart.engines.registry import check_live, check_present
from headstart.learn.calibrate import softmax
from headstart.learn.unknown import Unknown
from headstart.model import files, stored
from headstart.model.classifier import Classifier, Golden, no_thumbnails
from headstart.model.mistaken import no_model
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
        path, arrays, _replayed(golden, unknown), config, model_card(classifier), overwrite=overwrite
    )


def _replayed(golden: Golden, unknown: Unknown | None) -> stored.Arrays:
    photos: dict[str, Any] = {f"photos.{row}": photo for row, photo in enumerate(golden.photos)} or {
        "images": golden.images
    }
    if unknown is not None and golden.scores is not None:
        photos["margins"] = golden.scores - unknown.threshold  # below zero: unknown
    return {**photos, "logits": golden.logits.astype(np.float32)}


def is_bundle(path: PathLike) -> bool:
    """Whether a folder is a bundle by the look of it."""
    return stored.is_stored(path)


@checks(path=PATH, engine=ENGINE, precision=PRECISION, device=DEVICE)
def load(
    path: PathLike,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    module: object | None = None,
) -> Classifier:
    """Open a bundle, and refuse it unless its golden images get the answers that they got when it was saved.

    ``engine``, ``precision`` and ``device`` are as for `fit`. ``module`` is the `torch.nn.Module` that the classifier
    was fitted on, where it was one of your own: a bundle holds weights, never code.

    Raises:
        UsageError: there is no bundle at ``path``, or it is from a newer version; or no such device.
        CheckError: a file of it is missing or was altered, or the golden images get other answers.
    """
    folder = Path(path)
    if not stored.has_config(folder):
        raise no_model(str(path), networks=False)
    if engine in ("auto", "fast") and device in HOME and module is None:
        start_beside()
    found = stored.read(folder)
    config = found.config
    if config.get("kind") == stored.ROWS:
        raise UsageError(
            f"'{folder}' is a model of rows of numbers, not of photos. Ask it with: headstart predict MODEL ROWS.csv"
        )
    check_running(engine, precision, device)
    runs_on = _check_runnable(config, engine, device, module)
    with stored.assembling(folder):
        if precision == "auto" and runs_on == "fast":  # the others compute in fp32 unless told otherwise
            precision = config["precision"]
        running = {"engine": engine, "precision": precision, "device": device, "module": module}
        classifier = _assemble(found, running)
        preflight(classifier, str(folder))
    return classifier


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


def _check_runnable(config: Mapping[str, Any], engine: str, device: str, module: object | None) -> str:
    """The engine that is to run the network, "" if the config is damaged, which putting it together will say."""
    try:
        blueprint = Blueprint.from_json(config["blueprint"])
    except (HeadstartError, KeyError):
        return ""
    runs_on = resolve_engine(engine, blueprint, device)
    check_module(blueprint, module)
    check_present(runs_on, device)
    if module is not None:
        check_live(module, runs_on)
    return runs_on


def _golden(arrays: stored.Arrays, spec: ImageSpec, classes: int, unknown: Unknown | None) -> Golden:
    """Golden images as the network sees them; from format 2 on they are kept as they were before that."""
    photos = tuple(arrays[f"photos.{row}"] for row in range(len(arrays["logits"])) if f"photos.{row}" in arrays)
    images = np.stack([decode(photo, spec) for photo in photos]) if photos else arrays["images"]
    logits, margins = arrays["logits"], arrays.get("margins")
    if logits.shape != (len(images), classes):
        raise ValueError(f"{len(images)} golden images of {classes} classes for logits of shape {logits.shape}")
    if not np.isfinite(logits).all() or (margins is not None and margins.shape != (len(images),)):
        raise ValueError("the answers of its golden images are none")
    if unknown is None and margins is not None:
        raise ValueError("it does not say what is unknown to it")
    return Golden(images, logits, photos, None if unknown is None or margins is None else margins + unknown.threshold)


def _assemble(
    found: stored.Stored,
    running: dict[str, Any],
) -> Classifier:
    config, model = found.config, found.arrays(stored.MODEL)
    classes, kind = stored.read_classes(config)
    blueprint, weights = stored.read_network(config, model)
    lists = {key: tuple(value) for key, value in config["image"].items() if isinstance(value, list)}
    spec = ImageSpec(**config["image"] | lists)
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
        blueprint=blueprint,
        weights=weights,
        spec=spec,
        classes=classes,
        label_kind=kind,
        unknown=unknown,
        neighbours=tuple(kept["photos"]) if kept is not None else (),
        record=record,
        golden=_golden(found.arrays(stored.GOLDEN), spec, len(classes), unknown),
        fitted_on=frozenset(row.tobytes() for row in model["fitted_on"]),
        thumbnails=model.get("thumbnails", no_thumbnails()),
        **running,
    )
