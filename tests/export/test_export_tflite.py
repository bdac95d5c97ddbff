"""The format tflite: LiteRT opens it anywhere; in fp32 with the logits of fp32, in int8 with nearly its labels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
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
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.builder import Builder
from headstart.core.errors import CheckError, DataError, MissingExtraError, UsageError
from headstart.core.quiet import quiet
from headstart.core.types import ImageSpec
from headstart.data.load import content_key
from headstart.engines.fast import FastNetwork
from headstart.export import int8, tflite
from headstart.export.package import Package
from headstart.model.golden import Golden
from making import folder
from referee import HEAD, INPUT, weights_for
from referee import photos as noise

ALONE = """
import json, sys, zipfile, numpy as np
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "headstart":
            raise ModuleNotFoundError(f"{name} is out of bounds here")
sys.meta_path.insert(0, Blocked())
from ai_edge_litert.interpreter import Interpreter
out = Interpreter(model_path=sys.argv[1]).get_signature_runner("serving_default")(images=np.load(sys.argv[2]))
assert "tensorflow" not in sys.modules
files = zipfile.ZipFile(sys.argv[1])
text = {name: files.read(name).decode() for name in ("labels.txt", "headstart.json")}
json.dump({name: value.tolist() for name, value in out.items()} | text, sys.stdout)
"""
EVERY_FORMAT = """
import pathlib, sys, threading
said, over = [], threading.Event()
def speak():
    while not over.wait(0.01):
        print(len(said), flush=True)
        said.append(None)
speaker = threading.Thread(target=speak)
speaker.start()
sys.path.insert(0, sys.argv[1])
from exporting import every_op
from referee import photos
from headstart.export import keras, savedmodel, tflite
folder, package = pathlib.Path(sys.argv[2]), every_op()
for form, name in ((keras, "model.keras"), (savedmodel, "saved"), (tflite, "model.tflite")):
    form.write(package, folder / name)
    form.replay(folder / name, package.golden.images)
tflite.write(package, folder / "int8.tflite", photos(20))
tflite.replay(folder / "int8.tflite", package.golden.images)
over.set()
speaker.join()
print(len(said))
"""


@pytest.fixture(scope="module")
def package(bundle: Path) -> Package:
    return of_bundle(bundle)


@pytest.fixture(scope="module")
def file(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tflite") / "model.tflite"
    tflite.write(package, path)
    return path


@pytest.fixture(scope="module")
def light(package: Package, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    tflite.write(package, path, pictures(photos, package, 24))
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of every operation."""
    path = tmp_path_factory.mktemp("odd") / "model.tflite"
    tflite.write(every_op(), path)
    return path


