"""Networks of keras.applications and models of one's own: their weights, fitted on, saved, opened elsewhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from altered_models import put_config
from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.weights import WeightsRecord
from headstart.core.errors import CheckError, UsageError
from headstart.engines.registry import keras_engine
from making import Shell, record_of
from referee import photos as some_photos

keras_engine()

import keras  # noqa: E402
from keras import layers  # noqa: E402
from keras.src.utils import file_utils  # noqa: E402

from headstart.engines.keras import applications as keras_applications  # noqa: E402
from headstart.engines.keras.config import from_text  # noqa: E402
from headstart.engines.keras.flat_model import unroll  # noqa: E402
from headstart.engines.keras.models import wrap  # noqa: E402
from headstart.engines.keras.network import KerasNetwork  # noqa: E402
from headstart.engines.keras.pixels import BYTES, wanted  # noqa: E402
from keras_examples import (  # noqa: E402
    SIZE,
    SPEC,
    Residual,
    Scale,
    functional,
    make,
    network_for,
    normalised,
    photos,
    softmax,
    trained,
)

# Keras 3.15 turns its variables into arrays in a way that NumPy 2 is going to drop
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

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


def expected_of(model: Any, images: Any, preprocess: Any) -> Any:
    return np.asarray(model(preprocess(images.astype(np.float32))))


def told(model: Any) -> Any:
    """The pixels that a model wants, and whether it takes blue, green, red."""
    inner: list[Any] = []
    flat = unroll(model, SIZE, "it", models=inner)
    return wanted(flat, inner)


def topped(x: Any) -> Any:
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50V2", pytest.param("DenseNet121", marks=pytest.mark.slow)])
def test_the_pixels_of_a_live_application_are_its_own(name: str) -> None:
    make = getattr(keras.applications, name)
    base = make(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    expected, turned = keras_applications._spec(make, BYTES.size)
    spec, flip = told(base)
    np.testing.assert_allclose((spec.mean, spec.std), (expected.mean, expected.std), rtol=1e-9)
    assert flip == turned


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("MobileNet", marks=pytest.mark.slow),
        "VGG16",
        pytest.param("EfficientNetB0", marks=pytest.mark.slow),
    ],
)
def test_they_are_so_wherever_it_stands(name: str) -> None:
    """As an object, and where it stands behind augmentation in a model of one's own; not behind other scalings."""
    make = getattr(keras.applications, name)
    base = make(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    images = keras.Input((SIZE, SIZE, 3))
    augmented = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)])(images)
    nested = keras.Model(images, topped(base(augmented)))
    expected, turned = keras_applications._spec(make, BYTES.size)
    for model in (base, nested, keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(3)])):
        spec, flip = told(model)
        np.testing.assert_allclose((spec.mean, spec.std), (expected.mean, expected.std), rtol=1e-9)
        assert flip == turned
    preprocess = sys.modules[make.__module__].preprocess_input
    for scaling in (preprocess, layers.Rescaling(1 / 255), lambda x: x / 127.5 - 1):
        took = told(keras.Model(images, topped(base(scaling(images)))))
        assert took == (BYTES, False)  # who scales the pixels gives them as they come


@pytest.mark.parametrize("way", ["live", "file", "size alone", "in a model"])
def test_a_live_application_says_what_it_says_to_keras(way: str, tmp_path: Path) -> None:
    """VGG wants blue, green, red from which a mean is taken."""
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    for layer in base.layers:
        trained(layer, 3)
    model = keras.Model(
        base.input, layers.Dense(3, name="top")(layers.GlobalAveragePooling2D()(base.output)), name="vgg16"
    )
    if way == "in a model":
        model = keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(3)])
    images = photos(2)
    expected = expected_of(model, images, keras.applications.vgg16.preprocess_input)
    source: Any = model
    if way == "file":
        model.save(tmp_path / "mine.keras")
        source = str(tmp_path / "mine.keras")
    network = network_for(source, spec=hs.ImageSpec(SIZE) if way == "size alone" else None)
    np.testing.assert_allclose(network.forward(images), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_an_application_of_any_size() -> None:
    anyhow = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(None, None, 3))
    assert told(anyhow) == keras_applications._spec(keras.applications.MobileNetV2, BYTES.size)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("MobileNetV3Small", ((0.5,) * 3, (0.5,) * 3)),
        pytest.param("EfficientNetV2B0", IMAGENET, marks=pytest.mark.slow),
        pytest.param("EfficientNetV2S", ((128 / 255,) * 3, (128 / 255,) * 3), marks=pytest.mark.slow),
        pytest.param("ConvNeXtTiny", IMAGENET, marks=pytest.mark.slow),
    ],
)
def test_an_application_without_its_own_scaling_gets_what_that_would_give(name: str, pixels: Any) -> None:
    make = getattr(keras.applications, name)
    size = {"weights": None, "include_top": False, "input_shape": (SIZE, SIZE, 3)}
    spec, flip = told(make(**size, include_preprocessing=False))
    assert not flip
    np.testing.assert_allclose((spec.mean, spec.std), pixels, atol=2e-6)
    assert told(make(**size)) == (BYTES, False)


