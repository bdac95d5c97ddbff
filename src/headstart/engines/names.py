"""The engines by name, and which of them can run a network, without importing a framework."""

from __future__ import annotations

from headstart.backbones.blueprint import Blueprint
from headstart.core.errors import UsageError
from headstart.core.processors import cores
from headstart.engines.devices import check_device_name
from headstart.engines.protocol import (
    APPLICATIONS,
    LIVE,
    LIVE_KERAS,
    NO_INT8,
    PRECISIONS,
    TIMM,
    check_known,
)

ENGINES = ("auto", "fast", "torch", "keras")
HOME = ("auto", "cpu")  # devices of the fast engine


def framework_of(backbone: object) -> str:
    """Which framework alone can run a network: "torch", "keras", or "" where a blueprint describes it.

    Of a name, a blueprint's source, or a live object; imports no framework.
    """
    if isinstance(backbone, str):
        if backbone.startswith((APPLICATIONS, LIVE_KERAS)):
            return "keras"
        if backbone.lower().endswith(".keras"):  # a file, but some names of the catalogue end so
            from headstart.backbones.published import BACKBONES

            return "" if backbone in BACKBONES else "keras"
        return "torch" if backbone.startswith((TIMM, LIVE)) else ""
    makers = {base.__module__.partition(".")[0] for base in type(backbone).__mro__}
    return next((name for name in ("keras", "torch") if name in makers), "")


def check_running(engine: str, precision: str = "auto", device: str = "auto") -> None:
    """Refuse names that are unknown, a device that the engine can never give, and a number of threads that is none.

    Raises:
        UsageError: one of them.
    """
    cores()
    check_known("engine", engine, ENGINES)
    check_known("precision", precision, PRECISIONS)
    if precision == "int8" and engine not in ("auto", "fast"):
        raise UsageError(f"Only the fast engine computes in int8. Received: --engine {engine}. {NO_INT8}")
    check_device_name(device)
    if engine == "fast" and device not in HOME:
        raise UsageError(
            f"The fast engine computes on the processor (cpu). Received: --device {device}. "
            "Leave --engine out, or take: --engine torch or --engine keras"
        )


def resolve_engine(name: str, blueprint: Blueprint, device: str = "auto") -> str:
    """The engine, "auto" resolved: the framework that alone can run the network, or fast; torch on an accelerator.

    Raises:
        UsageError: no such engine, or one that cannot run this network, or not on this device.
    """
    check_running(name, device=device)
    needed = framework_of(blueprint.source)
    if needed and name not in ("auto", needed):
        kind = {"torch": "PyTorch module", "keras": "Keras model"}[needed]
        raise UsageError(
            f"'{blueprint.source}' is a {kind}, which only the {needed} engine can run. Received: --engine {name}. "
            f"Take: --engine {needed}"
        )
    return name if name != "auto" else needed or ("fast" if device in HOME else "torch")
