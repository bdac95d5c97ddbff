"""The formats keras and savedmodel: Keras and TensorFlow open them anywhere, with the logits of fp32."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from exporting import (
    AWKWARD,
    BATCHES,
    assorted_photos,
    check_answers,
    difference,
    every_op,
    fp32,
    of_bundle,
    pictures,
)
from headstart.backbones.blueprint import LOGITS
from headstart.core.errors import MissingExtraError, UsageError
from headstart.core.quiet import quiet
from headstart.core.types import ImageSpec
from headstart.data.load import decode
from headstart.engines.registry import keras_engine
from headstart.export import keras as format_keras
from headstart.export import savedmodel as format_savedmodel
from headstart.export import tflite as format_tflite
from headstart.export.labels import LABELS, METADATA
from headstart.export.package import Package
from headstart.learn.calibrate import softmax
from headstart.model.golden import Golden
from referee import photos as noise
from small_files import small_files

FORMATS = {"model.keras": format_keras, "saved": format_savedmodel}
LINES = ["bar", "a b", "naïve ☃", "two lines", '"quoted"', ""]


@pytest.fixture(scope="module")
def package(bundle: Path) -> Package:
    return of_bundle(bundle)


@pytest.fixture(scope="module")
def files(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    for name, form in FORMATS.items():
        form.write(package, folder / name)
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of every operation in both formats."""
    folder = tmp_path_factory.mktemp("odd")
    for name, form in FORMATS.items():
        form.write(every_op(), folder / name)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_a_batch_of_any_size_gets_the_logits_of_fp32(files: Path, package: Package, photos: Path, name: str) -> None:
    for count in BATCHES:
        images = pictures(photos, package, count)
        assert difference(FORMATS[name].replay(files / name, images)["logits"], fp32(package, images)) <= 1e-5


def test_photos_of_any_size(bundle: Path, tmp_path: Path) -> None:
    """TensorFlow takes them; a Keras file takes pixels, and says of them what is unknown, too."""
    model = hs.load(bundle, engine="fast", precision="fp32")
    format_savedmodel.write(Package.of(model, "photos"), tmp_path / "saved")
    photos = assorted_photos()
    with quiet():
        import tensorflow as tf

        signature = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
        check_answers(model, photos, lambda photo: tensors(signature(photos=tf.constant(photo))))


def test_a_keras_file_says_what_is_unknown(files: Path, bundle: Path) -> None:
    model = hs.load(bundle, engine="fast", precision="fp32")
    pixels = [decode(photo, model.spec) for photo in assorted_photos()]
    whole = replace(model.spec, crop=1.0)  # which takes them as they are
    plain = hs.Classifier(
        model.blueprint, model.weights, whole, model.classes, unknown=model.unknown, engine="fast", precision="fp32"
    )
    with quiet():
        import keras

        again = keras.models.load_model(files / "model.keras")
        check_answers(plain, pixels, lambda photo: tensors(again(photo)))


def tensors(found: dict[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_every_operation(odd: Path, name: str) -> None:
    golden = every_op().golden
    assert difference(FORMATS[name].replay(odd / name, golden.images)["logits"], golden.logits) <= 1e-5


def opened(path: Path, images: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """What Keras or TensorFlow by itself says of images, and the texts in the file."""
    if path.is_dir():
        import tensorflow as tf

        found = tf.saved_model.load(str(path)).signatures["serving_default"](images=tf.constant(images))
        texts = {name: (path / "assets.extra" / name).read_text(encoding="utf-8") for name in (LABELS, METADATA)}
        return {name: value.numpy() for name, value in found.items()}, texts
    import keras

    with zipfile.ZipFile(path) as archive:
        texts = {name: archive.read(name).decode() for name in (LABELS, METADATA)}
    return keras.models.load_model(path).predict(images, verbose=0), texts  # in safe mode, which is Keras' default


@pytest.mark.parametrize("name", FORMATS)
def test_keras_and_tensorflow_open_it_by_themselves(odd: Path, name: str) -> None:
    """In processes without headstart, too: see the scripts of docs/export.md."""
    package = every_op()
    with quiet():
        values, texts = opened(odd / name, package.golden.images)
    assert difference(values["logits"], package.golden.logits) <= 1e-5
    np.testing.assert_allclose(values["probabilities"], softmax(values["logits"]), atol=1e-6)
    assert texts[LABELS].split("\n") == LINES
    assert json.loads(texts[METADATA]) == package.metadata()
    assert tuple(json.loads(json.loads(texts[METADATA])["classes"])) == AWKWARD


def test_keras_goes_on_with_it(odd: Path, tmp_path: Path) -> None:
    """It can be saved again; what is not Keras' own stays behind then."""
    with quiet():
        import keras

        model = keras.models.load_model(odd / "model.keras", compile=False)
        model.save(tmp_path / "again.keras")
    assert set(model.output) == {"logits", "probabilities", "label"}
    golden = every_op().golden
    assert difference(format_keras.replay(tmp_path / "again.keras", golden.images)["logits"], golden.logits) <= 1e-5


def test_keras_goes_on_with_it_in_its_legacy_format(odd: Path, tmp_path: Path) -> None:
    """Which holds classes of layers alone, and no operations: the label is one."""
    golden = every_op().golden
    with quiet():
        import keras

        model = keras.models.load_model(odd / "model.keras", compile=False)
        keras.Model(model.input, model.output["logits"]).save(tmp_path / "again.h5")
        logits = keras.models.load_model(tmp_path / "again.h5", compile=False).predict(golden.images, verbose=0)
    assert difference(logits, golden.logits) <= 1e-5


ON_PYTORCH = """
import sys
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
assert keras.backend.backend() == "torch"
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0)["logits"])
"""


@pytest.mark.slow
def test_keras_on_pytorch_opens_it(tmp_path: Path) -> None:
    """Nodes with dots in their names are the rule; layers must not have them, nor those of a model inside."""
    import keras

    inner = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, name="in.side")], name="of.mine")
    x = images = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D(name="a.pool")(keras.layers.BatchNormalization(name="in_side")(inner(x)))
    package = wrapped(keras.Model(images, keras.layers.Dense(5)(x), name="a.model"))
    format_keras.write(package, tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", package.golden.images)
    files = [tmp_path / name for name in ("model.keras", "images.npy", "logits.npy")]
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, "-c", ON_PYTORCH, *files], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert difference(np.load(tmp_path / "logits.npy"), package.golden.logits) <= 1e-5


