"""Full disks, missing permissions, closed streams, little of everything: a sentence, an exit code, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.core.errors import MachineError
from headstart.core.types import ImageDataset, ImageSpec, Sample
from headstart.data.load import load_images
from headstart.data.scan import scan
from headstart.train.checkpoint import unfinished
from making import Shell, folder

POSIX = pytest.mark.skipif(os.name == "nt", reason="streams and signals as POSIX has them")


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def failing(error: OSError, times: int = 1000) -> Callable[..., Any]:
    """In place of a function: raises so many times, and then is `shutil.move`."""
    left = iter(range(times))

    def act(*arguments: Any) -> Any:
        if next(left, None) is not None:
            raise error
        return shutil.move(*arguments)

    return act


def headstart(*arguments: object, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, typed in a shell."""
    command = ["bash", "-c", f'exec "$@" {redirect}', "-", sys.executable, "-m", "headstart", *map(str, arguments)]
    known = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=known | environment)


# --- full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A table of two classes that a few epochs tell apart."""
    table = tmp_path / "rows.csv"
    table.write_text("x,y,label\n" + "".join(f"{k},{k * k % 7},{'ab'[k % 2]}\n" for k in range(60)))
    return table


@pytest.fixture
def train(shell: Shell, rows: Path, tmp_path: Path) -> Callable[..., Any]:
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"preset": "table", "epochs": 3}')
    return lambda *options: shell("train", rows, "--out", tmp_path / "model", "--recipe", recipe, *options)


