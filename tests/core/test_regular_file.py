"""Only files with an end are read: a pipe without a writer would be waited for, and a device never ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import headstart as hs
from headstart.core.regular_file import open_regular
from headstart.core.types import Problem


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"content")
    with open_regular(tmp_path / "it") as file:
        assert file.read() == b"content"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.jpg")
    return tmp_path / "pipe.jpg"


def test_a_pipe_and_a_device_are_refused_at_once(pipe: Path) -> None:
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(OSError, match="a pipe or a device"):
            open_regular(path)


def test_a_folder_and_what_is_missing_have_the_words_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")


def test_a_pipe_among_photos_is_one_that_cannot_be_read(pipe: Path, bundle: Path, photos: Path) -> None:
    model = hs.load(bundle)
    found = [*model.predictions([next(photos.rglob("*.png")), pipe])]
    assert isinstance(found[0], hs.Prediction)
    assert isinstance(found[1], Problem)
    assert (found[1].kind, found[1].detail) == ("unreadable", "a pipe or a device, not a file")
