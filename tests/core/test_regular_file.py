"""Only files with an end are read, and none beyond what is sane: a pipe without a writer would be waited for, a device
never ends, and what is far too large would fill the memory."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.hdf5 import read_h5
from headstart.backbones.pth import read_pth
from headstart.backbones.weights import read_weights
from headstart.core.regular_file import open_regular, read_regular
from headstart.core.types import Problem
from headstart.data.in_memory import content_of
from headstart.data.rows import open_rows
from headstart.data.sources import from_pairs
from headstart.model.partial_table import PartialTable
from headstart.train.checkpoint import load as load_checkpoint
from headstart.train.identity import Identity
from headstart.train.recipe import open_recipe
from making import Shell

HUGE = 3 << 30
NO_FILE = "a pipe or a device"


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"content")
    with open_regular(tmp_path / "it") as file:
        assert file.read() == b"content"
    assert read_regular(tmp_path / "it") == read_regular(tmp_path / "it", 7) == b"content"


def make_pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(path)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    make_pipe(tmp_path / "pipe.jpg")
    return tmp_path / "pipe.jpg"


def test_a_pipe_and_a_device_are_refused_at_once(pipe: Path) -> None:
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(OSError, match=NO_FILE):
            open_regular(path)


def make_socket(name: str) -> None:
    """In the working directory: the path of one is short."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("this system has no sockets among files")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(name)


def test_a_socket_is_refused_in_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_socket("photo.jpg")
    with pytest.raises(OSError, match=NO_FILE):
        open_regular("photo.jpg")


def test_a_folder_and_what_is_missing_have_the_words_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")


def test_what_has_too_many_bytes_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"content")
    with pytest.raises(OSError, match="7 bytes, and up to 6 are read"):
        read_regular(tmp_path / "it", 6)


def test_a_file_that_does_not_say_its_size_is_read_up_to_the_limit() -> None:
    """As those that the system makes up."""
    made_up = Path("/proc/self/status")
    if not made_up.exists():
        pytest.skip("this system makes up no files")
    assert os.stat(made_up).st_size == 0
    assert read_regular(made_up, 1 << 20).startswith(b"Name:")
    with pytest.raises(OSError, match="more than 10 bytes, and up to 10 are read"):
        read_regular(made_up, 10)


def test_a_pipe_among_photos_is_one_that_cannot_be_read(pipe: Path, bundle: Path, photos: Path) -> None:
    model = hs.load(bundle)
    found = [*model.predictions([next(photos.rglob("*.png")), pipe])]
    assert isinstance(found[0], hs.Prediction)
    assert isinstance(found[1], Problem)
    assert (found[1].kind, found[1].detail) == ("unreadable", "a pipe or a device, not a file")


# --- every reader -----------------------------------------------------------------------------------------------------


def _beside_parquet(photo: Path) -> object:
    from source_files import hub_schema, pa, pq, write_parquet  # skips without pyarrow

    schema = hub_schema(None)
    file = write_parquet(photo.parent / "all.parquet", [(b"1", 0), (b"2", 1)], schema)
    images = pa.array([{"bytes": None, "path": photo.name}] * 2, schema.field("image").type)
    pq.write_table(pa.table([images, pa.array([0, 1])], schema=schema), file)
    return hs.open_source(file).read(0)


