"""Long work of a tab: told of, cancelled, and its errors raised where the result is asked for."""

from __future__ import annotations

import threading

import pytest

import headstart as hs
from headstart.core.progress import Progress
from headstart.studio.jobs import CancelledError, Job, Running, State


def test_its_states_come_as_it_goes_on() -> None:
    seen, go = list[tuple[str, int, int]](), threading.Event()

    def work(report: Progress) -> str:
        for done in range(3):
            report("steps", done, 2)
            assert go.wait(20)
        return "made"

    job = Job(work).start()
    for state in job.states():
        seen.append((state.stage, state.done, state.count))
        if state.stage:
            go.set()
    assert seen[-1][0] in ("", "steps")
    assert ("steps", 0, 2) in seen
    assert job.result() == "made"


def test_cancelled_it_ends_at_the_next_step() -> None:
    begun, go = threading.Event(), threading.Event()
    reached: list[int] = []

    def work(report: Progress) -> None:
        for done in range(100):
            reached.append(done)
            report("steps", done, 100)
            begun.set()
            assert go.wait(20)

    running = Running()
    job = running.begin(work)
    assert begun.wait(20)
    running.cancel()
    go.set()
    with pytest.raises(CancelledError):
        job.result()
    assert reached == [0, 1]


def test_a_second_job_ends_one_that_nobody_asked_for_and_no_other() -> None:
    begun, go = threading.Event(), threading.Event()

    def endless(report: Progress) -> None:
        while True:
            report("steps", 0, 0)
            begun.set()
            go.wait(0.01)

    running = Running()
    first = running.begin(endless, gives_way=True)
    assert begun.wait(20)
    second = running.begin(lambda report: 7)
    assert second.result() == 7
    with pytest.raises(CancelledError):
        first.result()
    begun.clear()
    third = running.begin(endless)
    assert begun.wait(20)
    with pytest.raises(hs.UsageError, match="still at work"):
        running.begin(lambda report: 8)
    running.cancel()
    with pytest.raises(CancelledError):
        third.result()
    assert running.begin(lambda report: 9).result() == 9


def test_cancelled_is_no_error_that_a_function_goes_on_after(photos: object) -> None:
    """Functions of Headstart pass over what they cannot have; a cancelled one ends."""
    running = Running()

    def work(report: Progress) -> object:
        running.cancel()
        return hs.fit(str(photos), pixels=32, cache=False, progress=report)

    with pytest.raises(CancelledError):
        running.begin(work).result()


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    def work(report: Progress) -> None:
        raise hs.UsageError("no")

    with pytest.raises(hs.UsageError, match="no"):
        Job(work).start().result()


@pytest.mark.parametrize(
    ("state", "share", "left"),
    [
        (State("a", 5, 20, 10.0), 0.25, 30.0),
        (State("a", 5, 20, 0.5), 0.25, None),  # too early to tell
        (State("a", 0, 1, 10.0), None, None),
        (State("a", 0, 20, 10.0), 0.0, None),
        (State(), None, None),
    ],
)
def test_how_much_is_left(state: State, share: float | None, left: float | None) -> None:
    assert (state.share, state.left) == (share, left)
