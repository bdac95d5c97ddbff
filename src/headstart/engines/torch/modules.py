"""Any `torch.nn.Module`, and any model of timm by name, as one node of a blueprint."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones.blueprint import FEATURES, INPUT
from headstart.backbones.download import HUB, find_weights
from headstart.backbones.ops import Node
from headstart.backbones.prefixes import unwrapped
from headstart.backbones.weights import Weights, WeightsRecord, match, read_weights
from headstart.core.errors import MissingExtraError, UsageError
from headstart.core.types import ImageSpec, Normalisation
from headstart.engines.protocol import LIVE, TIMM
from headstart.engines.torch.module_layers import (
    TRIED,
    InnerLayers,
    Trace,
    alone_leads_to_output,
    given_images,
    takes_grey,
)
from headstart.engines.wrapped import Wrapped, assumed_pixels, attempt, check_pixels, check_same, make_trunk

IMAGENET = ImageSpec(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def wrap(
    source: object,
    weights: str | os.PathLike[str] | None = None,
    *,
    spec: ImageSpec | Normalisation | None = None,
    features: str | None = None,
    pixels: int | None = None,
) -> Wrapped:
    """A trunk of "timm/NAME" or of a live module.

    Args:
        source: the name, or the module; a module is copied and stays as it is. One that takes a single channel gets
            the luma of the pixels.
        weights: a file (.safetensors, .pth) with its state dict. Without one timm fetches the weights, and a live
            module keeps those that it has.
        spec: pixels that it wants; default, and where it says the size alone: what timm's record says, also that of a
            live module or of the one within it that gets the images unchanged, else 224 of them with ImageNet's mean
            and std.
        features: path of the layer whose output, averaged over height and width, is the feature vector; "" for the
            module's own output. Default: the input of its last linear layer.
        pixels: height and width to scale images to, in place of those of ``spec``.

    Raises:
        UsageError: no such model or layer, a module that cannot be copied, has no recognisable head or fails on images.
    """
    check_pixels(pixels)
    named, assumed = isinstance(source, str), ""
    if isinstance(source, str):
        name, model = source, timm_model(source)
        config = dict(model.pretrained_cfg)
        record = _timm_record(source, config)
        known = timm_spec(source, config)
    else:
        model = _copy(source)
        config = dict(model.pretrained_cfg) if _is_timm(model) else {}
        name = f"{LIVE}{type(model).__module__}.{type(model).__qualname__}"
        said = _spec_of(model) or _spec_within(model, name, pixels or (spec.size if spec else None))
        known = said or IMAGENET
        if not said:
            assumed = assumed_pixels(name, spec, known, "ImageNet's mean and standard deviation")
        record = WeightsRecord(origin=name, licence="its own", names="timm")
    spec = spec.beside(known) if spec else known
    if named:
        check_fixed_size(name, config, spec.size, pixels)
    if pixels is not None:
        spec = replace(spec, size=pixels)

    grey = not named and takes_grey(model, spec.size, name)
    linear = _find_head(model, spec.size, name, grey=grey) if features is None else None
    headless = linear is None and (named or features is None)  # timm itself takes the head away
    if headless and not _is_timm(model):
        raise UsageError(_no_head(model, spec.size, name, grey=grey))
    if headless:
        before = {*model.state_dict()}
        _behead(model, "")
        config["classifier"] = {key.rpartition(".")[0] for key in before - {*model.state_dict()}}  # layers
    if named and weights is None:
        weights = find_weights(record)
    whole = weights is None or _fill(model, weights, linear, config)
    head = _linear_weights(model.get_submodule(linear)) if linear and whole else None
    if linear:
        _behead(model, linear)
    path = linear or features or ""
    about = {"source": name, "features": path} | ({"grey": True} if grey else {})
    units = InnerLayers(Node(FEATURES, "module", (INPUT,), about), model, spec.size).units
    arrays, learned = _floats(model), dict(model.named_parameters(remove_duplicate=False))
    statistics = tuple(key for key in arrays if key not in learned)
    removed = linear is not None or (headless and not named)
    attrs = about | {"head": removed, "config": "", "units": units, "statistics": statistics}
    trunk = replace(make_trunk(name, arrays, attrs, spec, record), assumed=assumed)
    return Wrapped(trunk, model, head)


def build_module(node: Node, live: object | None) -> Any:
    """The module that a node stands for: a copy without its head, in evaluation mode, its weights not yet filled.

    Raises:
        UsageError: a live module other than the node's.
    """
    model = timm_model(node["source"]) if live is None else _copy(live)
    if node["head"]:
        _behead(model, node["features"])
    elif live is None:
        _behead(model, "")
    check_same(node, {name: tuple(value.shape) for name, value in model.state_dict().items()})
    return model


def check_fixed_size(name: str, config: Mapping[str, Any], size: int, pixels: int | None) -> None:
    """Refuse other ``pixels`` than its ``size`` where timm's record says that a model takes no others."""
    if config.get("fixed_input_size") and pixels not in (None, size):
        raise UsageError(f"'{name}' takes images of {size} pixels and no others. Received: {pixels}.")


