"""Opens a ".keras" file: its architecture first, which must be of Keras' own layers, then its weights."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
from keras.src.saving.saving_lib import load_weights_only  # what model.load_weights calls for such a file

from headstart.core.errors import UsageError, VersionError
from headstart.core.missing import why_no_file
from headstart.engines.keras.config import from_text, of_keras_2
from headstart.engines.wrapped import attempt

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LARGEST_CONFIG = 1 << 26  # bytes
EXPANSION = 100  # a part may be this many times larger than in the archive; Keras does not compress
MOST_GROUPS = 100_000  # in the file of weights; hard links can make it endless


def open_file(path: str) -> Any:
    """The model of a ".keras" file, not compiled.

    Keras gets neither the file nor its weights before the architecture was found harmless, and builds exactly the
    architecture that was checked.

    Raises:
        VersionError: it is of Keras 2, or of another Keras 3 that has what this one lacks.
        UsageError: no such file, a damaged one, or one with a Lambda layer or custom classes, which would run code.
    """
    place = Path(path)
    if other := why_no_file(place):
        raise UsageError(f"'{path}': expected a .keras file, {other}.")
    if not zipfile.is_zipfile(place) and h5py.is_hdf5(place):  # the signature may lie inside an archive, too
        raise VersionError(of_keras_2(path))  # which wrote HDF5 under this name, too
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / WEIGHTS
        try:
            with zipfile.ZipFile(place) as archive:
                text = _part(archive, CONFIG, path).decode("utf-8")
                size = _entry(archive, WEIGHTS, path).file_size  # a weight takes a byte of it at least
                model = from_text(text, path, made_by=_version(archive, path), most=size)
                _extract(archive, weights, path)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
            raise UsageError(
                f"'{path}' is truncated or damaged, or no .keras file ({type(error).__name__}: {error}). "
                'Fetch it again, or save it again: model.save("x.keras")'
            ) from error
        attempt(f"'{path}' is damaged: its weights do not fit", lambda: _load(model, weights))
    return model


def _version(archive: zipfile.ZipFile, path: str) -> str:
    """The Keras that wrote the archive, or "" where it does not say so."""
    if METADATA not in archive.namelist():
        return ""
    said = json.loads(_part(archive, METADATA, path))
    return str(said.get("keras_version", ""))[:40] if isinstance(said, dict) else ""


def _part(archive: zipfile.ZipFile, name: str, path: str) -> bytes:
    if (info := _entry(archive, name, path)).file_size > LARGEST_CONFIG:
        raise UsageError(f"'{path}': expected at most {LARGEST_CONFIG} bytes of {name}. Received: {info.file_size}.")
    return archive.read(info)


def _extract(archive: zipfile.ZipFile, target: Path, path: str) -> None:
    with archive.open(_entry(archive, WEIGHTS, path)) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _entry(archive: zipfile.ZipFile, name: str, path: str) -> zipfile.ZipInfo:
    if name not in archive.namelist():
        raise UsageError(f"'{path}' is no .keras file of Keras 3: it lacks {name}.")
    info = archive.getinfo(name)
    if info.file_size > EXPANSION * max(info.compress_size, 1 << 16):
        raise UsageError(f"'{path}' was refused: its {name} would expand to {info.file_size} bytes.")
    return info


def _load(model: Any, weights: Path) -> None:
    with h5py.File(weights, "r") as file:
        _check_within(file)
    load_weights_only(model, weights)


def _check_within(file: Any) -> None:
    """Refuse values that lie outside of the file."""
    groups, seen = [file], 0
    while groups:
        group = groups.pop()
        for name in group:
            seen += 1
            if seen > MOST_GROUPS or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UsageError(f"The weights were refused: {name[:80]!a} is a link that can lead elsewhere.")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif item.external or item.is_virtual:
                raise UsageError(f"The weights were refused: those of {name[:80]!a} lie in another file.")
