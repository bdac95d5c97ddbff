"""Any `keras.Model`, any network of `keras.applications` by name, and ".keras" files, as one node of a blueprint."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from headstart.backbones.ops import Node
from headstart.backbones.weights import WeightsRecord
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec, Normalisation
from headstart.engines.keras.applications import application, fill
from headstart.engines.keras.config import POLICY, from_text, to_text
from headstart.engines.keras.files import open_file
from headstart.engines.keras.flat_model import (
    find_head,
    head_weights,
    inner_tensors,
    last_weighted,
    model_name,
    unroll,
    variables,
)
from headstart.engines.keras.inputs import own_size
from headstart.engines.keras.pixels import BYTES, wanted
from headstart.engines.protocol import APPLICATIONS, LIVE_KERAS, nearest
from headstart.engines.wrapped import Wrapped, assumed_pixels, attempt, check_pixels, check_same, make_trunk

__all__ = ["build_model", "inner_tensors", "variables", "wrap"]

MOST_VALUES = 1 << 29  # of one layer for one image, 2 GiB in float32


def wrap(
    source: object,
    weights: str | os.PathLike[str] | None = None,
    *,
    spec: ImageSpec | Normalisation | None = None,
    features: str | None = None,
    pixels: int | None = None,
) -> Wrapped:
    """A trunk of "keras/NAME", of a ".keras" file or of a live model.

    Args:
        source: the name, the file, or the model; a model is copied and stays as it is. One that takes a single channel
            gets the luma of the pixels.
        weights: a file (.weights.h5, .h5) with its weights. Without one a network of `keras.applications` takes those
            that Keras would download, and any other keeps its own.
        spec: pixels that it wants; default, and where it says the size alone: of `keras.applications`, and of models
            that are one or give one their images unchanged, what its ``preprocess_input`` gives, else those of the
            model's input, from 0 to 255, as Keras' own loaders give them.
        features: the layer whose output, averaged over height and width, is the feature vector; "" for the model's own
            output. Default: the input of its last dense layer.
        pixels: height and width to scale images to, in place of those of ``spec``.

    Raises:
        UsageError: no such model, layer or file, one that would run code, one that cannot be copied, has no
            recognisable head or fails on images.
    """
    check_pixels(pixels)
    flip, whole, assumed = False, True, ""
    if isinstance(source, str) and source.startswith(APPLICATIONS):
        found = application(source, weights, pixels if spec is None else pixels or spec.size)
        name, model, record, flip, whole = source, found.model, found.record, found.flip, found.whole
        known = found.spec
    else:
        model = open_file(source) if isinstance(source, str) else source
        check_live(model)
        name = f"{LIVE_KERAS}{_name_of(model)}"
        asked = pixels or (spec.size if spec else None)
        size = own_size(model, name) or BYTES.size
        inner: list[tuple[Any, Any]] = []
        flat, whole = _copied(model, asked or size, name, weights, models=inner)
        said = attempt(f"'{name}' fails on images", lambda: wanted(flat, inner))
        known, flip = said or (BYTES, False)
        known = replace(known, size=size)
        if not said:
            assumed = assumed_pixels(name, spec, known, "pixels from 0 to 255")
        flip = flip and (spec is None or spec.beside(known) != spec)  # who says all of the pixels says their order
        record = WeightsRecord(origin=name, licence="its own", names="keras")
    spec = spec.beside(known) if spec else known
    if pixels is not None:
        spec = replace(spec, size=pixels)

    if name.startswith(APPLICATIONS):
        flat = unroll(model, spec.size, name, flip=flip)
    elif flip:
        flat, whole = _copied(model, spec.size, name, weights, flip=True)
    head = find_head(flat) if features is None else None
    if head is None and features is None and not name.startswith(APPLICATIONS):
        raise UsageError(_no_head(flat, name))
    path = head[0].name if head else features or ""
    trunk = _cut(flat, path, name, head=head is not None)
    arrays = {key: np.array(each.numpy(), np.float32) for key, each in variables(trunk).items()}
    statistics = tuple(key for key, each in variables(trunk).items() if not each.trainable)
    config, units = to_text(trunk), int(trunk.output.shape[-1])
    if flip and not config:
        raise UsageError(
            f"'{name}' takes blue, green, red as {model_name(model)} does, and has layers of its own. Put the "
            "preprocess_input of keras.applications into the model, or name the pixels: spec=hs.ImageSpec(…)"
        )
    attrs = {
        "features": path,
        "head": head is not None,
        "config": config,
        "units": units,
        "statistics": statistics,
    }
    own = head_weights(head[0]) if head and whole else None
    made = replace(make_trunk(name, arrays, attrs, spec, record), assumed=assumed)
    return Wrapped(made, None if config else flat, own)


def build_model(node: Node, live: object | None, size: int, policy: str = POLICY) -> Any:
    """The model that a node stands for, without its head; its weights not yet filled.

    Normalised images (N, size, size, 3) in; a map, tokens or a vector out. ``policy`` is its layers' dtype policy.

    Raises:
        UsageError: a live model other than the node's, or an architecture that was tampered with.
    """
    source = node["source"]
    if live is None:
        count = sum(math.prod(shape) for shape in node["weights"].values())
        model = from_text(node["config"], source, policy, most=count)
    else:
        check_live(live)
        flat = unroll(live, size, source, policy)
        model = _cut(flat, node["features"], source, head=node["head"])
    check_same(node, {name: tuple(each.shape) for name, each in variables(model).items()})
    return model


def check_live(model: object) -> None:
    """Refuse what is no `keras.Model`."""
    if not isinstance(model, keras.Model):
        raise UsageError(f"Expected the name of a backbone or a keras.Model. Received: {type(model).__qualname__}.")


def _copied(
    model: Any,
    size: int,
    name: str,
    weights: str | os.PathLike[str] | None,
    *,
    flip: bool = False,
    models: list[tuple[Any, Any]] | None = None,
) -> tuple[Any, bool]:
    """A flat copy of a model, with the weights of a file where there is one; and whether its head has weights."""
    flat = unroll(model, size, name, flip=flip, models=models)
    check_values(flat, name)
    return flat, weights is None or fill(flat, weights)


def check_values(flat: Any, name: str) -> None:
    """Refuse a model of which one layer gives too many values.

    Raises:
        UsageError: names the layer.
    """
    for layer, tensor in inner_tensors(flat).items():
        count = math.prod(size for size in tensor.shape[1:] if size)
        if count > MOST_VALUES:
            raise UsageError(
                f"'{name}': layer '{layer}' gives {count:,} values for one image, and up to {MOST_VALUES:,} are taken. "
                "Take fewer pixels, or another network."
            )


def _name_of(model: Any) -> str:
    kind = type(model)
    own = kind.__module__.partition(".")[0] == "keras"
    return model_name(model) if own else f"{kind.__module__}.{kind.__qualname__}"


def _cut(flat: Any, layer: str, source: str, *, head: bool) -> Any:
    """The part of a flat model up to a ``layer``, or up to its input if it is the head; "": the whole model."""
    tensors = inner_tensors(flat)
    if head:
        found = find_head(flat)
        if found is None or found[0].name != layer:
            raise UsageError(
                f"The module given is not the one that the model was made of ({source}): its head is not '{layer}'."
            )
        output = found[1]
    elif layer:
        if layer not in tensors:
            raise UsageError(
                f"'{source}' has no layer '{layer}' that could give the features. {nearest(layer, tensors)}"
            )
        output = tensors[layer]
    else:
        output = flat.outputs[0]
        if len(flat.outputs) != 1 or not 2 <= len(output.shape) <= 4 or None in output.shape[1:]:
            raise UsageError(
                f"'{source}' returns {', '.join(str(tuple(each.shape)) for each in flat.outputs)}; expected one tensor "
                "with a row for each image. Name a layer that gives one: features='LAYER'"
            )
    return keras.Model(flat.inputs, output, name=flat.name)


def _no_head(flat: Any, name: str) -> str:
    last = last_weighted(flat)
    kind = f"{type(last[0]).__name__} at {last[0].name!r}" if last else "several ways"
    layers = ", ".join([*inner_tensors(flat)][-6:])
    return (
        f"'{name}' has no head that can be recognised: looked for a keras.layers.Dense after which nothing has "
        f"weights, found {kind} at the end. Name the layer whose output is to be the features, in Python: "
        f"hs.fit(DATA, backbone=…, features='LAYER'), one of {layers} and others, or '' for the model's own output."
    )
