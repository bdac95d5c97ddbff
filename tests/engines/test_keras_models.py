"""Any model of Keras as a network: taken apart, its head found, its gradients, what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.backbones.blueprint import FEATURES
from headstart.backbones.weights import weights_digest
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec, Normalisation
from headstart.engines.registry import get_engine, keras_engine
from referee import photos as some_photos

keras_engine()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

from headstart.engines.keras.flat_model import unroll  # noqa: E402
from headstart.engines.keras.models import build_model, variables, wrap  # noqa: E402
from headstart.engines.keras.network import KerasNetwork  # noqa: E402
from keras_examples import (  # noqa: E402
    KINDS,
    SIZE,
    SPEC,
    Residual,
    Scale,
    ending,
    functional,
    make,
    network_for,
    normalised,
    photos,
    pooled,
    softmax,
    trained,
)

# Keras 3.15 turns its variables into arrays in a way that NumPy 2 is going to drop
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

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


def channels_first() -> Any:
    turned = keras.Sequential([keras.Input((3, 64, 48)), layers.Permute((2, 3, 1)), layers.Conv2D(2, 3), pooled()])
    return keras.Sequential([turned, layers.Dense(2)])


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
        (lambda: keras.Sequential([keras.Input((SIZE, SIZE, 4)), layers.Conv2D(2, 1)]), "fails on images of 32 pixels"),
        (lambda: ending(layers.Flatten(), layers.Dense(2)), None),
        (two_inputs, "Expected a model of one input, images"),
        (channels_first, r"takes images of the shape \(3, 64, 48\): expected height, width, channels"),
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
        UsageError, match=r"not the one that the model was made of .*its weight 'scale\.variable' expected"
    ):
        KerasNetwork(*arguments, module=make("functional"))
    with pytest.raises(UsageError, match="its head is not 'predictions'"):
        KerasNetwork(*arguments, module=make("sequential"))
    with pytest.raises(UsageError, match="'keras-model:functional' is a Keras model, which only the keras engine"):
        get_engine("torch", *arguments)


def test_what_pixels_are_assumed_is_said_where_nothing_tells_them() -> None:
    said = wrap(make("functional"), spec=ImageSpec(SPEC.size)).trunk.assumed
    assert "does not say which pixels it wants. It gets pixels from 0 to 255. Name others" in said
    assert wrap(make("functional"), spec=Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))).trunk.assumed == ""


def statistics(mean: float, variance: float) -> Any:
    """A batch norm as after training on pixels with these."""
    norm = layers.BatchNormalization()
    norm.build((None, SIZE, SIZE, 3))
    norm.moving_mean.assign([mean] * 3)
    norm.moving_variance.assign([variance] * 3)
    return norm


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        (layers.Rescaling(1 / 255), True),
        (lambda x: x / 255.0, True),
        (lambda x: (x - 128) / 64, True),
        (keras.applications.resnet50.preprocess_input, True),
        (lambda x: layers.Resizing(48, 48)(keras.applications.mobilenet.preprocess_input(x)), True),
        (layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3), True),
        (statistics(100, 3600), True),
        (keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 127.5, -1)]), True),
        (lambda x: x, False),
        (lambda x: layers.ZeroPadding2D(2)(layers.Resizing(48, 48)(layers.RandomRotation(0.1)(x))), False),
        (lambda x: x[..., ::-1], False),
        (layers.Normalization(mean=[0.5] * 3, variance=[0.06] * 3), False),  # of pixels from 0 to 1
        (statistics(0.1, 1), False),
        (lambda x: layers.Rescaling(1 / 255)(layers.Conv2D(3, 3, name="first")(x)), False),
    ],
)
def test_a_model_that_scales_its_pixels_before_its_first_weights_gets_bytes_and_nothing_is_said(
    scaling: Any, said: bool
) -> None:
    """Whatever it does so with; one that does not, or later, or as for other pixels, gets a sentence."""
    images = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(images, layers.Dense(2)(pooled()(layers.Conv2D(4, 3)(scaling(images)))))
    found = wrap(model).trunk
    assert found.spec == ImageSpec(SIZE, (0, 0, 0), (1 / 255, 1 / 255, 1 / 255), resample="bilinear")
    assert bool(found.assumed) != said
    np.testing.assert_allclose(
        network_for(model).forward(photos()), model(photos().astype(np.float32), training=False), rtol=1e-3, atol=1e-3
    )


def test_a_single_channel_is_scaled_in_the_model_too() -> None:
    grey = keras.Input((SIZE, SIZE, 1))
    for pixels, said in ((grey / 255.0, True), (grey, False)):
        trunk = wrap(keras.Model(grey, layers.Dense(2)(pooled()(layers.Conv2D(4, 3)(pixels))))).trunk
        assert bool(trunk.assumed) != said


def test_the_statistics_of_a_file_tell_the_pixels_too(tmp_path: Path) -> None:
    models = [ending_with(statistics(mean, variance)) for mean, variance in ((0, 1), (100, 3600))]
    models[1].save_weights(tmp_path / "it.weights.h5")
    assert wrap(models[0]).trunk.assumed != ""
    assert wrap(models[0], tmp_path / "it.weights.h5").trunk.assumed == ""


def ending_with(first: Any) -> Any:
    steps = [first, layers.Conv2D(6, 3, name="conv"), pooled(), layers.Dense(2, name="top")]
    first.name = "norm"
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *steps])


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2_1.00_224", "inception_v3", "efficientnetb0"])
def test_the_name_of_an_application_alone_tells_nothing(name: str) -> None:
    x = images = keras.Input((SIZE, SIZE, 3))
    for _ in range(6):
        x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
    found = wrap(keras.Model(images, layers.Dense(2)(pooled()(x)), name=name)).trunk
    assert (found.spec.mean, found.spec.std) == ((0, 0, 0), (1 / 255,) * 3)
    assert "It gets pixels from 0 to 255" in found.assumed
    scaled = wrap(ending_with(layers.Rescaling(1 / 127.5, -1))).trunk
    assert (scaled.spec.mean, scaled.assumed) == ((0, 0, 0), "")


def test_channels_that_come_first_are_turned_as_the_sentence_says() -> None:
    model = channels_first()
    turned = keras.Sequential([keras.Input((64, 48, 3)), layers.Permute((3, 1, 2)), model])
    assert wrap(turned).trunk.blueprint.shapes()[FEATURES] == (2,)


def test_of_logits_and_probabilities_the_head_is_what_gives_both() -> None:
    images = keras.Input((SIZE, SIZE, 3))
    logits = layers.Dense(4, name="logits")(pooled()(layers.Conv2D(6, 3)(images)))
    model = trained(keras.Model(images, {"logits": logits, "probabilities": layers.Softmax()(logits)}))
    found = wrap(model)
    assert found.head is not None
    np.testing.assert_array_equal(found.head[1], model.get_layer("logits").bias)
    expected = model(photos().astype(np.float32))["logits"]
    np.testing.assert_allclose(network_for(model).forward(photos()), expected, rtol=1e-4, atol=1e-3)
