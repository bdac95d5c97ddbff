"""Reading Keras's HDF5 files: equal to what Keras holds, and closed to everything that leads out of the file."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.backbones import hdf5, hdf5_places
from headstart.backbones.hdf5 import read_h5
from headstart.backbones.weights import read_weights
from headstart.core.errors import MissingExtraError, UsageError

Arrays = dict[str, NDArray[Any]]

KERNEL, VECTOR = np.arange(72, dtype=np.float32).reshape(3, 3, 2, 4), np.arange(4, dtype=np.float32)
NORM = [VECTOR + place for place in range(4)]


def counted(path: Path, layers: Mapping[str, list[Any]], **more: Any) -> Path:
    """A file as Keras 3 writes it: groups are classes, and the layer's name is an attribute."""
    with h5py.File(path, "w", **more) as file:
        for place, (name, arrays) in enumerate(layers.items()):
            group = file.create_group(f"layers/layer_{place}/vars")
            group.attrs["name"] = name
            for number, array in enumerate(arrays):
                group[str(number)] = array
    return path


def legacy(path: Path, layers: Mapping[str, Mapping[str, Any]], root: str = "/") -> Path:
    """A file as Keras 1, 2 and tf.keras wrote it: attributes list layers and weights."""
    with h5py.File(path, "w") as file:
        group = file.require_group(root)
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            layer = group.require_group(name)
            layer.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                layer[each] = array
    return path


def equal(ours: Arrays, theirs: Mapping[str, Any]) -> None:
    assert list(ours) == list(theirs)
    for key, array in theirs.items():
        assert ours[key].dtype == array.dtype, key
        np.testing.assert_array_equal(ours[key], array, err_msg=key)


def named(layer: str, arrays: list[Any]) -> dict[str, Any]:
    names = ("gamma", "beta", "moving_mean", "moving_variance") if len(arrays) == 4 else ("kernel", "bias")
    return {f"{layer}/{name}": array for name, array in zip(names, arrays, strict=False)}


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the process of its own, where a file is odd but not damaged; starting one takes most of a test's time."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 0, json.dumps(hdf5_places.main(command[-1])).encode())

    monkeypatch.setattr(hdf5, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))


# --- what Keras writes ------------------------------------------------------------------------------------------------

MAKER = """
import sys, numpy as np, h5py, keras
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
folder = sys.argv[1]
inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"),
    keras.layers.BatchNormalization(name="norm"), keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
    keras.layers.RandomFlip(name="flip")], name="inner")
model = keras.Sequential([keras.Input((8, 8, 3)), inner, keras.layers.GlobalAveragePooling2D(),
    keras.layers.Dropout(0.5), keras.layers.Lambda(lambda x: 2 * x, name="twice"),
    keras.layers.Dense(5, name="dense"), keras.layers.PReLU(name="slope")])
model.compile("adam", "mse")
model.train_on_batch(np.random.rand(4, 8, 8, 3), np.random.rand(4, 5))
np.savez(folder + "/values.npz", **{f"{layer.name}/{variable.name}": np.asarray(variable)
    for part in (inner, model) for layer in part.layers if layer is not inner for variable in layer.weights})
model.save_weights(folder + "/new.weights.h5")
model.save(folder + "/whole.h5")
model.save(folder + "/new.keras")
with h5py.File(folder + "/legacy.h5", "w") as file:
    save_weights_to_hdf5_group(file, model)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model within a model, with a Lambda layer, in every form of file."""
    folder = tmp_path_factory.mktemp("written")
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", MAKER, str(folder)], check=True, capture_output=True, env=environment)
    return folder


@pytest.mark.parametrize("file", ["new.weights.h5", "legacy.h5", "whole.h5"])
def test_what_keras_holds_is_read(written: Path, file: str) -> None:
    """And neither the optimizer's state nor a random generator's."""
    read, expected = read_weights(written / file), dict(np.load(written / "values.npz"))
    alpha = next(key for key in read if key.startswith("slope/"))
    assert alpha == ("slope/0" if file.startswith("new") else "slope/alpha")
    read["slope/alpha"] = read.pop(alpha)
    equal({key: read[key] for key in sorted(read)}, {key: expected[key] for key in sorted(expected)})
    assert {"conv/kernel", "norm/moving_variance", "depthwise/kernel", "dense/bias"} < set(read)


