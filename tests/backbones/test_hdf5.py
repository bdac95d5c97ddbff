"""Reading Keras's HDF5 files: equal to what Keras holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from hdf5_files import (
    KERNEL,
    NORM,
    VECTOR,
    counted,
    legacy,
    near,  # noqa: F401  # a fixture
)
from headstart.backbones.hdf5 import read_h5
from headstart.backbones.weights import read_weights
from headstart.core.errors import UsageError

Arrays = dict[str, NDArray[Any]]


def equal(ours: Arrays, theirs: Mapping[str, Any]) -> None:
    assert list(ours) == list(theirs)
    for key, array in theirs.items():
        assert ours[key].dtype == array.dtype, key
        np.testing.assert_array_equal(ours[key], array, err_msg=key)


def named(layer: str, arrays: list[Any]) -> dict[str, Any]:
    names = ("gamma", "beta", "moving_mean", "moving_variance") if len(arrays) == 4 else ("kernel", "bias")
    return {f"{layer}/{name}": array for name, array in zip(names, arrays, strict=False)}


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