def check_live(module: object) -> None:
    """Refuse what is no `torch.nn.Module`, and one that is or holds TorchScript: its layers take no hooks.

    Raises:
        UsageError: either.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"Expected the name of a backbone or a torch.nn.Module. Received: {type(module).__qualname__}."
        )
    for path, submodule in module.named_modules():
        if isinstance(submodule, torch.jit.ScriptModule):
            what = f"holds a TorchScript module at '{path}'" if path else "is a TorchScript module"
            raise UsageError(
                f"'{type(module).__qualname__}' {what}: what torch.jit made cannot be looked into. "
                "Give the torch.nn.Module that it was made from."
            )


def _copy(module: Any) -> Any:
    """A copy in evaluation mode, float32, on the processor, without in-place operations."""
    check_live(module)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    return _prepared(attempt(f"The module {type(module).__qualname__} cannot be copied", lambda: copy.deepcopy(module)))


def _prepared(model: Any) -> Any:
    for submodule in model.modules():
        if getattr(submodule, "inplace", False) is True:  # it would change values that were read earlier
            submodule.inplace = False
    return model.cpu().float().eval()


def timm_model(source: str) -> Any:
    """The model "timm/NAME" with random weights, in evaluation mode.

    Raises:
        UsageError: timm has no such model, or cannot build it.
        MissingExtraError: timm is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError("timm", "torch", f"The network '{source}'") from error
    name = source.removeprefix(TIMM)
    if not timm.is_model(name.partition(".")[0]):  # not "hf-hub:…" or "local-dir:…", which would read foreign files
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "timm.list_models() names them."
        raise UsageError(f"timm has no model '{name[:80]}'. {hint}")
    # it fails for an unknown tag, or a package that the model needs
    return _prepared(attempt(f"timm cannot build '{name}'", lambda: timm.create_model(name, pretrained=False)))


def _timm_record(source: str, config: dict[str, Any]) -> WeightsRecord:
    """Where timm keeps a model's weights: on the Hub, as safetensors; some have none."""
    repository = config.get("hf_hub_id") or ""
    return WeightsRecord(
        origin=source,
        licence=str(config.get("license") or "unknown"),
        names="timm",
        url=f"{HUB}{repository}/{config.get('hf_hub_filename') or 'model.safetensors'}" if repository else "",
    )


def _spec_of(model: Any) -> ImageSpec | None:
    """The pixels that a live module wants: timm's says so, and torchvision's all want ImageNet's."""
    if type(model).__module__.startswith("torchvision.models."):
        return IMAGENET
    config = dict(model.pretrained_cfg) if _is_timm(model) else {}
    if not {"input_size", "mean", "std", "crop_pct", "interpolation"} <= set(config):
        return None
    return timm_spec(type(model).__qualname__, config)


