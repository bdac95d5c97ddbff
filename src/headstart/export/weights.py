"""Weights files for the loaders of other libraries, where a library has a network of the same form."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.hdf5 import VARIABLES
from headstart.backbones.names import COUNTER, KERAS, restore
from headstart.backbones.ops import Shape
from headstart.backbones.pth import read_pth
from headstart.core.errors import CheckError, UsageError, needs
from headstart.core.quiet import quiet
from headstart.core.types import ImageSpec
from headstart.engines import frameworks
from headstart.export.library_forms import LIBRARIES, Part, find_part

__all__ = ["LIBRARIES", "SUFFIX", "expects", "replay", "write"]

APPLICATIONS, TORCHVISION, TIMM = LIBRARIES
SUFFIX = {APPLICATIONS: ".weights.h5", TORCHVISION: ".pth", TIMM: ".safetensors"}
PREPROCESSING = {  # of keras.applications: model -> the module whose preprocess_input goes with it
    **{f"VGG{depth}": f"vgg{depth}" for depth in (16, 19)},
    **{f"ResNet{depth}": "resnet" for depth in (50, 101, 152)},
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    **{f"MobileNetV3{kind}": "mobilenet_v3" for kind in ("Small", "Large")},
}
CAFFE = (103.939, 116.779, 123.68)  # subtracted by preprocess_input from blue, green and red

Array = NDArray[Any]


def write(library: str, blueprint: Blueprint, weights: Mapping[str, Array], spec: ImageSpec, path: Path) -> str:
    """Write the weights of a network for a ``library``; of its trunk only, where the library has another head.

    Args:
        library: one of `LIBRARIES`.
        blueprint, weights, spec: the network; float32 arrays by the blueprint's names.
        path: ends in the library's `SUFFIX`.

    Returns:
        The line of Python that loads it; FILE stands for the path.

    Raises:
        UsageError: the library has no network of the same form; nothing is written.
        MissingExtraError: the library is not installed.
    """
    part = find_part(library, blueprint)
    if not path.name.endswith(SUFFIX[library]):
        raise UsageError(f"Weights for {library} end in {SUFFIX[library]}. Received: '{path.name}'.")
    own = {name: np.asarray(weights[name], np.float32) for name in blueprint.upto(part.node).weight_shapes()}
    if library == APPLICATIONS:
        with quiet():
            _write_keras(part, own, spec, path)
        return f"model = keras.applications.{_call(part.form.model, _keras_options(part, spec), weights='FILE')}"
    return _write_torch(part, own, path)


def replay(
    library: str, blueprint: Blueprint, spec: ImageSpec, path: Path, images: NDArray[np.uint8]
) -> tuple[str, NDArray[np.float32]]:
    """Run the library's own network, with weights loaded from ``path`` by its own loader, on uint8 NHWC ``images``.

    Returns:
        A node of the blueprint, and its values: (N, classes) of "logits", or a trunk's last feature map (N, channels,
        height, width).

    Raises:
        CheckError: the library has no place for some of the weights in the file.
    """
    part = find_part(library, blueprint)
    if library == APPLICATIONS:
        with quiet():
            return part.node, _replay_keras(part, spec, path, images)
    return part.node, _replay_torch(part, spec, path, images)


def expects(library: str, blueprint: Blueprint, spec: ImageSpec) -> dict[str, Any]:
    """The input of the library's network with these weights.

    Returns:
        "order" of the channels, "mean" and "std" in that order, of pixels from 0 to 1; and "in words", with the
        library's own function where that does the same.
    """
    part = find_part(library, blueprint)
    turn = -1 if _blue_first(part) else 1
    order, mean, std = "RGB"[::turn], spec.mean[::turn], spec.std[::turn]
    words = f"{order}, (x / 255 - mean) / std with mean {_listed(mean)} and std {_listed(std)}"
    if library == APPLICATIONS:
        if _scales_itself(part, spec):
            words = "RGB from 0 to 255; the network scales them itself"
        elif _is_customary(part, spec):
            words = f"keras.applications.{PREPROCESSING[part.form.model]}.preprocess_input, of RGB from 0 to 255"
    return {"order": order, "mean": mean, "std": std, "in words": words}


# --- keras.applications -----------------------------------------------------------------------------------------------


def _write_keras(part: Part, weights: Mapping[str, Array], spec: ImageSpec, path: Path) -> None:
    model = _keras_model(part, spec, None)
    layers: dict[str, Any] = {layer.name: layer for layer in model.layers if layer.weights}
    keys: dict[str, Shape] = {}
    for name, layer in layers.items():
        shapes = [tuple(each.shape) for each in layer.weights]
        variables = VARIABLES[tuple(map(len, shapes))]
        keys |= {f"{name}/{variable}": shape for variable, shape in zip(variables, shapes, strict=True)}
    arrays = _placed(weights, keys, KERAS, part)
    for name, layer in layers.items():
        layer.set_weights([array for key, array in arrays.items() if key.rpartition("/")[0] == name])
    model.save_weights(path)


def _replay_keras(part: Part, spec: ImageSpec, path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = images.astype(np.float32) if _scales_itself(part, spec) else _normalised(images, spec)
    if _blue_first(part):
        pixels = pixels[..., ::-1]
    model = _keras_model(part, spec, str(path))
    value = np.array(model(pixels, training=False), np.float32)  # predict would trace the model first
    return value if part.classes else value.transpose(0, 3, 1, 2)


def _keras_model(part: Part, spec: ImageSpec, weights: str | None) -> Any:
    frameworks.guard()
    frameworks.check_keras_backend()
    with needs("keras", "keras", f"Writing weights for {APPLICATIONS}"):
        import keras
    return getattr(keras.applications, part.form.model)(weights=weights, **_keras_options(part, spec))


def _keras_options(part: Part, spec: ImageSpec) -> dict[str, Any]:
    options: dict[str, Any] = {**part.form.options, "include_top": bool(part.classes)}
    options |= {"input_shape": (spec.size, spec.size, 3)}
    options |= {"classes": part.classes} if part.classes not in (0, 1000) else {}
    options |= {"classifier_activation": None} if part.classes else {}  # logits, where it would give probabilities
    if PREPROCESSING[part.form.model] == "mobilenet_v3" and not _scales_itself(part, spec):
        options["include_preprocessing"] = False
    return options


def _blue_first(part: Part) -> bool:
    return part.library == APPLICATIONS and part.form.model.startswith(("VGG", "ResNet"))


def _scales_itself(part: Part, spec: ImageSpec) -> bool:
    """Whether the model has its preprocessing inside, and the weights were trained with it."""
    return PREPROCESSING[part.form.model] == "mobilenet_v3" and _is_customary(part, spec)


def _is_customary(part: Part, spec: ImageSpec) -> bool:
    """Whether the weights were trained with keras.applications' preprocessing of this model."""
    mean, scale = ([each / 255 for each in CAFFE[::-1]], 1 / 255) if _blue_first(part) else ([0.5] * 3, 0.5)
    return np.allclose(spec.mean, mean, atol=1e-7) and np.allclose(spec.std, scale, atol=1e-7)


