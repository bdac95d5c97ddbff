"""HDF5 files that are hostile or damaged end in an error of ours."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdf5_files import (
    KERNEL,
    NORM,
    VECTOR,
    counted,
    legacy,
    near,  # noqa: F401  # a fixture
)
from headstart.backbones import hdf5, hdf5_places
from headstart.backbones.hdf5 import read_h5
from headstart.backbones.weights import read_weights
from headstart.core.errors import MissingExtraError, UsageError


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
    monkeypatch.setattr(hdf5, "TIMEOUT", 1)
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
