"""A network in training on TensorFlow: what of it is trained, in which precision, and its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT
from headstart.backbones.ops import Node, Shape
from headstart.engines.keras.config import undisturbed
from headstart.engines.keras.functions import POLICIES, placed
from headstart.engines.keras.graph import Graph, assemble, from_keras, to_keras, variables_of
from headstart.engines.keras.network import choose_device
from headstart.engines.protocol import fitting
from headstart.train.protocol import Array, Task
from headstart.train.recipe import Recipe
from headstart.train.trainable_network import BaseTrainableNetwork

IMAGES = "images"  # what the model calls its first input; the others are masks, by their nodes
AMPERE = (8, 0)  # compute capability from which on a GPU has instructions for bf16


class TrainableNetwork(BaseTrainableNetwork):
    """The task's network as a `keras.Model`.

    The model takes a dict: images as `images` gives them, and in training what `masks` gives.
    """

    def __init__(self, task: Task, recipe: Recipe, device: str) -> None:
        super().__init__(task, recipe)
        self._device = choose_device(device)
        blueprint, size = task.blueprint, task.spec.size if task.spec else task.blueprint.size
        self.low = recipe.precision == "bf16" or (recipe.precision == "auto" and fast_in_bf16(self._device))
        self.shapes: dict[str, Shape] = {name: _channels_last(each) for name, each in self._shapes.items()}
        with self.placed(), undisturbed():
            graph = assemble(blueprint, size, task.module, POLICIES["bf16" if self.low else "fp32"])
            self._graph = self._with_own_norms(graph)
            self._graph.layers[blueprint.layers[-1]].dtype_policy = keras.DTypePolicy("float32")
            self._graph.connect(keras.Input(self.shapes[INPUT], dtype="float32", name=graph.names[INPUT]))
            self._graph.take(fitting(task.weights, blueprint))
            for name, layer in self._graph.layers.items():
                layer.trainable = name in task.rates
            self.model = _Model(self._run, [*self._graph.layers.values()], "trainable_network")
        self._weight_shapes = blueprint.weight_shapes()
        self.nodes: dict[str, Node] = {}  # of every weight
        self._variables: dict[str, Any] = {}
        for name, (node, variable) in variables_of(blueprint, self._graph.layers).items():
            self.nodes[name], self._variables[name] = node, variable
            variable.regularizer = None  # a wrapped model may have some: weight decay is the recipe's
        self._norms = self._norms_updated()
        statistics = {id(each) for norm in self._norms for each in (norm.moving_mean, norm.moving_variance)}
        trained = {name: each for name, each in self._variables.items() if self.nodes[name].name in task.rates}
        self.parameters = {name: each for name, each in trained.items() if each.trainable}
        self._statistics = {name: each for name, each in trained.items() if id(each) in statistics}

    @property
    def statistics(self) -> dict[str, Any]:
        """The variables of means and variances that training changes."""
        return self._statistics

    def images(self, x: Array) -> NDArray[np.float32]:
        """Images as the model takes them: channels last; pixels from 0 to 255."""
        if not self.task.spec:
            return np.moveaxis(x, 1, -1).astype(np.float32) if x.ndim == 4 else x.astype(np.float32)
        return x.astype(np.float32) * np.float32(1 if x.dtype == np.uint8 else 255)

    def inputs(self, x: Array, masks: Mapping[str, Array] | None = None) -> dict[str, Any]:
        """What the model takes, as tensors."""
        return {name: tf.constant(array) for name, array in {IMAGES: self.images(x), **(masks or {})}.items()}

    def masks(self, step: int, images: int) -> dict[str, NDArray[np.float32]]:
        """The dropout masks of a step, for a whole batch, channels last."""
        masks = super().masks(step, images)
        return {name: np.moveaxis(mask, 1, -1) if mask.ndim == 4 else mask for name, mask in masks.items()}

    def signature(self, *, masked: bool) -> dict[str, Any]:
        """What the model takes, for any number of images."""
        shapes = {IMAGES: self.shapes[INPUT]} | {name: self.shapes[name] for name in self.dropped if masked}
        return {name: tf.TensorSpec((None, *shape), tf.float32, name=name) for name, shape in shapes.items()}

    def weights(self, instead: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        """A copy of all weights by their names in the blueprint, with some others ``instead``."""
        return {name: self.outward(name, instead.get(name, each)) for name, each in self._variables.items()}

    def outward(self, name: str, variable: Any) -> NDArray[np.float32]:
        """A copy of what is laid out as that weight is here, as the blueprint has it."""
        return from_keras(self.nodes[name], variable.numpy(), self._weight_shapes[name])

    def inward(self, name: str, array: Array) -> Array:
        """The reverse of `outward`."""
        return to_keras(self.nodes[name], array, tuple(self._variables[name].shape))

    @contextmanager
    def only_last_batch_counts(self) -> Iterator[None]:
        """See `BaseTrainableNetwork`; for functions that are compiled within it, there and ever after."""
        before = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(self._norms, before, strict=True):
                norm.momentum = momentum

    def copies(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Copies that `put` takes back."""
        return {name: variable.numpy() for name, variable in values.items()}

    def put(self, values: Mapping[str, Any]) -> None:
        """Copy values, laid out as here, over those that are trained."""
        trained = self.trained
        for name, value in values.items():
            trained[name].assign(value)

    def placed(self) -> AbstractContextManager[None]:
        """On the device; where it computes in fp32, without TF32."""
        return placed(self._device, coarse=self.low)

    def _run(self, inputs: Mapping[str, Any], training: bool) -> Any:
        """Logits, (N, classes) in fp32."""
        values = {INPUT: self._normalised(inputs[IMAGES])}
        for node in self.task.blueprint.nodes[1:]:
            value = self._step(node, training)(*(values[name] for name in node.inputs))
            if node.name in inputs:
                value = value * tf.cast(inputs[node.name], value.dtype)
            values[node.name] = value
        return values[self.task.blueprint.layers[-1]]

    def _step(self, node: Node, training: bool) -> Callable[..., Any]:
        """The function of a node. Keras itself would put every layer in training mode."""
        update = training and node.name in self._updated
        if node.op == "norm":
            return lambda x: self._graph.layers[node.name](x, training=update)
        if node.op == "dropout":
            return lambda x: x
        if node.op == "module":
            return lambda x: _inside(self._graph.steps[node.name], x, update)
        return self._graph.steps[node.name]

    def _normalised(self, x: Any) -> Any:
        if not self.task.spec:
            return x
        mean, std = (255 * np.array(each) for each in (self.task.spec.mean, self.task.spec.std))
        return (x - tf.constant(mean, tf.float32)) * tf.constant(1 / std, tf.float32)

    def _with_own_norms(self, graph: Graph) -> Graph:
        """The layers, with others for batch norms whose statistics are updated."""
        norms = {
            node.name: _TorchBatchNorm(epsilon=node["epsilon"], momentum=0.9, name=graph.names[node.name], dtype=policy)
            for node in self.task.blueprint.nodes
            if node.op == "norm" and node.name in self._updated
            for policy in [graph.layers[node.name].dtype_policy]
        }
        return replace(graph, steps={**graph.steps, **norms}, layers={**graph.layers, **norms})

    def _norms_updated(self) -> list[Any]:
        layers = [each for name in self._updated for each in self._graph.layers[name]._flatten_layers()]
        return [each for each in layers if isinstance(each, keras.layers.BatchNormalization)]


