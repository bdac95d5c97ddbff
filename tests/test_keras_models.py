"""Any model of Keras as a network: taken apart, its head found, fitted on, saved and opened; files that are refused."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.weights import WeightsRecord, weights_digest
from headstart.engines.base import get_engine, keras_engine
from headstart.errors import CheckError, UsageError
from headstart.types import ImageSpec
from making import Shell
from referee import photos as some_photos

keras_engine()

import h5py  # noqa: E402  # behind the guard, as all that follows
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402
from keras.src.utils import file_utils  # noqa: E402

from headstart.engines import keras_applications  # noqa: E402
from headstart.engines.keras import KerasNetwork  # noqa: E402
from headstart.engines.keras_config import from_text  # noqa: E402
from headstart.engines.keras_inside import unroll  # noqa: E402
from headstart.engines.keras_models import build_model, variables, wrap  # noqa: E402

# Keras 3.15 turns its variables into arrays in a way that NumPy 2 is going to drop
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

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
    x = keras.Model(nothing, nothing)(images)
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


# --- taken apart ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_are_those_of_the_model(kind: str) -> None:
    model, images = make(kind), photos()
    network = network_for(model, spec=SPEC)
    answer, expected = network.forward(images), np.asarray(model(normalised(images), training=False))
    if kind not in ("nested", "tokens"):
        answer = softmax(answer)
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    for at in network.layers:
        assert network.forward(images, at).shape == (3, *network.shape(at))


def test_layers_are_leaves_by_their_names_in_order() -> None:
    assert network_for(make("nested")).layers == (
        *("input", "conv", "activation", "sequential.conv", "activation_1", "global_max_pooling2d"),
        *("features", "logits"),
    )
    layers_of = network_for(make("subclassed")).layers
    assert {"conv2d", "conv2d_1", "batch_normalization", "re_lu", "relu", "add", "mean", "dropout"} < {*layers_of}


def test_every_layer_has_the_value_that_it_has_in_the_model() -> None:
    model, images = make("sequential"), photos()
    network = network_for(model)
    x = images.astype(np.float32)
    for layer, at in zip(model.layers, network.layers[1:7], strict=False):
        x = layer(x, training=False)
        value = np.asarray(x)
        expected = value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
        np.testing.assert_allclose(network.forward(images, at), expected, rtol=1e-4, atol=1e-4, err_msg=at)


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_architecture_do_not_depend_on_the_session(kind: str) -> None:
    first, second = (wrap(make(kind), spec=SPEC).trunk for _ in range(2))  # Keras counts on: conv2d_17
    assert first.blueprint == second.blueprint
    assert weights_digest(first.weights) == weights_digest(second.weights)
    node = first.blueprint[FEATURES]
    built = build_model(node, None, SIZE)
    assert {name: tuple(each.shape) for name, each in variables(built).items()} == node["weights"]
    assert json.loads(node["config"])["class_name"] == "Functional"


def test_the_model_given_stays_as_it_is() -> None:
    for kind in ("functional", "subclassed"):
        model = make(kind)
        model.layers[1].trainable = False
        before, flags = model.get_weights(), [each.trainable for each in model.layers]
        notes = [(len(each._inbound_nodes), len(each._outbound_nodes)) for each in model._flatten_layers()]
        random.seed(7)
        expected = random.random()
        random.seed(7)
        network = network_for(model, spec=SPEC)
        network.load({name: array + 1 for name, array in network.weights().items()})
        assert random.random() == expected
        assert flags == [each.trainable for each in model.layers]
        assert notes == [(len(each._inbound_nodes), len(each._outbound_nodes)) for each in model._flatten_layers()]
        for array, each in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(array, each)


def test_batch_norm_and_dropout_are_in_evaluation_mode_even_where_the_model_says_otherwise() -> None:
    x = images = keras.Input((SIZE, SIZE, 3))
    x = layers.Dropout(0.9)(layers.BatchNormalization()(x, training=True), training=True)
    model = trained(keras.Model(images, layers.Dense(2)(layers.Flatten()(x))))
    network = network_for(model, spec=SPEC)
    expected = np.asarray(model.layers[1](normalised(photos()), training=False)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(network.forward(photos(), "dropout"), expected, rtol=1e-4, atol=1e-5)


def test_a_model_in_half_precision_and_one_that_was_adapted_compute_in_fp32() -> None:
    x = images = keras.Input((SIZE, SIZE, 3))
    normalise = layers.Normalization()
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(normalise(x))
    model = trained(keras.Model(images, layers.Dense(2, dtype="float16")(layers.GlobalAveragePooling2D()(x))))
    normalise.adapt(np.random.default_rng(0).normal(3, 2, (50, SIZE, SIZE, 3)).astype(np.float32))
    network = network_for(model, spec=SPEC)
    np.testing.assert_allclose(
        network.forward(photos(), "normalization").transpose(0, 2, 3, 1),
        np.asarray(normalise(normalised(photos()))),
        rtol=1e-5,
        atol=1e-5,
    )
    assert {each.dtype for each in build_model(wrap(model).trunk.blueprint[FEATURES], None, SIZE).weights} == {
        "float32"
    }
    np.testing.assert_allclose(network.forward(photos()), np.asarray(model(normalised(photos()))), rtol=0.01, atol=0.01)


def test_in_bf16_its_layers_compute_in_bf16() -> None:
    model, images = make("functional"), photos()
    exact, coarse = (
        network_for(model, precision, spec=SPEC).forward(images, FEATURES) for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(exact - coarse).max() < 0.05 * np.abs(exact).max()
    node = wrap(model, spec=SPEC).trunk.blueprint[FEATURES]
    for live in (None, model):
        inner = build_model(node, live, SIZE, "mixed_bfloat16")
        assert {each.dtype_policy.name for each in inner.layers[1:]} == {"mixed_bfloat16"}


def test_other_pixels_than_the_models_own_and_the_default_ones() -> None:
    model = make("functional")
    network = network_for(model, pixels=48)
    images = some_photos(2, 48)
    assert network.spec == ImageSpec(48, (0, 0, 0), (1 / 255, 1 / 255, 1 / 255), resample="bilinear")
    expected = moved(model, 48)(images.astype(np.float32))
    np.testing.assert_allclose(softmax(network.forward(images)), expected, rtol=1e-3, atol=1e-5)
    assert wrap(model).trunk.spec.size == SIZE
    assert wrap(make("subclassed")).trunk.spec.size == SIZE  # that it was first called with
    assert network_for(make("subclassed"), pixels=48).shape("conv2d_1") == (8, 24, 24)


def moved(model: Any, size: int) -> Any:
    """The same layers on images of another size."""
    wider = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 3)))
    wider.set_weights(model.get_weights())
    return wider


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", ["input", "conv2d", "add"])
def test_gradients_are_those_of_a_tape(wrt: str) -> None:
    model, rng = make("subclassed"), np.random.default_rng(0)
    images = rng.uniform(0, 1, (2, SIZE, SIZE, 3))
    network = network_for(model, "fp64", spec=SPEC)
    flat = unroll(model, SIZE, "it", "float64")
    value, pullback = network.vjp(images, "logits", wrt)
    cotangent = rng.standard_normal(value.shape)
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        pixels = x * 2 - 1
        if wrt == "input":
            start = x
            hidden = _headless(flat)(pixels, training=False)
        else:
            inner = next(each.output for each in flat.operations if each.name == wrt)
            start = keras.Model(flat.input, inner)(pixels, training=False)
            tape.watch(start)
            hidden = keras.Model([flat.input, inner], _headless(flat).output)([pixels, start], training=False)
        kernel, bias = (np.asarray(each, np.float64) for each in model.head.get_weights())
        total = tf.reduce_sum((hidden @ kernel + bias) * cotangent)
    expected = tape.gradient(total, start).numpy()
    if expected.ndim == 4 and wrt != "input":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(pullback(cotangent), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def _headless(flat: Any) -> Any:
    return keras.Model(flat.input, next(each for each in flat.operations if each.name == "dropout").output)


# --- the head, and the features ---------------------------------------------------------------------------------------


def ending(*steps: Any) -> Any:
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(6, 3, 4, name="conv"), *steps])


def pooled() -> Any:
    return layers.GlobalAveragePooling2D()


@pytest.mark.parametrize(
    ("end", "units"),
    [
        (lambda: [pooled(), layers.Dense(4)], 6),
        (lambda: [pooled(), layers.Dense(4, use_bias=False, activation="sigmoid")], 6),
        (lambda: [pooled(), layers.Dense(9, "relu"), layers.Dense(4), layers.Softmax(), layers.Dropout(0.1)], 9),
        (
            lambda: [
                layers.GlobalAveragePooling2D(keepdims=True),
                layers.Conv2D(4, 1),
                layers.Reshape((4,)),
                layers.Activation("softmax"),
            ],
            6,
        ),
        (lambda: [layers.Flatten(), layers.Dense(4)], 6 * 8 * 8),
    ],
)
def test_a_head_is_recognised_and_features_are_what_it_is_given(end: Any, units: int) -> None:
    model = trained(ending(*end()))
    found = wrap(model, spec=SPEC)
    assert found.trunk.blueprint.shapes()[FEATURES] == (units,)
    assert found.head is not None
    assert [part.shape for part in found.head] == [(4, units), (4,)]
    answer, expected = network_for(model, spec=SPEC).forward(photos()), np.asarray(model(normalised(photos())))
    if model.layers[-1].name.startswith("dense") and model.layers[-1].activation is keras.activations.sigmoid:
        answer = 1 / (1 + np.exp(-answer))
    elif abs(expected.sum(axis=1) - 1).max() < 1e-5:
        answer = softmax(answer)
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def gated() -> Any:
    x = images = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(6, 3, 4)(x)
    return keras.Model(images, pooled()(x) * layers.Dense(6, activation="sigmoid")(pooled()(x)))


def with_two_outputs() -> Any:
    model = ending(pooled())
    return keras.Model(model.inputs, [layers.Dense(2)(model.outputs[0]), layers.Dense(3)(model.outputs[0])])


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (lambda: ending(pooled()), "Conv2D at 'conv'"),
        (lambda: ending(pooled(), layers.Dense(4, "relu", name="embedding")), "Dense at 'embedding'"),
        (lambda: ending(layers.Dense(4, name="each"), pooled()), "Dense at 'each'"),
        (lambda: ending(layers.Conv2D(4, 1, name="map"), pooled()), "Conv2D at 'map'"),
        (gated, "several ways"),
        (with_two_outputs, "several ways"),
    ],
)
def test_a_model_without_a_recognisable_head_is_refused_unless_features_are_named(model: Any, found: str) -> None:
    with pytest.raises(
        UsageError, match=f"no head that can be recognised: .*found {found} at the end.*features='LAYER'"
    ):
        wrap(model(), spec=SPEC)


def test_features_of_a_layer_that_is_named() -> None:
    model = trained(ending(layers.ReLU(name="map"), pooled(), layers.Dense(4, "relu", name="last")))
    for features, units in (("map", 6), ("last", 4), ("", 4)):
        network = network_for(model, features=features, spec=SPEC)
        value = network.forward(photos(), FEATURES)
        assert value.shape == (3, units)
        if features == "map":
            np.testing.assert_allclose(value, network.forward(photos(), "map").mean((2, 3)), rtol=1e-4)
    with pytest.raises(UsageError, match=r"no layer 'mop' that could give the features\. Did you mean map"):
        wrap(model, features="mop")
    with pytest.raises(UsageError, match=r"returns \(None, 2\), \(None, 3\); expected one tensor .*features='LAYER'"):
        wrap(with_two_outputs(), features="")


# --- what cannot be wrapped -------------------------------------------------------------------------------------------


class Fixed(layers.Layer):  # type: ignore[misc]
    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table

    def call(self, x: Any) -> Any:
        return x


class Other(keras.Model):  # type: ignore[misc]
    """Its code is TensorFlow's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = layers.Conv2D(4, 3)

    def call(self, x: Any) -> Any:
        return tf.nn.relu(self.stem(x))


