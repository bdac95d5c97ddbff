"""A Keras architecture as text, limited to parts that run no code but Keras' own."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import keras

from headstart.core.errors import UsageError, VersionError
from headstart.core.install import pip_install
from headstart.core.shared_change import SharedChange
from headstart.engines.keras.weights_made import weights_at_most
from headstart.engines.wrapped import attempt

POLICY, VERSION = "float32", "keras_version"
# Keras' own layers that run code from a configuration, or open another file
UNSAFE = {
    "Lambda": "runs Python code that it brings",
    "TorchModuleWrapper": "runs a pickled module that it brings",
    "FlaxLayer": "runs code that it names",
    "JaxLayer": "runs code that it names",
    "TFSMLayer": "opens another file",
    "TextVectorization": "opens another file",
    "StringLookup": "opens another file",
    "IntegerLookup": "opens another file",
}
UNKNOWN = "which is no layer of this Keras"
MODELS = {"Model", "Functional", "Sequential"}
PLAIN = {f"__{kind}__" for kind in ("keras_tensor", "tensor", "numpy", "bytes", "ellipsis", "slice")}
OPERATIONS = tuple(f"keras.src.ops.{name}" for name in ("core", "image", "linalg", "math", "nn", "numpy"))
KERAS_2 = ("keras.engine", "keras.src.engine", "tensorflow.python.keras", "tf_keras")
POLICIES = ("DTypePolicy", "FloatDTypePolicy")
ZEROS: dict[str, Any] = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}


def to_text(model: Any) -> str:
    """The architecture as JSON that `from_text` builds again, or "" where that would need foreign code."""
    config = plain(keras.saving.serialize_keras_object(model))
    return "" if problem(config) else json.dumps({**portable(config), VERSION: keras.__version__})


def from_text(text: str, source: str, policy: str = POLICY, made_by: str = "", most: int | None = None) -> Any:
    """The model, with weights of zeros.

    Args:
        text: what `to_text` gave, or the ``config.json`` of a ".keras" file.
        source: its name in messages.
        policy: dtype policy of all layers.
        made_by: the version of Keras that wrote it, where ``text`` does not say it itself.
        most: weights that it may have; None: any number.

    Raises:
        UsageError: it is no architecture of Keras', or of more than Keras' own layers. Nothing of it was run.
        VersionError: it is of Keras 2, or of a Keras with layers or arguments that this one lacks.
    """
    try:
        config = plain(json.loads(text), policy)
        if isinstance(config, dict):
            made_by = str(config.pop(VERSION, made_by))
        if made_by.startswith("2.") or _names_keras_2(config):
            raise VersionError(of_keras_2(source, made_by))
        fault = problem(config)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"'{source}' is damaged: its architecture is no JSON ({type(error).__name__}).") from error
    if fault:
        if fault.endswith(UNKNOWN):
            _check_version(source, made_by, fault)
        raise UsageError(f"'{source}' is not opened, for it could run foreign code: {fault}.")
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        raise UsageError(f"'{source}' is damaged: expected the architecture of a Keras model.")
    with undisturbed(), weights_at_most(most):
        try:
            return attempt(
                f"'{source}' is damaged, or of another version, as Keras {keras.__version__} cannot build it",
                lambda: keras.saving.deserialize_keras_object(config, safe_mode=True),
            )
        except UsageError as error:
            _check_version(source, made_by, str(error).partition(": ")[2])
            raise


def of_keras_2(source: str, made_by: str = "") -> str:
    """A sentence for a file of Keras 2: what it is, and what to do with it."""
    return (
        f"'{source}' is a file of Keras 2{f' ({made_by})' * bool(made_by)}; Keras {keras.__version__} is here, and the "
        f"two have different formats. Open it in Keras 2 ({pip_install('tf_keras')}) and save it there as "
        'model.save("model.h5"). In Keras 3, open that with keras.models.load_model("model.h5", compile=False) and '
        'save it again: model.save("model.keras"). Where that fails, build the network in Keras 3 and give it the '
        'weights: model.load_weights("model.h5")'
    )


def _names_keras_2(value: Any) -> bool:
    """Whether a configuration names a module or an argument that only Keras 2 has."""
    if isinstance(value, list | tuple):
        return any(_names_keras_2(each) for each in value)
    if not isinstance(value, dict):
        return False
    own = str(value.get("module", "")).startswith(KERAS_2) or "batch_input_shape" in value
    return own or any(_names_keras_2(each) for each in value.values())


def _check_version(source: str, made_by: str, reason: str) -> None:
    """Say which Keras made it, if it is another one than here, or not known."""
    here = keras.__version__
    if made_by and made_by != here:
        raise VersionError(
            f"'{source}' was made by Keras {made_by}; Keras {here} is here, and cannot open it: {reason}. "
            f"Install the Keras that made it: {pip_install(f'keras=={made_by}')}"
        )


def plain(value: Any, policy: str = POLICY) -> Any:
    """A configuration that computes in ``policy``, without what only training needs.

    Losses, metrics and initialisers are removed: the weights are replaced, and random ones take seconds.
    """
    if isinstance(value, list | tuple):
        return type(value)(plain(each, policy) for each in value)
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind in POLICIES:
        return {"module": "keras", "class_name": POLICIES[0], "config": {"name": policy}, "registered_name": None}
    config = {}
    for key, each in value.items():
        if key.endswith("_initializer") and isinstance(each, dict):
            config[key] = ZEROS
        elif not (kind and key == "compile_config"):
            config[key] = plain(each, policy)
    if kind == "InputLayer" and isinstance(config.get("config"), dict):
        config["config"] = config["config"] | {"dtype": "float64" if policy == "float64" else "float32"}
    return config


def portable(value: Any) -> Any:
    """A configuration without arguments that have their default value: an older Keras may not know them yet.

    No default was changed from Keras 3.8 to 3.15, but several arguments were added.
    """
    if isinstance(value, list | tuple):
        return [portable(each) for each in value]
    if not isinstance(value, dict):
        return value
    entry = {key: portable(each) for key, each in value.items()}
    config, kind = entry.get("config"), _own_class(entry)
    if kind is not None and isinstance(config, dict):
        if issubclass(kind, keras.Layer):
            defaults = {name: each.default for name, each in inspect.signature(kind.__init__).parameters.items()}
            short = {key: each for key, each in config.items() if key not in defaults or defaults[key] != each}
        else:  # an operation inside a layer: its name says nothing, and once could not be given
            short = {key: each for key, each in config.items() if key != "name"}
        with undisturbed(), suppress(Exception):  # some need all their arguments
            kind.from_config(copy.deepcopy(short))
            entry["config"] = short
    return entry


def _own_class(entry: dict[str, Any]) -> Any:
    """The class of Keras' layers, or of its operations where it is no node of a graph; None for anything else."""
    name, module = entry.get("class_name"), entry.get("module")
    if not isinstance(name, str) or (module in OPERATIONS and "inbound_nodes" in entry):
        return None
    if module == "keras.layers":
        return getattr(keras.layers, name, None)
    return getattr(importlib.import_module(module), name, None) if module in OPERATIONS else None


