"""What the fast engine alone does: folding, a head in fp32, bf16, threads. Its values are in the contract's tests."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
import making
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.ops import SQRT_EPSILON, Node
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines import protocol
from headstart.engines.fast import FastNetwork, choose_precision, graph
from headstart.engines.fast.network import FEW
from headstart.engines.protocol import foldable
from real_networks import real_network
from referee import (
    EVERY_OP,
    HEAD,
    INPUT,
    SPEC,
    Weights,
    assert_close,
    conv,
    photos,
    weights_for,
)


def has_bf16() -> bool:
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor does not compute in bf16")


def network_for(blueprint: Blueprint, spec: ImageSpec = SPEC, precision: str = "fp32") -> FastNetwork:
    return FastNetwork(blueprint, weights_for(blueprint), spec, precision)


# --- fp32 against the referee -----------------------------------------------------------------------------------------


def test_a_batch_norm_is_folded_only_where_nobody_can_see_it() -> None:
    assert foldable(EVERY_OP) == {"stem", "depthwise", "uneven"}
    for at, more in ((("stem_act",), 1), (("stem_act", "stem"), 0)):
        model = graph.build(EVERY_OP, weights_for(EVERY_OP), SPEC, at)
        kinds = [operation.get_type_name() for operation in model.get_ops()]
        assert kinds.count("Convolution") == 1
        assert kinds.count("Add") == kinds.count("Multiply") + more  # pixels: one of each; the folded bias, or the norm


def test_images_do_not_see_their_neighbours() -> None:
    network, images = network_for(EVERY_OP), photos(17)
    together = network.forward(images)
    network.forward(photos(17, seed=1))  # what an earlier batch leaves behind must not matter
    for row in (0, 7, 16):
        np.testing.assert_array_equal(network.forward(images[row : row + 1])[0], together[row])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["norm", "add"])
def test_a_head_that_could_not_be_kept_in_fp32_is_refused(op: str) -> None:
    trunk = Blueprint("trunk", (INPUT, conv("last", "input", 4, (3, 3)), *HEAD), 9).trunk(("last",))
    odd = {"norm": Node("odd", "norm", ("features",), {"epsilon": 1e-3}), "add": Node("odd", "add", ("features",) * 2)}
    nodes = (*trunk.nodes, odd[op], Node("logits", "dense", ("odd",), {"units": 2}))
    with pytest.raises(UsageError, match=rf"node 'odd' \({op}\)"):
        network_for(Blueprint("odd_head", nodes, 9))


# --- bf16 -------------------------------------------------------------------------------------------------------------


def small_trunk(sqrt: bool) -> Blueprint:
    nodes = (
        INPUT,
        conv("stem", "input", 8, (3, 3), stride=2),
        Node("stem_norm", "norm", ("stem",), {"epsilon": 1e-3}),
        Node("last", "act", ("stem_norm",), {"kind": "relu6"}),
        *HEAD,
    )
    return Blueprint("fitted", nodes, 9).trunk(("last", "stem_norm")).with_head(3, sqrt=sqrt)


@needs_bf16
@pytest.mark.parametrize("sqrt", [False, True])
def test_the_fitted_head_stays_in_fp32_behind_a_bf16_trunk(sqrt: bool) -> None:
    blueprint, weights, images = small_trunk(sqrt), weights_for(small_trunk(sqrt)), photos(8)
    weights["logits.weight"] *= 1e3  # as large weights that nearly cancel each other
    network = FastNetwork(blueprint, weights, SPEC, "bf16")
    reference = network.at_precision("fp32").forward(images, "features")
    features = network.forward(images, "features").astype(np.float64)
    assert np.abs(features - reference).max() > 1e-5  # bf16 is at work, though fp32 was compiled first
    root = np.sqrt(np.maximum(features, 0) + SQRT_EPSILON) if sqrt else features
    exact = root @ weights["logits.weight"].T.astype(np.float64) + weights["logits.bias"]
    for value in (network.forward(images), network.forward_many(images, ("features", "logits"))[1]):
        assert_close(value, exact)


@needs_bf16
def test_auto_is_bf16_where_the_processor_has_it() -> None:
    assert choose_precision("auto") == network_for(EVERY_OP, precision="auto").precision == "bf16"
    assert choose_precision("fp32") == "fp32"


@pytest.fixture(scope="module")
def real(shared: Path) -> tuple[FastNetwork, NDArray[np.uint8]]:
    return real_network(shared, "bf16")


@needs_bf16
def test_bf16_agrees_with_fp32_on_real_photos(real: tuple[FastNetwork, NDArray[np.uint8]]) -> None:
    network, images = real
    low, exact = network.forward(images, "features"), network.at_precision("fp32").forward(images, "features")
    cosines = (low * exact).sum(1) / np.linalg.norm(low, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosines.min() > 0.99
    assert np.abs(low - exact).max() > 1e-4 * np.abs(exact).max()  # it was bf16
    error = network.check_precision(images)
    assert 0 < error < protocol.TOLERANCE / 2
    assert network.precision == "bf16"


@needs_bf16
def test_what_was_released_is_compiled_again(real: tuple[FastNetwork, NDArray[np.uint8]]) -> None:
    network, images = real
    network = network.at_precision("bf16")
    before, exact = (
        network.forward(images[:4], "features"),
        network.at_precision("fp32").forward(images[:4], "features"),
    )
    network.release()
    assert {precision for _, precision, *_ in network._compiled} == {"fp32"}
    np.testing.assert_array_equal(network.forward(images[:4], "features"), before)
    np.testing.assert_array_equal(network.at_precision("fp32").forward(images[:4], "features"), exact)


@needs_bf16
def test_bf16_that_is_too_coarse_gives_way_to_fp32(
    real: tuple[FastNetwork, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = real
    network = network.at_precision("bf16")  # one of its own, for others use the fixture
    monkeypatch.setattr(protocol, "TOLERANCE", 1e-6)
    assert network.check_precision(images[:4]) > 1e-6
    assert network.precision == "fp32"
    assert network.check_precision(images[:4]) == 0.0
    exact = network.at_precision("fp32").forward(images[:4], "features")
    np.testing.assert_array_equal(network.forward(images[:4], "features"), exact)


def cancelling() -> tuple[Blueprint, Weights]:
    """A bright offset is added and taken away again: of what is left bf16's eight bits keep nothing."""
    nodes = (
        INPUT,
        conv("offset", "input", 8, (1, 1), bias=True),
        Node("offset_act", "act", ("offset",), {"kind": "relu"}),
        conv("last", "offset_act", 8, (1, 1), bias=True),
        *HEAD,
    )
    blueprint = Blueprint("cancelling", nodes, 9).trunk(("last",))
    weights = weights_for(blueprint)
    weights["offset.bias"] = np.full(8, 3e5, np.float32)
    weights["last.weight"] = np.eye(8, dtype=np.float32)[:, :, None, None]
    weights["last.bias"] = np.full(8, -3e5, np.float32)
    return blueprint, weights


