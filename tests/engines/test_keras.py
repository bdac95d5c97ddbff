"""What the Keras engine alone does: an ordinary model out, gradients as a tape has them, the same answers as fast."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.ops import SQRT_EPSILON, Node
from headstart.core.errors import UsageError
from headstart.core.install import extra_install
from headstart.data.load import decode
from headstart.engines import protocol
from headstart.engines.registry import keras_engine, torch_engine
from headstart.learn.calibrate import softmax
from making import Shell
from referee import EVERY_OP, HEAD, INPUT, MAX_POOL, SPEC, assert_close, conv, photos, slow_forward, weights_for

torch_engine()  # before TensorFlow, as the guard has it
engine = keras_engine()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from headstart.engines.keras.functions import CompiledNetwork  # noqa: E402
from headstart.engines.keras.graph import assemble, layer_names, to_model, weights_of  # noqa: E402

# Keras' own, whenever it saves
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def small_trunk(sqrt: bool = False) -> Blueprint:
    nodes = (
        INPUT,
        conv("stem", "input", 8, (3, 3), stride=2),
        Node("stem.norm", "norm", ("stem",), {"epsilon": 1e-3}),
        Node("last", "act", ("stem.norm",), {"kind": "relu6"}),
        *HEAD,
    )
    return Blueprint("fitted", nodes, 9).trunk(("last", "stem.norm")).with_head(3, sqrt=sqrt)


def network_for(blueprint: Blueprint, precision: str = "fp32") -> Any:
    return engine.KerasNetwork(blueprint, weights_for(blueprint), SPEC, precision, "cpu")


# --- an ordinary model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Any:
    """Not to be changed."""
    return to_model(EVERY_OP, weights_for(EVERY_OP), SPEC)


def test_nodes_are_keras_own_layers_of_their_names_and_have_the_referees_values(model: Any) -> None:
    images = photos(3)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    names = EVERY_OP.layers[1:]
    values = keras.Model(model.input, [model.get_layer(name).output for name in names]).predict(images, verbose=0)
    for name, value in zip(names, values, strict=True):
        assert_close(np.moveaxis(value, -1, 1), expected[name])
    kinds = {name: type(model.get_layer(name)).__name__ for name in ("stem", "depthwise", "stem_norm", "logits")}
    assert [*kinds.values()] == ["Conv2D", "DepthwiseConv2D", "BatchNormalization", "Dense"]
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert "Lambda" not in {type(layer).__name__ for layer in model.layers}
    assert (model.input.name, model.output.dtype) == ("input", "float32")


def test_bytes_and_floats_up_to_255_are_the_same_pixels(model: Any) -> None:
    images = photos(3)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)["logits"]
    for pixels in (images, images.astype(np.float32), tf.constant(images)):
        assert_close(np.asarray(model(pixels)), expected)


ODD = ("a/b", "a_b", "_x", "two words", "é", "normalise", "pad", "sqrt", "add", "stem_pad", ".", "functional")


def test_names_that_keras_does_not_take_are_no_obstacle(tmp_path: Path) -> None:
    nodes = [INPUT, conv("stem", "input", 4, (3, 3), padding=(0, 2, 1, 0))]
    for before, name in zip(("stem", *ODD), ODD, strict=False):
        nodes.append(conv(name, before, 4, (1, 1), bias=True))
    nodes += [Node("rooted", "act", (ODD[-1],), {"kind": "sqrt"})]
    nodes += [Node("top", "max_pool", ("rooted",), MAX_POOL | {"padding": (1, 0, 0, 0)})]
    blueprint = Blueprint("/odd name", (*nodes, Node("last", "act", ("top",), {"kind": "relu"}), *HEAD), 9)
    network, images = network_for(blueprint), photos(2)
    expected = slow_forward(blueprint, weights_for(blueprint), SPEC, images)
    for at in ODD:
        assert_close(network.forward(images, at), expected[at])
    built = to_model(blueprint, weights_for(blueprint), SPEC)
    assert layer_names(blueprint)["a/b"] == "a_b"
    assert layer_names(blueprint)["a_b"] == "a_b_"
    built.save(tmp_path / "odd.keras")
    again = keras.models.load_model(tmp_path / "odd.keras")
    assert [layer.name for layer in again.layers] == [layer.name for layer in built.layers]
    for each in (built, again):
        assert_close(each.predict(images, verbose=0), expected["logits"])
        for name, array in weights_of(each, blueprint).items():
            np.testing.assert_array_equal(array, weights_for(blueprint)[name])


def test_names_do_not_depend_on_what_was_built_before(model: Any) -> None:
    again = to_model(EVERY_OP, weights_for(EVERY_OP), SPEC)
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert again.to_json() == model.to_json()


def test_the_lowest_pads_a_max_pooling_so_that_it_is_never_the_largest() -> None:
    nodes = (INPUT, Node("top", "max_pool", ("input",), MAX_POOL | {"kernel": (3, 3), "padding": (2, 1, 0, 2)}))
    blueprint, dark = Blueprint("dark", nodes, 9), np.zeros((2, 9, 9, 3), np.uint8)
    value = np.asarray(to_model(blueprint, {}, SPEC)(dark))
    np.testing.assert_allclose(value, np.broadcast_to(-np.array(SPEC.mean) / SPEC.std, value.shape), rtol=1e-5)


def test_a_model_trains_its_statistics_move_and_its_weights_come_back() -> None:
    """Through grouped and depthwise convolutions too, whose gradients not every TensorFlow has on a processor."""
    built, images, labels = to_model(EVERY_OP, weights_for(EVERY_OP), SPEC), photos(8), np.arange(8) % 5
    for name, array in weights_of(built, EVERY_OP).items():
        np.testing.assert_array_equal(array, weights_for(EVERY_OP)[name])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile(keras.optimizers.SGD(0.02), loss)
    before = built.evaluate(images, labels, verbose=0)
    built.fit(images, labels, batch_size=8, epochs=30, verbose=0)
    assert built.evaluate(images, labels, verbose=0) < 0.8 * before
    trained = weights_of(built, EVERY_OP)
    still = {name for name, array in weights_for(EVERY_OP).items() if (array == trained[name]).all()}
    assert {name.rpartition(".")[2] for name in still} <= {"bias"}  # some of which a later batch norm takes away
    assert "logits.bias" not in still
    assert_close(network_of(trained).forward(images), built.predict(images, verbose=0).astype(np.float64))


def network_of(weights: Any) -> Any:
    return engine.KerasNetwork(EVERY_OP, weights, SPEC, "fp32", "cpu")


def test_mixed_precision_leaves_the_head_in_float32() -> None:
    built = to_model(small_trunk(True), weights_for(small_trunk(True)), SPEC, dtype="mixed_bfloat16")
    dtypes = {name: str(built.get_layer(name).output.dtype) for name in ("normalise", "stem", "features", "logits")}
    assert dtypes == {"normalise": "float32", "stem": "bfloat16", "features": "bfloat16", "logits": "float32"}
    expected = slow_forward(small_trunk(True), weights_for(small_trunk(True)), SPEC, photos(3))["logits"]
    assert_close(built.predict(photos(3), verbose=0), expected, 0.1)


def test_what_to_keras_gives_is_saved_and_opens_by_keras_s_own_means(tmp_path: Path) -> None:
    """All its layers are Keras' own, as above, so nothing of headstart's is needed."""
    model = hs.Classifier(EVERY_OP, weights_for(EVERY_OP), SPEC, tuple("abcde")).to_keras()
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    model.export(tmp_path / "saved", verbose=False)
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    fresh = keras.models.model_from_json(again.to_json())
    fresh.load_weights(tmp_path / "model.weights.h5")
    saved, images = tf.saved_model.load(str(tmp_path / "saved")), photos(3)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)["logits"]
    for each in (again, fresh, saved.serve):
        assert_close(np.asarray(each(images.astype(np.float32))), expected)


@pytest.fixture
def odd_settings() -> Iterator[None]:
    """Somebody's Keras, set to everything else than what is usual."""
    before = keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_float16")
    yield
    kept = keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy().name
    keras.config.set_floatx(before[0])
    keras.config.set_image_data_format(before[1])
    keras.config.set_dtype_policy(before[2])
    assert kept == ("float64", "channels_first", "mixed_float16")