def steps(path: Path) -> list[tuple[str, str]]:
    """The operations of a file, and in what each computes: the type of its first output."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_path=str(path))
        types = {each["index"]: np.dtype(each["dtype"]).name for each in interpreter.get_tensor_details()}
        details = interpreter._get_ops_details()
    return [(step["op_name"], types[step["outputs"][0]]) for step in details if step["op_name"] != "DELEGATE"]


# --- fp32 -------------------------------------------------------------------------------------------------------------


def test_a_batch_of_any_size_gets_the_logits_of_fp32(file: Path, package: Package, photos: Path) -> None:
    for count in BATCHES:
        images = pictures(photos, package, count)
        assert difference(tflite.replay(file, images)["logits"], fp32(package, images)) <= 1e-4


def test_photos_of_any_size(bundle: Path, tmp_path: Path) -> None:
    model = hs.load(bundle, engine="fast", precision="fp32")
    tflite.write(Package.of(model, "photos"), tmp_path / "model.tflite")
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        run = Interpreter(model_path=str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
        check_answers(model, assorted_photos(), lambda photo: run(photos=photo))


def test_every_operation(odd: Path) -> None:
    golden = every_op().golden
    assert difference(tflite.replay(odd, golden.images)["logits"], golden.logits) <= 1e-5


def test_opens_without_headstart_and_without_tensorflow(odd: Path, tmp_path: Path) -> None:
    package = every_op()
    np.save(tmp_path / "images.npy", package.golden.images)
    arguments = [sys.executable, "-c", ALONE, str(odd), str(tmp_path / "images.npy")]
    found = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    logits, probabilities = (np.array(found[name], np.float32) for name in ("logits", "probabilities"))
    assert difference(logits, package.golden.logits) <= 1e-5
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, powers / powers.sum(1, keepdims=True), atol=1e-6)
    assert found["labels.txt"].split("\n") == ["bar", "a b", "naïve ☃", "two lines", '"quoted"', ""]
    assert json.loads(found["headstart.json"]) == package.metadata()
    assert tuple(json.loads(json.loads(found["headstart.json"])["classes"])) == AWKWARD


@pytest.mark.slow
def test_nothing_reaches_the_screen_but_what_another_thread_prints(tmp_path: Path) -> None:
    """In a fresh process, for TensorFlow talks when it is loaded; Keras' formats too."""
    arguments = [sys.executable, "-W", "always", "-c", EVERY_FORMAT, str(Path(__file__).parents[1]), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    printed = done.stdout.splitlines()
    assert len(printed) > 50
    assert (printed, done.stderr) == ([str(number) for number in range(len(printed))], "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.tflite", "model.keras", "model.tflite", "saved"]


def test_litert_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[tflite\]'"):
        tflite.write(every_op(), tmp_path / "model.tflite")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_converted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such\n\noperation")

    monkeypatch.setattr(tflite, "_in_int8", fail)
    with pytest.raises(UsageError, match=r"'every_op' cannot be written with TensorFlow Lite's .* no such operation"):
        tflite.write(every_op(), tmp_path / "model.tflite", noise(2))
    assert not any(tmp_path.iterdir())


# --- int8 -------------------------------------------------------------------------------------------------------------


def test_int8_is_a_third_of_the_size_and_says_nearly_the_same(
    light: Path, file: Path, package: Package, photos: Path
) -> None:
    assert light.stat().st_size < file.stat().st_size / 3
    images = pictures(photos, package, 36)
    expected, logits = fp32(package, images), tflite.replay(light, images)["logits"]
    assert 0 < difference(logits, expected) < 0.5
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.9
    for count in BATCHES:
        np.testing.assert_allclose(tflite.replay(light, images[:count])["logits"], logits[:count], atol=1e-3)


def test_int8_leaves_what_is_before_and_behind_in_float(light: Path) -> None:
    found = steps(light)
    kinds = [kind for kind, _ in found]
    first, last = kinds.index("QUANTIZE"), len(kinds) - 1 - kinds[::-1].index("DEQUANTIZE")
    assert {dtype for _, dtype in found[:first]} == {"float32"}
    assert all(dtype == "int8" for kind, dtype in found if "CONV_2D" in kind)
    assert [step for step in found if step[0] in ("MEAN", "FULLY_CONNECTED", "SOFTMAX")] == [
        ("MEAN", "float32"),
        ("MEAN", "float32"),
        ("FULLY_CONNECTED", "float32"),  # the head,
        ("SOFTMAX", "float32"),
        ("FULLY_CONNECTED", "float32"),  # and the photos to compare with
    ]
    assert "int8" not in {dtype for _, dtype in found[last:]}
    assert kinds[first:last].count("CONV_2D") + kinds[first:last].count("DEPTHWISE_CONV_2D") > 40


def test_int8_of_every_operation(tmp_path: Path) -> None:
    package, images = every_op(), noise(100, seed=1)
    tflite.write(package, tmp_path / "model.tflite", images)
    assert {dtype for kind, dtype in steps(tmp_path / "model.tflite") if "CONV" in kind} == {"int8"}
    logits = tflite.replay(tmp_path / "model.tflite", package.golden.images)["logits"]
    assert difference(logits, package.golden.logits) < 0.1


def test_int8_of_a_stem_as_a_resnet_has_it(tmp_path: Path) -> None:
    """The pooling is padded: with the lowest float there would be no scale left for the values."""
    builder = Builder()
    x = builder.act(builder.conv("input", "stem", 8, 3, 2, bias=True), "stem_act", "relu")
    x = builder.max_pool(x, "largest", 3, 2, padding=1)
    builder.classifier(builder.act(builder.conv(x, "last", 8, 3, 1, bias=True), "last_act", "relu"), 5, 0.0)
    blueprint = builder.build("stem", 32)
    weights, spec, images = weights_for(blueprint), ImageSpec(32), noise(100, 32)
    network = FastNetwork(blueprint, weights, spec, "fp32")
    golden = Golden(images[:4], np.asarray(network.forward(images[:4]), np.float32))
    tflite.write(Package(blueprint, weights, spec, AWKWARD, golden), tmp_path / "model.tflite", images)
    assert {dtype for kind, dtype in steps(tmp_path / "model.tflite") if "CONV" in kind} == {"int8"}
    assert difference(tflite.replay(tmp_path / "model.tflite", golden.images)["logits"], golden.logits) < 0.1


def test_a_network_that_is_but_a_head_has_nothing_for_int8(tmp_path: Path) -> None:
    pooled, dropout, logits = HEAD
    nodes = (INPUT, type(pooled)(pooled.name, pooled.op, ("input",), pooled.attrs), dropout, logits)
    blueprint = Blueprint("bare", nodes, 9)
    golden = Golden(noise(1), np.zeros((1, 4), np.float32))
    package = Package(blueprint, weights_for(blueprint), ImageSpec(9), ("a", "b", "c", "d"), golden)
    with pytest.raises(UsageError, match="'bare' has nothing between its first layer and its head"):
        tflite.write(package, tmp_path / "model.tflite", noise(5))
    assert not any(tmp_path.iterdir())


# --- what int8 costs --------------------------------------------------------------------------------------------------


def keys(paths: list[Path]) -> frozenset[bytes]:
    return frozenset(content_key(path.read_bytes()) for path in paths)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("many"), 22)