def problem(value: Any, where: str = "") -> str:
    """The first part of a configuration that is not Keras' own, in words; "" if there is none."""
    if isinstance(value, list | tuple):
        return next(filter(None, (problem(each, where) for each in value)), "")
    if not isinstance(value, dict):
        return ""
    if "class_name" in value:
        config = value.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        where = f"the layer {name[:80]!r}" if isinstance(name, str) else where or "it"
        if fault := _fault(value):
            return f"{where} {fault}"
    return next(filter(None, (problem(each, where) for each in value.values())), "")


def _fault(entry: dict[str, Any]) -> str:
    kind, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    if not isinstance(kind, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        return "has no proper class"
    if kind in PLAIN:
        return ""
    if kind == "function":
        name = entry.get("config")
        own = module in ("builtins", "keras.activations") and name in _activations() and registered in (None, name)
        return "" if own else f"calls the function {str(name)[:80]!r} of {str(module)[:80]!r}"
    if kind in UNSAFE or kind == "__lambda__":
        return f"is a {kind}, which {UNSAFE.get(kind, UNSAFE['Lambda'])}"
    if kind in _classes().get(module or "", ()) and registered in (None, kind):
        return ""
    whose = UNKNOWN if module == "keras.layers" else "which is none of Keras' own"
    return f"is or holds a {'.'.join(filter(None, (module, registered or kind)))[:160]!r}, {whose}"


@functools.cache
def _activations() -> frozenset[str]:
    return frozenset(name for name, each in vars(keras.activations).items() if callable(each))


@functools.cache
def _classes() -> dict[str, frozenset[str]]:
    """Classes that a configuration may name, by the module that it names them by."""

    def of(module: Any, base: type = object, without: type | tuple[type, ...] = ()) -> frozenset[str]:
        types = {name: each for name, each in vars(module).items() if isinstance(each, type)}
        return frozenset(
            name for name, each in types.items() if issubclass(each, base) and not issubclass(each, without)
        )

    found = {name: of(importlib.import_module(name), keras.Operation, keras.Layer) for name in OPERATIONS}
    found |= {f"keras.{name}": of(getattr(keras, name)) for name in ("initializers", "regularizers", "constraints")}
    return found | {
        "keras.layers": of(keras.layers, keras.Layer) - UNSAFE.keys(),
        "keras": frozenset({*MODELS, *POLICIES}),
        "keras.models": frozenset(MODELS),
        "keras.dtype_policies": frozenset(POLICIES),
        "keras.random": frozenset({"SeedGenerator"}),
        "keras.src.models.functional": frozenset({"Functional"}),
        "keras.src.applications.convnext": frozenset({"LayerScale", "StochasticDepth"}),
        "keras.src.applications.inception_resnet_v2": frozenset({"CustomScaleLayer"}),
    }


def undisturbed() -> SharedChange:
    """Leave the user's random numbers as they are while layers are built."""
    return _UNDISTURBED


@contextmanager
def _kept_random_numbers() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


_UNDISTURBED = SharedChange(_kept_random_numbers)