@pytest.mark.usefixtures("odd_settings")
def test_the_users_settings_of_keras_neither_matter_nor_change() -> None:
    images = photos(3)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)["logits"]
    network = network_for(EVERY_OP)
    assert_close(network.forward(images), expected)
    assert network.vjp(images)[1](expected).dtype == np.float32
    assert_close(to_model(EVERY_OP, weights_for(EVERY_OP), SPEC).predict(images, verbose=0), expected)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp64", 1e-12)])
def test_the_gradient_is_that_of_a_tape(precision: str, tolerance: float) -> None:
    network, rng = network_for(EVERY_OP, precision), np.random.default_rng(3)
    pixels = rng.uniform(0, 1, (3, 9, 9, 3))
    dtype = "float64" if precision == "fp64" else "float32"
    graph = assemble(EVERY_OP, SPEC.size, dtype=dtype)
    graph.connect(keras.Input((9, 9, 3), dtype=dtype))
    graph.take(weights_for(EVERY_OP))
    x = tf.Variable(pixels, dtype=dtype)
    with tf.GradientTape(persistent=True) as tape:
        logits = graph.connect((x - tf.constant(SPEC.mean, dtype)) / tf.constant(SPEC.std, dtype))
    value, pullback = network.vjp(pixels)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, logits.numpy(), rtol=tolerance, atol=tolerance)
    for _ in range(3):
        cotangent = rng.standard_normal(value.shape)
        expected = tape.gradient(logits, x, tf.constant(cotangent, dtype)).numpy()
        gradient = pullback(cotangent)
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.fixture(scope="module")
def both_in_fp64() -> tuple[Any, Any]:
    given = EVERY_OP, weights_for(EVERY_OP), SPEC, "fp64", "cpu"
    return engine.KerasNetwork(*given), torch_engine().TorchNetwork(*given)


