"""The formats that need no framework: every op against the referee, and what travels with the numbers."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino as ov
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from exporting import AWKWARD, BATCHES, difference, every_op, of_bundle, pictures
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES
from headstart.backbones.ops import ACTIVATIONS, OPS, Node
from headstart.core.errors import MissingExtraError, UsageError
from headstart.core.types import ImageSpec
from headstart.engines.fast import FastNetwork
from headstart.export import onnx as to_onnx
from headstart.export import onnx_graph
from headstart.export import openvino as to_openvino
from headstart.export.onnx_graph import build
from headstart.export.package import Package
from headstart.model.golden import Golden
from headstart.model.records import FitRecord, HeadRecord
from referee import (
    EVERY_OP,
    HEAD,
    INPUT,
    SAME,
    SPEC,
    Array,
    assert_close,
    conv,
    drawn_max_pool,
    photos,
    slow_forward,
    weights_for,
)

some = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WRITERS = {"onnx": (to_onnx, "it.onnx"), "openvino": (to_openvino, "it")}
every_writer = pytest.mark.parametrize("writer", WRITERS)


def written(writer: str, package: Package, folder: Path) -> Any:
    """A function that replays images in what was written."""
    module, name = WRITERS[writer]
    module.write(package, folder / name)
    return lambda images: module.replay(folder / name, images)["logits"]


def package_of(blueprint: Blueprint, spec: ImageSpec, weights: dict[str, Any] | None = None) -> Package:
    units = blueprint.shapes(spec.size)["logits"][0]
    golden = Golden(photos(1, spec.size), np.zeros((1, units), np.float32))
    return Package(blueprint, weights or weights_for(blueprint), spec, tuple(map(str, range(units))), golden)


def every_value(package: Package, images: NDArray[np.uint8]) -> dict[str, Array]:
    """What ONNX Runtime computes of each node that the graph tells the shape of, unoptimised."""
    model = build(package)
    onnx.checker.check_model(model, full_check=True)
    model.graph.output.extend(model.graph.value_info)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", BATCHES)
def test_every_node_of_the_onnx_graph_has_the_referees_value(count: int) -> None:
    images = photos(count, seed=count)
    expected = slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)
    values = every_value(every_op(), images)
    assert set(values) == {*EVERY_OP.layers, "probabilities", "label"}
    for name in EVERY_OP.layers:
        assert_close(values[name], expected[name])
    exponents = np.exp(expected["logits"] - expected["logits"].max(axis=1, keepdims=True))
    assert_close(values["probabilities"], exponents / exponents.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(values["label"], expected["logits"].argmax(axis=1))


def test_no_op_and_no_activation_goes_without_a_referee() -> None:
    nodes = EVERY_OP.nodes
    assert {node.op for node in nodes} == {*OPS} - {"module"}
    assert {node["kind"] for node in nodes if node.op == "act"} == {*ACTIVATIONS}


@some
@given(data=st.data())
def test_any_convolution_in_onnx_has_the_referees_value(data: st.DataObject) -> None:
    size = data.draw(st.integers(4, 11), "size")
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), "kernel")
    stride, bias = data.draw(st.integers(1, 3), "stride"), data.draw(st.booleans(), "bias")
    padding = data.draw(st.just(SAME) | st.tuples(*[st.integers(0, 3)] * 4), "padding")
    groups = data.draw(st.sampled_from([1, 2, 3, 6]), "groups")
    it = conv("last", "widen", 6, kernel, stride, padding, bias=bias, groups=groups)
    holds(Blueprint("one", (INPUT, conv("widen", "input", 6, (1, 1)), it, *HEAD), size))


@some
@given(data=st.data())
def test_any_max_pooling_in_onnx_has_the_referees_value(data: st.DataObject) -> None:
    size, attrs = drawn_max_pool(data)
    holds(Blueprint("one", (INPUT, Node("last", "max_pool", ("input",), attrs), *HEAD), size))


def holds(blueprint: Blueprint) -> None:
    package, images = package_of(blueprint, ImageSpec(blueprint.size)), photos(2, blueprint.size)
    expected = slow_forward(blueprint, weights_for(blueprint), package.spec, images)
    values = every_value(package, images)
    for name in ("last", "logits"):
        assert_close(values[name], expected[name])


@every_writer
def test_a_file_gives_the_referees_logits_for_any_number_of_images(writer: str, tmp_path: Path) -> None:
    replay = written(writer, every_op(), tmp_path)
    for count in BATCHES:
        images = photos(count, seed=count)
        assert_close(replay(images), slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, images)["logits"])


@every_writer
def test_a_fitted_model_gives_its_own_logits(writer: str, bundle: Path, photos: Path, tmp_path: Path) -> None:
    package = of_bundle(bundle)
    replay, images = written(writer, package, tmp_path), pictures(photos, package, 7)
    expected = FastNetwork(package.blueprint, package.weights, package.spec, "fp32").forward(images)
    assert difference(replay(images), expected) < 1e-5


@every_writer
@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "resnet18", "cifar_resnet20"])
def test_a_catalogued_network_gives_the_logits_of_the_fast_engine(writer: str, name: str, tmp_path: Path) -> None:
    blueprint = BACKBONES[name].blueprint()
    spec = replace(BACKBONES[name].spec, size=min(blueprint.size, 64))
    weights = weights_for(blueprint)
    images = photos(2, spec.size)
    expected = FastNetwork(blueprint, weights, spec, "fp32").forward(images)
    assert difference(written(writer, package_of(blueprint, spec, weights), tmp_path)(images), expected) < 1e-5


# --- what travels with them -------------------------------------------------------------------------------------------


def test_an_onnx_file_shows_the_blueprint(tmp_path: Path) -> None:
    written("onnx", every_op(), tmp_path)
    model = onnx.load(tmp_path / "it.onnx")
    assert (model.ir_version, [(each.domain, each.version) for each in model.opset_import]) == (7, [("", 14)])
    named = [node.name for node in model.graph.node if node.name in EVERY_OP.layers]
    assert named == [*EVERY_OP.layers]
    told = {
        each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
        for each in (*model.graph.value_info, *model.graph.output)
    }
    assert told == {name: ["batch", *shape] for name, shape in EVERY_OP.shapes().items()} | {
        "probabilities": ["batch", 5],
        "label": ["batch"],
    }
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, array in weights_for(EVERY_OP).items():
        np.testing.assert_array_equal(arrays[name], array)


def test_an_onnx_file_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    written("onnx", every_op(), tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 9, 9, 3])
    assert [(each.name, each.shape) for each in session.get_outputs()] == [
        ("logits", ["batch", 5]),
        ("probabilities", ["batch", 5]),
        ("label", ["batch"]),
    ]
    assert session.get_modelmeta().custom_metadata_map == every_op().metadata()
    assert session.get_modelmeta().producer_name == "headstart"


def test_openvino_files_say_what_they_take_and_give(tmp_path: Path) -> None:
    written("openvino", every_op(), tmp_path)
    assert sorted(os.listdir(tmp_path / "it")) == ["model.bin", "model.xml"]
    model = ov.Core().read_model(tmp_path / "it" / "model.xml")
    (images,) = model.inputs
    assert (images.names, images.element_type, str(images.partial_shape)) == ({"images"}, ov.Type.u8, "[?,9,9,3]")
    assert [(each.names, str(each.partial_shape)) for each in model.outputs] == [
        ({"logits"}, "[?,5]"),
        ({"probabilities"}, "[?,5]"),
        ({"label"}, "[?]"),
    ]
    about = {key: value.astype(str) for key, value in model.get_rt_info(["model_info"]).astype(dict).items()}
    assert about == every_op().metadata() | {
        "model_type": "Classification",
        "labels": 'bar a_b naïve_☃ two_lines "quoted"',
    }
    network = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values, logits = network(photos(3)), slow_forward(EVERY_OP, weights_for(EVERY_OP), SPEC, photos(3))["logits"]
    assert_close(values["probabilities"], np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def test_openvino_weights_stay_in_float32(tmp_path: Path, bundle: Path) -> None:
    package = of_bundle(bundle)
    written("openvino", package, tmp_path)
    numbers = sum(package.blueprint.parameters().values())
    assert (tmp_path / "it" / "model.bin").stat().st_size > 3.9 * numbers


@every_writer
def test_names_that_no_text_can_carry_come_back(writer: str, tmp_path: Path) -> None:
    odd = ("\udcff file", "\x01\x7f", "\ufffe<&>\"'", " ", "")
    written(writer, replace(every_op(), classes=odd), tmp_path)
    if writer == "onnx":
        about = {each.key: each.value for each in onnx.load(tmp_path / "it.onnx").metadata_props}
    else:
        model = ov.Core().read_model(tmp_path / "it" / "model.xml")
        about = {key: value.astype(str) for key, value in model.get_rt_info(["model_info"]).astype(dict).items()}
        assert len(about["labels"].split(" ")) == len(odd)
    assert json.loads(about["classes"]) == [*odd]


def test_metadata_is_text_and_readable_where_it_can_be() -> None:
    package = replace(every_op(), record=FitRecord(head=HeadRecord("lda", "flat", 0.1, 1.5)))
    about = package.metadata()
    assert all(isinstance(each, str) for pair in about.items() for each in pair)
    assert json.loads(about["classes"]) == [*AWKWARD]
    assert "naïve ☃" in about["classes"]
    assert json.loads(about["mean"]) == [*SPEC.mean]
    assert json.loads(about["std"]) == [*SPEC.std]
    assert (about["pixels"], float(about["crop"]), about["resample"]) == ("9", 0.875, "bicubic")
    assert (about["temperature"], about["fitted_temperature"]) == ("1", "1.5")
    assert "fitted_temperature" not in every_op().metadata()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_one_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_graph, "MOST", 100)
    with pytest.raises(UsageError, match="'every_op' has weights of more than 2 GB"):
        written("onnx", every_op(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_its_packages_the_pip_command_is_said(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written("onnx", every_op(), tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}, .*pip install 'headstart\[onnx\]'"):
        build(every_op()) if package == "onnx" else to_onnx.replay(tmp_path / "it.onnx", photos(1))["logits"]