@needs_bf16
@pytest.mark.parametrize("count", [1, 8])
def test_a_network_that_bf16_breaks_is_found_out(count: int) -> None:
    blueprint, weights = cancelling()
    network = FastNetwork(blueprint, weights, SPEC, "bf16")
    assert network.check_precision(photos(count)) > protocol.TOLERANCE
    assert network.precision == "fp32"


@needs_bf16
def test_bf16_that_gives_no_numbers_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FastNetwork(small_trunk(False), weights_for(small_trunk(False)), SPEC, "bf16")
    honest = FastNetwork.forward

    def overflowing(self: FastNetwork, images: NDArray[np.uint8], at: str = "logits") -> NDArray[np.float32]:
        value = honest(self, images, at)
        return np.full_like(value, np.nan) if self.precision == "bf16" else value

    monkeypatch.setattr(FastNetwork, "forward", overflowing)
    network.check_precision(photos(4))
    assert network.precision == "fp32"


def test_without_images_precision_stays_as_it_is() -> None:
    network = network_for(small_trunk(False), precision="bf16")
    assert network.check_precision(photos(0)) == 0.0
    assert network.precision == "bf16"


TWO_THREADS_AT_ONCE = """
import sys, threading
import numpy as np
from headstart.backbones.builder import Builder
from headstart.engines.fast import FastNetwork
from headstart.core.types import ImageSpec

b = Builder()
b.classifier(b.act("input", "act", "relu"), 2, 0.0)
weights = {"logits.weight": np.ones((2, 3), np.float32), "logits.bias": np.zeros(2, np.float32)}
network = FastNetwork(b.build("tiny", 8), weights, ImageSpec(8), "fp32")
sys.setswitchinterval(1e-6)
together = threading.Barrier(4)

def run():
    together.wait()
    network.forward(np.zeros((1, 8, 8, 3), np.uint8))

threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(int("openvino_telemetry" in sys.modules))
"""