@pytest.mark.parametrize(
    ("at", "wrt"),
    [("logits", wrt) for wrt in ("input", "sum", "again_act", "again_pool", "bare", "stem")] + [("joined", "sum")],
)
def test_in_fp64_both_frameworks_have_the_same_gradient(both_in_fp64: Any, at: str, wrt: str) -> None:
    one, other = (network.vjp(photos(3), at, wrt) for network in both_in_fp64)
    assert np.abs(one[0] - other[0]).max() <= 1e-12 * np.abs(other[0]).max()
    cotangent = np.random.default_rng(0).standard_normal(other[0].shape)
    mine, expected = one[1](cotangent), other[1](cotangent)
    assert np.abs(mine - expected).max() <= 1e-12 * np.abs(expected).max()


def test_a_pullback_keeps_its_images_and_goes_through_them_in_small_batches() -> None:
    network, images = network_for(EVERY_OP, "fp64"), photos(7) / 255
    value, pullback = network.vjp(images)
    expected = pullback(value)
    network.micro_batch = 3
    images[:] = 0
    np.testing.assert_allclose(pullback(value), expected, rtol=1e-9, atol=1e-12)


def test_bytes_and_floats_have_the_same_gradient() -> None:
    """With respect to pixels from 0 to 1, whichever were given."""
    network, images = network_for(EVERY_OP), photos(2)
    (_, of_bytes), (_, of_floats) = network.vjp(images), network.vjp((images / 255).astype(np.float32))
    cotangent = np.ones((2, 5), np.float32)
    np.testing.assert_allclose(of_bytes(cotangent), of_floats(cotangent), rtol=1e-4, atol=1e-5)


def test_gradients_are_never_in_bf16() -> None:
    low, exact, images = network_for(EVERY_OP, "bf16"), network_for(EVERY_OP), photos(3)
    assert np.abs(low.forward(images) - exact.forward(images)).max() > 1e-4  # it does compute in bf16
    (value, pullback), (expected, reference) = low.vjp(images), exact.vjp(images)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(pullback(value), reference(value))


# --- compiled once ----------------------------------------------------------------------------------------------------


def test_nothing_is_traced_again_whatever_the_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[Any] = []
    run = CompiledNetwork._run

    def counted(self: CompiledNetwork, *given: Any) -> Any:
        traced.append(given)
        return run(self, *given)

    monkeypatch.setattr(CompiledNetwork, "_run", counted)
    network = network_for(small_trunk())
    for count in (3, 1, 40, 2):
        value, pullback = network.vjp(photos(count))
        pullback(value)
        network.forward(photos(count, seed=1))
    assert len(traced) == 3  # floats and bytes forward, one way back
    network.load(weights_for(small_trunk(), seed=1))
    network.at_precision("fp32").forward(photos(5))
    assert len(traced) == 3
    network.at_precision("bf16").forward(photos(5))
    network.forward(photos(5), "stem")
    assert len(traced) == 5


