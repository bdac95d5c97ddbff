"""A model's folder, of either kind, written: beside its place and put there whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart import __version__
from headstart.core.atomic_files import beside, folder_above, probe, put
from headstart.core.errors import UsageError
from headstart.core.labels import TEXT
from headstart.data.scan import printable
from headstart.data.sources import PathLike
from headstart.model.stored import CARD, CONFIG, FORMAT, GOLDEN, MODEL, OF, Arrays, digest, peek, sealed

# written by other rooms, and no part of what is checked
PAGE: str = "report.html"
PAGE_VALUES: str = "report.json"
_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what systems leave in a folder that was looked into


def write_folder(
    path: PathLike, model: Arrays, golden: Arrays, config: Mapping[str, Any], card: str, *, overwrite: bool
) -> Path:
    """Write a model's folder. Until it is whole nothing is at ``path``, or what was there before.

    Args:
        model: the arrays of the model itself.
        golden: a few inputs with its answers.
        config: what ``config.json`` says beside the format and the hashes.
        overwrite: whether a model that is there is replaced.

    Raises:
        UsageError: ``path`` is something other than a model, or cannot be written.
    """
    target = Path(os.path.realpath(path))
    if problem := why_not_writable(target, overwrite=overwrite):
        raise UsageError(problem)
    try:
        with beside(target) as place:
            folder = place / target.name
            folder.mkdir()  # with the permissions of any new folder; a temporary one is for its owner
            said = {"format": FORMAT, "headstart": __version__, **config}
            hashes = {MODEL: _write(folder / MODEL, model)}
            own = np.frombuffer(digest(said, hashes[MODEL]), np.uint8)
            hashes[GOLDEN] = _write(folder / GOLDEN, {**golden, OF: own})
            whole = sealed({**said, "files": hashes})
            (folder / CONFIG).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (folder / CARD).write_text(card, encoding="utf-8")
            put(folder, target)
    except OSError as error:
        raise UsageError(f"The model cannot be written to '{target}': {error.strerror or error}.") from error
    return target


def copy_folder(made: PathLike, path: PathLike, *, overwrite: bool) -> Path:
    """Copy a model's folder that was written elsewhere. Until it is whole nothing is at ``path``, or what was before.

    Raises:
        UsageError: as `write_folder`.
    """
    target = Path(os.path.realpath(path))
    if problem := why_not_writable(target, overwrite=overwrite):
        raise UsageError(problem)
    try:
        with beside(target) as place:
            put(Path(shutil.copytree(made, place / target.name)), target)
    except OSError as error:
        raise UsageError(f"The model cannot be written to '{target}': {error.strerror or error}.") from error
    return target


def _write(file: Path, arrays: Arrays) -> str:
    """Write a file; returns its SHA-256."""
    from safetensors.numpy import save as to_bytes

    content = to_bytes({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


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
    ours = "headstart" in peek(folder)  # others call their config by the same name
    return sorted(names - ({CONFIG, MODEL, GOLDEN, CARD, PAGE, PAGE_VALUES, *_CLUTTER} if ours else set()))


def labels_of(classes: Sequence[str], kind: str) -> dict[str, Any]:
    """Class names as Hugging Face's configs have them, and what the labels were where that was not text."""
    return ({} if kind == TEXT else {"label_kind": kind}) | {
        "id2label": {str(k): name for k, name in enumerate(classes)},
        "label2id": {name: k for k, name in enumerate(classes)},
    }