def test_first_use_from_several_threads_neither_hangs_nor_wakes_the_telemetry() -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", TWO_THREADS_AT_ONCE], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.strip() == "0"


# --- a few images -----------------------------------------------------------------------------------------------------

ALONE, TOGETHER = (1, "LATENCY"), (8, "THROUGHPUT")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What is compiled from now on: images at a time, and for what."""
    found: list[tuple[int, str]] = []
    real_core = graph.core()

    class Core:
        def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
            found.append((model.input(0).shape[0], settings["PERFORMANCE_HINT"]))
            return real_core.compile_model(model, device, settings)

        def __getattr__(self, name: str) -> Any:
            return getattr(real_core, name)

    monkeypatch.setattr(graph, "core", Core)
    return found


def test_a_few_images_run_one_by_one_on_all_cores(compiled: list[tuple[int, str]]) -> None:
    network, images = network_for(EVERY_OP), photos(FEW + 1)
    for count in (1, 3, FEW):
        network.for_images(count).forward(images[:count])
    assert compiled == [ALONE]
    network.for_images(len(images)).forward(images)
    assert compiled == [ALONE, TOGETHER]
    network.load(weights_for(EVERY_OP, seed=1))
    network.for_images(1).forward(images[:1])
    assert compiled == [ALONE, TOGETHER, ALONE]
    network.release()
    network.for_images(1).forward(images[:1])
    assert compiled == [ALONE, TOGETHER, ALONE, ALONE]


def test_one_by_one_each_image_has_one_core(compiled: list[tuple[int, str]]) -> None:
    network, images = network_for(EVERY_OP), photos(3)
    together = network.forward(images)
    np.testing.assert_allclose(network.one_by_one().forward(images), together, rtol=1e-4, atol=1e-5)
    network.one_by_one().forward(images)
    assert compiled == [TOGETHER, (1, "THROUGHPUT")]


@pytest.mark.parametrize("precision", ["fp32", "int8", pytest.param("bf16", marks=needs_bf16)])
def test_alone_and_among_many_an_image_gets_the_same_answer(
    precision: str, real: tuple[FastNetwork, NDArray[np.uint8]]
) -> None:
    network, images = real[0].at_precision(precision), real[1]
    together = network.forward(images, "features")
    alone = network.for_images(1).forward(images, "features")
    assert protocol.coarseness(alone, together) < (1e-4 if precision == "fp32" else protocol.TOLERANCE / 2)


def test_a_model_is_compiled_for_what_it_is_asked_and_no_other(
    shared: Path, tmp_path: Path, compiled: list[tuple[int, str]]
) -> None:
    """A fit needs none for a few images, one that is opened and asked about a photo none for many."""
    data = making.folder(tmp_path / "photos", count=8)
    fitted = hs.fit(data, pixels=64, cache=False, precision="fp32")
    assert ALONE not in compiled
    fitted.save(tmp_path / "model")
    compiled.clear()
    opened, photo = hs.load(tmp_path / "model"), sorted(data.rglob("*.png"))[0]
    alone = opened.predict_proba(photo)
    assert compiled == [ALONE]
    np.testing.assert_allclose(opened.predict_proba(data)[0], alone[0], atol=0.01)
    assert compiled == [ALONE, TOGETHER]
    np.testing.assert_array_equal(opened.predict_proba(photo), alone)  # whatever was asked before


def test_what_is_compiled_beside_is_not_compiled_again(compiled: list[tuple[int, str]]) -> None:
    network, images = network_for(EVERY_OP), photos(2)
    expected = network.for_images(2).forward_many(images, ("flat", "stem"))
    network = network_for(EVERY_OP)
    compiled.clear()
    network.compile_beside(2, ("flat", "stem"))
    found = network.for_images(2).forward_many(images, ("flat", "stem"))
    assert compiled == [ALONE]
    for value, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(value, right)
    network.compile_beside(2, ("flat",))
    network.release()
    assert not network._coming


def test_what_goes_wrong_beside_is_told_to_whoever_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory for it")

    network = network_for(EVERY_OP)
    with monkeypatch.context() as patched:
        patched.setattr("headstart.engines.fast.network.compiled", fail)
        network.compile_beside(1, ("flat",))
    with pytest.raises(RuntimeError, match="no memory for it"):
        network.for_images(1).forward(photos(1), "flat")
    assert network.for_images(1).forward(photos(1), "flat").shape[0] == 1  # the next attempt compiles by itself


OPENVINO_OF_ANOTHER = """
import json, sys
from headstart.engines.fast.graph import core