class _Model(keras.Model):  # type: ignore[misc]
    """An ordinary model of these layers, for a call or for `fit`."""

    def __init__(self, run: Callable[..., Any], parts: list[Any], name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.run, self.parts = run, parts
        self.built = True

    @property
    def losses(self) -> list[Any]:
        """None: `fit` would add those of a wrapped model, and the loss is the recipe's, in all trainers alike."""
        return []

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        """Logits."""
        return self.run(inputs, training)


class _TorchBatchNorm(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch norm with PyTorch's running variance: divided by n - 1, where Keras divides by n."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The normalised values."""
        before = self.momentum * tf.convert_to_tensor(self.moving_variance)
        found = super().call(inputs, training=training, mask=mask)
        if training:
            count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
            added = tf.convert_to_tensor(self.moving_variance) - before
            self.moving_variance.assign(before + added * count / tf.maximum(count - 1, 1))
        return found


def fast_in_bf16(device: str) -> bool:
    """Whether the device has instructions for bf16 that TensorFlow uses for gradients of convolutions."""
    if device == "cpu":
        return False
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return bool(details.get("compute_capability", (0, 0)) >= AMPERE)


def _inside(step: Any, x: Any, update: bool) -> Any:
    """A module with its batch norms in training or not, and all else in evaluation mode."""

    def operation(each: Any) -> Callable[..., Any]:
        if not getattr(each, "_call_has_training_arg", False):
            return each  # type: ignore[no-any-return]
        training = update and isinstance(each, keras.layers.BatchNormalization)
        return lambda *args, **more: each(*args, **(more | {"training": training}))

    [value] = keras.tree.flatten(step.model._run_through_graph(x, operation_fn=operation))
    return step.pool(value)


def _channels_last(shape: Shape) -> Shape:
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape
