"""Files that take photos of any size: the pixels, the labels and "unknown" of the classifier itself."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from export_cases import LIGHT
from exporting import assorted_photos, check_answers
from headstart.core.types import ImageSpec
from headstart.data.load import decode
from headstart.engines.fast.graph import core
from headstart.export.formats import FORMATS
from headstart.export.operations.onnx import Graph, OnnxOperations
from headstart.export.operations.openvino import OpenvinoOperations
from headstart.export.package import Package
from headstart.export.photo_input import to_pixels

Scaler = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
SPECS = (ImageSpec(32), ImageSpec(29, crop=1.0), ImageSpec(41, resample="bilinear", crop=0.6))
every_light = pytest.mark.parametrize("to", LIGHT)


def in_onnx(spec: ImageSpec) -> Scaler:
    graph = Graph()
    ops = OnnxOperations(graph, "photos")
    result = to_pixels(ops, ops.value("photos"), spec)
    kind = onnx.TensorProto.UINT8
    ends = [[onnx.helper.make_tensor_value_info(name, kind, [None, None, None, 3])] for name in ("photos", result.name)]
    whole = onnx.helper.make_graph(graph.nodes, "scale", *ends, graph.constants)
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda photos: np.asarray(session.run(None, {"photos": photos})[0])


def in_openvino(spec: ImageSpec) -> Scaler:
    engine = core()
    given_photos = ov.opset13.parameter([-1, -1, -1, 3], np.uint8)
    model = ov.Model([ov.opset13.result(to_pixels(OpenvinoOperations(), given_photos, spec))], [given_photos])
    network = engine.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda photos: np.asarray(network(photos)[0])


@functools.cache
def scaler(name: str, spec: ImageSpec) -> Scaler:
    return {"onnx": in_onnx, "openvino": in_openvino}[name](spec)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.resample)
@pytest.mark.parametrize("name", ["onnx", "openvino"])
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), count=st.integers(1, 2), seed=st.integers(0, 99))
def test_photos_of_any_size_are_scaled_as_the_classifier_scales_them(
    name: str, spec: ImageSpec, height: int, width: int, count: int, seed: int
) -> None:
    photos = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    expected = np.stack([decode(photo, spec) for photo in photos])
    found = scaler(name, spec)(photos)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    if name == "onnx":  # which computes the weights in float64, as Pillow does
        np.testing.assert_array_equal(found, expected)
    else:  # what lies in the middle between two bytes can go to either
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.fixture(scope="module")
def model(bundle: Path) -> hs.Classifier:
    return hs.load(bundle, precision="fp32")


def opened(done: hs.Exported) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """A function that asks a file, which is opened once, as the line says that the command prints."""
    found: Any = eval(done.opens, {"openvino": ov, "onnxruntime": onnxruntime})
    if isinstance(found, onnxruntime.InferenceSession):
        names = [output.name for output in found.get_outputs()]
        return lambda photos: dict(zip(names, found.run(names, {"photos": photos}), strict=True))
    return lambda photos: {name: found(photos)[name].copy() for out in found.outputs for name in out.names}


@every_light
def test_a_file_says_of_photos_what_the_classifier_says(to: str, model: hs.Classifier, tmp_path: Path) -> None:
    done = model.export(to, tmp_path / f"it{FORMATS[to].suffix}")
    assert done.takes == "photos"
    photos = assorted_photos()
    ask = opened(done)
    check_answers(model, photos, ask)
    found = ask(photos[0][None])
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        "logits": ("float32", (1, 3)),
        "probabilities": ("float32", (1, 3)),
        "label": ("int64", (1,)),
        "unknown_score": ("float32", (1,)),
        "unknown": ("bool", (1,)),
    }


@every_light
def test_several_photos_of_one_size_at_once(to: str, model: hs.Classifier, tmp_path: Path) -> None:
    done = model.export(to, tmp_path / f"it{FORMATS[to].suffix}")
    photos = np.stack([np.roll(assorted_photos()[0], shift, 1) for shift in (0, 9, 30)])
    ask = opened(done)
    together = ask(photos)
    for row, photo in enumerate(photos):
        alone = ask(photo[None])
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][row], values[0], rtol=1e-4, atol=1e-5)


@every_light
def test_a_network_without_training_photos_of_the_users_calls_nothing_unknown(
    to: str, model: hs.Classifier, tmp_path: Path
) -> None:
    plain = hs.Classifier(model.blueprint, model.weights, model.spec, model.classes, golden=model.golden)
    done = plain.export(to, tmp_path / f"it{FORMATS[to].suffix}")
    assert done.outputs == ("logits", "probabilities", "label")
    assert set(LIGHT[to].replay(done.path, assorted_photos()[0][None])) == {*done.outputs}


def test_threshold_and_card_travel_with_the_file(model: hs.Classifier, tmp_path: Path) -> None:
    model.export("onnx", tmp_path / "it.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx", providers=["CPUExecutionProvider"])
    model.export("openvino", tmp_path / "it")
    kept = core().read_model(tmp_path / "it" / "model.xml").get_rt_info(["model_info"]).astype(dict)
    in_xml = {key: value.astype(str) for key, value in kept.items()}
    assert model.unknown is not None
    for about in (session.get_modelmeta().custom_metadata_map, in_xml):
        assert float(about["unknown_threshold"]) == model.unknown.threshold
        assert about["takes"] == "photos"
        assert "# " in about["card"]
        assert about["card"] == Package.of(model).card
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: {**found, "unknown": ~found["unknown"]}, "calls other images"),
        (lambda found: {**found, "unknown_score": found["unknown_score"] - 9}, "calls other images"),
        (lambda found: {**found, "probabilities": found["probabilities"][:, ::-1]}, "other labels or probabilities"),
        (lambda found: {**found, "label": (found["label"] + 1) % 3}, "other labels or probabilities"),
        (lambda found: {key: value for key, value in found.items() if key != "unknown"}, "gives no 'unknown'"),
    ],
    ids=["verdict", "score", "probabilities", "label", "missing"],
)
def test_what_follows_from_the_logits_is_checked_too(
    change: Callable[[dict[str, Any]], dict[str, Any]], words: str,
    model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    replay = LIGHT["onnx"].replay
    monkeypatch.setattr(LIGHT["onnx"], "replay", lambda path, images: change(replay(path, images)))
    with pytest.raises(hs.CheckError, match=words):
        model.export("onnx", tmp_path / "it.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("change", ["crop", "resample"])
def test_another_way_to_scale_is_found_out(
    change: str, model: hs.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The check makes photos of its own, of several shapes."""
    write = LIGHT["onnx"].write
    other = dataclasses.replace(model.spec, **({"crop": 0.6} if change == "crop" else {"resample": "bilinear"}))
    monkeypatch.setattr(
        LIGHT["onnx"], "write", lambda package, path: write(dataclasses.replace(package, spec=other), path)
    )
    with pytest.raises(hs.CheckError, match="other answers than the model"):
        model.export("onnx", tmp_path / "it.onnx")


def test_real_photos_of_all_sets(shared: Path, tmp_path: Path) -> None:
    """On the ImageNet classes; phone-sized ones too."""
    classifier = hs.pretrained("efficientnet_lite0", precision="fp32")
    done = classifier.export("onnx", tmp_path / "it.onnx")
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    files = sorted(file for place in (shared / "data").iterdir() for file in sorted(place.rglob("*.jpg"))[:6])
    pictures = [Image.open(file).convert("RGB") for file in files]
    pictures += [picture.resize((4000, 3000)) for picture in pictures[:2]]
    photos = [np.asarray(picture) for picture in pictures]
    for photo, expected in zip(photos, classifier.predict_proba(photos), strict=True):
        found = session.run(["probabilities"], {"photos": photo[None]})[0][0]
        assert np.abs(found - expected).max() <= 1e-3
