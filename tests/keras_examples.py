"""Models of Keras to be wrapped: functional, sequential, of one's own making, nested, of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headstart.core.types import ImageSpec
from headstart.engines.registry import keras_engine
from referee import photos as some_photos

keras_engine()

import keras  # noqa: E402
from keras import layers  # noqa: E402

from headstart.engines.keras.models import wrap  # noqa: E402
from headstart.engines.keras.network import KerasNetwork  # noqa: E402

SIZE, KINDS = 32, ("functional", "sequential", "subclassed", "nested", "tokens")
SPEC = ImageSpec(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Residual(keras.Model):  # type: ignore[misc]
    """As people write them: layers in __init__, none of them named."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.head = layers.Dense(classes, activation="softmax")
        self.stem = layers.Conv2D(8, 3, 2, padding="same")
        self.norm = layers.BatchNormalization()
        self.body = keras.Sequential([layers.Conv2D(8, 3, padding="same"), layers.ReLU(), layers.BatchNormalization()])
        self.drop = layers.Dropout(0.5)

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = keras.ops.relu(self.norm(self.stem(x), training=training))
        x = x + self.body(x, training=training)
        return self.head(self.drop(keras.ops.mean(x, (1, 2)), training=training))


@keras.saving.register_keras_serializable("mine")
class Scale(layers.Layer):  # type: ignore[misc]
    """A layer of one's own."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.factor


def functional(extra: Callable[[Any], Any] = lambda x: x) -> keras.Model:
    x = images = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(x)
    x = y = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="deep")(x)
    x = extra(layers.Concatenate()([x * 2, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(5, activation="softmax", name="predictions")(layers.Dropout(0.5)(x)))


def sequential() -> keras.Sequential:
    steps = [layers.Rescaling(1 / 127.5, -1), layers.Conv2D(6, 3, 2), layers.BatchNormalization(), layers.ReLU()]
    steps += [
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(7),
        layers.Activation("softmax"),
        layers.Dropout(0.1),
    ]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *steps])


def nested() -> keras.Model:
    images = keras.Input((SIZE, SIZE, 3))
    nothing = keras.Input((SIZE, SIZE, 3))
    try:
        x = keras.Model(nothing, nothing)(images)
    except ValueError:  # Keras 3.12 and 3.13 make no model without a layer
        x = images
    for _ in range(2):
        x = keras.Sequential([layers.Conv2D(6, 3, name="conv"), layers.Activation("silu")])(x, training=False)
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(images, layers.Dense(3)(x))


def tokens() -> keras.Model:
    images = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 8, 8)(images))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 6)(x, x))
    return keras.Model(images, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def make(kind: str, seed: int = 0) -> Any:
    """A model as after some training."""
    if kind == "subclassed":
        model = Residual()
        model(np.zeros((1, SIZE, SIZE, 3), np.float32))
    else:
        model = {"functional": functional, "sequential": sequential, "nested": nested, "tokens": tokens}[kind]()
    return trained(model, seed)


def trained(model: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        low, high = (0.2, 1) if weight.name in ("moving_variance", "gamma") else (-0.5, 0.5)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


def network_for(source: Any, precision: str = "fp32", **more: Any) -> KerasNetwork:
    """With the model's own head behind it."""
    found = wrap(source, **more)
    trunk, blueprint, weights = found.trunk, found.trunk.blueprint, dict(found.trunk.weights)
    if found.head is not None:
        blueprint = blueprint.with_head(len(found.head[0]), sqrt=False)
        weights |= {"logits.weight": found.head[0], "logits.bias": found.head[1]}
    return KerasNetwork(blueprint, weights, trunk.spec, precision, "cpu", module=found.module)


def photos(count: int = 3) -> Any:
    return some_photos(count, SIZE)


def normalised(images: Any) -> Any:
    return (images / 127.5 - 1).astype(np.float32)


def softmax(logits: Any) -> Any:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def ending(*steps: Any) -> Any:
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(6, 3, 4, name="conv"), *steps])


def pooled() -> Any:
    return layers.GlobalAveragePooling2D()