def test_who_says_all_of_the_pixels_is_taken_at_his_word() -> None:
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    model = keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(3)])
    spec = hs.ImageSpec(SIZE, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    images = photos(2)
    expected = expected_of(model, images, lambda x: x)
    np.testing.assert_allclose(network_for(model, spec=spec).forward(images), expected, rtol=1e-3, atol=1e-4)
    with_own = keras.Sequential([base, layers.GlobalAveragePooling2D(), Scale(), layers.Dense(3)])
    with_own(images.astype(np.float32))
    with pytest.raises(UsageError, match="takes blue, green, red"):
        wrap(with_own)
    assert wrap(with_own, spec=spec).trunk.spec == spec
    given = keras.Input((SIZE, SIZE, 3))  # as the sentence says
    x = layers.GlobalAveragePooling2D()(base(keras.applications.vgg16.preprocess_input(given)))
    assert wrap(keras.Model(given, layers.Dense(3)(Scale()(x)))).trunk.spec == replace(spec, resample="bilinear")


@pytest.mark.slow
def test_of_several_applications_in_a_model_only_what_they_all_want_is_taken() -> None:
    images, apps = keras.Input((SIZE, SIZE, 3)), keras.applications
    options = {"weights": None, "include_top": False, "input_shape": (SIZE, SIZE, 3), "pooling": "avg"}
    first, alike, other, scaling = (
        make(**options) for make in (apps.MobileNetV2, apps.MobileNet, apps.VGG16, apps.MobileNetV3Small)
    )

    def both(one: Any, two: Any) -> Any:
        return told(keras.Model(images, layers.Dense(3)(layers.Concatenate()([one, two]))))

    assert both(first(images), alike(images)) == keras_applications._spec(apps.MobileNet, BYTES.size)
    assert both(first(images), other(images)) is None
    assert both(first(images), scaling(images)) is None
    scaled = apps.mobilenet_v2.preprocess_input(images), apps.vgg16.preprocess_input(images)
    assert both(first(scaled[0]), other(scaled[1])) == (BYTES, False)


def test_the_commands_open_an_application(toy: tuple[Any, Path], photos: Path, shell: Shell) -> None:
    picture = next(photos.rglob("*.png"))
    answer = shell("predict", "keras/Toylet", picture, "--weights", toy[1], "--json")
    assert answer.code == 0, answer.err
    assert answer.json["label"] == hs.pretrained("keras/Toylet", toy[1]).predict([picture])[0]
    refused = shell("predict", "keras/Toylet", picture, "--weights", toy[1], "--engine", "fast")
    assert refused.code == 2
    assert "'keras/Toylet' is a Keras model, which only the keras engine" in refused.err


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
    with pytest.raises(UsageError, match=r"'.*other\.weights\.h5' does not fit: .*weights differ.* Another network's"):
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


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("keras/MobileNet", "mobilenet_1_0_224_tf.h5"),
        pytest.param(
            "keras/MobileNetV2",
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_weights_without_a_published_hash_are_fetched_by_hand(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says which file, from where, and how to go on; where Keras has fetched it, it is taken."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for variable in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(CheckError) as caught:
        wrap(name)
    for part in (f"'{file}'", "from https://storage.googleapis.com/", f"at '{tmp_path / 'ours'}", "weights=FILE"):
        assert part in str(caught.value)
    model = trained(getattr(keras.applications, name.removeprefix("keras/"))(weights=None), 1)
    place = tmp_path / "keras" / "models" / file
    place.parent.mkdir(parents=True)
    model.save_weights(place.with_suffix(".weights.h5"))
    place.with_suffix(".weights.h5").rename(place)
    found = wrap(name)
    assert found.head is not None
    np.testing.assert_array_equal(found.head[1], np.array(model.layers[-1 if name[-1] == "2" else -3].bias).ravel())


def test_keras_is_asked_by_two_threads_at_once(toy: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is done before the second; afterwards downloads go on as ever."""
    import threading

    asks, done, fetch = threading.Barrier(2, timeout=20), threading.Event(), file_utils.get_file
    records: list[WeightsRecord] = []

    def slow(**options: Any) -> Any:
        asks.wait()
        if threading.current_thread().name == "second":
            done.wait(20)
        return Toylet(**options)

    def ask() -> None:
        records.append(keras_applications.published(slow, "keras/Toylet"))
        done.set()

    slow.__module__ = __name__
    threads = [threading.Thread(target=ask, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(records) == 2
    assert records[0] == records[1]
    assert file_utils.get_file is fetch


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
        ("keras/MobileNet", "pixels: expected 32 to 1024"),
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


def test_real_weights_give_what_they_give_the_catalogued_network(shared: Path) -> None:
    file, images = shared / "weights" / "mobilenet_v2.keras.weights.h5", some_photos(2, 224)
    ours, other = (hs.pretrained(name, file, engine="keras") for name in ("keras/MobileNetV2", "mobilenet_v2"))
    expected = other.network.forward(images)
    np.testing.assert_allclose(ours.network.forward(images), expected, atol=1e-5 * np.abs(expected).max())
    pictures: list[Path] = sorted((shared / "data" / "imagenet_sample").glob("00[01]_*.jpg"))
    seen = ours.predict([*pictures])
    assert seen.tolist() == ["tench", "goldfish"]


def test_a_catalogued_network_that_is_called_like_a_file_is_none() -> None:
    with pytest.raises(
        UsageError, match=r"^The weights 'vgg16_weights_tf_dim_ordering_tf_kernels\.h5' are not on this"
    ):
        hs.pretrained("vgg16.keras")
    with pytest.raises(UsageError, match=r"'\./vgg16\.keras': expected a \.keras file"):
        hs.pretrained("./vgg16.keras")


def test_a_network_that_turns_colours_does_so_inside() -> None:
    model, images = make("functional"), normalised(photos())
    flat = unroll(model, SIZE, "it", flip=True)
    np.testing.assert_allclose(flat(images), model(images[..., ::-1].copy()), rtol=1e-5, atol=1e-6)
    assert "flip" in from_text(json.dumps(keras.saving.serialize_keras_object(flat)), "it").operations[1].name


# --- fitted on, saved, opened -----------------------------------------------------------------------------------------


def test_an_application_is_fitted_on_saved_and_opened(
    photos: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained(keras.applications.MobileNet(weights=None, input_shape=(SIZE, SIZE, 3)), 1)
    network.save_weights(tmp_path / "mobilenet.weights.h5")
    arguments = ["--backbone", "keras/MobileNet", "--weights", tmp_path / "mobilenet.weights.h5", "--pixels", SIZE]
    answer = shell("fit", photos, *arguments, "--out", tmp_path / "model", "--json")
    assert answer.code == 0, answer.err
    picture = next(photos.rglob("*.png"))
    model = hs.load(tmp_path / "model")
    assert (model.engine, model.spec.size, record_of(model)["backbone"]) == ("keras", SIZE, "keras/MobileNet")
    (said,) = shell("predict", tmp_path / "model", picture, "--json").out.splitlines()
    assert json.loads(said)["probability"] == pytest.approx(model.predict_proba([picture]).max(), abs=1e-6)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    node = next(each for each in config["blueprint"]["nodes"] if each[1] == "module")
    node[3]["config"] = node[3]["config"].replace('"class_name": "ReLU"', '"class_name": "Lambda"', 1)
    put_config(tmp_path / "model", config)
    with pytest.raises(CheckError, match="is a Lambda, which runs Python code that it brings"):
        hs.load(tmp_path / "model")


def test_a_model_is_fitted_on_and_its_classifier_opens_without_it(photos: Path, tmp_path: Path) -> None:
    model = hs.fit(str(photos), backbone=make("subclassed"), spec=SPEC, cache=False)
    assert (model.engine, model.spec, model.module) == ("keras", SPEC, None)
    assert record_of(model)["backbone"] == f"keras-model:{Residual.__module__}.Residual"
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
