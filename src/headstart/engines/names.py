"""The engines by name, and which of them can run a network, without importing a framework."""

from __future__ import annotations

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES
from headstart.core.errors import UsageError, did_you_mean
from headstart.engines.protocol import APPLICATIONS, LIVE, LIVE_KERAS, TIMM

ENGINES = ("auto", "fast", "torch", "keras")


def framework_of(backbone: object) -> str:
    """Which framework alone can run a network: "torch", "keras", or "" where a blueprint describes it.

    Of a name, a blueprint's source, or a live object; imports no framework.
    """
    if isinstance(backbone, str):
        if backbone in BACKBONES:  # some names end in ".keras"
            return ""
        if backbone.startswith((APPLICATIONS, LIVE_KERAS)) or backbone.lower().endswith(".keras"):
            return "keras"
        return "torch" if backbone.startswith((TIMM, LIVE)) else ""
    makers = {base.__module__.partition(".")[0] for base in type(backbone).__mro__}
    return next((name for name in ("keras", "torch") if name in makers), "")


def resolve_engine(name: str, blueprint: Blueprint) -> str:
    """The engine, "auto" resolved: fast, or the framework that alone can run the network.

    Raises:
        UsageError: no such engine, or one that cannot run this network.
    """
    if name not in ENGINES:
        raise UsageError(f"There is no engine '{name}'. {did_you_mean(name, ENGINES)}")
    needed = framework_of(blueprint.source)
    if needed and name not in ("auto", needed):
        kind = {"torch": "PyTorch module", "keras": "Keras model"}[needed]
        raise UsageError(
            f"'{blueprint.source}' is a {kind}, which only the {needed} engine can run. Received: --engine {name}. "
            f"Take: --engine {needed}"
        )
    return name if name != "auto" else needed or "fast"
