"""OpenVINO's Python module, without the parts of it that a network does not need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

TELEMETRY = "openvino_telemetry"  # would open a network connection
CONVERTER = "openvino.tools.ovc"  # of other frameworks' models; takes a third of the time of importing OpenVINO


def import_openvino() -> ModuleType:
    """OpenVINO. Whoever else in this process wants its converter has it when it is first used."""
    first = "openvino" not in sys.modules
    with _as_if_not_installed(TELEMETRY, CONVERTER):
        import openvino as ov
    if first:
        from openvino import tools

        _import_late(ov, "convert_model")
        _import_late(tools, "ovc")
    found: ModuleType = ov
    return found


@contextmanager
def _as_if_not_installed(*names: str) -> Iterator[None]:
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: importing it fails
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _import_late(package: Any, name: str) -> None:
    """Give a package an attribute of the converter, imported when it is first asked for."""

    def late(asked: str) -> Any:
        if asked != name:
            raise AttributeError(f"module {package.__name__!r} has no attribute {asked!r}", name=asked, obj=package)
        ovc = importlib.import_module(CONVERTER)
        return ovc if name == "ovc" else getattr(ovc, name)

    if not hasattr(package, "__getattr__"):  # a version that does something of the kind itself
        package.__getattr__ = late