def test_a_keras_archive_is_told_how_to_save_weights(written: Path) -> None:
    for path in (written / "new.keras", written / "renamed.h5"):
        (written / "renamed.h5").write_bytes((written / "new.keras").read_bytes())
        with pytest.raises(UsageError, match=r"zip archive.*model\.save_weights\(\"x\.weights\.h5\"\)"):
            read_weights(path)


def test_the_real_file_equals_h5py_s_reading(shared: Path) -> None:
    path = shared / "weights" / "mobilenet_v2.keras.weights.h5"
    read = read_h5(path)
    assert len(read) == 262
    with h5py.File(path) as file:
        for group in file["layers"].values():
            for place, values in enumerate(group["vars"].values()):
                name = group["vars"].attrs["name"]
                own = [key for key in read if key.rpartition("/")[0] == name]
                np.testing.assert_array_equal(read[own[place]], values[()])


# --- forms by hand ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_the_first_and_the_last_format_of_hdf5(tmp_path: Path, libver: str) -> None:
    layers: dict[str, list[Any]] = {"stem": [KERNEL], "stem_bn": NORM, "head": [KERNEL[0, 0], VECTOR]}
    layers |= {f"conv_{place}": [KERNEL] for place in range(30)}
    read = read_h5(counted(tmp_path / "a.h5", layers, libver=libver))
    expected = {key: array for name, arrays in layers.items() for key, array in named(name, arrays).items()}
    equal(read, {key: expected[key] for key in read})
    assert len(read) == len(expected)


def test_types_and_shapes(tmp_path: Path) -> None:
    values: list[Any] = [VECTOR.astype(kind) for kind in ("<f2", "<f8", ">f4", "<i8", "u1")]
    values += [np.float32(3), np.zeros((0, 3), np.float32)]
    equal(read_h5(counted(tmp_path / "a.h5", {"a": values})), {f"a/{n}": np.asarray(v) for n, v in enumerate(values)})
    assert read_weights(tmp_path / "a.h5")["a/2"].dtype == np.float32

    halves = (KERNEL / 7).astype(ml_dtypes.bfloat16)
    with h5py.File(counted(tmp_path / "b.h5", {"a": []}), "r+") as file:
        file["layers/layer_0/vars"].create_dataset("0", data=halves).attrs["dtype"] = "bfloat16"
    equal(read_h5(tmp_path / "b.h5"), {"a/kernel": halves.astype(np.float32)})


def test_a_file_behind_a_block_of_the_user_s_is_refused_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected an HDF5 file"):
        read_h5(counted(tmp_path / "a.h5", {"a": [KERNEL]}, userblock_size=512))


@pytest.mark.usefixtures("near")
def test_legacy_names_of_weights_do_not_matter_their_order_does(tmp_path: Path) -> None:
    old = legacy(
        tmp_path / "a.h5",
        {
            "block1_conv1": {"block1_conv1_W_1:0": KERNEL, "block1_conv1_b_1:0": VECTOR},
            "input": {},
            "expanded_conv/depthwise": {"expanded_conv/depthwise/depthwise_kernel:0": KERNEL},
            "expanded_conv/depthwise/BatchNorm": {
                f"expanded_conv/depthwise/BatchNorm/{part}:0": array
                for part, array in zip(("gamma", "beta", "moving_mean", "moving_variance"), NORM, strict=True)
            },
            "again": {"again_1/kernel:0": KERNEL[0, 0]},
            "model": {"deep/kernel:0": KERNEL, "deep_bn/gamma:0": VECTOR, "deep_bn/beta:0": VECTOR + 1}
            | {"deep_bn/moving_mean:0": VECTOR + 2, "deep_bn/moving_variance:0": VECTOR + 3},
            "odd": {"odd/slope:0": VECTOR},
        },
    )
    depthwise = "expanded_conv/depthwise"
    expected = named("block1_conv1", [KERNEL, VECTOR]) | named(depthwise, [KERNEL])
    expected |= named(f"{depthwise}/BatchNorm", NORM) | named("again", [KERNEL[0, 0]])
    equal(read_h5(old), expected | named("deep", [KERNEL]) | named("deep_bn", NORM) | {"odd/slope": VECTOR})