def two_inputs() -> Any:
    images, more = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))
    return keras.Model([images, more], layers.Dense(2)(layers.Flatten()(images + more)))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda: 3, r"Expected the name of a backbone or a keras\.Model\. Received: int"),
        (lambda: keras.Sequential([layers.Dense(2)]), "has no weights yet"),
        (Residual, "has no weights yet. Call it on some images first"),
        (
            lambda: ending(Fixed(np.ones(3)), pooled(), layers.Dense(2)),
            "a Fixed, cannot be copied; give it a get_config",
        ),
        (lambda: keras.Sequential([keras.Input((9,)), layers.Dense(2)]), "fails on images of 32 pixels"),
        (lambda: keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Conv2D(2, 1)]), "fails on images of 32 pixels"),
        (lambda: ending(layers.Flatten(), layers.Dense(2)), None),
        (two_inputs, "Expected a model of one input, images"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(model: Any, sentence: str | None) -> None:
    made = model()
    if sentence is None:
        with pytest.raises(UsageError, match="fails on images of 64 pixels, given as"):
            wrap(made, pixels=64)
        return
    with pytest.raises(UsageError, match=sentence):
        wrap(made, spec=SPEC)


def test_a_model_whose_code_is_not_keras_alone_is_one_layer() -> None:
    model = Other()
    model(np.zeros((1, SIZE, SIZE, 3), np.float32))
    trained(model)
    with pytest.raises(UsageError, match=r"no head that can be recognised: .*found Other at 'other'"):
        wrap(model, spec=SPEC)
    found = wrap(model, spec=SPEC, features="")
    assert found.module is not None
    expected = np.asarray(model(normalised(photos()))).mean((1, 2))
    np.testing.assert_allclose(
        network_for(model, spec=SPEC, features="").forward(photos(), FEATURES), expected, rtol=1e-4, atol=1e-5
    )


def test_layers_of_ones_own_need_the_live_model_again() -> None:
    model = trained(functional(Scale()))
    found = wrap(model, spec=SPEC)
    assert found.trunk.blueprint[FEATURES]["config"] == ""
    assert f"{FEATURES}.scale.variable" in found.trunk.weights
    network = network_for(model, spec=SPEC)
    np.testing.assert_allclose(softmax(network.forward(photos())), model(normalised(photos())), rtol=1e-4, atol=1e-5)
    arguments = found.trunk.blueprint, found.trunk.weights, SPEC
    again = KerasNetwork(*arguments, module=trained(functional(Scale()), 1))  # the weights are the blueprint's
    np.testing.assert_allclose(
        again.forward(photos(), FEATURES), network.forward(photos(), FEATURES), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(UsageError, match=r"a module of your own, .*headstart\.load\(PATH, module=MODULE\)"):
        KerasNetwork(*arguments)
    with pytest.raises(
        UsageError, match=r"not the one that this one was made of .*its weight 'scale\.variable' expected"
    ):
        KerasNetwork(*arguments, module=make("functional"))
    with pytest.raises(UsageError, match="its head is not 'predictions'"):
        KerasNetwork(*arguments, module=make("sequential"))
    with pytest.raises(UsageError, match="'keras-model:functional' is a Keras model, which no other engine"):
        get_engine("torch", *arguments)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as people have it: trained, with a loss of their own."""
    model = make("nested")
    model.compile("adam", loss=_loss)
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    model.save(path)
    return path


@keras.saving.register_keras_serializable("mine")  # type: ignore[untyped-decorator]
def _loss(truth: Any, answer: Any) -> Any:
    return keras.ops.mean((truth - answer) ** 2)


def test_a_file_gives_what_the_model_gives(saved: Path) -> None:
    for source in (str(saved), make("nested")):
        trunk = wrap(source, spec=SPEC).trunk
        assert weights_digest(trunk.weights) == weights_digest(wrap(make("nested")).trunk.weights)
    np.testing.assert_array_equal(
        network_for(str(saved)).forward(photos()), network_for(make("nested")).forward(photos())
    )


def rewritten(saved: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a file with another architecture."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)
    return target


def evil(marker: Path) -> dict[str, dict[str, Any]]:
    """Entries of a configuration that would run code, were they built."""
    loud = layers.Lambda(eval(f"lambda x: __import__('pathlib').Path({str(marker)!r}).touch() or x"), name="innocent")
    return {
        "lambda": keras.saving.serialize_keras_object(loud),
        "pickle": {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASV"}},
        "saved": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": str(marker)}},
        "foreign": {"module": "os", "class_name": "system", "config": {"command": f"touch {marker}"}},
        "function": {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        "gadget": {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": None},
        "registered": {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "mine>Scale"},
        "custom": {"module": "mine", "class_name": "Scale", "config": {}, "registered_name": "mine>Scale"},
        "legacy": {"class_name": "Dense", "config": {"units": 3}},
        "spec": {
            "class_name": "__typespec__",
            "spec_name": "system",
            "module": "os",
            "config": [],
            "registered_name": "",
        },
        "odd": {"module": ["os"], "class_name": "Dense", "config": {}},
    }


@pytest.mark.parametrize(
    "what",
    ["lambda", "pickle", "saved", "foreign", "function", "gadget", "registered", "custom", "legacy", "spec", "odd"],
)
@pytest.mark.parametrize("where", ["layer", "deep", "build", "argument"])
def test_a_file_that_would_run_code_is_refused_before_keras_sees_it(
    what: str, where: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, entry = tmp_path / "ran", evil(tmp_path / "ran")[what]

    def change(config: dict[str, Any]) -> None:
        steps = config["config"]["layers"]
        if where == "layer":
            steps[-1]["config"]["activation"] = entry
        elif where == "deep":
            wrapper = keras.saving.serialize_keras_object(layers.TimeDistributed(layers.Dense(2), name="outer"))
            wrapper["config"]["layer"]["config"]["kernel_regularizer"] = {"list": [[entry]]}
            steps[2]["config"]["layers"].append(wrapper)
        elif where == "build":
            config["build_config"] = {"input_shape": entry}
        else:
            steps[-1]["inbound_nodes"][0]["kwargs"] = {"mask": entry}

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", lambda *_, **__: pytest.fail("Keras saw it"))
    with pytest.raises(UsageError, match=r"is not opened, for it could run code of somebody else's: .{20}"):
        wrap(str(rewritten(saved, tmp_path / "evil.keras", change)))
    assert not marker.exists()


def test_keras_itself_would_run_it_if_told_to(tmp_path: Path) -> None:
    """The marker of the test above is one that can appear."""
    built = keras.saving.deserialize_keras_object(evil(tmp_path / "ran")["lambda"], safe_mode=False)
    assert not (tmp_path / "ran").exists()
    built(np.zeros((1, 2), np.float32))
    assert (tmp_path / "ran").exists()


def test_the_refusal_names_the_layer(tmp_path: Path) -> None:
    model = ending(layers.Lambda(lambda x: x, name="odd_one"), pooled(), layers.Dense(2))
    model.save(tmp_path / "odd.keras")
    with pytest.raises(UsageError, match=r"the layer 'odd_one' is a Lambda, which runs Python code that it brings"):
        wrap(str(tmp_path / "odd.keras"))
    functional(Scale()).save(tmp_path / "own.keras")
    with pytest.raises(
        UsageError, match=r"the layer 'scale\w*' is or holds a '\w+\.mine>Scale', which is none of Keras' own"
    ):
        wrap(str(tmp_path / "own.keras"))


def test_what_is_for_training_alone_is_passed_over(saved: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["compile_config"] = {"loss": evil(tmp_path / "ran")["lambda"]}

    wrap(str(rewritten(saved, tmp_path / "compiled.keras", change)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "empty", "no weights", "no json", "list", "deep", "nonsense", "h5"]
)
def test_a_damaged_file_is_refused_in_a_sentence(damage: str, saved: Path, tmp_path: Path) -> None:
    path, data = tmp_path / "bad.keras", saved.read_bytes()
    if damage in ("cut", "flipped", "empty", "h5"):
        place = data.index(b"\x89HDF") + 3000
        flipped = data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]
        path.write_bytes(
            {"cut": data[: len(data) // 2], "flipped": flipped, "empty": b"", "h5": b"\x89HDF\r\n"}[damage]
        )
    else:
        texts = {"no json": "{", "list": "[1]", "deep": "[" * 100_000, "nonsense": '{"class_name": "Functional"}'}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", texts.get(damage, zipfile.ZipFile(saved).read("config.json")))
            if damage != "no weights":
                archive.writestr("model.weights.h5", b"")
    with pytest.raises(
        UsageError, match=r"bad\.keras' (is truncated or damaged|is damaged|is not opened|is no \.keras file)"
    ):
        wrap(str(path))


def test_a_file_that_is_not_there_or_would_unfold_to_much(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.keras': expected a \.keras file, there is none"):
        wrap(str(tmp_path / "none.keras"))
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(UsageError, match="received a folder"):
        wrap(str(tmp_path / "folder.keras"))
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * (20 << 20))
    with pytest.raises(UsageError, match=r"config\.json would unfold to 20971520 bytes"):
        wrap(str(tmp_path / "bomb.keras"))


@pytest.mark.parametrize("how", ["soft", "external"])
def test_weights_that_lie_elsewhere_are_refused(how: str, saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        group = file["layers/dense/vars"]
        shape = group["0"].shape
        del group["0"]
        if how == "soft":
            group["0"] = h5py.SoftLink("/layers/dense/vars/1")
        else:
            group.create_dataset("0", shape, "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])
    with zipfile.ZipFile(tmp_path / "linked.keras", "w") as archive:
        for name in ("config.json", "model.weights.h5"):
            archive.write(tmp_path / name, name)
    with pytest.raises(UsageError, match=r"The weights were refused: .*'0'"):
        wrap(str(tmp_path / "linked.keras"))


# --- keras.applications -----------------------------------------------------------------------------------------------


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    return keras.applications.imagenet_utils.preprocess_input(x, data_format=data_format, mode="caffe")


def Toylet(
    include_top: bool = True, weights: str | None = "imagenet", input_shape: Any = None, classes: int = 1000
) -> keras.Model:
    """As those of keras.applications: a head behind a Flatten, layers without names, weights that it fetches."""
    x = images = keras.Input(input_shape or (48, 48, 3))
    x = layers.Normalization()(x)
    for _ in range(12):  # conv2d_10 comes before conv2d_2 in a file
        x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(4)(x)
    if include_top:
        x = layers.Dense(8, name="fc1")(layers.Flatten()(x))
        x = layers.Dense(classes, activation="softmax", name="predictions")(x)
    model = keras.Model(images, x)
    if weights == "imagenet":
        address = "https://example.org/models/toylet_weights.weights.h5"
        model.load_weights(file_utils.get_file("toylet.h5", address, cache_subdir="models", file_hash=HASH["md5"]))
    return model


HASH = {"md5": "0" * 32}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """A network with weights, and their file."""
    monkeypatch.setattr(keras.applications, "Toylet", Toylet, raising=False)
    model = toylet()
    model.save_weights(tmp_path / "toy.weights.h5")
    monkeypatch.setitem(HASH, "md5", "0" * 32)
    return model, tmp_path / "toy.weights.h5"


def toylet(**options: Any) -> Any:
    model = Toylet(weights=None, **options)
    for each in model.layers:
        if not isinstance(each, layers.Normalization):
            trained(each, 2)
        if each.name == "fc1":  # so that the softmax does not saturate
            each.kernel.assign(each.kernel * 2e-3)
    statistics = model.layers[1]
    statistics.adapt_mean.assign([1.0, 2.0, 3.0])
    statistics.adapt_variance.assign([400.0, 500.0, 600.0])
    statistics.finalize_state()
    return model


def test_an_application_is_built_from_its_name_and_a_file(toy: tuple[Any, Path]) -> None:
    model, file = toy
    images = some_photos(2, 48)
    expected = np.asarray(model(preprocess_input(images.astype(np.float32))))
    whole = hs.pretrained("keras/Toylet", file)
    assert (whole.engine, whole.spec.size, len(whole.classes_)) == ("keras", 48, 1000)
    np.testing.assert_allclose(softmax(whole.network.forward(images)), expected, rtol=1e-3, atol=1e-6)


def test_the_commands_open_an_application(toy: tuple[Any, Path], photos: Path, shell: Shell) -> None:
    picture = next(photos.rglob("*.png"))
    answer = shell("predict", "keras/Toylet", picture, "--weights", toy[1], "--json")
    assert answer.code == 0, answer.err
    assert answer.json["label"] == hs.pretrained("keras/Toylet", toy[1]).predict([picture])[0]
    refused = shell("predict", "keras/Toylet", picture, "--weights", toy[1], "--engine", "fast")
    assert refused.code == 2
    assert "'keras/Toylet' is a Keras model, which no other engine" in refused.err


def test_at_another_size_a_network_that_cannot_keep_its_head_goes_without(toy: tuple[Any, Path]) -> None:
    model, file = toy
    found = wrap("keras/Toylet", file, pixels=SIZE)
    assert found.head is None
    assert found.trunk.blueprint.shapes()[FEATURES] == (4,)
    bare = keras.Model(model.input, model.get_layer("fc1").input)
    images = photos(2)
    cut = toylet(include_top=False, input_shape=(SIZE, SIZE, 3))
    cut.set_weights(bare.get_weights())
    cut.layers[1].finalize_state()
    expected = np.asarray(cut(preprocess_input(images.astype(np.float32)))).mean((1, 2))
    network = KerasNetwork(found.trunk.blueprint, found.trunk.weights, found.trunk.spec)
    np.testing.assert_allclose(network.forward(images, FEATURES), expected, rtol=1e-4, atol=1e-5 * expected.max())
    with pytest.raises(UsageError, match="alone is no classifier: expected a head for the 1000 classes"):
        found.whole()


def test_files_with_another_head_or_none_give_a_trunk(toy: tuple[Any, Path], tmp_path: Path) -> None:
    _, file = toy
    toylet(classes=3).save_weights(tmp_path / "three.weights.h5")
    three, other = wrap("keras/Toylet", tmp_path / "three.weights.h5"), wrap("keras/Toylet", file)
    assert three.head is None
    assert other.head is not None
    assert three.trunk.weights.keys() == other.trunk.weights.keys()
    toylet(include_top=False).save_weights(tmp_path / "none.weights.h5")
    none = wrap("keras/Toylet", tmp_path / "none.weights.h5").trunk
    assert none.blueprint.shapes()[FEATURES] == (4,)
    for name, array in none.weights.items():
        np.testing.assert_array_equal(array, other.trunk.weights[name])


def test_a_file_of_another_network_is_refused(toy: tuple[Any, Path], tmp_path: Path) -> None:
    make("functional").save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(UsageError, match=r"'.*other\.weights\.h5' does not fit: .*weights differ\. A file of another"):
        wrap("keras/Toylet", tmp_path / "other.weights.h5")
    with pytest.raises(UsageError, match="there is none"):
        wrap("keras/Toylet", tmp_path / "nowhere.weights.h5")


def test_weights_are_those_that_keras_itself_would_fetch(
    toy: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published file, too, of which Keras normalises in another way, lies where Keras keeps it."""
    _, file = toy
    with pytest.raises(
        UsageError,
        match=r"^The weights 'toylet_weights\.weights\.h5' are not .* set: put the file from https://example",
    ):
        wrap("keras/Toylet")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    place = tmp_path / "home" / "models" / "toylet_weights.weights.h5"
    place.parent.mkdir(parents=True)
    shutil.copy(file, place)
    monkeypatch.setitem(HASH, "md5", hashlib.md5(file.read_bytes()).hexdigest())
    scaled = toylet()
    scaled.layers[1].adapt_variance.assign(np.array([400, 500, 600]) * np.array([0.229, 0.224, 0.225]))
    scaled.layers[1].finalize_state()
    images = some_photos(2, 48)
    expected = np.asarray(scaled(preprocess_input(images.astype(np.float32))))
    for given in (None, file):
        answer = softmax(hs.pretrained("keras/Toylet", given).network.forward(images))
        np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-6)


def test_another_thread_may_fetch_while_keras_is_asked(toy: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    seen: list[Any] = []
    monkeypatch.setattr(file_utils, "get_file", lambda *args, **_: args[0])

    def asked(**options: Any) -> Any:
        other = threading.Thread(target=lambda: seen.append(file_utils.get_file("mine.txt", "https://example.org")))
        other.start()
        other.join()
        return Toylet(**options)

    asked.__module__ = __name__
    record = keras_applications.published(asked, "keras/Toylet")
    assert seen == ["mine.txt"]
    assert record == WeightsRecord(
        "keras/Toylet", "unknown", "keras", url="https://example.org/models/toylet_weights.weights.h5", md5="0" * 32
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("keras/resnet50v2", r"has no model 'resnet50v2'\. Did you mean ResNet50V2"),
        ("keras/", r"has no model ''"),
        ("keras/vgg16", r"Did you mean VGG16"),
        ("keras/__builtins__", r"has no model '__builtins__'"),
        ("keras/MobileNet", "--pixels: expected 32 to 1024"),
    ],
)
def test_a_name_that_keras_does_not_have_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        wrap(name, pixels=7 if name == "keras/MobileNet" else None)


@pytest.mark.parametrize(
    "name", ["MobileNetV2", "VGG16", "DenseNet121", "EfficientNetV2B0", "ResNet50V2", "NASNetMobile"]
)
def test_pixels_become_what_preprocess_input_makes_of_them(name: str) -> None:
    function = getattr(keras.applications, name)
    spec, flip = keras_applications._spec(function, SIZE)
    images = photos(2).astype(np.float64)
    ours = (images / 255 - np.array(spec.mean)) / np.array(spec.std)
    theirs = sys.modules[function.__module__].preprocess_input(images.copy())
    np.testing.assert_allclose(ours[..., ::-1] if flip else ours, theirs, rtol=1e-6, atol=1e-6)
    assert flip == (name == "VGG16")


def test_a_network_that_turns_colours_does_so_inside() -> None:
    model, images = make("functional"), normalised(photos())
    flat = unroll(model, SIZE, "it", flip=True)
    np.testing.assert_allclose(flat(images), model(images[..., ::-1].copy()), rtol=1e-5, atol=1e-6)
    assert "flip" in from_text(json.dumps(keras.saving.serialize_keras_object(flat)), "it").operations[1].name


# --- fitted on, saved, opened -----------------------------------------------------------------------------------------


def test_an_application_is_fitted_on_saved_and_opened_elsewhere(
    photos: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained(keras.applications.MobileNet(weights=None, input_shape=(SIZE, SIZE, 3)), 1)
    network.save_weights(tmp_path / "mobilenet.weights.h5")
    arguments = ["--backbone", "keras/MobileNet", "--weights", tmp_path / "mobilenet.weights.h5", "--pixels", SIZE]
    answer = shell("fit", photos, *arguments, "--out", tmp_path / "model", "--json")
    assert answer.code == 0, answer.err
    picture = next(photos.rglob("*.png"))
    model = hs.load(tmp_path / "model")
    assert (model.engine, model.spec.size, model.record["backbone"]) == ("keras", SIZE, "keras/MobileNet")
    expected = model.predict_proba([picture])
    code = (
        "import headstart as hs, json, sys\n"
        "model = hs.load(sys.argv[1]); print(json.dumps(model.predict_proba([sys.argv[2]]).tolist()))"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model", picture], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(elsewhere.stdout), expected, atol=1e-6)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    node = next(each for each in config["blueprint"]["nodes"] if each[1] == "module")
    node[3]["config"] = node[3]["config"].replace('"class_name": "ReLU"', '"class_name": "Lambda"', 1)
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckError, match="is a Lambda, which runs Python code that it brings"):
        hs.load(tmp_path / "model")


def test_a_model_is_fitted_on_and_its_classifier_opens_without_it(photos: Path, tmp_path: Path) -> None:
    model = hs.fit(str(photos), backbone=make("subclassed"), spec=SPEC, cache=False)
    assert (model.engine, model.spec, model.module) == ("keras", SPEC, None)
    assert model.record["backbone"] == f"keras-model:{Residual.__module__}.Residual"
    model.save(tmp_path / "model")
    assert "hs.fit(DATA, backbone=MODULE, pixels=" in (tmp_path / "model" / "README.md").read_text()
    images = list(some_photos(4, 40))
    np.testing.assert_allclose(
        hs.load(tmp_path / "model").predict_proba(images), model.predict_proba(images), atol=1e-5
    )
    assert Blueprint.from_json(model.blueprint.to_json()) == model.blueprint


def test_a_classifier_on_a_model_goes_back_to_keras(photos: Path, tmp_path: Path) -> None:
    model, images = hs.fit(str(photos), backbone=make("subclassed"), spec=SPEC, cache=False), some_photos(4, SIZE)
    model.to_keras().save(tmp_path / "whole.keras")
    opened = keras.models.load_model(tmp_path / "whole.keras", safe_mode=True)
    expected = model.network.forward(images)
    np.testing.assert_allclose(opened(images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    again = wrap(str(tmp_path / "whole.keras"))
    assert again.head is not None
    np.testing.assert_allclose(
        network_for(str(tmp_path / "whole.keras")).forward(images), expected, rtol=1e-3, atol=1e-3
    )


def test_a_model_of_ones_own_layers_opens_with_it(photos: Path, tmp_path: Path) -> None:
    model = hs.fit(str(photos), backbone=trained(functional(Scale())), spec=SPEC, cache=False)
    model.save(tmp_path / "model")
    with pytest.raises(UsageError, match=r"headstart\.load\(PATH, module=MODULE\)"):
        hs.load(tmp_path / "model")
    again = hs.load(tmp_path / "model", module=trained(functional(Scale()), 3))
    images = list(some_photos(4, 40))
    np.testing.assert_allclose(again.predict_proba(images), model.predict_proba(images), atol=1e-5)


def test_a_keras_file_is_a_backbone_of_the_commands(saved: Path, photos: Path, tmp_path: Path, shell: Shell) -> None:
    answer = shell("fit", photos, "--backbone", saved, "--pixels", 40, "--out", tmp_path / "model", "--json")
    assert answer.code == 0, answer.err
    assert hs.load(tmp_path / "model").record["backbone"] == "keras-model:functional"
    refused = shell("predict", saved, next(photos.rglob("*.png")))
    assert refused.code == 2
    assert "alone is no classifier" in refused.err
    compared = shell("compare", photos, "--backbones", f"{saved},keras/nothing", "--json")
    assert [row["backbone"] for row in compared.json["rows"]] == [str(saved)]
    assert "keras.applications has no model 'nothing'" in compared.json["skipped"][0]["why"]
