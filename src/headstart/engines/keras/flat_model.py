"""Any Keras model as one flat graph: nested models expanded, layers copied, names without Keras' counters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import keras
import numpy as np
from keras.src.models.functional import Functional  # keras.Model(x, y) is one, and no public name is
from keras.src.ops.numpy import Flip  # the class behind keras.ops.flip
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT, LOGITS
from headstart.core.errors import UsageError
from headstart.engines.keras.config import POLICY, plain, undisturbed
from headstart.engines.keras.inputs import as_taken, built_shape
from headstart.engines.wrapped import attempt

Key = TypeVar("Key")
COMMON = ("name", "trainable", "dtype")  # which custom layers often do not take
ENDS = ("linear", "softmax", "sigmoid", "log_softmax")  # activations that a head may have


def unroll(
    model: Any,
    size: int,
    source: str,
    policy: str = POLICY,
    *,
    flip: bool = False,
    models: list[tuple[Any, Any]] | None = None,
) -> Any:
    """A functional copy for normalised images (N, size, size, 3), which shares nothing with the ``model``.

    Its layers are the leaves: those of models within models too, and what the ``call`` of a subclassed one does with
    layers and `keras.ops`. One that does anything else stays a single layer.

    Args:
        model: any `keras.Model`; it stays as it is.
        source: its name in messages.
        policy: dtype policy of the layers.
        flip: whether the model takes blue, green, red.
        models: gets the model and those within it, the outer before the inner, each with what it is given in the copy.

    Raises:
        UsageError: it has no weights yet, a layer cannot be copied, or it fails on such images.
    """
    model = _of_logits(model)
    images = keras.Input((size, size, 3), name=INPUT, dtype="float64" if policy == "float64" else "float32")
    copier = _Copier(policy, [] if models is None else models)

    def run() -> Any:
        with _untouched(model), undisturbed():
            # inside a layer: of keras.ops.flip itself Keras cannot open a legacy file
            pixels = keras.layers.Activation(Flip(-1), name="flip", dtype=images.dtype)(images) if flip else images
            outputs = copier.run(model, [as_taken(pixels, model, policy)])
        copier.finish()
        flat = keras.Model(images, outputs, name=model_name(model))
        for layer in flat._flatten_layers():
            layer.trainable = True  # a recipe says what is frozen, not the model; of the weights, only statistics are
        return flat

    return attempt(f"'{source}' fails on images of {size} pixels, given as (N, {size}, {size}, 3)", run)


def _of_logits(model: Any) -> Any:
    """The same without other outputs than those of this name; an exported file says more, by more layers."""
    named = isinstance(model, Functional) and isinstance(model.output, dict) and LOGITS in model.output
    return keras.Model(model.inputs, model.output[LOGITS], name=model.name) if named else model


def variables(model: Any) -> dict[str, Any]:
    """The weights of a functional model by "layer.weight"; without counters and states of random generators."""
    found: dict[str, Any] = {}
    for layer, name in named_layers(model):
        parts = _Parts(layer.path)
        for variable in layer.weights:
            if "float" in str(variable.dtype):
                found[_free(f"{name}.{parts(variable.path)}", found)] = variable
    return found


def named_layers(model: Any) -> list[tuple[Any, str]]:
    """Every layer with weights of a functional model, and of those within it, with the name that a copy has."""
    leaves = [*_leaves(model)]
    named = zip((each for each, _ in leaves), name_all(leaves), strict=True)
    return [(each, name) for each, name in named if getattr(each, "weights", ())]


def _leaves(model: Any, within: str = "") -> Iterator[tuple[Any, str]]:
    for each in model.operations:
        if isinstance(each, Functional | keras.Sequential):
            yield from _leaves(_graph(each, ()), model_name(each))
        else:
            yield each, within


def inner_tensors(model: Any) -> dict[str, Any]:
    """The symbolic output of every layer with one output, in order; of several calls the last counts."""
    found: dict[str, Any] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input and len(node.outputs) == 1 and _is_batch(node.outputs[0]):
                found.pop(node.operation.name, None)
                found[node.operation.name] = node.outputs[0]
    return found


def find_head(model: Any) -> tuple[Any, Any] | None:
    """The layer that gives the logits, and its input tensor; no layer after it has weights.

    A dense layer, or a convolution of single pixels on a map of one.
    """
    last = last_weighted(model)
    if last is None:
        return None
    layer, node = last
    x, y = node.input_tensors[0], node.outputs[0]
    once = sum(each.operation is layer for nodes in model._nodes_by_depth.values() for each in nodes) == 1
    if not once or getattr(getattr(layer, "activation", None), "__name__", "") not in ENDS:
        return None
    if type(layer) is keras.layers.Dense and len(y.shape) == 2:
        return layer, x
    pixel = type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.groups == 1
    return (layer, x) if pixel and tuple(x.shape[1:3]) == (1, 1) == tuple(y.shape[1:3]) else None


def last_weighted(model: Any) -> tuple[Any, Any] | None:
    """The last layer with weights, and its call, if only a chain of layers without weights leads to each output."""
    first, *others = [_weighted_before(output) for output in model.outputs]
    # of logits and probabilities, for example, which are outputs of one model, it is the same
    return first if first and all(each and each[1] is first[1] for each in others) else None


def _weighted_before(tensor: Any) -> tuple[Any, Any] | None:
    while True:
        layer, place, _ = tensor._keras_history
        node = layer._inbound_nodes[place]
        if getattr(layer, "weights", None):
            return layer, node
        if len(node.input_tensors) != 1:
            return None
        tensor = node.input_tensors[0]


def head_weights(layer: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (K, D) and bias (K,) of what `find_head` found."""
    kernel = _array(layer.kernel).reshape(-1, layer.kernel.shape[-1])
    bias = np.zeros(kernel.shape[1], np.float32) if layer.bias is None else _array(layer.bias)
    return np.ascontiguousarray(kernel.T), bias


