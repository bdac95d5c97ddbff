"""Several threads change the process at once, and leave in another order than they entered: all is as before."""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from headstart.core.quiet import muted, quiet
from headstart.core.shared_change import SharedChange, ignored_warnings

WAIT = 20  # seconds after which a test fails


def interleave(
    first: Callable[[], AbstractContextManager[object]],
    second: Callable[[], AbstractContextManager[object]],
    between: Callable[[], None] = lambda: None,
) -> None:
    """One thread enters, another enters, the first leaves (then ``between``), the second leaves."""
    both, left, errors = threading.Barrier(2, timeout=WAIT), threading.Event(), list[BaseException]()
    entered = threading.Event()

    def begin() -> None:
        with first():
            entered.set()
            both.wait()
        left.set()

    def go_on() -> None:
        assert entered.wait(WAIT)
        with second():
            both.wait()
            assert left.wait(WAIT)
            between()

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
            both.abort()

    threads = [threading.Thread(target=run, args=(work,)) for work in (begin, go_on)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)


def state() -> tuple[object, ...]:
    """What exports and imports of frameworks change."""
    places = [(os.fstat(stream).st_dev, os.fstat(stream).st_ino) for stream in (1, 2)]
    files = [(stream.fileno(), stream.name) for stream in (sys.__stdout__, sys.__stderr__) if stream]
    return (*places, *files, sys.stdout, sys.stderr, logging.Logger.callHandlers, list(warnings.filters))


@pytest.mark.parametrize(
    ("first", "second"),
    [(quiet, quiet), (muted, muted), (muted, quiet), (quiet, muted), (lambda: muted(1), quiet)],
    ids=["exports", "imports", "an export after an import", "an import after an export", "standard output"],
)
def test_output_is_as_before(
    first: Callable[[], AbstractContextManager[object]],
    second: Callable[[], AbstractContextManager[object]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    before, log = state(), logging.getLogger("of a user")

    def speak() -> None:
        os.write(2, b"hidden in C")

    interleave(first, second, speak)
    assert state() == before
    print("said")
    os.write(1, b"said in C")
    log.warning("logged")
    out, err = capfd.readouterr()
    assert out in ("said\nsaid in C", "said in Csaid\n")
    assert "hidden" not in err


def test_output_is_suppressed_until_the_last_one_leaves(capfd: pytest.CaptureFixture[str]) -> None:
    def speak() -> None:
        print("hidden")
        os.write(1, b"hidden in C")
        os.write(2, b"hidden in C")
        logging.getLogger("of a framework").critical("hidden")
        warnings.warn("hidden", stacklevel=1)

    interleave(quiet, quiet, speak)
    assert capfd.readouterr() == ("", "")


def test_output_is_as_before_after_an_error() -> None:
    before = state()

    def failing() -> None:
        with pytest.raises(ValueError, match="seven"), quiet():
            raise ValueError("seven")

    @contextmanager
    def failed() -> Iterator[None]:
        failing()
        yield

    interleave(quiet, failed)
    assert state() == before


def test_a_stream_kept_by_a_library_speaks_again_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    """A log handler that a framework makes while it is imported."""
    with quiet():
        handler = logging.StreamHandler(sys.stderr)
        handler.stream.writelines(["hid", "den"])
        print("hidden", file=handler.stream, flush=True)
    handler.emit(logging.makeLogRecord({"msg": "said"}))
    assert capsys.readouterr().err == "said\n"


def test_a_stream_that_somebody_redirects_meanwhile_stays_redirected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    with quiet():
        sys.stdout = sys.__stderr__
    assert sys.stdout is sys.__stderr__


def test_warnings_of_one_module_and_all_of_them() -> None:
    """Two kinds of filters overlap; and what somebody else adds meanwhile stays."""
    before = list(warnings.filters)
    interleave(ignored_warnings, lambda: ignored_warnings("headstart"))
    assert list(warnings.filters) == before
    with warnings.catch_warnings():
        with ignored_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            added = warnings.filters[0]
        assert warnings.filters[0] == added
        assert len(warnings.filters) == len(before) + 1


def test_warnings_are_heard_again_where_another_thread_had_copied_the_filters() -> None:
    change = ignored_warnings()
    outer = warnings.catch_warnings()
    change.__enter__()
    outer.__enter__()
    change.__exit__()
    outer.__exit__(None, None, None)
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_a_thread_may_enter_twice_and_later_again() -> None:
    made = list[str]()

    @contextmanager
    def change() -> Iterator[None]:
        made.append("made")
        yield
        made.append("undone")

    shared = SharedChange(change)
    for _ in range(2):
        with shared, shared:
            assert made[-1] == "made"
    assert made == ["made", "undone"] * 2


def test_what_cannot_be_changed_leaves_nothing_behind() -> None:
    tries = iter((OSError("full"), None))

    @contextmanager
    def change() -> Iterator[None]:
        if error := next(tries):
            raise error
        yield

    shared = SharedChange(change)
    with pytest.raises(OSError, match="full"), shared:
        pass
    with shared:
        pass


def test_random_numbers_are_those_of_the_user() -> None:
    pytest.importorskip("tensorflow")
    from headstart.engines.registry import keras_engine

    keras_engine()
    from headstart.engines.keras.config import undisturbed

    random.seed(7)
    expected = random.random()
    random.seed(7)
    interleave(undisturbed, undisturbed, lambda: random.seed(1))
    assert random.random() == expected


@pytest.mark.parametrize("second", ["HALF_OF_THE_CORES", "ONE_BLAS_THREAD"])
def test_the_threads_of_blas_are_as_many_as_before(second: str) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    from headstart.data import threads as ours

    def threads() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        interleave(lambda: ours.HALF_OF_THE_CORES, lambda: getattr(ours, second))
        assert threads() == before


def test_the_settings_of_matplotlib_are_as_before() -> None:
    from matplotlib import rcParams

    from headstart.plots import style

    before = dict(rcParams)
    interleave(lambda: style.STYLE, lambda: style.STYLE, lambda: _expect_font(9.5))
    assert dict(rcParams) == before


def _expect_font(size: float) -> None:
    from matplotlib import rcParams

    assert rcParams["font.size"] == size
