"""Hostile PyTorch files end in an error of ours, and run nothing."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.backbones.pickles import MAX_STEPS, MAX_STRUCTURE
from headstart.backbones.pth import read_pth
from headstart.core.errors import UsageError
from pth_files import FORMATS, PREAMBLE, save, small, storage


class Calls:
    """Pickles as a call of ``function``, which an ordinary unpickler would make."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@FORMATS
@pytest.mark.parametrize("inside", ["value", "key", "root"])
def test_calls_are_refused_and_not_made(tmp_path: Path, legacy: bool, inside: str) -> None:
    marker = tmp_path / "marker"
    hostile = {
        f"{os.system.__module__}.system": Calls(os.system, f"touch {marker}"),
        "__builtin__.eval": Calls(builtins.eval, f"open({str(marker)!r}, 'w')"),
        "__builtin__.exec": Calls(builtins.exec, f"open({str(marker)!r}, 'w')"),
        "check_output": Calls(subprocess.check_output, ["touch", str(marker)]),
        "torch.hub": Calls(torch.hub.load, "owner/repository", "model"),
        "torch.serialization.load": Calls(torch.load, str(marker)),
        "__builtin__.getattr": Calls(getattr, "", "join"),
    }
    for name, call in hostile.items():
        value = {"value": {**small(), "x": call}, "key": {call: torch.ones(1)}, "root": call}[inside]
        with pytest.raises(UsageError, match=name) as caught:
            read_pth(save(tmp_path / "a.pth", value, legacy=legacy))
        assert "refused" in str(caught.value)
        assert not marker.exists()
    # The file is hostile indeed: an ordinary unpickler obeys it.
    torch.load(
        save(tmp_path / "a.pth", {"x": hostile[f"{os.system.__module__}.system"]}, legacy=legacy), weights_only=False
    )
    assert marker.exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a.pth").write_bytes(pickle.dumps(Calls(os.system, f"touch {tmp_path / 'marker'}"), protocol))
        with pytest.raises(UsageError, match=r"expected a file written by torch\.save"):
            read_pth(tmp_path / "a.pth")
    assert not (tmp_path / "marker").exists()


@FORMATS
def test_whole_models_other_protocols_and_rare_types_are_named(tmp_path: Path, legacy: bool) -> None:
    with pytest.raises(UsageError, match=r"'torch\.nn\.modules\.linear\.Linear'.*model\.state_dict\(\)"):
        read_pth(save(tmp_path / "a.pth", torch.nn.Linear(2, 2), legacy=legacy))
    with pytest.raises(UsageError, match=r"torch\.ShortStorage"):
        read_pth(save(tmp_path / "a.pth", {"x": torch.ones(2, dtype=torch.int16)}, legacy=legacy))
    torch.save(small(), tmp_path / "a.pth", pickle_protocol=4, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UsageError, match=r"protocol 2.*received 4|written by torch"):
        read_pth(tmp_path / "a.pth")


HUGE = 2**62


SILLY: dict[str, Callable[[Any], tuple[object, ...]]] = {
    "offset beyond": lambda s: (s, 5, (1,), (1,), False, OrderedDict()),
    "size beyond": lambda s: (s, 0, (5,), (1,), False, OrderedDict()),
    "offset and size beyond": lambda s: (s, 2, (3,), (1,), False, OrderedDict()),
    "stride beyond": lambda s: (s, 0, (2, 2), (3, 1), False, OrderedDict()),
    "huge stride": lambda s: (s, 0, (2,), (HUGE,), False, OrderedDict()),
    "overflowing": lambda s: (s, 0, (2**33, 2**33), (1, 1), False, OrderedDict()),
    "negative offset": lambda s: (s, -1, (1,), (1,), False, OrderedDict()),
    "negative size": lambda s: (s, 0, (-2,), (1,), False, OrderedDict()),
    "negative stride": lambda s: (s, 3, (2,), (-1,), False, OrderedDict()),
    "endless repetition": lambda s: (s, 0, (2**40,), (0,), False, OrderedDict()),
    "huge and empty": lambda s: (s, 0, (0, HUGE, HUGE), (1, 1, 1), False, OrderedDict()),
    "many axes": lambda s: (s, 0, (1,) * 70, (1,) * 70, False, OrderedDict()),
    "unequal axes": lambda s: (s, 0, (2, 2), (1,), False, OrderedDict()),
    "a float": lambda s: (s, 0, (2.0,), (1,), False, OrderedDict()),
    "a bool": lambda s: (s, True, (1,), (1,), False, OrderedDict()),
    "a list": lambda s: (s, 0, [2], [1], False, OrderedDict()),
    "a string": lambda s: (s, 0, "2", "1", False, OrderedDict()),
    "no storage": lambda s: ("storage", 0, (2,), (1,), False, OrderedDict()),
    "negated": lambda s: (s, 0, (2,), (1,), False, OrderedDict(), {"neg": True}),
    "few arguments": lambda s: (s, 0, (2,)),
    "many arguments": lambda s: (s, 0, (2,), (1,), False, OrderedDict(), None, None),
    "none": lambda s: (),
}


