"""The entry point: what it sets before NumPy is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headstart import __main__ as entry

SETTINGS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
STARTED = """
import sys, types
def run():
    import numpy
    from threadpoolctl import threadpool_info
    print([each["num_threads"] for each in threadpool_info() if each["internal_api"] == "openblas"])
sys.modules["headstart.cli.app"] = types.SimpleNamespace(main=run)
from headstart.__main__ import main
main()
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of the settings, and a command that does nothing."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that what the entry point sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr("headstart.cli.app.main", lambda: None)
    return monkeypatch


def test_blas_is_told_to_have_one_thread(started: pytest.MonkeyPatch) -> None:
    entry.main()
    assert [os.environ.get(name) for name in SETTINGS] == ["1", None, None]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_user_who_said_how_many_threads_is_heard(name: str, started: pytest.MonkeyPatch) -> None:
    started.setenv(name, "7")
    entry.main()
    assert {each: os.environ[each] for each in SETTINGS if each in os.environ} == {name: "7"}


def test_numpy_is_not_loaded_before() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run([sys.executable, "-c", STARTED], env=environment, capture_output=True, text=True, check=True)
    if done.stdout == "[]\n":
        pytest.skip("NumPy has another BLAS than OpenBLAS here")
    assert done.stdout == "[1]\n"