def test_where_the_result_of_a_training_cannot_be_written_the_training_is_kept(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("headstart.model.files.put", failing(system(errno.ENOSPC)))
        answer = train()
    assert answer.code == 2
    assert "No space left on device. What was trained is kept: once that is mended, the same command with --resume" in (
        answer.err
    )
    assert unfinished(tmp_path / "model.training")
    assert not (tmp_path / "model").exists()
    assert train("--resume").code == 0
    assert hs.load_rows(tmp_path / "model").classes == ("a", "b")
    assert not unfinished(tmp_path / "model.training")


def test_checkpoints_take_no_room_that_the_result_needs(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.model.files.put", failing(system(errno.ENOSPC), times=1))
    answer = train()
    assert answer.code == 0
    assert "the disk is full; checkpoints of the training make room for the model" in answer.err
    assert not unfinished(tmp_path / "model.training")
    assert hs.load_rows(tmp_path / "model").classes == ("a", "b")


@pytest.mark.parametrize("command", ["fit", "evaluate", "compare", "train"])
def test_a_figure_is_worth_more_than_its_plot(
    command: str, shell: Shell, photos: Path, bundle: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.plots.files.put", failing(system(errno.ENOSPC)))
    out = ("--out", tmp_path / "out")
    given = {
        "fit": (photos, "--pixels", 32),
        "evaluate": (bundle, photos, "--include-training-set"),
        "compare": (photos, "--pixels", 32, "--backbones", "efficientnet_lite0"),
        "train": (rows,),
    }[command]
    answer = shell(command, *given, *out, "--json")
    assert answer.code == 2
    assert answer.err.endswith("cannot be written to: No space left on device.\n")
    assert json.loads(answer.out)
    if command in ("fit", "train"):
        assert (tmp_path / "out" / "config.json").exists()


# --- permissions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_photo_that_cannot_be_read_is_told_why(number: int) -> None:
    def read(index: int) -> bytes:
        raise system(number)

    [found] = load_images(ImageDataset("", [Sample("a.jpg", "a")], read), [0], ImageSpec(32))
    assert found.error is not None
    assert found.error.detail == os.strerror(number).lower()


def test_a_folder_that_may_not_be_listed_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    listing = os.scandir

    def refusing(path: str) -> Any:
        if os.path.basename(path.rstrip("/")) == "secret":
            raise system(errno.EACCES)
        return listing(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refusing)
        found = scan(str(tmp_path))
    assert [(each.name, each.detail) for each in found.problems] == [("secret", "permission denied")]
    assert not found.empty_folders(1)


def test_a_model_that_may_not_be_read_is_not_called_damaged(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> bytes:
        raise system(errno.EACCES)

    monkeypatch.setattr("headstart.model.stored.read_regular", refused)
    with pytest.raises(hs.UsageError, match=r"config\.json' cannot be read: Permission denied\."):
        hs.load(bundle)


def test_what_cannot_be_removed_from_the_cache_is_said(
    shell: Shell, photos: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("fit", photos, "--pixels", 32, "--out", tmp_path / "model", "--no-report", "--precision", "fp32")
    (home / "weights").mkdir()
    (home / "weights" / "some.pth").write_bytes(b"some")

    def refused(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        answer = shell("cache", "--prune", "--json")
    assert (answer.code, answer.json["freed"], len(answer.json["spaces"])) == (2, 0, 1)
    assert ".sqlite' cannot be removed: permission denied." in answer.err
    (home / "weights" / "some.pth").unlink()
    assert shell("cache", "--prune").code == 0

    def unreadable(self: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "iterdir", unreadable)
    for options in ([], ["--prune"]):
        answer = shell("cache", *options)
        assert (answer.code, answer.out) == (2, "")
        assert "features' cannot be read: Permission denied." in answer.err


def test_a_home_of_no_user_is_said(shell: Shell, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_HOME", "~nobody-of-this-name/cache")
    for command in (("cache",), ("backbones",), ("fit", photos, "--pixels", 32)):
        answer = shell(*command)
        assert (answer.code, answer.out) == (2, "")
        assert (
            "HEADSTART_HOME: expected a folder. Received: '~nobody-of-this-name/cache', and there is no" in answer.err
        )
    assert not [*tmp_path.iterdir()]


# --- streams ----------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize(
    ("redirect", "code"),
    [
        ("2>&-", 3),
        ("<&- >&- 2>&-", 3),
        ("2>/dev/full", 3),
        ("> >(true)", 0),
        (">/dev/full", 2),
    ],
)
def test_whoever_cannot_be_told_does_not_stop_the_work(
    redirect: str, code: int, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    """Of two photos one is no photo, which is told on standard error, and is the reason of exit code 3."""
    if "/dev/full" in redirect and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    table = tmp_path / "table.csv"
    photo = photos / "bars" / "0.png"
    done = headstart("predict", bundle, photo, tmp_path / "no.jpg", "--out", table, redirect=redirect)
    assert done.returncode in (code, 3), done.stderr  # a reader that is gone may be noticed late
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(table.read_text().splitlines()) == 3
    if redirect == ">/dev/full":
        assert "headstart: Standard output cannot be written: No space left on device.\n" in done.stderr


@POSIX
@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_an_error_has_its_exit_code_without_streams(redirect: str) -> None:
    done = headstart("show", "no-such-network", redirect=redirect)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


INTERRUPTED = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            del sys.meta_path[0]
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["headstart", "cache"]
from headstart.__main__ import main
main()
"""


@POSIX
@pytest.mark.parametrize(("module", "code"), [("typer", -signal.SIGINT), ("headstart.learn.feature_cache", 130)])
def test_ctrl_c_while_modules_are_imported(module: str, code: int) -> None:
    command = [sys.executable, "-c", f"MODULE = {module!r}\n{INTERRUPTED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert done.stderr in ("", "headstart: interrupted.\n")


# --- too little -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_no_photo_is_blamed_for_the_machine(number: int) -> None:
    def read(index: int) -> bytes:
        raise system(number)

    with pytest.raises(MachineError):
        load_images(ImageDataset("", [Sample("a.jpg", "a")], read), [0], ImageSpec(32))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "There is not enough memory. Take fewer pixels (--pixels) or a smaller network (--backbone)"),
        (RuntimeError("Exception from core.cpp:1:\nstd::bad_alloc\n\n"), "There is not enough memory: std::bad_alloc."),
        (system(errno.EMFILE), "Too many files are open."),
    ],
)
def test_what_the_machine_lacks_is_a_sentence(
    error: Exception, said: str, shell: Shell, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("headstart.engines.fast.network.FastNetwork.runner", lacking)
    answer = shell("fit", photos, "--pixels", 32, "--out", tmp_path / "model")
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert answer.err.startswith(f"headstart: {said}")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="names as Linux has them")
@pytest.mark.parametrize("command", ["fit", "train"])
def test_a_name_that_is_no_utf8_goes_through(command: str, shell: Shell, rows: Path, tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"\xfc")
    data = folder(place / os.fsdecode(b"ph\xf6tos"), 3) if command == "fit" else rows.rename(f"{place}.csv")
    options = ("--pixels", 32) if command == "fit" else ()
    assert shell(command, data, "--out", place / "model", *options).code == 0
    if command == "fit":
        assert hs.load(place / "model").record.data == r"ph\xf6tos"
        answer = shell("predict", place / "model", data, "--out", place / "table.parquet")
        assert (answer.code, (place / "table.parquet").exists()) == (0, True)


@POSIX
def test_umlauts_in_a_locale_without_them(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    photos = folder(tmp_path / "phötos", 3, ("bars", "discs"))
    (photos / "bars").rename(photos / "grün")
    model = tmp_path / "mödel"
    fitted = headstart("fit", photos, "--pixels", 32, "--out", model, **ascii_only)
    assert (fitted.returncode, fitted.stderr) == (0, "")
    assert r"gr\xfcn" in fitted.stdout
    predicted = headstart("predict", model, photos, "--json", **ascii_only)
    assert {json.loads(line)["label"] for line in predicted.stdout.splitlines()} == {"grün", "discs"}
    sorted_into = headstart("predict", model, photos, "--sort-into", tmp_path / "sorted", **ascii_only)
    assert sorted_into.returncode == 2
    assert "can be no file's name here, where names are read as ascii: set PYTHONUTF8=1" in sorted_into.stderr