def test_batch_norm_is_folded_where_nobody_asks_for_the_convolution() -> None:
    network, images = network_for(EVERY_OP), photos(2)
    network.forward(images)
    assert [folded for _, folded in network._built._graphs] == [True]
    (graph,) = network._built._graphs.values()
    assert {"stem", "depthwise", "uneven"}.isdisjoint(graph.layers)
    assert {"bare", "joined_norm", "pooled_norm"} <= graph.layers.keys()  # read twice, or not behind a convolution
    network.forward(images, "stem")
    assert [folded for _, folded in network._built._graphs] == [True, False]
    network.load(weights_for(EVERY_OP, seed=1))  # into both
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP, seed=1), SPEC, images)
    for at in ("stem", "logits"):
        assert_close(network.forward(images, at), expected[at])


def test_what_is_released_is_made_again() -> None:
    network, images = network_for(EVERY_OP), photos(2)
    before, (value, pullback) = network.forward(images), network.vjp(images)
    gradient = pullback(value)
    low = network.at_precision("bf16")
    low.forward(images)
    network.release()
    assert {precision for precision, _ in network._built._graphs} == {"bf16"}
    assert {key[0] for key in network._built._functions} == {"bf16"}
    gc.collect()
    with tf.GradientTape():  # which asks a compiled function for its variables
        np.testing.assert_allclose(pullback(value), gradient, atol=1e-5)  # the order of sums is not always the same
    np.testing.assert_array_equal(network.forward(images), before)


# --- precision and device ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sqrt", [False, True])
def test_the_fitted_head_stays_in_fp32_behind_a_bf16_trunk(sqrt: bool) -> None:
    blueprint, weights, images = small_trunk(sqrt), weights_for(small_trunk(sqrt)), photos(8)
    weights["logits.weight"] *= 1e3
    network = engine.KerasNetwork(blueprint, weights, SPEC, "bf16", "cpu")
    features = network.forward(images, FEATURES).astype(np.float64)
    assert np.abs(features - network.at_precision("fp32").forward(images, FEATURES)).max() > 1e-5
    root = np.sqrt(np.maximum(features, 0) + SQRT_EPSILON) if sqrt else features
    exact = root @ weights["logits.weight"].T.astype(np.float64) + weights["logits.bias"]
    for value in (network.forward(images), network.forward_many(images, (FEATURES, "logits"))[1]):
        assert_close(value, exact)


def test_bf16_that_is_too_coarse_gives_way_to_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = network_for(small_trunk(), "bf16"), photos(8)
    assert 0 < network.check_precision(images) < protocol.TOLERANCE
    assert network.precision == "bf16"
    monkeypatch.setattr(protocol, "TOLERANCE", 1e-6)
    assert network.check_precision(images) > 1e-6
    assert network.precision == "fp32"
    assert network.check_precision(images) == 0.0
    np.testing.assert_array_equal(network.forward(images), network_for(small_trunk()).forward(images))


def test_fp64_computes_in_it() -> None:
    network, images = network_for(EVERY_OP, "fp64"), photos(2)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    for at in ("input", "sum", "bare_root", "logits"):
        np.testing.assert_allclose(network.forward(images, at), expected[at], rtol=1e-11, atol=1e-13)
    assert network.forward(photos(0)).dtype == np.float64


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no device 'gpu'\. "):
        engine.choose_device("gpu")
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(UsageError, match=r"finds no cuda on this machine\. It finds: cpu\."):
            engine.choose_device("cuda")
        assert engine.choose_device("auto") == "cpu"


def test_a_gpu_gives_the_same_values_and_gradients() -> None:
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has no GPU")
    network, images = engine.KerasNetwork(EVERY_OP, weights_for(EVERY_OP), SPEC, "fp32", "auto"), photos(40)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    for at in EVERY_OP.layers:
        assert_close(network.forward(images, at), expected[at])
    (value, pullback), (_, reference) = network.vjp(images), network_for(EVERY_OP).vjp(images)
    expected_gradient = reference(value)
    off = np.abs(pullback(value) - expected_gradient).max() / np.abs(expected_gradient).max()
    assert off < 1e-4
    assert tf.config.experimental.tensor_float_32_execution_enabled()  # as it was