# --- torchvision and timm ---------------------------------------------------------------------------------------------


def _write_torch(part: Part, weights: Mapping[str, Array], path: Path) -> str:
    torch = _torch(part.library)
    with torch.device("meta"):
        state = _torch_model(part).state_dict()
    keys = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.endswith(COUNTER)}
    arrays = _placed(weights, keys, part.library, part)
    layers = {key.rpartition(".")[0] for key in arrays}
    tensors = {key: torch.from_numpy(arrays[key]) for key in state if key in arrays}
    counters = [key for key in state if key.endswith(COUNTER) and key.removesuffix(COUNTER) in layers]
    tensors |= {key: torch.zeros((), dtype=torch.int64) for key in counters}
    if part.library == TIMM:
        from safetensors.torch import save as to_bytes

        path.write_bytes(to_bytes(tensors, metadata={"format": "pt"}))
    else:
        content = io.BytesIO()  # PyTorch's own writer does not say that a disk is full
        torch.save(tensors, content)
        path.write_bytes(content.getbuffer())
    lacking = sorted({key.rpartition(".")[0] for key in keys} - layers)
    return _torch_call(part, lacking)


def _torch_call(part: Part, lacking: list[str]) -> str:
    """The line that makes ``model`` and loads the file; ``lacking`` are layers of the head that are not in the file."""
    options = _torch_options(part)
    note = f"  # without its head: {', '.join(lacking)}" if lacking else ""
    if part.library == TORCHVISION:
        strict = ", strict=False" if lacking else ""
        model = f"model = torchvision.models.{_call('get_model', options, part.form.model)}"
        return f'{model}; model.load_state_dict(torch.load("FILE", weights_only=True){strict}){note}'
    if lacking:
        model = f"model = timm.{_call('create_model', options, part.form.model)}"
        return f'{model}; timm.models.load_checkpoint(model, "FILE", strict=False){note}'
    return f"model = timm.{_call('create_model', options, part.form.model, checkpoint_path='FILE')}"