core()
import openvino as ov

found = {"at first": any(name.startswith("openvino.tools.ovc") for name in sys.modules)}
if sys.argv[1] == "from":
    from openvino import convert_model
else:
    convert_model = {"attribute": lambda: ov.convert_model, "tools": lambda: ov.tools.ovc.convert_model}[sys.argv[1]]()
import onnx
from onnx.helper import make_graph, make_model, make_node, make_tensor_value_info

x, y = (make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
onnx.save(make_model(make_graph([make_node("Relu", ["x"], ["y"])], "relu", [x], [y])), sys.argv[2])
made = convert_model(sys.argv[2])
found |= {"made": type(made).__name__, "other": hasattr(ov, "no_such_name") or hasattr(ov.tools, "no_such_name")}
print(json.dumps(found))
"""


@pytest.mark.parametrize("how", ["attribute", "from", "tools"])
def test_openvinos_converter_is_there_for_others_and_not_imported_for_us(how: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENVINO_OF_ANOTHER, how, str(tmp_path / "relu.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {"at first": False, "made": "Model", "other": False}


def test_a_start_beside_that_fails_is_told_to_whoever_needs_the_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Any:
        raise ImportError("no OpenVINO here")

    monkeypatch.setattr(graph, "_start", fails)
    before = set(threading.enumerate())
    graph.start_beside()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert capsys.readouterr().err == ""
    with pytest.raises(ImportError, match="no OpenVINO here"):
        graph.core()


FORKED = """
import multiprocessing, sys
import numpy as np
import headstart as hs

def ask(queue):
    try:
        queue.put(hs.load(sys.argv[1]).predict(photo).tolist())
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")

photo = np.zeros((1, 40, 40, 3), np.uint8)
if sys.argv[2] == "after":
    model = hs.load(sys.argv[1])
    del model  # what was compiled is gone, and threads wait for the next model
fork = multiprocessing.get_context(sys.argv[3])
if __name__ == "__main__":
    queue = fork.Queue()
    process = fork.Process(target=ask, args=(queue,))
    process.start()
    print(queue.get(timeout=100))
    process.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are spawned")
@pytest.mark.parametrize(("before", "how"), [("never", "fork"), ("after", "fork"), ("after", "spawn")])
def test_a_forked_process_does_not_wait_for_ever(before: str, how: str, bundle: Path, tmp_path: Path) -> None:
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    command = [sys.executable, str(script), str(bundle), before, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if (before, how) == ("after", "fork"):
        assert "UsageError: This process was forked from one that had used the fast engine" in done.stdout
    else:
        assert done.stdout.startswith("["), done.stderr
