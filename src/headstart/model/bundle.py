"""A classifier of photos as a folder, and its golden images, which are replayed on opening."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.weights import read_weights
from headstart.core.arguments import DEVICE, ENGINE, PATH, PRECISION, YES_NO, checks, shown
from headstart.core.errors import CheckError, HeadstartError, UsageError
from headstart.core.types import ImageSpec
from headstart.data.load import KEY
from headstart.data.sources import PathLike
from headstart.engines.names import check_running, resolve_engine
from headstart.engines.protocol import Network, check_module
from headstart.engines.registry import check_live, check_present
from headstart.learn.unknown import Unknown
from headstart.model import files
from headstart.model.classifier import Classifier, Golden, no_thumbnails
from headstart.model.mistaken import no_model
from headstart.model.model_card import model_card
from headstart.model.records import FitRecord, from_json, to_json
from headstart.model.tabular_classifier import TabularClassifier

TOLERANCE = {"fp32": 1e-3, "bf16": 0.05}  # of golden logits, relative to the largest


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
    replayed: files.Arrays = {"images": golden.images, "logits": golden.logits.astype(np.float32)}
    content = {files.MODEL: arrays, files.GOLDEN: replayed}
    return files.write_folder(path, content, config, model_card(classifier), overwrite=overwrite)


def is_bundle(path: PathLike) -> bool:
    """Whether a folder is a bundle by the look of it."""
    return (Path(path) / files.CONFIG).is_file() and (Path(path) / files.MODEL).is_file()


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
    if not (folder / files.CONFIG).is_file():
        raise no_model(str(path), networks=False)
    config = files.read_config(folder)
    if config.get("kind") == "rows":
        raise UsageError(
            f"'{folder}' is a model of rows of numbers, not of photos. Ask it with: headstart predict MODEL ROWS.csv"
        )
    files.check_files(folder, config, (files.MODEL, files.GOLDEN))
    check_running(engine, precision, device)
    runs_on = _check_runnable(config, engine, device, module)
    with files.assembling(folder):
        arrays = read_weights(folder / files.MODEL), read_weights(folder / files.GOLDEN)
        if precision == "auto" and runs_on == "fast":  # the others compute in fp32 unless told otherwise
            precision = config["precision"]
        running = {"engine": engine, "precision": precision, "device": device, "module": module}
        classifier = _assemble(config, *arrays, running)
        preflight(classifier, str(folder))
    return classifier


def preflight(classifier: Classifier, name: str) -> float:
    """Replay the golden images; returns the greatest difference of a logit, relative to the largest.

    bf16 that strays too far is replaced by fp32, and fp32 that does is refused.

    Raises:
        CheckError: the answers are not those that were recorded.
    """
    if classifier.golden is None:
        return 0.0
    difference = _difference(classifier.network, classifier.golden)
    if difference > TOLERANCE[classifier.network.precision] and classifier.network.precision != "fp32":
        classifier.use_precision("fp32")
        difference = _difference(classifier.network, classifier.golden)
    if not difference <= TOLERANCE[classifier.network.precision]:
        raise CheckError(
            f"'{name}' gives other answers here than where it was saved: its golden images differ by {difference:.2g} "
            f"of the largest logit, {TOLERANCE['fp32']} is allowed. The model or the engine is damaged; it is not used."
        )
    return difference


def _difference(network: Network, golden: Golden) -> float:
    values = network.for_images(len(golden.images)).forward(golden.images)  # as predict does it for a few photos
    return greatest_difference(values, golden.logits)


def greatest_difference(values: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Of two arrays of one shape, relative to the largest value that is expected."""
    return float(np.abs(values - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _check_runnable(config: dict[str, Any], engine: str, device: str, module: object | None) -> str:
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


def _assemble(
    config: dict[str, Any],
    model: files.Arrays,
    golden: files.Arrays,
    running: dict[str, Any],
) -> Classifier:
    classes, kind = files.read_classes(config)
    blueprint, weights = files.read_network(config, model)
    if len(classes) != golden["logits"].shape[1]:
        raise ValueError(f"{len(classes)} class names for {golden['logits'].shape[1]} logits")
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
    return Classifier(
        blueprint=blueprint,
        weights=weights,
        spec=spec,
        classes=classes,
        label_kind=kind,
        unknown=unknown,
        neighbours=tuple(kept["photos"]) if kept is not None else (),
        record=from_json(FitRecord, config["fit"]),
        golden=Golden(golden["images"], golden["logits"]),
        fitted_on=frozenset(row.tobytes() for row in model["fitted_on"]),
        thumbnails=model.get("thumbnails", no_thumbnails()),
        **running,
    )