def _replay_torch(part: Part, spec: ImageSpec, path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    torch = _torch(part.library)
    model = _torch_model(part)
    if part.library == TIMM:
        from timm.models import load_checkpoint

        left = load_checkpoint(model, str(path), strict=False)  # as create_model does, but the head may be missing
    else:
        state = {key: torch.from_numpy(array) for key, array in read_pth(path).items()}
        left = model.load_state_dict(state, strict=False)
    if wrong := [*left.unexpected_keys, *(left.missing_keys if part.classes else ())]:
        raise CheckError(
            f"'{path}' does not fit {part.library}'s {part.form.model}: {wrong[0]} is missing or has no place."
        )
    pixels = torch.from_numpy(_normalised(images, spec).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        model.eval()
        if part.classes:
            value = model(pixels)
        elif part.library == TIMM:
            value = model.forward_features(pixels)
        else:
            resnet = torch.nn.Sequential(*list(model.children())[:-2])  # without average and head
            value = (model.features if hasattr(model, "features") else resnet)(pixels)
    return np.asarray(value.numpy(), np.float32)


def _torch_model(part: Part) -> Any:
    options = _torch_options(part)
    if part.library == TIMM:
        import timm

        return timm.create_model(part.form.model, **options)
    import torchvision

    return torchvision.models.get_model(part.form.model, **options)


def _torch_options(part: Part) -> dict[str, Any]:
    options: dict[str, Any] = dict(part.form.options)
    if part.classes not in (0, 1000):
        options["num_classes"] = part.classes
    if part.library == TIMM and not part.classes:
        options["num_classes"] = 0
    return options


def _torch(library: str) -> Any:
    frameworks.guard()
    with needs("torch", "torch", f"Writing weights for {library}"):
        import torch
    with needs(library, "torch", f"Writing weights for {library}"):
        importlib.import_module(library)
    return torch


# --- both -------------------------------------------------------------------------------------------------------------


def _placed(weights: Mapping[str, Array], keys: Mapping[str, Shape], names: str, part: Part) -> dict[str, Array]:
    """All weights under the library's ``keys`` and in its shapes."""
    arrays = restore(weights, keys, names)
    for key, array in arrays.items():
        if array.shape != keys[key]:
            raise UsageError(
                f"{part.form.model} has {key} of shape {keys[key]}; these weights are of {array.shape}, "
                "for images of another size."
            )
    if len(arrays) != len(weights) or (part.classes and len(arrays) != len(keys)):
        raise CheckError(f"{part.form.model}: expected {len(weights)} weights, found places for {len(arrays)}.")
    return {key: np.ascontiguousarray(array) for key, array in arrays.items()}


def _normalised(images: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.float32]:
    return np.asarray((images / 255 - np.array(spec.mean)) / np.array(spec.std), np.float32)


def _call(function: str, options: Mapping[str, Any], *places: str, **first: str) -> str:
    """A function call as Python code."""
    named = [f"{name}={_typed(value)}" for name, value in (first | dict(options)).items()]
    return f"{function}({', '.join([*map(_typed, places), *named])})"


def _typed(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _listed(numbers: tuple[float, ...]) -> str:
    return f"({', '.join(f'{number:.6g}' for number in numbers)})"