@pytest.mark.usefixtures("near")
def test_long_lists_of_names_come_in_pieces(tmp_path: Path) -> None:
    layers = {f"layer_{n}": {f"layer_{n}/kernel:0": KERNEL[0, 0] + n} for n in range(9)}
    with h5py.File(legacy(tmp_path / "a.h5", layers, "model_weights"), "r+") as file:
        names = list(file["model_weights"].attrs["layer_names"])
        del file["model_weights"].attrs["layer_names"]
        for piece in range(3):
            file["model_weights"].attrs[f"layer_names{piece}"] = names[3 * piece : 3 * piece + 3]
    equal(read_h5(tmp_path / "a.h5"), {f"layer_{n}/kernel": KERNEL[0, 0] + n for n in range(9)})


# --- hostile files ----------------------------------------------------------------------------------------------------


def refused(path: Path, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_weights(path)
    assert path.name in str(caught.value)


@pytest.mark.usefixtures("near")
def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    secret = counted(tmp_path / "secret.h5", {"a": [KERNEL]})
    links = {
        "external": h5py.ExternalLink(str(secret), "/layers/layer_0/vars/0"),
        "soft": h5py.SoftLink("/layers/layer_0/vars/0"),
        "dangling": h5py.ExternalLink("/no/such/file.h5", "/"),
    }
    for name, link in links.items():
        with h5py.File(counted(tmp_path / f"{name}.h5", {"a": [VECTOR], "b": [VECTOR]}), "r+") as file:
            file["layers/layer_1/vars/1"] = link
        refused(tmp_path / f"{name}.h5", r"was refused: '1' is a link")
    for name, where in {"group": "layers", "layer": "layers/layer_0", "vars": "layers/layer_0/vars"}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file[where] = h5py.ExternalLink(str(secret), where)
        refused(tmp_path / f"{name}.h5", r"was refused: .* is a link")
    for name in ("model_weights", "a", "weight"):
        path = legacy(tmp_path / f"legacy_{name}.h5", {"a": {"a/kernel:0": KERNEL}}, "model_weights")
        where = {"model_weights": "model_weights", "a": "model_weights/a", "weight": "model_weights/a/a/kernel:0"}[name]
        with h5py.File(path, "r+") as file:
            del file[where]
            file[where] = h5py.ExternalLink(str(secret), "/layers/layer_0/vars/0")
        refused(path, r"was refused: .* is a link")


@pytest.mark.usefixtures("near")
def test_values_in_other_files_are_not_read(tmp_path: Path) -> None:
    raw = tmp_path / "secret.bin"
    raw.write_bytes(KERNEL.tobytes())
    with h5py.File(counted(tmp_path / "external.h5", {"a": []}), "r+") as file:
        file["layers/layer_0/vars"].create_dataset(
            "0", KERNEL.shape, "f4", external=[(str(raw), 0, raw.stat().st_size)]
        )
    refused(tmp_path / "external.h5", "values of '0' in another file")
    layout = h5py.VirtualLayout(KERNEL.shape, "f4")
    layout[...] = h5py.VirtualSource(
        str(counted(tmp_path / "b.h5", {"a": [KERNEL]})), "layers/layer_0/vars/0", KERNEL.shape
    )
    with h5py.File(counted(tmp_path / "virtual.h5", {"a": []}), "r+") as file:
        file["layers/layer_0/vars"].create_virtual_dataset("0", layout)
    refused(tmp_path / "virtual.h5", "values of '0' in another file")


TYPES: dict[str, Any] = {
    "object": h5py.string_dtype(),
    "text": "S4",
    "vlen": h5py.vlen_dtype(np.float32),
    "compound": [("a", "f4"), ("b", "f4")],
    "complex": "c8",
    "enum": h5py.enum_dtype({"a": 0}),
    "opaque": "V2",
    "reference": h5py.ref_dtype,
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.usefixtures("near")
def test_only_numbers_are_read(tmp_path: Path, kind: str) -> None:
    with h5py.File(counted(tmp_path / "a.h5", {"a": []}), "r+") as file:
        file["layers/layer_0/vars"].create_dataset("0", (4,), TYPES[kind])
    refused(tmp_path / "a.h5", "expected numbers for '0'")


@pytest.mark.usefixtures("near")
def test_a_float_of_unusual_make_is_refused(tmp_path: Path) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    with h5py.File(counted(tmp_path / "a.h5", {"a": []}), "r+") as file:
        h5py.h5d.create(file["layers/layer_0/vars"].id, b"0", kind, h5py.h5s.create_simple((4,)))
    refused(tmp_path / "a.h5", "expected numbers for '0'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1 << 40,)}, r"'0' needs 4398046511104 bytes and has 0"),
        ({"shape": (1 << 62, 1 << 62)}, r"truncated or damaged|needs \d+ bytes and has 0"),
        ({"shape": (100,), "chunks": (10,)}, "compressed or in pieces"),
        ({"shape": (1 << 40,), "compression": "gzip", "chunks": (1 << 20,)}, "compressed or in pieces"),
        ({"shape": None}, "expected numbers"),
    ],
)
@pytest.mark.usefixtures("near")
def test_a_size_that_the_file_does_not_have_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with h5py.File(counted(tmp_path / "a.h5", {"a": []}), "r+") as file:
        group = file["layers/layer_0/vars"]
        if options["shape"] is None:
            group["0"] = h5py.Empty("f4")
        else:
            try:
                group.create_dataset("0", dtype="f4", **options)
            except (ValueError, OSError):
                pytest.skip("the HDF5 library does not write it either")
    refused(tmp_path / "a.h5", message)


def test_values_that_are_shared_do_not_multiply(tmp_path: Path) -> None:
    with h5py.File(counted(tmp_path / "a.h5", {"a": [np.ones((1, 1, 500, 500), np.float32)]}), "r+") as file:
        for place in range(1, 200):
            group = file.create_group(f"layers/layer_{place}/vars")
            group.attrs["name"] = f"copy_{place}"
            group["0"] = file["layers/layer_0/vars/0"]
    refused(tmp_path / "a.h5", "truncated or damaged")


def test_models_that_hold_themselves_come_to_an_end(tmp_path: Path) -> None:
    with h5py.File(counted(tmp_path / "a.h5", {"a": [KERNEL]}), "r+") as file:
        for place in range(12):
            file[f"layers/again_{place}"] = file["/"]
    refused(tmp_path / "a.h5", "at most 8 models within each other|more than 50000 groups")


@pytest.mark.usefixtures("near")
def test_structures_that_make_no_sense(tmp_path: Path) -> None:
    def make(name: str, *layers: str) -> h5py.File:
        return h5py.File(counted(tmp_path / f"{name}.h5", {layer: [KERNEL] for layer in layers}), "r+")

    with make("nothing") as file:
        file["x"] = VECTOR
    refused(tmp_path / "nothing.h5", "no weights in a form of Keras's.*save_weights")
    with make("empty") as file:
        file.create_group("layers/dropout/vars").attrs["name"] = "dropout"
    refused(tmp_path / "empty.h5", "a file without any")
    with make("nameless", "a") as file:
        del file["layers/layer_0/vars"].attrs["name"]
    refused(tmp_path / "nameless.h5", "what its layers are called")
    with make("number", "a") as file:
        file["layers/layer_0/vars"].attrs["name"] = 3
    refused(tmp_path / "number.h5", "expected texts in the attribute name, received int")
    with make("gap", "a") as file:
        file["layers/layer_0/vars"].move("0", "7")
    refused(tmp_path / "gap.h5", "it lacks '0'")
    with make("twice", "a", "b") as file:
        file["layers/layer_1/vars"].attrs["name"] = "a"
    refused(tmp_path / "twice.h5", "two layers of the same name: 'a/kernel'")
    with make("swapped", "a") as file:
        del file["layers/layer_0/vars/0"]
        file.create_group("layers/layer_0/vars/0")
    refused(tmp_path / "swapped.h5", "expected a dataset under '0'")
    with make("flat") as file:
        file["layers"] = VECTOR
    refused(tmp_path / "flat.h5", "expected a group under 'layers'")
    with make("keras2") as file:
        file.create_group("_layer_checkpoint_dependencies/dense/vars")["0"] = KERNEL
    refused(tmp_path / "keras2.h5", "what its layers are called")
    path = legacy(tmp_path / "lacking.h5", {"a": {"a/kernel:0": KERNEL}})
    with h5py.File(path, "r+") as file:
        del file["a/a/kernel:0"]
    refused(path, "it lacks 'kernel:0', which it speaks of")


def test_an_attribute_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.attrs["layer_names"] = np.zeros(hdf5_places.MAX_ATTRIBUTE // 100 + 1, "S100")
    refused(tmp_path / "a.h5", "at most 1048576 bytes in the attribute layer_names")


def test_other_files(tmp_path: Path) -> None:
    for name, content in {"empty": b"", "text": b"layers", "signature": b"\x89HDF\r\n\x1a\n"}.items():
        (tmp_path / f"{name}.h5").write_bytes(content)
        refused(tmp_path / f"{name}.h5", "expected an HDF5 file|truncated or damaged")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "model.keras", "zip archive")
    (tmp_path / "folder.h5").mkdir()
    refused(tmp_path / "folder.h5", "received a folder")
    with pytest.raises(UsageError, match=r"none\.h5' cannot be read"):
        read_h5(tmp_path / "none.h5")


def test_without_h5py_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = counted(tmp_path / "a.h5", {"a": [KERNEL]})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"Reading \.h5 files needs h5py.*pip install 'headstart\[keras\]'"):
        read_h5(path)


