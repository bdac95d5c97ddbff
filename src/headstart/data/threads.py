"""NumPy on threads of Python, each with one thread of BLAS: those of BLAS wait for each other on a busy machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from headstart.core.shared_change import SharedChange
from headstart.data.load import cores

T = TypeVar("T")
R = TypeVar("R")

ONE_BLAS_THREAD = SharedChange(lambda: threadpool_limits(1, user_api="blas"))


def on_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results of a function, in order; a few are computed ahead, so that memory stays bounded."""
    with ThreadPoolExecutor(cores(), thread_name_prefix="headstart") as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
