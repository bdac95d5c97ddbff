"""A thread is quiet: what other threads print, log and warn of arrives."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable

import pytest

from headstart.core.quiet import quiet

ALONE = """
import logging, os, sys, threading
logging.basicConfig(format="%(message)s")  # it keeps the stream
from headstart.core.quiet import quiet
kept = sys.stdout
def speak():
    for word in ("one", "two"):
        print(word)
        print(word, file=kept, flush=True)
        print(word, file=sys.stderr)
        logging.warning(word)
for _ in range(2):
    with quiet():
        thread = threading.Thread(target=speak)
        thread.start()
        for number in range(100):
            os.write(1 + number % 2, b"hidden in C")
            print("hidden")
            logging.error("hidden")
        thread.join()
print("three")
os.write(2, b"four")
"""


def elsewhere(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("option", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_other_threads_are_heard_on_the_screen(option: list[str]) -> None:
    """In a fresh process, whose streams are the file descriptors that C++ writes to."""
    done = subprocess.run([sys.executable, *option, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["one", "one", "two", "two"] * 2 + ["three"]
    assert done.stderr.split() == ["one", "one", "two", "two"] * 2 + ["four"]


def test_other_threads_print_log_and_warn(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    def speak() -> None:
        print("said")
        logging.getLogger("of a server").warning("logged")
        warnings.warn("warned", stacklevel=1)

    with quiet():
        speak()
        elsewhere(speak)
        speak()
    assert capsys.readouterr().out == "said\n"
    assert caplog.messages == ["logged"]
    assert [str(each.message) for each in recwarn] == ["warned"]


def test_a_thread_is_quiet_until_it_leaves_as_often_as_it_entered(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        with quiet():
            print("hidden")
        print("hidden")
    print("said")
    assert capsys.readouterr().out == "said\n"


def test_a_stream_lives_on_while_another_thread_prints_to_it() -> None:
    """`print` holds no reference to it: it would crash."""
    with quiet():
        stream = weakref.ref(sys.stdout)
    assert stream() is not None


def test_what_cpp_writes_is_left_alone_where_it_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet(native=False):
        print("hidden")
        os.write(1, b"said in C")
    assert capfd.readouterr().out == "said in C"
