"""What tests of exports share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.export import onnx as to_onnx
from headstart.export import openvino as to_openvino
from headstart.export.package import Package

LIGHT = {"onnx": to_onnx, "openvino": to_openvino}  # formats that load no framework


def nothing_in(place: Path) -> bool:
    return not list(place.iterdir())


def stand_in(monkeypatch: pytest.MonkeyPatch, to: str, after: Callable[[Path], None]) -> None:
    """Let something happen once a format's writer has written."""
    write = LIGHT[to].write

    def first_write(package: Package, path: Path) -> None:
        write(package, path)
        after(path)

    monkeypatch.setattr(LIGHT[to], "write", first_write)


def raising(error: BaseException) -> Callable[[Path], None]:
    def give_up(_: Path) -> None:
        raise error

    return give_up


def with_other_logits(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[..., dict[str, NDArray[Any]]]:
    """A replay of ONNX files that gives other logits."""
    replay = to_onnx.replay

    def changed(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        found = replay(path, images)
        return found | {"logits": change(found["logits"])}

    return changed
