"""NumPy on threads of Python, each with one thread of BLAS: those of BLAS wait for each other on a busy machine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, ClassVar, TypeVar

from headstart.core.processors import cores

T = TypeVar("T")
R = TypeVar("R")


class BlasThreads:
    """So many threads of BLAS as a context, for the whole process.

    Of several that are inside, the last to enter decides; when all have left, there are as many as before. Where each
    saved and restored for itself, one that leaves late would restore what another had set.
    """

    _lock: ClassVar = threading.Lock()
    _inside: ClassVar[list[BlasThreads]] = []
    _before: ClassVar[list[tuple[Any, int]]] = []  # the libraries, and how many each had

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                from threadpoolctl import ThreadpoolController  # late: not all commands have much to compute

                libraries = ThreadpoolController().select(user_api="blas").lib_controllers
                self._before[:] = [(library, library.num_threads) for library in libraries]
            self._inside.append(self)
            self._set()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside.reverse()
            self._inside.remove(self)  # the last of them, where it was entered several times
            self._inside.reverse()
            self._set()

    def _set(self) -> None:
        for library, before in self._before:
            library.set_num_threads(self._inside[-1]._count() if self._inside else before)


ONE_BLAS_THREAD = BlasThreads(lambda: 1)
HALF_OF_THE_CORES = BlasThreads(lambda: max(1, cores() // 2))


def on_threads(function: Callable[[T], R], items: Iterable[T], most: int | None = None) -> Iterator[R]:
    """The results of a function, in order: they do not depend on how many threads there are.

    A few are computed ahead, so that memory stays bounded; where each takes much of it, at most ``most``, and one more
    than there are cores. A single item is computed here.
    """
    rest = iter(items)
    first = [*islice(rest, 2)]
    if len(first) < 2:
        yield from map(function, first)
        return
    held = 2 * cores() + 1 if most is None else max(1, min(cores() + 1, most))
    with ONE_BLAS_THREAD, ThreadPoolExecutor(min(cores(), held), thread_name_prefix="headstart") as pool:
        waiting: deque[Future[R]] = deque()
        for item in chain(first, rest):
            waiting.append(pool.submit(function, item))
            if len(waiting) == held:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
