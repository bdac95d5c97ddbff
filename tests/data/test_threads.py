"""Python's threads, each with one thread of BLAS: the same results however many there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from head_data import everyone, photos
from headstart.data import threads
from headstart.data.threads import HALF_OF_THE_CORES, ONE_BLAS_THREAD, BlasThreads, on_threads
from headstart.learn import regularisation_path as paths
from headstart.learn.heads import fit_head
from headstart.learn.regularisation_path import Design
from headstart.learn.unknown import fit_unknown


def of_blas() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize("most", [None, 1, 2, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_results_come_in_order_whoever_is_done_first(
    most: int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 3)

    def slow_if_even(item: int) -> int:
        time.sleep(0.002 * (item % 2 == 0))
        return item * item

    assert [*on_threads(slow_if_even, range(count), most)] == [item * item for item in range(count)]


def test_no_more_are_held_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 50:
            taken += 1
            yield taken

    for done, _ in enumerate(on_threads(lambda item: item, items(), 3)):
        assert taken <= done + 3


def test_a_single_item_needs_no_thread() -> None:
    assert [*on_threads(lambda _: threading.current_thread(), [0])] == [threading.current_thread()]


def test_blas_has_one_thread_beside_those_of_python() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = of_blas()
        assert [*on_threads(lambda _: of_blas(), range(3))] == [{1}] * 3
        assert of_blas() == before


def test_the_last_to_enter_decides_how_many_threads_blas_has() -> None:
    two, three = BlasThreads(lambda: 2), BlasThreads(lambda: 3)
    before = of_blas()
    with ONE_BLAS_THREAD:
        with two, ONE_BLAS_THREAD, three:
            assert of_blas() == {3}
            with ONE_BLAS_THREAD:
                assert of_blas() == {1}
            assert of_blas() == {3}
        assert of_blas() == {1}
    assert of_blas() == before


def test_half_of_the_cores_are_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, half in ((1, 1), (2, 1), (5, 2)):
        monkeypatch.setattr(threads, "cores", lambda there=there: there)
        with HALF_OF_THE_CORES:
            assert of_blas() == {half}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_do_not_depend_on_how_many_threads_there_are(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: the sums over all rows, the scores, the head and what is unknown to it."""
    monkeypatch.setattr(paths, "BLOCK", 16)
    x, labels = photos((200, 150, 175), 40, apart=0.3)
    x = x.astype(dtype)

    def everything() -> list[Any]:
        design = Design(x)
        sums = design.exact_sum(labels, 3)
        scatter = design.scatter(design.sum(labels, 3), labels)
        fit = fit_head(x, labels, 3)
        unknown, typical = fit_unknown(design, labels, everyone(labels), fit)
        probabilities = fit.head.probabilities(x, everyone(labels))
        margin = unknown.margin(design, probabilities)
        return [sums, scatter, fit.logits, fit.head.weight, fit.head.bias, typical, probabilities, margin]

    found = []
    for count in (1, 2, 3):
        monkeypatch.setattr(threads, "cores", lambda count=count: count)
        with ONE_BLAS_THREAD:  # as in a process of the command; the factorisation has threads of its own
            found.append(everything())
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_one_caller_alone_adds_up_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "BLOCK", 16)
    x, labels = photos((90, 50, 75), 30)
    shared, alone = Design(x), Design(x, alone=True).of(everyone(labels))
    with ONE_BLAS_THREAD:
        expected = shared.exact_sum(labels, 3), shared.scatter(shared.sum(labels, 3), labels)
        monkeypatch.setattr(paths, "on_threads", lambda *_: pytest.fail("on threads"))
        np.testing.assert_array_equal(alone.exact_sum(labels, 3), expected[0])
        np.testing.assert_array_equal(alone.scatter(alone.sum(labels, 3), labels), expected[1])
