"""The end of the process that runs a command: at once where nothing is lost by it, else in the ordinary way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENDS = """
import atexit, os, sys, tempfile, threading, time
import headstart.cli.app

end = os._exit
os._exit = lambda code: (os.write(2, b"at once"), end(code))
kept = tempfile.TemporaryDirectory(dir=sys.argv[1])
atexit.register(lambda: print("registered"))

def run():
    WORK
    print("x" * 100_000)
    sys.exit(CODE)

def slowly():
    time.sleep(0.2)
    print("thread")

headstart.cli.app.main = run
from headstart.__main__ import main
main()
"""


def ended(tmp_path: Path, code: object, work: str = "pass", *options: str) -> subprocess.CompletedProcess[str]:
    script = ENDS.replace("CODE", repr(code)).replace("WORK", work)
    command = [sys.executable, *options, "-c", script, str(tmp_path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize("code", [0, 3, 130])
def test_the_process_ends_at_once_with_all_that_was_printed_and_registered(code: int, tmp_path: Path) -> None:
    done = ended(tmp_path, code)
    assert (done.returncode, done.stdout.split(), done.stderr) == (code, ["x" * 100_000, "registered"], "at once")
    assert not [*tmp_path.iterdir()]  # the temporary folder is away


@pytest.mark.parametrize(
    ("work", "options"),
    [
        ("threading.Thread(target=slowly).start()", ()),
        ("threading.Thread(target=slowly, daemon=True).start()", ()),
        ("sys.modules['uvicorn'] = sys", ()),
        ("sys.settrace(lambda *_: None)", ()),
        ("sys.setprofile(lambda *_: None)", ()),
        ("pass", ("-i",)),
    ],
)
def test_it_ends_in_the_ordinary_way_where_something_waits(work: str, options: tuple[str, ...], tmp_path: Path) -> None:
    done = ended(tmp_path, 3, work, *options)
    assert "at once" not in done.stderr
    assert ("thread" in done.stdout) == ("slowly).start" in work)  # which is waited for
    assert done.returncode == (0 if "-i" in options else 3)  # a prompt that is left by the end of its input


def test_an_error_that_is_no_exit_keeps_its_traceback(tmp_path: Path) -> None:
    done = ended(tmp_path, 0, "raise ValueError('unforeseen')")
    assert (done.returncode, "ValueError: unforeseen" in done.stderr) == (1, True)