def test_nothing_of_h5py_is_imported(tmp_path: Path) -> None:
    path = counted(tmp_path / "a.h5", {"a": [KERNEL]})
    code = (
        "import sys; from headstart.backbones.hdf5 import read_h5; read_h5(sys.argv[1]); print('h5py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "fate",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import time; time.sleep(60)",
        "print('half a {')",
        "print({})",
        """print('{"layers": []}', flush=True); raise SystemExit(3)""",
    ],
)
def test_a_library_that_crashes_or_hangs_takes_nobody_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    path = counted(tmp_path / "a.h5", {"a": [KERNEL]})
    (tmp_path / "places.py").write_text(fate)
    monkeypatch.setattr(hdf5_places, "__file__", str(tmp_path / "places.py"))
    monkeypatch.setattr(hdf5, "PATIENCE", 1)
    refused(path, "damaged so badly that the HDF5 library failed on it")


@pytest.mark.parametrize("place", [-1, 1 << 40, None])
def test_places_outside_the_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int | None
) -> None:
    path = counted(tmp_path / "a.h5", {"a": [KERNEL]})
    offset = path.stat().st_size - KERNEL.nbytes + 1 if place is None else place
    monkeypatch.setattr(hdf5, "_layers", lambda path: [["a", [], [["<f4", [3, 3, 2, 4], offset]]]])
    refused(path, "truncated or damaged: 'a/kernel' needs 288 bytes")


damage = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@damage
@given(data=st.data())
def test_truncated_files_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    whole = counted(tmp_path / "whole.h5", {"a": [KERNEL], "b": NORM}).read_bytes()
    (tmp_path / "part.h5").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    refused(tmp_path / "part.h5", "expected an HDF5 file|truncated or damaged")


@damage
@given(data=st.data())
def test_flipped_bytes_give_arrays_or_our_error(tmp_path: Path, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        path = counted(tmp_path / "a.h5", {"a": [KERNEL], "b": NORM})
    else:
        path = legacy(tmp_path / "a.h5", {"a": {"a/kernel:0": KERNEL}, "b": {"b/kernel:0": KERNEL[0, 0]}})
    altered = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(8, len(altered) - 1), min_size=1, max_size=40)):
        altered[place] = data.draw(st.integers(0, 255))
    path.write_bytes(altered)
    with contextlib.suppress(UsageError):
        read = read_h5(path)
        assert sum(array.nbytes for array in read.values()) <= len(altered)