def test_names_in_the_file_have_no_dots(bundle: Path, tmp_path: Path) -> None:
    package = of_bundle(bundle)
    assert any("." in name for name in package.blueprint.layers)
    format_keras.write(package, tmp_path / "model.keras")
    names = re.findall(r'"name": "([^"]*)"', config_of(tmp_path / "model.keras"))
    assert names
    assert not [name for name in names if "." in name]


def test_an_older_keras_finds_no_argument_that_it_does_not_know(odd: Path) -> None:
    """Where newer ones have added some, those have their default values, and are left out."""
    layers = json.loads(config_of(odd / "model.keras"))["config"]["layers"]
    norms = [each["config"] for each in layers if each["class_name"] == "BatchNormalization"]
    assert norms
    kept = {key for config in norms for key in config if not key.endswith("_initializer")}
    assert kept == {"name", "trainable", "dtype", "epsilon", "momentum"}


def config_of(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read("config.json").decode()


def test_the_keras_file_is_a_sound_archive_of_layers_that_keras_has(odd: Path) -> None:
    with zipfile.ZipFile(odd / "model.keras") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        config = archive.read("config.json").decode()
    assert len(names) == len({*names})
    modules = {part.split('"')[0] for part in config.split('"module": "')[1:]}
    assert modules
    assert all(module.partition(".")[0] == "keras" for module in modules)
    assert '"Lambda"' not in config


def test_weights_are_written_once(files: Path, package: Package) -> None:
    weights = sum(array.nbytes for array in package.weights.values())
    written = sum(file.stat().st_size for file in (files / "saved" / "variables").iterdir())
    assert weights <= written <= 1.1 * weights


def trunk(*, own: bool) -> Any:
    """A Keras model of somebody's making; with a layer of its ``own`` that Keras does not have."""
    import keras

    class Twice(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return 2 * x

    x = images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, strides=2, activation="gelu")(x)
    x = Twice()(x) if own else keras.layers.LayerNormalization()(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    return keras.Model(images, keras.layers.Dense(5, activation="softmax")(x), name="mine")


def wrapped(model: Any) -> Package:
    found = keras_engine().wrap(model, spec=ImageSpec(16))
    blueprint = found.trunk.blueprint.with_head(3, sqrt=False)
    shapes = {name: blueprint.weight_shapes()[name] for name in (f"{LOGITS}.weight", f"{LOGITS}.bias")}
    rng = np.random.default_rng(0)
    head = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights = {**found.trunk.weights, **head}
    network = keras_engine().KerasNetwork(blueprint, weights, found.trunk.spec, module=found.module)
    images = noise(5, 16)
    golden = Golden(images, network.forward(images))
    return Package(blueprint, weights, found.trunk.spec, ("a", "b", "c"), golden, module=found.module)


@pytest.mark.parametrize("name", [*FORMATS, "model.tflite"])
def test_a_keras_model_of_ones_own(tmp_path: Path, name: str) -> None:
    form = FORMATS.get(name, format_tflite)
    package = wrapped(trunk(own=False))
    form.write(package, tmp_path / name)
    assert difference(form.replay(tmp_path / name, package.golden.images)["logits"], package.golden.logits) <= 1e-4


def test_layers_of_ones_own_fit_into_a_savedmodel_only(tmp_path: Path) -> None:
    package = wrapped(trunk(own=True))
    with pytest.raises(UsageError, match=r"'keras-model:mine' has custom layers.*to='savedmodel'"):
        format_keras.write(package, tmp_path / "model.keras")
    assert not any(tmp_path.iterdir())
    format_savedmodel.write(package, tmp_path / "saved")
    logits = format_savedmodel.replay(tmp_path / "saved", package.golden.images)["logits"]
    assert difference(logits, package.golden.logits) <= 1e-5


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_keras_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: ModuleType) -> None:
    from headstart import engines

    for name in [name for name in sys.modules if name.startswith("headstart.engines.keras")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(engines, "keras", raising=False)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[keras\]'"):
        form.write(every_op(), tmp_path / "model")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["keras", "savedmodel", "tflite"])
def test_a_full_disk_is_no_failed_check(to: str, bundle: Path, tmp_path: Path) -> None:
    """TensorFlow has an error of its own for it."""
    name = {"keras": "it.keras", "savedmodel": "it", "tflite": "it.tflite"}[to]
    with small_files(4 << 20), pytest.raises(UsageError, match=r"cannot be written to .*: File too large"):
        hs.load(bundle).export(to, tmp_path / name)
    assert not [*tmp_path.iterdir()]
