"""What is new takes its place only where nothing is, even if something came into being a moment ago."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from headstart.core.atomic_files import put_new


def thing(path: Path, kind: str, text: str) -> Path:
    """A file, or a folder with a file."""
    file = path if kind == "file" else path / "inside"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return path


def said(path: Path) -> str:
    return (path if path.is_file() else path / "inside").read_text()


@pytest.fixture(params=["links", "no links"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def refuses(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuses)
    return str(request.param)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_it_takes_its_place(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "place"
    put_new(thing(tmp_path / "made", kind, "mine"), target)
    assert said(target) == "mine"


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("there", ["file", "folder"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_stays(kind: str, there: str, tmp_path: Path) -> None:
    target = thing(tmp_path / "place", there, "theirs")
    with pytest.raises(FileExistsError, match="place"):
        put_new(thing(tmp_path / "made", kind, "mine"), target)
    assert said(target) == "theirs"


def test_what_cannot_be_moved_leaves_no_empty_file(disk: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "replace", fails)
    if disk == "links":
        monkeypatch.setattr(os, "link", fails)
    with pytest.raises(OSError, match="broken"):
        put_new(thing(tmp_path / "made", "file", "mine"), tmp_path / "place")
    assert [*tmp_path.iterdir()] == [tmp_path / "made"]
