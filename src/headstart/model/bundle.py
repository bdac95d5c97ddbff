"""A classifier as a folder: written beside and renamed, checked on opening, nothing in it ever executed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import __version__
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.weights import hash_of, match, read_weights
from headstart.core.atomic_files import beside, folder_above, probe, put
from headstart.core.errors import CheckError, HeadstartError, MissingExtraError, UsageError, did_you_mean
from headstart.core.types import ImageSpec
from headstart.data.load import KEY
from headstart.data.sources import PathLike
from headstart.data.tables import printable
from headstart.engines.names import ENGINES, resolve_engine
from headstart.engines.protocol import PRECISIONS, Network, check_module
from headstart.learn.unknown import Unknown
from headstart.model.classifier import Classifier, Golden
from headstart.model.model_card import model_card
from headstart.model.records import FitRecord, from_json, to_json

FORMAT = 1
CONFIG, MODEL, GOLDEN, CARD = "config.json", "model.safetensors", "golden.safetensors", "README.md"
_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what systems leave in a folder that was looked into
TOLERANCE = {"fp32": 1e-3, "bf16": 0.05}  # of golden logits, relative to the largest

Arrays = dict[str, NDArray[Any]]


def save(classifier: Classifier, path: PathLike) -> Path:
    """Write a bundle. Until it is whole nothing is at ``path``, or what was there before.

    Raises:
        UsageError: ``path`` is something other than a bundle, or cannot be written.
    """
    return write_folder(path, lambda folder: _write(classifier, folder))


def write_folder(path: PathLike, write: Callable[[Path], None]) -> Path:
    """A model's folder, whole or not at all, of what ``write`` puts into an empty one.

    Raises:
        UsageError: ``path`` is something other than a model, or cannot be written.
    """
    target = Path(os.path.realpath(path))
    if problem := why_not_writable(target):
        raise UsageError(problem)
    try:
        with beside(target) as folder:
            write(folder)
            folder.chmod(0o755)
            put(folder, target)
    except OSError as error:
        raise UsageError(f"The model cannot be written to '{target}': {error.strerror or error}.") from error
    return target


def why_not_writable(path: PathLike) -> str | None:
    """A sentence if a bundle cannot be put at ``path``, before any work is done for it."""
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_dir():
            return f"'{target}' is a file. A model is a folder; choose another place: --out MODEL"
        if target.is_dir() and (others := _others(target)):
            return (
                f"'{target}' is a folder with other things in it ('{printable(others[0])}' first); they are not "
                "overwritten. Choose another place: --out MODEL"
            )
        probe(target)
    except OSError as error:
        return f"'{folder_above(target)}' cannot be written to: {error.strerror}. Choose another place: --out MODEL"
    return None


def _others(folder: Path) -> list[str]:
    """What is in a folder and no part of a bundle that `save` wrote, so that replacing it would lose it."""
    names = {entry.name for entry in folder.iterdir()}
    if names and not _is_ours(folder):
        return sorted(names)
    return sorted(names - {CONFIG, MODEL, GOLDEN, CARD, *_CLUTTER})


def _is_ours(folder: Path) -> bool:
    """Whether Headstart wrote a folder's config, which others call by the same name."""
    try:
        return "headstart" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def is_bundle(path: PathLike) -> bool:
    """Whether a folder is a bundle by the look of it."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / MODEL).is_file()


def load(path: PathLike, *, engine: str = "auto", precision: str = "auto", module: object | None = None) -> Classifier:
    """Open a bundle, and refuse it unless its golden images get the answers that they got when it was saved.

    ``module`` is the `torch.nn.Module` that the classifier was fitted on, where it was one of your own: a bundle holds
    weights, never code.

    Raises:
        UsageError: there is no bundle at ``path``, or it is from a newer version.
        CheckError: a file of it is missing or was altered, or the golden images get other answers.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"'{folder}' is not a model: expected a folder with {CONFIG}. "
            "Make one with: headstart fit PHOTOS --out MODEL"
        )
    for name in (CONFIG, MODEL, GOLDEN):
        if (folder / name).is_symlink():
            raise CheckError(f"'{folder / name}' leads out of the model's folder; it is not read.")
    config = _read_config(folder)
    for name in (MODEL, GOLDEN):
        if not (folder / name).is_file():
            raise CheckError(f"'{folder}' is incomplete: {name} is missing. Copy the whole folder again.")
        if hash_of(folder / name) != config["files"][name]:
            raise CheckError(
                f"'{folder / name}' was altered: its SHA-256 is not the recorded one. Copy the whole folder again."
            )
    for what, name, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if name not in known:
            raise UsageError(f"There is no {what} '{name}'. {did_you_mean(name, known)}")
    runs_on = _check_runnable(config, engine, module)
    try:
        arrays = read_weights(folder / MODEL), read_weights(folder / GOLDEN)
        if precision == "auto" and runs_on == "fast":  # the others compute in fp32 unless told otherwise
            precision = config["precision"]
        classifier = _assemble(config, *arrays, engine, precision, module)
        preflight(classifier, str(folder))
    except (CheckError, MissingExtraError):
        raise
    except Exception as error:  # a made-up config can break the network's construction in any way
        what = str(error) if isinstance(error, HeadstartError) else f"{type(error).__name__}: {error}"
        raise CheckError(f"'{folder}' does not hold together: {' '.join(what.split())}") from error
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
    return greatest_difference(network.forward(golden.images), golden.logits)


