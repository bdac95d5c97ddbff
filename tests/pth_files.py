"""State dicts made for tests."""

from __future__ import annotations

import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from headstart.backbones.pth import MAGIC

FORMATS = pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])


# The pickles before the state dict in the legacy format: magic, protocol 1001, {"little_endian": True}.
PREAMBLE = MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."


def save(path: Path, value: object, *, legacy: bool) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def small() -> OrderedDict[str, torch.Tensor]:
    torch.manual_seed(0)
    state: OrderedDict[str, torch.Tensor] = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).bfloat16()
    ).state_dict()
    return state


def storage(count: int, key: bytes = b"0", kind: bytes = b"FloatStorage") -> bytes:
    """The opcodes of a tensor of one axis that is a whole storage."""
    number, key = b"\x8a\x08" + struct.pack("<q", count), struct.pack("<I", len(key)) + key
    pid = b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX" + key + b"X\x03\x00\x00\x00cpu" + number + b"NtQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\x00" + number + b"\x85K\x01\x85\x89}tR"