def test_keras_on_another_framework_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match=r"Keras runs on jax .*KERAS_BACKEND=tensorflow"):
        hs.pretrained("efficientnet_lite0", engine="keras")


NO_TENSORFLOW = """
import sys
sys.modules["{}"] = None
import headstart as hs
try:
    hs.{}
except hs.MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["tensorflow", "keras"])
def test_without_tensorflow_the_sentence_says_what_to_type(missing: str) -> None:
    code = NO_TENSORFLOW.format(missing, "pretrained('efficientnet_lite0', engine='keras')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        f"The Keras engine needs {missing}, which is not installed. Install it with: {extra_install('keras')}"
    )


# --- the same answers as the fast engine ------------------------------------------------------------------------------


def test_fp32_gives_the_probabilities_of_fast_on_real_photos(shared: Path) -> None:
    files = sorted((shared / "data" / "imagenet_sample").glob("*.jpg"))[::80]
    zoo: NDArray[np.uint8] = np.stack([decode(file.read_bytes(), hs.ImageSpec(224)) for file in files])
    fast, other = (hs.pretrained("efficientnet_lite0", engine=name) for name in ("fast", "keras"))
    assert (fast.network.engine, other.network.engine, other.precision) == ("fast", "keras", "fp32")
    expected = softmax(fast.network.forward(zoo))
    assert np.abs(softmax(other.network.forward(zoo)) - expected).max() < 1e-4
    assert np.ptp(expected.max(axis=1)) > 0.1


def test_a_model_opened_on_any_engine_says_the_same(bundle: Path, photos: Path) -> None:
    fast, *others = (hs.load(bundle, engine=name, precision="fp32") for name in ("fast", "torch", "keras"))
    expected, items = fast.predict_proba(photos), [*fast.predictions(photos)]
    for other in others:
        np.testing.assert_allclose(other.predict_proba(photos), expected, atol=1e-4)
        for one, two in zip(items, other.predictions(photos), strict=True):
            assert isinstance(one, hs.Prediction)
            assert isinstance(two, hs.Prediction)
            assert (one.path, one.label, one.unknown) == (two.path, two.label, two.unknown)


def test_a_model_fitted_on_keras_opens_on_fast(photos: Path, tmp_path: Path) -> None:
    fitted = hs.fit(str(photos), pixels=64, engine="keras", cache=False)
    assert (fitted.engine, fitted.precision) == ("keras", "fp32")
    fitted.save(tmp_path / "model")
    opened = hs.load(tmp_path / "model", engine="fast", precision="fp32")
    np.testing.assert_allclose(opened.predict_proba(photos), fitted.predict_proba(photos), atol=1e-4)


def test_the_command_line_runs_on_keras(bundle: Path, photos: Path, shell: Shell, tmp_path: Path) -> None:
    def answers(*more: str) -> list[dict[str, Any]]:
        lines = shell("predict", bundle, photos, "--json", "--precision", "fp32", *more).out.splitlines()
        return [json.loads(line) for line in lines]

    fast, other = answers(), answers("--engine", "keras")
    assert len(fast) == 36
    assert [each["label"] for each in other] == [each["label"] for each in fast]
    scored = [
        shell("evaluate", bundle, photos, "--fitted-on-too", "--json", "--engine", name).json["accuracy"]
        for name in ("fast", "keras")
    ]
    assert scored[0] == scored[1] > 0.9
    done = shell("fit", photos, "--pixels", "32", "--engine", "keras", "--out", tmp_path / "model", "--json")
    assert (done.code, done.json["images"]) == (0, 36)


def test_to_keras_reproduces_the_probabilities(bundle: Path, photos: Path) -> None:
    classifier, files = hs.load(bundle, precision="fp32"), sorted(photos.rglob("*.png"))
    expected = classifier.predict_proba(files)
    built = classifier.to_keras()
    images = np.stack([decode(file.read_bytes(), classifier.spec) for file in files])
    assert np.abs(softmax(built.predict(images, verbose=0)) - expected).max() < 1e-4
    assert np.ptp(expected) > 0.5
    head = built.get_layer("logits")
    head.bias.assign(head.bias + 1)  # of its own
    np.testing.assert_array_equal(classifier.predict_proba(files), expected)