SPEC, CLASSES = ImageSpec(16), ("bars", "discs", "waves")


def test_calibrates_on_photos_fitted_on_and_measures_on_others(many: Path) -> None:
    files = sorted(many.rglob("*.png"))
    old = files[::2]
    found = int8.gather(str(many), CLASSES, SPEC, keys(old))
    assert len(found.calibration) == len(old)
    assert len(found.images) == len(found.truth) == len(files) - len(old)
    assert not found.fitted_on
    table = {pixels.tobytes(): path for path, pixels in zip(files, decoded(files), strict=True)}
    assert {table[image.tobytes()] for image in found.calibration} == {*old}
    assert [table[image.tobytes()].parent.name for image in found.images] == [CLASSES[k] for k in found.truth]


@pytest.mark.parametrize("fitted_on", [True, False])
def test_one_kind_of_photos_is_shared_out(many: Path, fitted_on: bool) -> None:
    files = sorted(many.rglob("*.png"))
    found = int8.gather(str(many), CLASSES, SPEC, keys(files) if fitted_on else ())
    assert (len(found.calibration), len(found.images), found.fitted_on) == (33, 33, fitted_on)
    assert not {image.tobytes() for image in found.calibration} & {image.tobytes() for image in found.images}


def test_too_few_photos_and_strange_labels_are_refused(photos: Path) -> None:
    with pytest.raises(
        DataError, match=r"int8 needs 20 labelled photos to be calibrated on.*Received: 36 readable ones"
    ):
        int8.gather(str(photos), CLASSES, SPEC, ())
    with pytest.raises(DataError, match="does not know the label 'waves'"):
        int8.gather(str(photos), CLASSES[:2], SPEC, ())


def decoded(files: list[Path]) -> list[NDArray[np.uint8]]:
    from headstart.data.load import decode

    return [decode(file.read_bytes(), SPEC) for file in files]


def answers(wrong: int, count: int) -> Any:
    """A network that errs on the last so many of ``count`` photos, each of which holds its number."""

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = images[:, 0, 0, 0]
        return np.stack([numbers < count - wrong, numbers >= count - wrong], 1).astype(np.float32)

    return run


def numbered(count: int) -> int8.Photos:
    images = np.zeros((count, 1, 1, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return int8.Photos(images[:20], images, np.zeros(count, np.intp), False)


def test_the_loss_is_measured_on_the_same_photos() -> None:
    loss = int8.measure(numbered(200), answers(10, 200), answers(14, 200))
    assert (loss.before.value, loss.after.value, loss.agreement) == (0.95, 0.93, 0.98)
    assert loss.points == pytest.approx(2)
    assert loss.as_json()["points"] == loss.points
    assert json.dumps(loss.as_json())


def test_a_great_loss_is_refused_unless_it_may_be_chance() -> None:
    with pytest.raises(CheckError, match=r"would lose 10\.0 points of accuracy: 1\.000 in fp32, 0\.900 in int8 on 200"):
        int8.measure(numbered(200), answers(0, 200), answers(20, 200))
    assert int8.measure(numbered(25), answers(0, 25), answers(2, 25)).points == pytest.approx(8)
    assert int8.measure(numbered(200), answers(20, 200), answers(0, 200)).points == pytest.approx(-10)
