"""Files and folders are whole or not there: new ones take no place that is taken, older ones are replaced at once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headstart.core import atomic_files
from headstart.core.atomic_files import beside, check_room, put, put_new, standing
from small_files import small_files


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


def killed(code: str, *arguments: object) -> None:
    """Run code in a process that ends as by ``kill -9`` where it says so."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_folder_is_replaced_without_a_moment_in_which_it_is_gone(tmp_path: Path) -> None:
    target = thing(tmp_path / "place", "folder", "0")
    gone, done = list[OSError](), threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                (target / "inside").read_text()
            except FileNotFoundError as error:
                gone.append(error)

    if not atomic_files._exchanged(thing(tmp_path / "a", "folder", "a"), thing(tmp_path / "b", "folder", "b")):
        pytest.skip("this disk cannot exchange folders")
    thread = threading.Thread(target=look)
    thread.start()
    for number in range(300):
        with beside(target) as folder:
            put(thing(folder / "made", "folder", str(number)), target)
    done.set()
    thread.join()
    assert said(target) == "299"
    assert len(gone) <= 2  # opened through a folder that was just removed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_what_a_killed_process_left_is_removed_and_what_a_running_one_makes_stays(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom headstart.core.atomic_files import beside\n"
        "with beside(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_bytes(b'x')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed(code, tmp_path / "one")
    assert [path.name[:11] for path in tmp_path.iterdir()] == [".headstart-"]
    (tmp_path / ".headstart-mine").mkdir()  # no name that is given here
    with beside(tmp_path / "two") as own:
        (own / "half").write_bytes(b"x")
        assert {*tmp_path.iterdir()} == {own, tmp_path / ".headstart-mine"}
        with beside(tmp_path / "three") as other:
            assert (own / "half").exists()
            assert other != own
    assert [path.name for path in tmp_path.iterdir()] == [".headstart-mine"]


def test_where_folders_cannot_be_exchanged_the_older_one_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = thing(tmp_path / "place", "folder", "old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom headstart.core import atomic_files\n"
        "atomic_files._exchanged = lambda *_: False\nrename = Path.rename\n"
        "def first_only(path, to):\n"
        "    if path.name == 'made': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rename(path, to)\n"
        "Path.rename = first_only\n"
        "with atomic_files.beside(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'made').mkdir()\n    atomic_files.put(folder / 'made', Path(sys.argv[1]))\n"
    )
    killed(code, target)
    assert not target.exists()
    assert said(standing(target)) == "old"
    monkeypatch.setattr(atomic_files, "_exchanged", lambda *_: False)
    for text in ("new", "newer"):
        with beside(target) as folder:
            put(thing(folder / "made", "folder", text), target)
        assert standing(target) == target
        assert said(target) == text
        assert [*tmp_path.iterdir()] == [target]


def test_whether_there_is_room_is_found_out_by_writing(tmp_path: Path) -> None:
    with small_files(3 << 20):
        check_room(tmp_path, 3 << 20)
        with pytest.raises(OSError, match="File too large"):
            check_room(tmp_path, (3 << 20) + 1)
    assert not [*tmp_path.iterdir()]