def name_all(operations: Sequence[tuple[Any, str]]) -> list[str]:
    """A name for each operation (with the model around it): its own, or one that does not depend on the session.

    Keras numbers unnamed layers ("conv2d_17") through the whole session; here they are numbered from the start, in the
    order of their creation, which is that of the code.
    """
    numbers = {place: (_snake(each), _count(each)) for place, (each, _) in enumerate(operations)}
    own = recounted({place: (base, number) for place, (base, number) in numbers.items() if number is not None})
    names: list[str] = []
    for place, (operation, within) in enumerate(operations):
        name = own.get(place, operation.name)
        names.append(_free(f"{within}.{name}" if name in names and within else name, names))
    return names


def recounted(numbers: Mapping[Key, tuple[str, int]]) -> dict[Key, str]:
    """Names from kinds and numbers, each kind numbered from the start in the order of the numbers."""
    kinds: dict[str, int] = {}
    names = {}
    for key in sorted(numbers, key=lambda each: numbers[each][1]):
        kind = numbers[key][0]
        rank = kinds[kind] = kinds.get(kind, -1) + 1
        names[key] = f"{kind}_{rank}" if rank else kind
    return names


def counted_by(model: Any, name: str) -> Iterator[tuple[str, int]]:
    """Kind and number of a name that Keras gave, if the model has unnamed layers of that kind."""
    for kind in {_snake(each) for each, _ in named_layers(model) if _count(each) is not None}:
        if found := re.fullmatch(rf"{re.escape(kind)}(?:_(\d+))?", name):
            yield kind, int(found[1] or 0)


class _Copier:
    """Calls copies of a model's layers on other tensors."""

    def __init__(self, policy: str, models: list[tuple[Any, Any]]) -> None:
        self.policy, self.models = policy, models
        # by id of the original: original, copy, name of the model around it
        self.copies: dict[int, tuple[Any, Any, str]] = {}

    def run(self, model: Any, inputs: Sequence[Any], within: str = "") -> Any:
        graph = _graph(model, inputs)
        self.models += [(model, each) for each in inputs[:1]]
        if graph is None:
            return self._stand_in(model, within)(*inputs)
        if len(graph.inputs) != len(inputs):
            raise UsageError(f"Expected a model of one input, images. '{model.name}' takes {len(graph.inputs)}.")

        def operation(each: Any) -> Any:
            if isinstance(each, keras.Model):
                return lambda *args, **_: self.run(each, keras.tree.flatten(args), model_name(each))
            return self._stand_in(each, within)

        return _single(graph._run_through_graph(inputs, operation_fn=operation))

    def finish(self) -> None:
        """Give the copies their names and weights."""
        entries = [*self.copies.values()]
        for (_, copied, _), name in zip(
            entries, name_all([(layer, within) for layer, _, within in entries]), strict=True
        ):
            copied.name = name
        for layer, copied, _ in entries:
            values = _kept_weights(layer)
            if len(values) != len(copied.weights if isinstance(copied, keras.Layer) else ()):
                raise UsageError(f"The layer '{layer.name}' has no weights yet. Call the model on some images first.")
            for value, variable in zip(values, getattr(copied, "weights", ()), strict=True):
                variable.assign(value.numpy())

    def _stand_in(self, operation: Any, within: str) -> Any:
        if id(operation) not in self.copies:
            copied = attempt(
                f"The layer '{operation.name}', a {type(operation).__name__}, cannot be copied; give it a get_config "
                "that returns its arguments",
                lambda: self._copy(operation),
            )
            self.copies[id(operation)] = operation, copied, within
        return self.copies[id(operation)][1]

    def _copy(self, operation: Any) -> Any:
        config = operation.get_config()
        if _is_adapted(operation):  # its numbers must be known when it is built
            config |= {
                "mean": _array(operation.adapt_mean).tolist(),
                "variance": _array(operation.adapt_variance).tolist(),
            }
        if isinstance(operation, keras.Layer):
            config = plain(config, self.policy)
        if "name" in config:
            config["name"] = f"copy_{len(self.copies)}"  # until all names are known
        taken = inspect.signature(type(operation).__init__).parameters
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values()):
            config = {key: each for key, each in config.items() if key in taken or key not in COMMON}
        return type(operation).from_config(config)


