"""Reads the weights of a Keras model from an HDF5 file, in all forms that Keras has written.

These are a ``.weights.h5`` of Keras 3, a legacy ``.h5`` of weights, and a legacy ``.h5`` of a whole model. Of the last
only the weights are read: neither its configuration nor a Lambda layer.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import hdf5_places
from headstart.backbones.weights_bytes import UnfitError, from_bfloat16, read_array
from headstart.core.errors import MissingExtraError, UsageError, cannot_read
from headstart.core.regular_file import open_regular

SIGNATURE, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
TIMEOUT = 60  # seconds for finding the positions of the values; less than one is usual
# Weights are known by their order and ranks: Keras 3 numbers them, and older names differ between versions (kernel,
# depthwise_kernel, W_1). A layer's weights come in the order in which it made them, trained ones before running
# statistics. All formats are loaded by that order, so no version of Keras has changed it.
VARIABLES = {
    (4,): ("kernel",),
    (4, 1): ("kernel", "bias"),
    (2,): ("kernel",),
    (2, 1): ("kernel", "bias"),
    (1, 1, 1, 1): ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read_h5(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The weights by "<layer>/<variable>", such as ``conv1_conv/kernel`` or ``conv1_bn/gamma``, in Keras's layout.

    A depthwise kernel is a ``kernel`` too. Weights of layers other than convolution, dense and batch norm keep their
    names or numbers in the file. bfloat16 becomes float32.

    Raises:
        UsageError: no such file, no weights of Keras, damaged, or with values that lie outside the file.
        MissingExtraError: h5py is not installed.
    """
    try:
        with open_regular(path) as file:
            _check_signature(file, os.fspath(path))
            layers = _layers(os.fspath(path))
            return _arrays(file, layers)
    except UnfitError as error:
        raise UsageError(f"'{os.fspath(path)}' {error}") from error
    except OSError as error:
        raise cannot_read(path, error) from error


def _check_signature(file: IO[bytes], path: str) -> None:
    head = file.read(len(SIGNATURE))
    if head.startswith(ZIP):
        raise UnfitError(
            "is a whole Keras model in a zip archive, and weights alone are read. Open it in Keras and save them: "
            'model.save_weights("x.weights.h5").'
        )
    if head != SIGNATURE:
        raise UnfitError(f"expected an HDF5 file, received one that begins {head!r}. Fetch or save it again.")


def _layers(path: str) -> list[Any]:
    """The result of `hdf5_places`, which runs in a process of its own because it may crash."""
    if importlib.util.find_spec("h5py") is None:
        raise MissingExtraError("h5py", "keras", "Reading .h5 files")
    command = [sys.executable, "-P", str(Path(hdf5_places.__file__)), path]
    quiet = os.environ | {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}  # "::": load no plugins
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False, env=quiet)  # noqa: S603  # ours
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except (subprocess.TimeoutExpired, ValueError):
        answer = {}
    if "unfit" in answer:
        raise UnfitError(answer["unfit"])
    if "layers" not in answer:
        raise UnfitError("is damaged so badly that the HDF5 library failed on it. Fetch or save it again.")
    layers: list[Any] = answer["layers"]
    return layers


def _arrays(file: IO[bytes], layers: Sequence[Any]) -> dict[str, NDArray[Any]]:
    size = os.fstat(file.fileno()).st_size
    room, arrays = size, {}
    for layer, names, places in layers:
        variables = VARIABLES.get(tuple(len(shape) for _, shape, _ in places), names or map(str, range(len(places))))
        for variable, (kind, shape, offset) in zip(variables, places, strict=True):
            key = f"{layer}/{variable}"
            dtype = np.dtype("<u2" if kind == "bfloat16" else kind)
            nbytes = math.prod(shape) * dtype.itemsize
            room -= nbytes  # with shared values a small file could take much memory
            if room < 0 or not 0 <= offset <= size - nbytes:
                raise UnfitError(f"is truncated or damaged: {key[:80]!a} needs {nbytes} bytes. Fetch or save it again.")
            if key in arrays:
                raise UnfitError(f"has two layers of the same name: {key[:80]!a} is there twice.")
            file.seek(offset)
            array = read_array(file, dtype.str, shape, "was changed while it was read. Fetch or save it again.")
            arrays[key] = from_bfloat16(array) if kind == "bfloat16" else array
    if not arrays:
        raise UnfitError("expected weights, received a file without any.")
    return arrays
