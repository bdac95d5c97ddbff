"""Networks of `keras.applications` by name: their architecture, their pixels, and their weights from a file."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras.src.models.functional import Functional
from keras.src.utils import file_utils
from numpy.typing import NDArray

from headstart.backbones.download import find_weights
from headstart.backbones.weights import WeightsRecord, hash_of, match, read_weights
from headstart.core.errors import UsageError
from headstart.core.shared_change import SharedChange, ignored_warnings
from headstart.core.types import ImageSpec
from headstart.engines.keras.config import undisturbed
from headstart.engines.keras.flat_model import counted_by, find_head, named_layers, recounted, variables
from headstart.engines.keras.start import tensors_before_weights
from headstart.engines.protocol import APPLICATIONS
from headstart.engines.wrapped import attempt

PathLike = str | os.PathLike[str]
USUAL = 224  # pixels of a network without a fixed size
DEVIATION = (0.229, 0.224, 0.225)
SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
COMPARED = 10  # layers with weights by which a network is known


@dataclass(frozen=True)
class Application:
    """A network with its weights."""

    model: Any
    spec: ImageSpec
    record: WeightsRecord
    flip: bool  # whether it takes blue, green, red
    whole: bool  # whether the head has its weights, too


def application(source: str, file: PathLike | None, pixels: int | None) -> Application:
    """The network "keras/NAME" with the weights of a ``file``, or else those that Keras would download.

    For images of another size than its own, or a file without a head, a network that cannot keep its head loses it.

    Raises:
        UsageError: no such network or file, one of another network, a size that it cannot take.
        CheckError: what was fetched is not the file that Keras has a hash of.
    """
    make = _maker(source)
    options = {} if pixels is None else {"input_shape": (pixels, pixels, 3)}
    model = _build(make, source, **options)
    spec, flip = _spec(make, pixels or int(model.input_shape[1] or USUAL))
    record = WeightsRecord(source, "unknown", "keras")
    if file is None:
        record = published(make, source)
        file = find_weights(record)
    try:
        return Application(model, spec, record, flip, fill(model, file, lambda: published(make, source)))
    except UsageError:
        headless = _build(make, source, include_top=False, **options)
        if not _fits(headless, lambda: _build(make, source), file):
            raise
    return Application(headless, spec, record, flip, False)


def fill(model: Any, file: PathLike, record: Callable[[], WeightsRecord] | None = None) -> bool:
    """Take the weights of a file; returns whether it has those of the head.

    Args:
        model: a functional one.
        file: .weights.h5 or .h5. What Keras numbered in it is told by order, all else by name.
        record: says which file Keras itself publishes.

    Raises:
        UsageError: it holds the weights of another network.
    """
    found, head = variables(model), find_head(model)
    ignored = {name for layer, name in named_layers(model) if head and layer is head[0]}
    kept = match(
        _named_as(model, read_weights(file)), {name: tuple(v.shape) for name, v in found.items()}, file, ignored
    )
    if "normalization.variance" in kept and record and _is(file, record()):
        # the files of EfficientNet are for another normalisation; Keras corrects them in the same way
        kept["normalization.variance"] = kept["normalization.variance"] * np.array(DEVIATION, np.float32)
    for name, array in kept.items():
        found[name].assign(array)
    return len(kept) == len(found)


def published(make: Callable[..., Any], source: str) -> WeightsRecord:
    """Which file Keras would download: it is asked for its weights, and stopped before the download."""
    with _STOPPED_DOWNLOADS:
        _this_thread.asks = True
        try:
            _build(make, source, weights="imagenet")
        except UsageError as error:
            if isinstance(error.__cause__, _Asked):
                url, digits = error.__cause__.args
                kind = "sha256" if len(digits) == 64 else "md5"
                return WeightsRecord(source, "unknown", "keras", url=url, **{kind: digits})
            raise
        finally:
            _this_thread.asks = False
    raise UsageError(f"Keras has no weights for '{source}'. Name a file of them: --weights FILE")


class _Asked(Exception):  # noqa: N818  # no error: carries the address and the hash
    pass


@contextmanager
def _stopped_downloads() -> Iterator[None]:
    """Downloads of threads that only ask for the address raise `_Asked`; those of others go on as usual."""
    fetch = file_utils.get_file

    def get_file(*args: Any, **options: Any) -> Any:
        if not getattr(_this_thread, "asks", False):
            return fetch(*args, **options)
        named = dict(zip(("fname", "origin"), args, strict=False)) | options
        raise _Asked(str(named["origin"]), str(named.get("file_hash") or ""))

    with mock.patch.object(file_utils, "get_file", get_file):
        yield


_this_thread, _STOPPED_DOWNLOADS = threading.local(), SharedChange(_stopped_downloads)


def pixels_of(model: Any, size: int) -> tuple[ImageSpec, bool] | None:
    """What a model wants that is one of `keras.applications` and gives its first weights the images as they come.

    It is known by its name and by its first layers: a name alone can be anybody's.

    Returns:
        The pixels, and whether red and blue are swapped; None for any other model.
    """
    name = _letters(model.name)
    for known, make in sorted(_makers().items(), key=lambda item: -len(item[0])):
        rest = name.removeprefix(_letters(known))
        if rest != name and not rest.removesuffix("none").strip("0123456789"):
            whole = _build(make, known, include_top=False)
            if not _begins_as(model, whole):
                return None
            spec, flip = _spec(make, size)
            if spec.mean != (0.0, 0.0, 0.0):
                return spec, flip
            # one that scales its pixels itself, built without that
            optional = "include_preprocessing" in inspect.signature(make).parameters
            return (_inner_spec(whole, size), False) if optional else None
    return None


def _begins_as(model: Any, whole: Any) -> bool:
    """Whether a model has the first layers of another, of whatever width, by their names."""
    own, expected = ({name: _kind(layer) for layer, name in _weighted(each)} for each in (model, whole))
    return [*expected.items()][:COMPARED] == [(name, own.get(name)) for name in [*expected][:COMPARED]]


def _weighted(model: Any) -> list[tuple[Any, str]]:
    named = named_layers(model) if isinstance(model, Functional | keras.Sequential) else []
    return [(layer, name) for layer, name in named if not isinstance(layer, SCALING)]


def _kind(layer: Any) -> tuple[str, Any, int]:
    return type(layer).__name__, getattr(layer, "kernel_size", None), len(layer.weights)


def _inner_spec(whole: Any, size: int) -> ImageSpec:
    """The pixels that the first layer with weights gets from the scaling in a network."""
    first = tensors_before_weights(whole)[1][0]
    return _spec_from(np.asarray(keras.Model(whole.input, first)(_colours(), training=False)), size)[0]


def _letters(name: str) -> str:
    """Letters and digits: "mobilenetv2_1.00_224" as "mobilenetv2100224"."""
    return "".join(each for each in name.lower() if each.isalnum())


def _makers() -> dict[str, Callable[..., Any]]:
    return {each: make for each, make in vars(keras.applications).items() if each[:1].isupper() and callable(make)}


def _maker(source: str) -> Callable[..., Any]:
    name, known = source.removeprefix(APPLICATIONS), _makers()
    if name not in known:
        lower = {each.lower(): each for each in known}
        near = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
        hint = f"Did you mean {' or '.join(near)}?" if near else "See https://keras.io/api/applications"
        raise UsageError(f"keras.applications has no model '{name[:80]}'. {hint}")
    return known[name]


def build_application(source: str, **options: Any) -> Any:
    """The network "keras/NAME" with random weights; ``options`` are those of its function in `keras.applications`.

    Raises:
        UsageError: no such network, or not with these options.
    """
    return _build(_maker(source), source, **options)


def _build(make: Callable[..., Any], source: str, **options: Any) -> Any:
    with undisturbed(), ignored_warnings():  # about sizes without weights
        return attempt(f"keras.applications cannot build '{source}'", lambda: make(**{"weights": None} | options))


def _spec(make: Callable[..., Any], size: int) -> tuple[ImageSpec, bool]:
    """The pixels that it takes, measured on its ``preprocess_input``; and whether it swaps red and blue."""
    preprocess = sys.modules[make.__module__].preprocess_input
    return _spec_from(preprocess(_colours(), data_format="channels_last"), size)


def _colours() -> NDArray[np.float64]:
    """An image of four pixels: black, red, green, blue."""
    return np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).reshape(1, 4, 1, 3)


def _spec_from(seen: Any, size: int) -> tuple[ImageSpec, bool]:
    """The pixels that some scaling makes of `_colours`; and whether it swaps red and blue."""
    digits = 12 if seen.dtype == np.float64 else 6
    black, *primary = np.asarray(seen, np.float64).reshape(4, 3)
    gains = np.array(primary) - black  # (given, seen)
    flip = not np.any(np.diag(gains)[::2])
    gain, offset = np.diag(gains[:, ::-1] if flip else gains), black[::-1] if flip else black
    std = tuple((1 / gain).round(digits).tolist())
    mean = tuple(((0.0 - offset) / gain).round(digits).tolist())
    return ImageSpec(size, mean, std, resample="bilinear"), flip


def _named_as(model: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a file by the names that `variables` gives those of the model."""
    wanted: dict[str, list[str]] = {}
    for name in variables(model):
        wanted.setdefault(name.rpartition(".")[0], []).append(name)
    given: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        if array.dtype.kind == "f":  # counters are left out
            layer, _, part = name.rpartition("/")
            given.setdefault(layer, {})[part] = array
    own = recounted({layer: (base, number) for layer in given for base, number in counted_by(model, layer)})
    found: dict[str, Any] = {}
    for layer, parts in given.items():
        name = own.get(layer, layer)
        names = wanted.get(name, ())
        if len(names) != len(parts):
            names = [f"{name}.{part}" for part in parts]
        found |= dict(zip(names, parts.values(), strict=True))
    return found


def _is(file: PathLike, record: WeightsRecord) -> bool:
    return hash_of(file, "md5" if record.md5 else "sha256") == (record.md5 or record.sha256)


def _fits(headless: Any, native: Callable[[], Any], file: PathLike) -> bool:
    """Fill a model without a head: from a file without one, or from a whole one of the network's own size."""
    try:
        fill(headless, file)
        return True
    except UsageError:
        whole = native()
    try:
        fill(whole, file)
    except UsageError:
        return False
    wanted, there = variables(headless), variables(whole)
    if any(name not in there or there[name].shape != each.shape for name, each in wanted.items()):
        return False
    for name, variable in wanted.items():
        variable.assign(there[name])
    return True