def _graph(model: Any, inputs: Sequence[Any]) -> Any:
    """A model as a functional one; None where its code is not made of layers and `keras.ops` alone."""
    call = type(model).call
    if not model.built:
        raise UsageError(f"'{model.name}' has no weights yet. Call it on some images first.")
    if isinstance(model, Functional) and call is Functional.call:
        return model
    if isinstance(model, keras.Sequential) and call is keras.Sequential.call:
        return keras.Model(model.inputs, model.outputs)
    shapes = [built] if (built := built_shape(model)) and len(inputs) == 1 else [tuple(x.shape) for x in inputs]
    given = [keras.Input(shape[1:], dtype=x.dtype) for shape, x in zip(shapes, inputs, strict=True)]
    parameters = inspect.signature(model.call).parameters
    asked = "training" in parameters and parameters["training"].default is inspect.Parameter.empty
    try:
        return keras.Model(given, model.call(*given, **({"training": False} if asked else {})))
    except Exception:  # foreign code, called with symbolic tensors
        return None


@contextmanager
def _untouched(model: Any) -> Iterator[None]:
    """Remove what calling its layers records in them."""
    lists = [nodes for layer in model._flatten_layers() for nodes in (layer._inbound_nodes, layer._outbound_nodes)]
    before = [len(nodes) for nodes in lists]
    try:
        yield
    finally:
        for nodes, count in zip(lists, before, strict=True):
            del nodes[count:]


class _Parts:
    """Names of the weights within one layer, with its parts numbered from the start."""

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.names: dict[tuple[str, ...], str] = {}
        self.counts: dict[tuple[tuple[str, ...], str], int] = {}

    def __call__(self, path: str) -> str:
        *around, last = path.removeprefix(f"{self.layer}/").split("/")
        names = [self._name(tuple(around[: depth + 1])) for depth in range(len(around))]
        unnamed = re.fullmatch(r"variable(_\d+)?", last)
        return ".".join((*names, self._name((*around, last)) if unnamed else last))

    def _name(self, place: tuple[str, ...]) -> str:
        if place not in self.names:
            base = re.sub(r"_\d+$", "", place[-1])
            count = self.counts[place[:-1], base] = self.counts.get((place[:-1], base), -1) + 1
            self.names[place] = f"{base}_{count}" if count else base
        return self.names[place]


def _kept_weights(layer: Any) -> list[Any]:
    return [] if _is_adapted(layer) else [*getattr(layer, "weights", ())]


def _is_adapted(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Normalization) and layer.input_mean is None and layer.built


def _is_batch(tensor: Any) -> bool:
    first, *rest = tensor.shape or (0,)
    return first is None and bool(rest) and None not in rest and "float" in str(tensor.dtype)


def _single(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs


def _array(variable: Any) -> NDArray[np.float32]:
    return np.array(variable.numpy(), np.float32)


def _snake(operation: Any) -> str:
    """Keras' name for an unnamed operation, without the number."""
    name = re.sub(r"\W+", "", type(operation).__name__)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _count(operation: Any) -> int | None:
    """The number that Keras gave an operation; None for a name chosen by the user."""
    found = re.fullmatch(rf"{re.escape(_snake(operation))}(?:_(\d+))?", operation.name)
    return int(found[1] or 0) if found else None


def model_name(model: Any) -> str:
    """Its name, without Keras' number."""
    return str(model.name) if _count(model) is None else _snake(model)


def _free(name: str, taken: Sequence[str] | Mapping[str, Any]) -> str:
    count, free = 2, name
    while free in taken:
        free, count = f"{name}_{count}", count + 1
    return free
