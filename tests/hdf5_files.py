"""HDF5 files made for tests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from headstart.backbones import hdf5, hdf5_places

KERNEL, VECTOR = np.arange(72, dtype=np.float32).reshape(3, 3, 2, 4), np.arange(4, dtype=np.float32)


NORM = [VECTOR + place for place in range(4)]


def counted(path: Path, layers: Mapping[str, list[Any]], **more: Any) -> Path:
    """A file as Keras 3 writes it: groups are classes, and the layer's name is an attribute."""
    with h5py.File(path, "w", **more) as file:
        for place, (name, arrays) in enumerate(layers.items()):
            group = file.create_group(f"layers/layer_{place}/vars")
            group.attrs["name"] = name
            for number, array in enumerate(arrays):
                group[str(number)] = array
    return path


def legacy(path: Path, layers: Mapping[str, Mapping[str, Any]], root: str = "/") -> Path:
    """A file as Keras 1, 2 and tf.keras wrote it: attributes list layers and weights."""
    with h5py.File(path, "w") as file:
        group = file.require_group(root)
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            layer = group.require_group(name)
            layer.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                layer[each] = array
    return path


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the process of its own, where a file is odd but not damaged; starting one takes most of a test's time."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 0, json.dumps(hdf5_places.main(command[-1])).encode())

    monkeypatch.setattr(hdf5, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))