def _spec_within(model: Any, name: str, size: int | None) -> ImageSpec | None:
    """The pixels of the one model of timm within a module, if it gets the images as they are.

    None where there is none, or where other weights get the images, too.
    """
    known = [path for path, each in model.named_modules() if path and _is_timm(each)]
    try:
        said = {path: spec for path in known if (spec := _spec_of(model.get_submodule(path)))}
        size = size or max(spec.size for spec in said.values()) if said else None
        if size is None:
            return None
        given = given_images(model, size, name, grey=takes_grey(model, size, name))
    except UsageError:
        return None  # what is wrong with it is said when it is taken apart
    first = next((path for path in given if path in said), None)
    weighted = [path for path in given if next(model.get_submodule(path).parameters(recurse=False), None) is not None]
    return said[first] if first and all(f"{path}.".startswith(f"{first}.") for path in weighted) else None


def _is_timm(model: Any) -> bool:
    """Whether it is one of timm's models, which have a record of their weights and remove their heads themselves."""
    return isinstance(getattr(model, "pretrained_cfg", None), Mapping) and hasattr(model, "reset_classifier")


def timm_spec(source: str, config: Mapping[str, Any]) -> ImageSpec:
    """The pixels that a model wants, from timm's record of it."""
    channels, size = config["input_size"][:2]
    if channels != 3 or len(config["mean"]) != 3:
        raise UsageError(f"Images have 3 channels. '{source}' takes {channels}.")
    resample = config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic"
    return ImageSpec(size, tuple(config["mean"]), tuple(config["std"]), float(config["crop_pct"]), resample)


def _find_head(model: Any, size: int, name: str, *, grey: bool) -> str | None:
    """The path of the linear layer that ends the network: no layer after it has weights, no way leads past it."""
    trace = Trace(model, size, name, grey=grey)
    path = trace.last_weighted
    output = trace.outputs.get(path)
    fits = isinstance(output, Tensor) and output.ndim == 2 and len(output) == TRIED and trace.calls[path] == 1
    if not (path and fits and isinstance(model.get_submodule(path), nn.Linear)):
        return None
    return path if alone_leads_to_output(model, path, size, grey=grey) else None


def _no_head(model: Any, size: int, name: str, *, grey: bool) -> str:
    trace = Trace(model, size, name, grey=grey)
    last = trace.last_weighted
    kind = type(model.get_submodule(last)).__name__ if last else "nothing with weights"
    kind = f"another way to the output beside the {kind}" if kind == "Linear" else kind
    return (
        f"'{name}' has no head that can be recognised: looked for a torch.nn.Linear after which nothing has weights, "
        f"found {kind}{f' at {last!r}' if last else ''} at the end. Name the layer whose output is to be the features: "
        f"features='PATH', one of {', '.join([path for path in trace.outputs if path][-6:])} and others, or "
        "features='' for the module's own output."
    )


def _behead(model: Any, path: str) -> None:
    """Replace the head at this path by the identity, if it is there; "": have timm remove the heads of its model."""
    if not path:
        attempt(
            f"The head of '{type(model).__qualname__}' cannot be removed as timm does it",
            lambda: model.reset_classifier(0),
        )
    elif path in dict(model.named_modules()):
        place, _, leaf = path.rpartition(".")
        model.get_submodule(place)._modules[leaf] = nn.Identity()


def _fill(model: Any, file: str | os.PathLike[str], linear: str | None, config: dict[str, Any]) -> bool:
    """Take the weights of a file; returns whether it has those of the head."""
    shapes = {name: tuple(value.shape) for name, value in _floats(model).items()}
    given = {name: array for name, array in read_weights(file).items() if array.dtype.kind == "f"}  # without counters
    classifier = config.get("classifier") or ()
    heads = {classifier} if isinstance(classifier, str) else {*classifier}
    kept = match(unwrapped(given, shapes), shapes, file, ignore=heads | ({linear} if linear else set()))
    state = model.state_dict()
    for name, array in kept.items():
        state[name].copy_(torch.tensor(array))
    return len(kept) == len(shapes)


def _floats(model: Any) -> Weights:
    """Its state dict without counters and indices, which belong to the code."""
    return {name: value.numpy() for name, value in model.state_dict().items() if value.is_floating_point()}


def _linear_weights(linear: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    bias = np.zeros(linear.out_features, np.float32) if linear.bias is None else linear.bias.detach().numpy()
    return linear.weight.detach().numpy(), bias
