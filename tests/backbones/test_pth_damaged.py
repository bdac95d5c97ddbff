"""Damaged PyTorch files end in an error of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.backbones.pth import MAGIC, read_pth
from headstart.core.errors import UsageError
from pth_files import FORMATS, PREAMBLE, save, small, storage

on_files = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_other_files_are_named(tmp_path: Path) -> None:
    for content in (
        b"",
        b"<!DOCTYPE html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04",
        MAGIC,
        MAGIC[:9],
    ):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.pth"):
            read_pth(tmp_path / "a.pth")
    with pytest.raises(UsageError, match="No such file"):
        read_pth(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="directory"):
        read_pth(tmp_path)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, bytes]:
    folder = tmp_path_factory.mktemp("contents")
    return {legacy: save(folder / "a.pth", small(), legacy=legacy).read_bytes() for legacy in (True, False)}


@FORMATS
@on_files
@given(data=st.data())
def test_truncated_anywhere_raises_only_our_error(
    tmp_path: Path, contents: dict[bool, bytes], legacy: bool, data: st.DataObject
) -> None:
    end = data.draw(st.integers(0, len(contents[legacy]) - 1))
    (tmp_path / "a.pth").write_bytes(contents[legacy][:end])
    with pytest.raises(UsageError):
        read_pth(tmp_path / "a.pth")


@FORMATS
@on_files
@given(data=st.data())
def test_flipped_bytes_give_arrays_or_our_error(
    tmp_path: Path, contents: dict[bool, bytes], legacy: bool, data: st.DataObject
) -> None:
    altered = bytearray(contents[legacy])
    places = st.tuples(st.integers(0, len(altered) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, min_size=1, max_size=8)):
        altered[place] = value
    (tmp_path / "a.pth").write_bytes(altered)
    try:
        arrays = read_pth(tmp_path / "a.pth")
    except UsageError:
        return
    assert arrays
    for array in arrays.values():  # a value out of bounds would end the interpreter here
        assert len(array.tobytes()) == array.size * array.itemsize


def test_a_flipped_value_in_an_archive_is_found_by_its_checksum(tmp_path: Path, contents: dict[bool, bytes]) -> None:
    value = small()["0.weight"].numpy().tobytes()
    altered = bytearray(contents[False])
    altered[contents[False].index(value) + 100] ^= 1
    (tmp_path / "a.pth").write_bytes(altered)
    with pytest.raises(UsageError, match="CRC"):
        read_pth(tmp_path / "a.pth")


OPCODES = [bytes([code]) for code in range(256)]


SNIPPETS = [
    b"h\x00",
    b"q\x00",
    b"K\x01",
    b"M\x01\x00",
    b"J\xff\xff\xff\xff",
    b"X\x01\x00\x00\x00x",
    b"\x8a\x01\x07",
    storage(2),
]


GLOBALS = [b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n"]


@on_files
@given(parts=st.lists(st.sampled_from(OPCODES + 8 * SNIPPETS + 8 * GLOBALS + 8 * [b"(", b"t", b"R", b"Q", b")", b"}"])))
def test_any_program_ends_in_our_error(tmp_path: Path, parts: list[bytes]) -> None:
    (tmp_path / "a.pth").write_bytes(PREAMBLE + b"\x80\x02" + b"".join(parts) + b".\x80\x02].")
    with pytest.raises(UsageError):
        read_pth(tmp_path / "a.pth")
