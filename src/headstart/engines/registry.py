"""Opens any engine by its name, and any kind of backbone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import Node
from headstart.core.errors import MissingExtraError, UsageError
from headstart.core.quiet import quiet
from headstart.core.types import ImageSpec, Normalisation
from headstart.engines import frameworks
from headstart.engines.names import framework_of, resolve_engine
from headstart.engines.protocol import Network, Weights
from headstart.engines.summary import Summary

if TYPE_CHECKING:
    from headstart.backbones.catalogue import Pretrained


def get_engine(
    name: str,
    blueprint: Blueprint,
    weights: Weights,
    spec: ImageSpec,
    precision: str = "auto",
    device: str = "auto",
    *,
    module: object | None = None,
) -> Network:
    """Build the network on the engine called ``name``; ``module`` is the live module that the blueprint refers to."""
    engine = resolve_engine(name, blueprint, device)
    network: Network
    if engine == "torch":
        network = torch_engine().TorchNetwork(blueprint, weights, spec, precision, device, module=module)
    elif engine == "keras":
        network = keras_engine().KerasNetwork(blueprint, weights, spec, precision, device, module=module)
    else:
        from headstart.engines.fast import FastNetwork

        network = FastNetwork(blueprint, weights, spec, precision)
    return network


def check_present(engine: str, device: str) -> None:
    """Refuse a device that the framework of the engine "torch" or "keras" does not find.

    Raises:
        UsageError: it does not, or there is no such device.
        MissingExtraError: it is not installed.
    """
    if engine in ("torch", "keras"):
        (torch_engine() if engine == "torch" else keras_engine()).choose_device(device)


def open_backbone(
    backbone: object,
    weights: str | os.PathLike[str] | None = None,
    pixels: int | None = None,
    *,
    head: bool,
    spec: ImageSpec | Normalisation | None = None,
    features: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Pretrained, object | None]:
    """A network with its weights, and the live module where it is one.

    Args:
        backbone: a catalogued name, "timm/NAME", "keras/NAME", a ".keras" file, a `torch.nn.Module` or a `keras.Model`.
        weights: a file, in place of the usual ones.
        pixels: height and width to scale images to.
        head: whether to include the head of its own classes.
        spec: pixels that it wants, in place of those that are known of it; all of them, their size or their
            normalisation alone.
        features: of a module, see `engines.torch.modules.wrap`.
        progress: called with ("weights", bytes done, of how many) while they are fetched.
    """
    if pixels is not None and spec and spec.size not in (None, pixels):
        raise UsageError(f"pixels={pixels} and a spec of {spec.size} pixels name two sizes: give one of them.")
    framework = framework_of(backbone)
    if framework:
        engine = torch_engine() if framework == "torch" else keras_engine()
        wrapped = engine.wrap(backbone, weights, spec=spec, features=features, pixels=pixels)
        return wrapped.whole() if head else wrapped.trunk, wrapped.module
    if not isinstance(backbone, str):
        raise UsageError(
            "Expected the name of a backbone, a torch.nn.Module or a keras.Model. "
            f"Received: {type(backbone).__qualname__}."
        )
    if features is not None:
        raise UsageError(f"'{backbone}' has its own features; features='{features}' is for modules.")
    from headstart.backbones.catalogue import load_pretrained  # late: a saved model needs none of the catalogue

    size = pixels or (spec.size if spec else None)
    found = load_pretrained(backbone, weights, size, head=head, progress=progress)
    if spec is not None:
        found = replace(found, spec=replace(spec.beside(found.spec), size=found.spec.size))
    return found, None


def summary_of(source: str | Node, pixels: int | None = None) -> Summary:
    """The layers of a network of another library, by its name, or of the module that a node stands for.

    Args:
        source: "timm/NAME", "keras/NAME", a ".keras" file, or a node.
        pixels: height and width of the images; default: the network's own; of a node 224.

    Raises:
        UsageError: no such network, or a size that it does not take.
        MissingExtraError: its library is not installed.
    """
    framework = framework_of(source if isinstance(source, str) else source["source"])
    summary: Summary = (torch_engine() if framework == "torch" else keras_engine()).summary_of(source, pixels)
    return summary


def check_live(module: object, framework: str) -> None:
    """Refuse a live ``module`` that the engine of this framework cannot take, before anything is built of it."""
    (torch_engine() if framework == "torch" else keras_engine()).check_live(module)


def torch_engine() -> ModuleType:
    """The PyTorch engine, imported late.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    frameworks.guard()
    try:
        from headstart.engines.torch import network
    except ModuleNotFoundError as error:
        raise _missing(error, ("torch",), "torch", "The PyTorch engine") from error
    return network


def keras_engine() -> ModuleType:
    """The Keras engine, imported late.

    Raises:
        MissingExtraError: Keras or TensorFlow is not installed.
        UsageError: Keras runs on another framework in this process.
    """
    frameworks.guard()
    frameworks.check_keras_backend()
    try:
        # TensorFlow writes messages while it is imported, before it can be configured
        with contextlib.nullcontext() if frameworks.TENSORFLOW in sys.modules else quiet():
            from headstart.engines.keras import network

            network.check_backend()
    except ModuleNotFoundError as error:
        raise _missing(error, ("keras", "tensorflow"), "keras", "The Keras engine") from error
    return network


def _missing(error: ModuleNotFoundError, packages: Sequence[str], extra: str, what: str) -> Exception:
    missing = (error.name or "").partition(".")[0]
    return MissingExtraError(missing, extra, what) if missing in packages else error
