"""A model's folder, of either kind, read: every byte of it is held against a hash before it is used, none executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import __version__
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.weights import Weights, match, safetensors_from
from headstart.core.atomic_files import standing
from headstart.core.errors import (
    CheckError,
    HeadstartError,
    MissingExtraError,
    UsageError,
    VersionError,
    cannot_read,
    check_machine,
    one_line,
)
from headstart.core.install import pip_install
from headstart.core.labels import TEXT, as_given
from headstart.core.regular_file import read_regular
from headstart.core.types import ImageSpec

FORMAT = 2
SEAL = "sha256"  # of the config, in itself
OF = "of"  # what golden images or rows are of: the digest of the rest of the model, beside them
CONFIG, MODEL, GOLDEN, CARD = "config.json", "model.safetensors", "golden.safetensors", "README.md"
FILES = (CONFIG, MODEL)  # by which a folder looks like a model
MOST_CONFIG = MOST_GOLDEN = 1 << 28  # bytes that are read
ROWS = "rows"  # the kind of a model of rows of numbers; one of photos has none
_AGAIN = 5  # times that a model is read while it is replaced under our hands

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Stored:
    """The config of a model and the bytes of its files, which belong together."""

    folder: Path
    config: Mapping[str, Any]
    content: Mapping[str, bytes]

    def arrays(self, name: str) -> Weights:
        """The arrays of a file; of one that the model does not have, none."""
        return safetensors_from(self.content[name], self.folder / name) if name in self.content else {}


def read(path: str | os.PathLike[str]) -> Stored:
    """A model as it is, or as it was: one that is replaced meanwhile is read whole, before or after that.

    Raises:
        UsageError: the model is from a newer version, or may not be read.
        CheckError: a file of it is missing, damaged, or was altered, or is a link.
    """
    for _ in range(_AGAIN):
        folder = standing(Path(path))
        raw = config_bytes(folder)
        try:
            return _read(folder, raw)
        except CheckError:
            if config_bytes(standing(Path(path))) == raw:
                raise
    return _read(folder, raw)


def config_bytes(folder: Path) -> bytes:
    """The config of a model as it is, unchecked.

    Raises:
        CheckError: it cannot be read.
    """
    try:
        return read_regular(folder / CONFIG, MOST_CONFIG)
    except OSError as error:
        raise _unreadable(folder / CONFIG, error, "is damaged") from error


def _unreadable(file: Path, error: OSError, what: str) -> HeadstartError:
    check_machine(error)
    if isinstance(error, PermissionError):  # which says nothing of the file
        return cannot_read(file, error)
    return CheckError(f"'{file}' {what}: {error.strerror or error}.")


def _read(folder: Path, raw: bytes) -> Stored:
    for name in (CONFIG, MODEL, GOLDEN):
        if (folder / name).is_symlink():
            raise CheckError(f"'{folder / name}' leads out of the model's folder; it is not read.")
    config = _checked_config(folder, raw)
    files, content = config["files"], {}
    first = config["format"] == 1
    expected = [MODEL] if first and config.get("kind") == ROWS else [MODEL, GOLDEN]
    if not isinstance(files, dict) or sorted(files) != sorted(expected):
        names = " and ".join(expected)
        raise CheckError(f"'{folder / CONFIG}' names other files than {names}; only those are ever read.")
    for name in expected:
        try:
            content[name] = read_regular(folder / name, MOST_GOLDEN if name == GOLDEN else None)
        except FileNotFoundError as error:
            why = f"'{folder}' is incomplete: {name} is missing. Copy the whole folder again."
            raise CheckError(why) from error
        except OSError as error:
            raise _unreadable(folder / name, error, "cannot be read") from error
        if hashlib.sha256(content[name]).hexdigest() != files[name]:
            raise _altered(folder / name)
    found = Stored(folder, config, content)
    if not first and found.arrays(GOLDEN).get(OF, np.zeros(0)).tobytes() != digest(config, files[MODEL]):
        raise CheckError(
            f"'{folder}' was altered: {GOLDEN} was recorded with another {CONFIG} or {MODEL}. "
            "Copy the whole folder again."
        )
    return found


def _checked_config(folder: Path, raw: bytes) -> dict[str, Any]:
    try:
        config = json.loads(raw.decode("utf-8"))
        version, _ = config["format"], config["files"]
        if not isinstance(version, int):
            raise TypeError("'format' is not a number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckError(f"'{folder / CONFIG}' is damaged: {one_line(error)}. Copy the whole folder again.") from error
    if version > FORMAT:
        raise UsageError(
            f"'{folder}' is of format {version}, this Headstart {__version__} reads up to {FORMAT}. "
            f"Install a newer one: {pip_install('headstart', '--upgrade')}"
        )
    if (SEAL in config or version != 1) and config != sealed(config):  # the first versions had none
        raise _altered(folder / CONFIG)
    return dict(config)


def _altered(file: Path) -> CheckError:
    return CheckError(f"'{file}' was altered: its SHA-256 is not the recorded one. Copy the whole folder again.")


def sealed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the SHA-256 of all that it says, so that a change of a class's name is noticed too."""
    said = {key: value for key, value in config.items() if key != SEAL}
    return {**said, SEAL: _digest_of(said).hex()}


def digest(config: Mapping[str, Any], model: str) -> bytes:
    """What golden images keep of the rest: 32 bytes of all that the config says but for hashes, and of the weights.

    Args:
        model: the SHA-256 of the weights' file.
    """
    said = {key: value for key, value in config.items() if key not in (SEAL, "files")}
    return _digest_of([said, model])


def _digest_of(said: object) -> bytes:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


def peek(folder: Path) -> Mapping[str, Any]:
    """The config as it is, unchecked; empty if there is none."""
    try:
        config = json.loads(read_regular(standing(folder) / CONFIG, MOST_CONFIG).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def has_config(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has the config of a model, or of something that calls it the same."""
    return (standing(Path(path)) / CONFIG).is_file()


def is_stored(path: str | os.PathLike[str]) -> bool:
    """Whether there is a model in a folder, by the look of it."""
    folder = standing(Path(path))
    return all((folder / name).is_file() for name in FILES)


def is_tabular_model(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a model of rows by the look of its config."""
    return peek(Path(path)).get("kind") == ROWS


@contextmanager
def assembling(folder: Path) -> Iterator[None]:
    """Whatever a made-up config breaks while a model is put together becomes a `CheckError`."""
    try:
        yield
    except (CheckError, MissingExtraError, VersionError):
        raise
    except Exception as error:
        check_machine(error)
        what = " ".join(str(error).split()) if isinstance(error, HeadstartError) else one_line(error)
        raise CheckError(f"'{folder}' does not hold together: {what}") from error


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


def read_spec(config: Mapping[str, Any]) -> ImageSpec:
    """The pixels that the network of a model takes."""
    lists = {key: tuple(value) for key, value in config["image"].items() if isinstance(value, list)}
    return ImageSpec(**config["image"] | lists)


def greatest_difference(values: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Of two arrays of one shape, relative to the largest value that is expected."""
    return float(np.abs(values - expected).max() / max(float(np.abs(expected).max()), 1e-12))