def _idx(images: Path) -> object:
    (images.parent / "train-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 1, 7)))
    return hs.open_source(images)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {  # the name of a file, and what reads it
    "table": ("t.csv", hs.open_source),
    "table of a folder": ("metadata.csv", lambda path: hs.open_source(path.parent)),
    "rows": ("t.tsv", open_rows),
    "photo": ("a.jpg", lambda path: from_pairs([path], ["a"]).read(0)),
    "photo in a list": ("a.jpg", lambda path: content_of(path, "Image 0")),
    "photo that Parquet names": ("a.jpg", _beside_parquet),
    "Parquet": ("t.parquet", hs.open_source),
    "tar": ("t.tar", hs.open_source),
    "IDX": ("train-images-idx3-ubyte", _idx),
    "safetensors": ("a.safetensors", read_weights),
    "weights of PyTorch": ("a.pth", read_weights),
    "weights of Keras": ("a.h5", read_weights),
    "pth alone": ("a.pth", read_pth),
    "h5 alone": ("a.h5", read_h5),
    "recipe": ("a.json", open_recipe),
}
LIMITED = ("table", "table of a folder", "rows", "photo", "photo in a list", "photo that Parquet names", "recipe")


@pytest.fixture
def never_waits() -> Iterator[Callable[[Path], None]]:
    """Makes a pipe; whoever waits for it, which none should, is let go after a while."""
    pipes, end = list[Path](), threading.Event()

    def let_go() -> None:
        while not end.wait(3):
            for each in pipes:
                with suppress(OSError):
                    os.close(os.open(each, os.O_RDWR | os.O_NONBLOCK))

    def make(path: Path) -> None:
        make_pipe(path)
        pipes.append(path)

    thread = threading.Thread(target=let_go, daemon=True)
    thread.start()
    yield make
    end.set()
    thread.join()


@pytest.mark.parametrize("what", READERS)
def test_no_reader_waits_for_a_pipe(what: str, tmp_path: Path, never_waits: Callable[[Path], None]) -> None:
    name, read = READERS[what]
    never_waits(tmp_path / name)
    with pytest.raises((hs.HeadstartError, OSError), match=NO_FILE):
        read(tmp_path / name)


@pytest.mark.parametrize("what", LIMITED)
def test_what_is_far_too_large_is_refused_by_its_size(what: str, tmp_path: Path) -> None:
    name, read = READERS[what]
    with (tmp_path / name).open("wb") as file:
        file.truncate(HUGE)
    with pytest.raises((hs.HeadstartError, OSError), match=r"3,221,225,472 bytes, and up to [0-9,]+ are read"):
        read(tmp_path / name)


def test_a_checkpoint_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket stands for a pipe, for which the library would wait with all of Python."""
    monkeypatch.chdir(tmp_path)
    make_socket("checkpoint-00000001.safetensors")
    with pytest.raises(hs.CheckError, match=NO_FILE):
        load_checkpoint(tmp_path, Identity("", {}, ""))


def test_rows_of_a_table_are_kept_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows").symlink_to(os.devnull)
    with pytest.raises(OSError, match=NO_FILE):
        PartialTable(tmp_path / "rows", {}, 0)


def test_weights_without_a_header_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.backbones.weights.read_regular", pytest.fail)
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.truncate(HUGE)
    with pytest.raises(hs.UsageError, match="truncated or damaged: it has no header"):
        read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "pipe_said", "huge_said"),
    [
        ("config.json", "no model: its config.json is no file", "config.json' is damaged: 3,221,225,472 bytes"),
        ("golden.safetensors", f"cannot be read: {NO_FILE}", "cannot be read: 3,221,225,472 bytes"),
        ("model.safetensors", f"model.safetensors' cannot be read: {NO_FILE}", ""),
    ],
)
def test_the_files_of_a_model(
    name: str, pipe_said: str, huge_said: str, tmp_path: Path, small_bundle: Path, never_waits: Callable[[Path], None]
) -> None:
    model = shutil.copytree(small_bundle, tmp_path / "model")
    (model / name).unlink()
    never_waits(model / name)
    with pytest.raises(hs.HeadstartError, match=pipe_said):
        hs.load(model)
    if huge_said:
        (model / name).unlink()
        with (model / name).open("wb") as file:
            file.truncate(HUGE)
        with pytest.raises(hs.CheckError, match=huge_said):
            hs.load(model)


def test_a_pipe_in_place_of_a_model_is_named(pipe: Path, shell: Shell) -> None:
    for command in (("predict", pipe, "photo.jpg"), ("show", pipe)):
        assert f"{pipe}' is {NO_FILE}" in shell(*command).err


class Endless:
    """Standard input from a device that never ends."""

    def __init__(self) -> None:
        self.buffer, self.given = self, 0

    def read(self, size: int = -1) -> bytes:
        assert 0 < size <= 1 << 20
        self.given += size
        return b"photo.jpg\n" * (size // 10)


def test_a_list_of_paths_ends(small_bundle: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = Endless()
    monkeypatch.setattr("sys.stdin", source)
    monkeypatch.setattr("headstart.cli.predict.MOST_LIST", 3 << 20)
    answer = shell("predict", small_bundle, "-")
    assert (answer.code, "expected a list of paths, up to 3,145,728 bytes" in answer.err) == (2, True)
    assert source.given == 4 << 20


def test_idx_is_unpacked_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = bytes((0, 0, 8, 3)) + np.array([4, 5, 6], ">u4").tobytes()
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(head + bytes(120)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 0, 1)))
    assert len(hs.open_source(packed)) == 4
    monkeypatch.setattr("headstart.data.idx.MOST_UNPACKED", 119)
    with pytest.raises(hs.DataError, match="promises 120 bytes, and up to 119 are unpacked"):
        hs.open_source(packed)