@FORMATS
@pytest.mark.parametrize("case", SILLY)
def test_tensors_outside_their_storage_are_refused(tmp_path: Path, legacy: bool, case: str) -> None:
    arguments = SILLY[case](torch.arange(4.0)._typed_storage())
    path = save(tmp_path / "a.pth", {"x": Calls(torch._utils._rebuild_tensor_v2, *arguments)}, legacy=legacy)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"a tensor|too often|refused: it calls|too big|supported"):
            read_pth(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_STRUCTURE
    finally:
        tracemalloc.stop()


def test_the_edge_of_a_storage_can_still_be_read(tmp_path: Path) -> None:
    arguments: tuple[object, ...] = (torch.arange(4.0)._typed_storage(), 3, (1,), (HUGE // 8,), False, OrderedDict())
    path = save(tmp_path / "a.pth", {"x": Calls(torch._utils._rebuild_tensor_v2, *arguments)}, legacy=True)
    assert read_pth(path)["x"].tolist() == [3.0]


@pytest.mark.parametrize("count", [2**40, 2**62, 2**30, -1])
def test_a_forged_count_allocates_nothing(tmp_path: Path, count: int) -> None:
    structure = PREAMBLE + b"\x80\x02}X\x01\x00\x00\x00x" + storage(count) + b"s." + b"\x80\x02]X\x01\x00\x00\x000a."
    (tmp_path / "a.pth").write_bytes(structure + struct.pack("<q", count) + bytes(64))
    tracemalloc.start()
    try:
        with pytest.raises(UsageError):
            read_pth(tmp_path / "a.pth")
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_STRUCTURE
    finally:
        tracemalloc.stop()


NESTED = b")" + b"q\x00h\x00\x86" * 60  # t = (t, t), sixty times: hashing or comparing it takes 2**60 steps


@pytest.mark.parametrize(
    "structure",
    {
        "a distant memo": b"Nr\xff\xff\xff\xff0.",
        "a long string": b"X\xff\xff\xff\xff" + b"a" * 100,
        "a long number": b"\x8b\xff\xff\xff\x7f" + b"1" * 100,
        "a frame": b"\x95" + b"\xff" * 8 + b"N.",
        "bytes": b"\x8e" + b"\xff" * 7 + b"\x00",
        "a nested key": b"}" + NESTED + b"Ns.",
        "a list as a dict": b"]K\x01K\x01s.",
        "a dict as a list": b"}K\x01a.",
        "an odd number of items": b"}(K\x01u.",
        "no mark": b"t.",
        "an empty stack": b"0.",
        "nothing": b".",
        "an attribute of a name": b"ctorch\nFloatStorage\n}X\x01\x00\x00\x00a)sb.",
        "a call of a type": b"ctorch\nFloatStorage\n(K\x05tR.",
        "a method": b"ccollections\nOrderedDict.fromkeys\n(]tR.",
        "an unbroken line": b"c" + b"a" * 1000,
        "an old instance": b"(ios\nsystem\n.",
        "an extension": b"\x82\x01.",
    }.values(),
)
def test_bombs_and_nonsense_end_in_our_error(tmp_path: Path, structure: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(PREAMBLE + b"\x80\x02" + structure)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError):
            read_pth(tmp_path / "a.pth")
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


def test_a_pickle_of_endless_objects_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(PREAMBLE + b"\x80\x02" + b"]" * (MAX_STEPS + 1) + b".")
    with pytest.raises(UsageError, match=f"more than {MAX_STEPS} steps"):
        read_pth(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(PREAMBLE + b"\x80\x02X" + struct.pack("<I", 2**31) + b"a" * (MAX_STRUCTURE + 9))
    with pytest.raises(UsageError, match=f"more than {MAX_STRUCTURE} bytes"):
        read_pth(tmp_path / "a.pth")


def test_names_cannot_be_called_in_other_ways(tmp_path: Path) -> None:
    for name in (b"collections\nOrderedDict", b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage"):
        (tmp_path / "a.pth").write_bytes(PREAMBLE + b"\x80\x02c" + name + b"\n(]tR.")
        with pytest.raises(UsageError, match=r"refused: it calls .* with 1 arguments"):
            read_pth(tmp_path / "a.pth")


def test_a_storage_of_another_length_than_the_structure_says_is_refused(tmp_path: Path) -> None:
    structure = PREAMBLE + b"\x80\x02}X\x01\x00\x00\x00x" + storage(2) + b"s." + b"\x80\x02]X\x01\x00\x00\x000a."
    (tmp_path / "a.pth").write_bytes(structure + struct.pack("<qff", 2, 5, 6))
    assert read_pth(tmp_path / "a.pth")["x"].tolist() == [5, 6]
    (tmp_path / "a.pth").write_bytes(structure + struct.pack("<qfff", 3, 5, 6, 7))
    with pytest.raises(UsageError, match="storage '0' needs 2 values"):
        read_pth(tmp_path / "a.pth")


@pytest.mark.parametrize("other", [storage(9), storage(1), storage(2, kind=b"DoubleStorage")])
def test_a_storage_described_in_two_ways_is_refused(tmp_path: Path, other: bytes) -> None:
    """Else a tensor checked against the larger description would reach beyond the smaller."""
    for first, second in ((storage(2), other), (other, storage(2))):
        structure = b"\x80\x02}X\x01\x00\x00\x00x" + first + b"sX\x01\x00\x00\x00y" + second + b"s."
        content = PREAMBLE + structure + b"\x80\x02]X\x01\x00\x00\x000a." + struct.pack("<q", 2) + bytes(80)
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(UsageError, match="'0' is described in two ways"):
            read_pth(tmp_path / "a.pth")


def test_comparing_storage_names_cannot_hang(tmp_path: Path) -> None:
    tensor = b"\x80\x02}X\x01\x00\x00\x00x" + storage(1) + b"s."
    (tmp_path / "a.pth").write_bytes(PREAMBLE + tensor + b"\x80\x02]" + NESTED + b"a" + NESTED + b"a.")
    with pytest.raises(UsageError, match="storages"):
        read_pth(tmp_path / "a.pth")


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with other contents, names or compression; None leaves an entry out."""
    target = path.with_suffix(".new.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return target


def test_altered_archives_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", small(), legacy=False)
    assert read_pth(rewritten(path, lambda name, content: content))
    cases: dict[str, Path] = {}
    cases["compressed"] = rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match="compressed"):
        read_pth(cases["compressed"])
    for message, change in {
        "little-endian": lambda name, content: b"big" if name.endswith("byteorder") else content,
        "lacks the entry 'data/0'": lambda name, content: None if name.endswith("data/0") else content,
        "should have 432 bytes. Received: 431": lambda name, c: c[:-1] if name.endswith("data/0") else c,
        "another zip archive": lambda name, content: None if name.endswith("data.pkl") else content,
        "truncated": lambda name, content: content[:-9] if name.endswith("data.pkl") else content,
    }.items():
        with pytest.raises(UsageError, match=message):
            read_pth(rewritten(path, change))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(UsageError, match="TorchScript"):
        read_pth(path)


def entry(name: bytes, content: bytes) -> tuple[bytes, bytes]:
    """A stored entry of a zip archive: the local header, and the fields that the central directory repeats."""
    fields = struct.pack("<5H3I2H", 20, 0, 0, 0, 0, zlib.crc32(content), len(content), len(content), len(name), 0)
    return b"PK\x03\x04" + fields + name, fields


def test_entries_that_lie_within_each_other_cannot_multiply_the_file(tmp_path: Path) -> None:
    """A file of 1 MB with fifty storages of 1 MB, each the content of the next, all with right checksums."""
    blob, structure, found = bytes(1_000_000), b"\x80\x02}", []
    for index in range(50):
        key = str(index).encode()
        structure += b"X" + struct.pack("<I", len(key)) + key + storage(len(blob), key, b"ByteStorage") + b"s"
        header, fields = entry(b"a/data/" + key, blob)
        blob = header + blob
        found.append((b"a/data/" + key, fields, len(blob)))
    header, fields = entry(b"a/data.pkl", structure + b".")
    blob = header + structure + b"." + blob
    found.append((b"a/data.pkl", fields, len(blob)))
    central = b"".join(
        b"PK\x01\x02\x14\x00" + fields + struct.pack("<3H2I", 0, 0, 0, 0, len(blob) - length) + name
        for name, fields, length in found
    )
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, len(found), len(found), len(central), len(blob), 0)
    (tmp_path / "a.pth").write_bytes(blob + central + end)
    del blob
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert sum(info.file_size for info in archive.infolist()) > 40 * (tmp_path / "a.pth").stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="more bytes than the file has"):
            read_pth(tmp_path / "a.pth")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
