"""Questions from workers to the process that began a training, which answers them one after the other."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

Question = tuple[int, str, Any]  # its number, its kind, and what belongs to it


class Relay:
    """An actor of Ray between the two: neither knows where the other is.

    What is large goes by the object store, as a reference in a list, which Ray does not resolve on the way.
    """

    def __init__(self) -> None:
        self._asked: asyncio.Queue[Question] = asyncio.Queue()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()

    async def ask(self, kind: str, content: Any) -> Any:
        """Of a worker: ask, and wait for the answer."""
        number = next(self._numbers)
        self._open[number] = asyncio.get_running_loop().create_future()
        await self._asked.put((number, kind, content))
        return await self._open[number]

    async def next(self, seconds: float) -> Question | None:
        """The next question; None where there is none in that time."""
        try:
            return await asyncio.wait_for(self._asked.get(), seconds)
        except TimeoutError:
            return None

    async def answer(self, number: int, content: Any) -> None:
        """Answer a question."""
        self._open.pop(number).set_result(content)