def greatest_difference(values: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Of two arrays of one shape, relative to the largest value that is expected."""
    return float(np.abs(values - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _write(classifier: Classifier, folder: Path) -> None:
    from safetensors.numpy import save as to_bytes

    unknown, golden = classifier.unknown, classifier.golden
    arrays: Arrays = {f"network.{name}": array for name, array in classifier.weights.items()}
    if unknown is not None:
        arrays |= {f"unknown.{name}": getattr(unknown, name) for name in ("centre", "kept", "rows", "sure", "near")}
    arrays["fitted_on"] = np.frombuffer(b"".join(sorted(classifier.fitted_on)), np.uint8).reshape(-1, KEY)
    if golden is None:
        raise UsageError("This classifier was not fitted on photos, so there is nothing to hold a saved copy against.")
    (folder / MODEL).write_bytes(to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    (folder / GOLDEN).write_bytes(to_bytes({"images": golden.images, "logits": golden.logits.astype(np.float32)}))
    names = dict(enumerate(classifier.classes_))
    config = {
        "format": FORMAT,
        "headstart": __version__,
        "id2label": {str(k): name for k, name in names.items()},
        "label2id": {name: k for k, name in names.items()},
        "image": asdict(classifier.spec),
        "precision": classifier.network.precision,
        "blueprint": classifier.blueprint.to_json(),
        "unknown": None if unknown is None else {"threshold": unknown.threshold, "photos": list(classifier.neighbours)},
        "fit": to_json(classifier.record),
        "files": {name: hash_of(folder / name) for name in (MODEL, GOLDEN)},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(classifier), encoding="utf-8")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, files = config["format"], config["files"]
        if not isinstance(version, int):
            raise TypeError("'format' is not a number")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckError(f"'{folder / CONFIG}' is damaged: {type(error).__name__}: {error}.") from error
    if config.get("kind") == "rows":
        raise UsageError(
            f"'{folder}' is a model of rows of numbers, not of photos. Ask it with: headstart predict MODEL ROWS.csv, "
            "or headstart.load_rows(PATH)"
        )
    if version > FORMAT:
        raise UsageError(
            f"'{folder}' is of format {version}, this Headstart {__version__} reads up to {FORMAT}. "
            "Install a newer one: pip install --upgrade headstart"
        )
    if not isinstance(files, dict) or set(files) != {MODEL, GOLDEN}:
        raise CheckError(
            f"'{folder / CONFIG}' names other files than {MODEL} and {GOLDEN}; only those two are ever read."
        )
    return dict(config)


def _check_runnable(config: dict[str, Any], engine: str, module: object | None) -> str:
    """The engine that is to run the network, "" if the config is damaged, which putting it together will say."""
    try:
        blueprint = Blueprint.from_json(config["blueprint"])
    except (HeadstartError, KeyError):
        return ""
    runs_on = resolve_engine(engine, blueprint)
    check_module(blueprint, module)
    return runs_on


def _assemble(
    config: dict[str, Any], model: Arrays, golden: Arrays, engine: str, precision: str, module: object | None
) -> Classifier:
    classes = tuple(str(config["id2label"][str(k)]) for k in range(len(config["id2label"])))
    blueprint = Blueprint.from_json(config["blueprint"])
    if len(classes) != golden["logits"].shape[1]:
        raise ValueError(f"{len(classes)} class names for {golden['logits'].shape[1]} logits")
    image = config["image"] | {key: tuple(config["image"][key]) for key in ("mean", "std")}
    spec = ImageSpec(**image)
    network = {name.removeprefix("network."): array for name, array in model.items() if name.startswith("network.")}
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
        weights=match(network, blueprint.weight_shapes(), MODEL),
        spec=spec,
        classes_=classes,
        unknown=unknown,
        neighbours=tuple(kept["photos"]) if kept is not None else (),
        record=from_json(FitRecord, config["fit"]),
        golden=Golden(golden["images"], golden["logits"]),
        fitted_on=frozenset(row.tobytes() for row in model["fitted_on"]),
        engine=engine,
        precision=precision,
        module=module,
    )
