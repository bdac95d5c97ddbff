"""A model's folder, of either kind: written beside and renamed, checked on opening, nothing in it ever executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import __version__
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.weights import hash_of, match
from headstart.core.atomic_files import beside, folder_above, probe, put
from headstart.core.errors import CheckError, HeadstartError, MissingExtraError, UsageError, VersionError, one_line
from headstart.core.install import pip_install
from headstart.core.labels import TEXT, as_given
from headstart.data.scan import printable
from headstart.data.sources import PathLike

FORMAT = 1
SEAL = "sha256"  # of the config, in itself
CONFIG, MODEL, GOLDEN, CARD = "config.json", "model.safetensors", "golden.safetensors", "README.md"
# written by other rooms, and no part of what is checked
PAGE: str = "report.html"
PAGE_VALUES: str = "report.json"
_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what systems leave in a folder that was looked into

Arrays = Mapping[str, NDArray[Any]]


def write_folder(
    path: PathLike, files: Mapping[str, Arrays], config: Mapping[str, Any], card: str, *, overwrite: bool
) -> Path:
    """Write a model's folder. Until it is whole nothing is at ``path``, or what was there before.

    Args:
        files: arrays of each safetensors file by its name.
        config: what ``config.json`` says beside the format and the hashes.
        overwrite: whether a model that is there is replaced.

    Raises:
        UsageError: ``path`` is something other than a model, or cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    target = Path(os.path.realpath(path))
    if problem := why_not_writable(target, overwrite=overwrite):
        raise UsageError(problem)
    try:
        with beside(target) as folder:
            for name, arrays in files.items():
                content = to_bytes({key: np.ascontiguousarray(array) for key, array in arrays.items()})
                (folder / name).write_bytes(content)
            hashes = {name: hash_of(folder / name) for name in files}
            whole = sealed({"format": FORMAT, "headstart": __version__, **config, "files": hashes})
            (folder / CONFIG).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (folder / CARD).write_text(card, encoding="utf-8")
            folder.chmod(0o755)
            put(folder, target)
    except OSError as error:
        raise UsageError(f"The model cannot be written to '{target}': {error.strerror or error}.") from error
    return target


def why_not_writable(path: PathLike, *, overwrite: bool) -> str | None:
    """A sentence if a model cannot be put at ``path``, before any work is done for it."""
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_dir():
            return f"'{target}' is a file. A model is a folder; choose another place: --out MODEL"
        if target.is_dir() and (others := _others(target)):
            return (
                f"'{target}' is a folder with other things in it ('{printable(others[0])}' first); they are not "
                "overwritten. Choose another place: --out MODEL"
            )
        if target.is_dir() and any(target.iterdir()) and not overwrite:
            return f"'{target}' is a model already. Choose another place: --out MODEL. Or replace it: --overwrite"
        probe(target)
    except OSError as error:
        return f"'{folder_above(target)}' cannot be written to: {error.strerror}. Choose another place: --out MODEL"
    return None


def _others(folder: Path) -> list[str]:
    """What is in a folder and no part of a model that was written here, so that replacing it would lose it."""
    names = {entry.name for entry in folder.iterdir()}
    ours = "headstart" in _peek(folder)  # others call their config by the same name
    return sorted(names - ({CONFIG, MODEL, GOLDEN, CARD, PAGE, PAGE_VALUES, *_CLUTTER} if ours else set()))


def _peek(folder: Path) -> Mapping[str, Any]:
    """The config as it is, unchecked; empty if there is none."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def kind_of(path: PathLike) -> str:
    """The kind of a model by the look of its config: "" of photos or of none at all, "rows" of rows of numbers."""
    return str(_peek(Path(path)).get("kind", ""))


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a model, of a format that is known.

    Raises:
        UsageError: the model is from a newer version.
        CheckError: the config is damaged or was altered, or is a link.
    """
    for name in (CONFIG, MODEL, GOLDEN):
        if (folder / name).is_symlink():
            raise CheckError(f"'{folder / name}' leads out of the model's folder; it is not read.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, _ = config["format"], config["files"]
        if not isinstance(version, int):
            raise TypeError("'format' is not a number")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckError(f"'{folder / CONFIG}' is damaged: {type(error).__name__}: {error}.") from error
    if version > FORMAT:
        raise UsageError(
            f"'{folder}' is of format {version}, this Headstart {__version__} reads up to {FORMAT}. "
            f"Install a newer one: {pip_install('headstart', '--upgrade')}"
        )
    if SEAL in config and config != sealed(config):
        raise CheckError(
            f"'{folder / CONFIG}' was altered: its SHA-256 is not the recorded one. Copy the whole folder again."
        )
    return dict(config)


def sealed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the SHA-256 of all that it says, so that a change of a class's name is noticed too."""
    said = {key: value for key, value in config.items() if key != SEAL}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return {**said, SEAL: digest}


def check_files(folder: Path, config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Hold files against the hashes in the config.

    Raises:
        CheckError: the config names other files, or one is missing or was altered.
    """
    files = config["files"]
    if not isinstance(files, dict) or set(files) != set(names):
        raise CheckError(f"'{folder / CONFIG}' names other files than {' and '.join(names)}; only those are ever read.")
    for name in names:
        if not (folder / name).is_file():
            raise CheckError(f"'{folder}' is incomplete: {name} is missing. Copy the whole folder again.")
        if hash_of(folder / name) != files[name]:
            raise CheckError(
                f"'{folder / name}' was altered: its SHA-256 is not the recorded one. Copy the whole folder again."
            )


@contextmanager
def assembling(folder: Path) -> Iterator[None]:
    """Whatever a made-up config breaks while a model is put together becomes a `CheckError`."""
    try:
        yield
    except (CheckError, MissingExtraError, VersionError):
        raise
    except Exception as error:
        what = " ".join(str(error).split()) if isinstance(error, HeadstartError) else one_line(error)
        raise CheckError(f"'{folder}' does not hold together: {what}") from error


def labels_of(classes: Sequence[str], kind: str) -> dict[str, Any]:
    """Class names as Hugging Face's configs have them, and what the labels were where that was not text."""
    return ({} if kind == TEXT else {"label_kind": kind}) | {
        "id2label": {str(k): name for k, name in enumerate(classes)},
        "label2id": {name: k for k, name in enumerate(classes)},
    }


def read_classes(config: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Class names in their order, and what the labels were."""
    names = tuple(str(config["id2label"][str(k)]) for k in range(len(config["id2label"])))
    kind = str(config.get("label_kind", TEXT))
    as_given(names, kind)  # which refuses a name that is none of the kind
    return names, kind


def read_network(config: Mapping[str, Any], arrays: Arrays) -> tuple[Blueprint, dict[str, NDArray[np.float32]]]:
    """The blueprint of a model, and its weights."""
    blueprint = Blueprint.from_json(config["blueprint"])
    network = {name.removeprefix("network."): array for name, array in arrays.items() if name.startswith("network.")}
    return blueprint, match(network, blueprint.weight_shapes(), MODEL)
